"""Stochastic differential equations of features: classes separate only under local elasticity."""

import math

import torch
from torch import Tensor

from lightning_nc.arguments import require_whole_number

_LARGEST_GROWTH = 300  # as a logarithm; squares of features are then far from overflow


def locally_elastic_sde(
    starts: Tensor,
    samples_per_class: int,
    alpha: float,
    beta: float,
    time: float,
    noise: float = 1.0,
    steps: int = 200,
    seed: int = 0,
) -> Tensor:
    r"""Simulate the features of K classes, which steps on samples draw along with them.

    A step on a sample of class l moves the features of every sample along its own: by the
    intra-class effect alpha if the class is the same, by the inter-class effect beta if not. With
    one of K classes drawn at each step, and with noise, sample i of class k follows

    .. math:: dX_i^k = \frac1K \Big( \alpha \bar X^k + \beta \sum_{l \ne k} \bar X^l \Big) dt
        + \sigma \, dW_i^k

    where :math:`\bar X^k` is the class mean (the isotropic, or I-model). Its matrix has the
    eigenvalue ``(alpha - beta) / K`` on differences of class means and
    ``(alpha + (K-1) beta) / K`` on their sum, so that without noise

    .. math:: \bar X^k - \bar X^l \propto e^{(\alpha - \beta) t / K}

    Within a class, samples differ by their noise alone, of variance :math:`\sigma^2 t`. As long as
    the noise of the class means, of variance :math:`\sigma^2 t / n`, is small beside their
    differences, the separation fuzziness changes as :math:`t \, e^{-2 (\alpha - \beta) t / K}`:
    features become separable if alpha > beta, and otherwise they do not, however long one waits.
    If alpha - beta depends on time, 1/t is the border: :math:`e^{\int (\alpha - \beta) / K}` has to
    grow faster than :math:`\sqrt t`.

    Each of ``steps`` equal intervals follows the drift exactly and then adds the noise, so that
    without noise there is no error of discretisation.

    Args:
        starts: ``X^k(0)``, shape ``(K, d)``.
        samples_per_class: n, 1 or more.
        alpha: Intra-class effect, finite.
        beta: Inter-class effect, finite.
        time: t, finite and 0 or more.
        noise: sigma, finite and 0 or more.
        steps: Number of intervals, 1 or more.
        seed: Seed of the noise.

    Returns:
        ``X_i^k(t)``, float64, shape ``(K, n, d)``.

    Raises:
        ValueError: If an argument is not as described, or features grow beyond e^300 times.

    Example:
        Two classes at 1 and 3, without noise. Their mean, 2, grows by exp((alpha + beta) t / 2) =
        4, their difference, 2, by exp((alpha - beta) t / 2) = 2:

        >>> starts = torch.tensor([[1.0], [3.0]])
        >>> X = locally_elastic_sde(starts, 1, alpha=3, beta=1, time=math.log(2), noise=0)
        >>> X.flatten()  # 8 - 2, 8 + 2
        tensor([ 6.0000, 10.0000], dtype=torch.float64)

    Source:
        Zhang, Wang & Su (2021), "Imitating deep learning dynamics via locally elastic stochastic
        differential equations", NeurIPS.
    """
    samples_per_class = require_whole_number("samples_per_class", samples_per_class, 1)
    steps = require_whole_number("steps", steps, 1)
    if starts.ndim != 2 or len(starts) < 2 or not bool(starts.isfinite().all()):
        raise ValueError(
            "Need finite starts of two or more classes, shape (K, d); got shape "
            f"{tuple(starts.shape)}, {int((~starts.isfinite()).sum())} of them not finite."
        )
    if not 0 <= time < math.inf or not 0 <= noise < math.inf:
        raise ValueError(f"Time and noise must be finite and 0 or more, got {time} and {noise}.")
    K, dt = len(starts), time / steps
    rates = (alpha + (K - 1) * beta) / K, (alpha - beta) / K
    if not all(math.isfinite(rate) and rate * time <= _LARGEST_GROWTH for rate in rates):
        raise ValueError(
            f"Effects must be finite, and features may grow by a factor of e^{_LARGEST_GROWTH} at "
            f"most; got alpha = {alpha} and beta = {beta} for the time {time}."
        )
    common, apart = (math.expm1(rate * dt) for rate in rates)
    generator = torch.Generator().manual_seed(seed)
    X = starts.detach().cpu().double()[:, None].repeat(1, samples_per_class, 1)
    for _ in range(steps):
        of_class = X.mean(1, keepdim=True)
        of_all = of_class.mean(0)
        X = X + common * of_all + apart * (of_class - of_all)
        X = X + noise * dt**0.5 * torch.randn(X.shape, generator=generator, dtype=X.dtype)
    return X
