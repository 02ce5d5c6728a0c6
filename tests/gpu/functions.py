"""Every function of tensors: how it is called on the device, and its expected result."""

import torch

from lightning_nc import functional
from tests.gpu import expected, formulas


def scatter(found):
    """Moments with the scatter in place of its factor, which is not unique."""
    return *found[:3], found.factor.mT @ found.factor


def pooled(x):
    cut = len(x.labels) // 3
    parts = [
        functional.class_moments(x.features[s], x.labels[s], len(x.means))
        for s in (slice(0, cut), slice(cut, None))
    ]
    return functional.pool_moments(*parts)


def rectangle_of(f, x):
    even, odd = slice(0, None, 2), slice(1, None, 2)
    k = x.kernel.diagonal()
    return f(x.kernel[even, odd], k[even], k[odd], x.labels[even], x.labels[odd])


def members(x):
    return torch.tensor([1, 0, 1, 0], dtype=torch.bool, device=x.labels.device)


def tokens(x):
    return (5 * x.labels + torch.arange(len(x.labels), device=x.labels.device)) % 11


# by name: the call on the device, and the expected result
FUNCTIONS = {
    "class_distance_normalized_variance": (
        lambda f, x: f(x.features, x.labels),
        lambda x: expected.cdnv(x.features, x.labels),
    ),
    "class_effects": (
        lambda f, x: f(x.kernel, x.labels),
        lambda x: expected.effects(x.kernel, x.labels),
    ),
    "class_geometry": (lambda f, x: f(x.features, x.labels)[:6], formulas.class_geometry),
    "class_moments": (
        lambda f, x: scatter(f(x.features, x.labels, len(x.means))),
        formulas.moments,
    ),
    "class_separation_fuzziness": (
        lambda f, x: f(x.features, x.labels),
        lambda x: expected.class_fuzziness(x.features, x.labels),
    ),
    "classifier_energy": (
        lambda f, x: f(x.weight),
        lambda x: x.weight.square().sum() / len(x.weight),
    ),
    "equiangularity": (lambda f, x: f(x.weight), lambda x: expected.equiangularity(x.weight)),
    "equinorm": (lambda f, x: f(x.weight), lambda x: expected.equinorm(x.weight)),
    "fit_pair_features": (
        lambda f, x: f(x.features, x.signs, x.kernel)(x.features, x.features, x.kernel),
        formulas.fit_pair_features,
    ),
    "fit_random_features": (
        lambda f, x: f(x.features, x.signs, num_features=24).coefficients,
        formulas.fit_random_features,
    ),
    "group_cosine": (
        lambda f, x: f(x.weight, [0, 2, 3]),
        lambda x: expected.mean_cosine(x.weight, [0, 2, 3]),
    ),
    "hyperspherical_uniformity": (
        lambda f, x: f(x.weight),
        lambda x: expected.uniformity(x.weight),
    ),
    "imbalance_ratio": (
        lambda f, x: f(x.labels.bincount(), members(x)),
        lambda x: (
            x.labels.bincount()[[1, 3]].double().mean() / x.labels.bincount()[[0, 2]].sum() * 2
        ),
    ),
    "label_aware_kernel": (
        lambda f, x: f(x.kernel, 0.5 * torch.outer(x.signs, x.signs).to(x.kernel)),
        formulas.label_aware_kernel,
    ),
    "last_layer_kernel": (
        lambda f, x: f(x.features, 5),
        lambda x: 5 * (x.features @ x.features.T + 1),
    ),
    "maximal_angle": (lambda f, x: f(x.weight), lambda x: expected.maximal_angle(x.weight)),
    "minority_classes": (
        lambda f, x: f(100 * x.labels.new_tensor([9, 2, 10, 1])),
        lambda x: torch.tensor([False, True, False, True]),
    ),
    "nearest_class_center_mismatch": (
        lambda f, x: f(x.features, x.labels, x.weight, x.bias),
        lambda x: expected.nc4(x.features, x.labels, x.weight, x.bias),
    ),
    "pool_moments": (lambda f, x: scatter(pooled(x)), formulas.moments),
    "prediction_residual": (
        lambda f, x: f(x.features, tokens(x)),
        lambda x: expected.prediction_residual(x.features, tokens(x)),
    ),
    "rectangular_relative_ratio": (rectangle_of, expected.rectangular_relative_ratio),
    "relative_ratio": (
        lambda f, x: f(x.kernel, x.labels),
        lambda x: expected.relative_ratio(x.kernel, x.labels),
    ),
    "self_duality": (
        lambda f, x: f(x.means, x.weight),
        lambda x: expected.nc3(x.means, x.weight),
    ),
    "separation_ability": (lambda f, x: f(x.fuzziness), lambda x: x.fuzziness[3] / x.fuzziness[0]),
    "separation_fuzziness": (
        lambda f, x: f(x.features, x.labels),
        lambda x: expected.fuzziness(x.features, x.labels),
    ),
    "separation_law": (lambda f, x: f(x.fuzziness), lambda x: expected.law(x.fuzziness)),
    "separation_sensitivity": (
        lambda f, x: f(x.fuzziness),
        lambda x: (x.fuzziness[:3] / x.fuzziness[1:]).sum(),
    ),
    "simplex_etf_error": (lambda f, x: f(x.means), lambda x: expected.etf_error(x.means)),
    "simplex_plane": (lambda f, x: f(x.means[:3], x.weight[:3]), formulas.simplex_plane),
    "simplex_symmetry": (lambda f, x: f(x.means, x.weight), formulas.simplex_symmetry),
    "uniform_duality": (
        lambda f, x: f(x.means, x.weight),
        lambda x: expected.uniform_duality(x.means, x.weight),
    ),
    "variability_collapse": (
        lambda f, x: f(x.features, x.labels),
        lambda x: expected.nc1(x.features, x.labels),
    ),
}
