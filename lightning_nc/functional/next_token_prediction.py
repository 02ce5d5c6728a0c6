"""How well features predict the next token by least squares: the prediction residual of a layer.

Nothing but a triangular factor is kept of the features: with the rows ``[1, h_i, y_i]`` it holds
all that least squares depend on, and unlike products of features it loses no digits. Factors of
disjoint samples are joined by one more decomposition.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_nc.functional.input_checks import check_features
from lightning_nc.functional.powers_of_two import scale_of, scaled
from lightning_nc.functional.separating_directions import significant, triangular_factor

Normalization = Literal["layer_norm", "rms_norm", "none"]


def prediction_residual(
    features: Tensor, tokens: Tensor, normalization: Normalization = "layer_norm"
) -> Tensor:
    r"""The prediction residual PR of a layer: what a linear map cannot tell of the next token.

    The number of the next token in the vocabulary, y, is predicted from the features by least
    squares with an intercept:

    .. math:: PR = \min_{w, b} \sum_i (y_i - w \cdot h_i - b)^2 \,/\, \sum_i (y_i - \bar y)^2
        = 1 - R^2

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        tokens: Numbers of the next tokens, integers from 0, shape ``(N,)``.
        normalization: What is done to each vector of features before. ``"layer_norm"`` subtracts
            its mean and divides by its standard deviation, and ``"rms_norm"`` divides by its root
            mean square, as the network's own final normalisation does before it is trained; a
            vector of which nothing is left to divide by is zero. ``"none"`` leaves features as they
            are.

    Returns:
        A float64 scalar from 0 to 1, dimensionless: 1 where features tell nothing, 0 where they
        tell all but rounding errors. Features that depend on others change nothing. It is NaN
        unless there are more samples than features and the intercept, which otherwise fit any
        tokens, and if all tokens are the same.

    Raises:
        TypeError: If features are not floating point, or tokens are not integers.
        ValueError: If shapes do not match, features are not finite, or the normalisation is none
            of these.

    Example:
        The line 2 h leaves residuals of -1, 1, 1, -1, and y has deviations of -3, -1, 1, 3 from its
        mean 5 plus these: 4 / (20 + 4).

        >>> h = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
        >>> prediction_residual(h, torch.tensor([1, 5, 7, 7]), normalization="none")
        tensor(0.1667, dtype=torch.float64)

    Source:
        He & Su (2025), "A law of next-token prediction in large language models", Physical Review E
        112, 035317 (arXiv 2408.13442). That tokens are regressed as numbers, with an intercept, on
        normalised features is from the authors' code (github.com/HornHehhf/LLM-ELL).
    """
    tokens = check_features(features, tokens)
    d = features.shape[1]
    empty = features.new_zeros(d + 2, d + 2, dtype=torch.float64)
    return residual_of(extended_factor(empty, features, tokens, normalization))


def extended_factor(
    factor: Tensor, features: Tensor, tokens: Tensor, normalization: Normalization
) -> Tensor:
    """The triangular factor of the rows ``[1, h_i, y_i]`` of all samples so far.

    Args:
        factor: That of the samples before; zeros if there are none.
        features: ``h_i`` of further samples, any floating dtype, shape ``(N, d)``.
        tokens: Numbers of their next tokens, shape ``(N,)``.
        normalization: As in `prediction_residual`.

    Returns:
        R with ``R^T R = A^T A`` for the matrix A of these rows, shape ``(d + 2, d + 2)``.
    """
    h = _normalized(features.detach(), normalization)
    rows = torch.cat([torch.ones_like(h[:, :1]), h, tokens[:, None].to(h)], 1)
    return triangular_factor(torch.cat([factor, rows]))


def residual_of(factor: Tensor) -> Tensor:
    """Return `prediction_residual` from the factor of all samples, shape ``(d + 2, d + 2)``.

    The first row is what means explain; below it are features and tokens about their means.
    """
    features, y = factor[:, 1:-1], factor[1:, -1]
    if float(factor[0, 0].square().round()) < len(factor):  # N < d + 2
        return y.new_tensor(torch.nan)
    features = features / scale_of(features)
    U, s, _ = torch.linalg.svd(features[1:], full_matrices=False)
    # rounding errors grow with the numbers themselves, whose means are in the first row
    rounding = len(factor) * torch.finfo(s.dtype).eps
    U = U * significant(s, rounding * torch.linalg.matrix_norm(features))
    total = torch.linalg.vector_norm(y)
    rest = torch.linalg.vector_norm(y - U @ (U.mT @ y))  # no difference of squares
    least = rounding * torch.linalg.vector_norm(factor[:, -1])
    PR = torch.where(rest > least, (rest / total).square().clamp(max=1), 0)
    return torch.where(total > least, PR, torch.nan)


def _normalized(features: Tensor, normalization: Normalization) -> Tensor:
    """Vectors of features in float64, each normalised by itself; one without a length is zero."""
    if normalization not in get_args(Normalization):
        raise ValueError(
            f'normalization must be "layer_norm", "rms_norm" or "none", got {normalization!r}.'
        )
    if normalization == "none":
        return features.double()
    h = scaled(features, dim=1)
    rounding = h.shape[1] * torch.finfo(h.dtype).eps * torch.linalg.vector_norm(h, dim=1)
    if normalization == "layer_norm":
        h = h - h.mean(1, keepdim=True)
        # far from the origin, the rounding error of the mean would be a direction of its own
        h = h - h.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(h, dim=1)
    factor = torch.where(length > rounding, h.shape[1] ** 0.5 / length, 0)
    return h * factor[:, None]
