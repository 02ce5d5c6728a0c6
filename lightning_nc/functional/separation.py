"""Separation fuzziness, and the law by which layers reduce it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    class_geometry,
    undefined_without_signal,
)

_ROUNDING = 1e-12  # differences of ln D below this are those of rounding


class SeparationLaw(NamedTuple):
    """The fit of ``D_t ~ c rho^t``.

    Attributes:
        rho: Decay ratio per layer, ``exp(slope)``; below 1 if layers separate the classes.
        intercept: ``ln c``.
        pearson_r: Pearson correlation of (t, ln D_t); -1 if the law holds exactly.
        half_life: Number of layers in which D halves, ``ln 2 / ln(1/rho)``.
    """

    rho: Tensor
    intercept: Tensor
    pearson_r: Tensor
    half_life: Tensor


def separation_fuzziness(features: Tensor, labels: Tensor) -> Tensor:
    r"""The separation fuzziness D: how poorly classes are separated; 0 if each class is a point.

    .. math:: D = \operatorname{Tr}(SS_W SS_B^+)
        = \frac1n \sum_i \lVert S^{-1} V^\top (h_i - \mu_{y_i}) \rVert^2

    where SS_W is the covariance of the samples about their class means, SS_B the sample-weighted
    covariance of the class means about the sample mean mu, and ``U S V^T`` the thin singular value
    decomposition of ``diag(sqrt(n_k/n)) (mu_k - mu)``. D depends on the number of samples per class
    from which it is estimated: compare values only at equal n_k.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        A float64 scalar >= 0, dimensionless; NaN, with a warning, if all class means coincide.

    Raises:
        TypeError: If features are not floating point, or labels are not integers.
        ValueError: If shapes do not match, features are not finite, or a class has no samples.

    Example:
        Class means at +2 and -2, variance 1 within each class, so D = 1 / 2**2:

        >>> features = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]])
        >>> separation_fuzziness(features, torch.tensor([0, 0, 1, 1]))
        tensor(0.2500, dtype=torch.float64)

    Source:
        He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
    """
    return fuzziness_of(class_geometry(features, labels))


def class_separation_fuzziness(features: Tensor, labels: Tensor) -> Tensor:
    r"""The separation fuzziness of each class, whose weighted mean is D; ideal 0.

    .. math:: D^{(k)} = \operatorname{Tr}(SS_W^{(k)} SS_B^+)

    where SS_W^(k) is the covariance of class k about its own mean, so that D is the mean of
    ``D^(k)`` with weights n_k/n. The law of equi-separation also holds for each class.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        Float64 values >= 0, dimensionless, shape ``(K,)``; 0 for a class of one sample. NaN, with a
        warning, if all class means coincide.

    Raises:
        TypeError: If features are not floating point, or labels are not integers.
        ValueError: If shapes do not match, features are not finite, or a class has no samples.

    Example:
        Means at +2 and -2; the first class has variance 1, the second none:

        >>> features = torch.tensor([[1.0], [3.0], [-2.0], [-2.0]])
        >>> class_separation_fuzziness(features, torch.tensor([0, 0, 1, 1]))
        tensor([0.2500, 0.0000], dtype=torch.float64)

    Source:
        He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
    """
    return class_fuzziness_of(class_geometry(features, labels))


def separation_law(fuzziness: Tensor) -> SeparationLaw:
    r"""Fit the law of equi-separation: each layer multiplies D by the same ratio rho.

    The least-squares line of ``ln D_t`` on ``t = 0, 1, ...``:

    .. math:: D_t \approx c\,\rho^t, \quad \rho = e^{\text{slope}},
        \quad t_{1/2} = \ln 2 / \ln(1/\rho)

    Args:
        fuzziness: D at each layer, the raw input first and without the logits, shape ``(T,)``.

    Returns:
        `SeparationLaw`, float64 scalars. All are NaN unless every D is positive and finite. With
        two points, or equal D, the line is exact and ``pearson_r`` is NaN; D are equal if
        they differ by less than 1e-12 of themselves, as by rounding.
        ``half_life`` is infinite at rho = 1 and negative above (minus the number of layers in which
        D doubles).

    Raises:
        ValueError: If there are fewer than two values, or ``fuzziness`` is not one-dimensional.

    Example:
        D halves from layer to layer:

        >>> law = separation_law(torch.tensor([8.0, 4.0, 2.0, 1.0]))
        >>> [round(float(value), 6) for value in law]  # rho, ln 8, r, half-life
        [0.5, 2.079442, -1.0, 1.0]

    Source:
        He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
    """
    if fuzziness.ndim != 1 or len(fuzziness) < 2:
        raise ValueError(
            "The law is fitted to D at two or more depths, shape (T,); "
            f"got fuzziness of shape {tuple(fuzziness.shape)}."
        )
    y = fuzziness.double().log()  # a number that is not finite makes all of the line NaN
    t = torch.arange(len(y), dtype=torch.float64, device=y.device)
    dt, dy = t - t.mean(), y - y[0]
    dy = dy - dy.mean()
    dy = torch.where(dy.abs().amax() < _ROUNDING, 0, dy)  # the direction of errors is no law
    slope = (dt @ dy) / (dt @ dt)
    intercept = y.mean() - slope * t.mean()
    pearson_r = (dt @ dy) / torch.sqrt((dt @ dt) * (dy @ dy))
    if len(y) == 2:
        pearson_r = torch.full_like(slope, torch.nan)
    half_life = math.log(2) / (0 - slope)  # ln(1/rho) = -slope; 0 - slope is +0 at slope 0
    return SeparationLaw(slope.exp(), intercept, pearson_r.clamp(-1, 1), half_life)


def separation_ability(fuzziness: Tensor) -> Tensor:
    r"""The separation ability ``R = D_last / D_first`` of all layers together; ideal 0.

    Args:
        fuzziness: D at each layer, shape ``(T,)``.

    Returns:
        A float64 scalar >= 0, dimensionless; above 1 if depth makes classes fuzzier, infinite
        or NaN if the first D is 0.

    Example:
        >>> separation_ability(torch.tensor([8.0, 4.0, 2.0]))
        tensor(0.2500, dtype=torch.float64)

    Source:
        He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
    """
    return fuzziness[-1].double() / fuzziness[0].double()


def separation_sensitivity(fuzziness: Tensor, absolute: bool = False) -> Tensor:
    r"""The sensitivity of the separation ability R to a perturbation of every layer.

    .. math:: \frac1R \frac{dR}{d\varepsilon} = \sum_t \frac{D_{t-1}}{D_t} \text{ (relative)},
        \qquad \frac{dR}{d\varepsilon} = R \sum_t \frac{D_{t-1}}{D_t} \text{ (absolute)}

    where :math:`R = \prod_t r_t` is the product of the ratios :math:`r_t = D_t / D_{t-1}`, of which
    every one changes by eps. For given first and last D, hence given R, both are smallest if all
    ratios are equal, that is, under the law of equi-separation.

    Args:
        fuzziness: D at each layer, shape ``(T,)``.
        absolute: Whether to return the change of R itself, not that relative to R.

    Returns:
        A float64 scalar, dimensionless. The relative sensitivity is at least
        ``(T - 1) (D_first / D_last)^(1 / (T - 1))``, the absolute one R times that.

    Example:
        Equal ratios give 2 + 2; unequal ones with the same ends give more:

        >>> separation_sensitivity(torch.tensor([4.0, 2.0, 1.0]))
        tensor(4., dtype=torch.float64)
        >>> separation_sensitivity(torch.tensor([4.0, 1.0, 1.0]))
        tensor(5., dtype=torch.float64)

        R = 1/2 * 1/2, and (1/2 + eps)^2 rises by 2 * 1/2 per eps:

        >>> separation_sensitivity(torch.tensor([4.0, 2.0, 1.0]), absolute=True)
        tensor(1., dtype=torch.float64)

    Source:
        He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
    """
    D = fuzziness.double()
    relative = (D[:-1] / D[1:]).sum()
    return separation_ability(D) * relative if absolute else relative


def fuzziness_of(geometry: ClassGeometry) -> Tensor:
    """Return `separation_fuzziness` from the class geometry of a layer."""
    D = geometry.fuzziness.sum() / geometry.counts.sum()
    return undefined_without_signal(D, geometry.rank)


def class_fuzziness_of(geometry: ClassGeometry) -> Tensor:
    """Return `class_separation_fuzziness` from the class geometry of a layer."""
    return undefined_without_signal(geometry.fuzziness / geometry.counts, geometry.rank)
