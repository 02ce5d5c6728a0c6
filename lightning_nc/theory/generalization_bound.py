"""Bounds on the generalisation gap, by locally elastic and by uniform stability."""

import math
from typing import NamedTuple

from torch import Tensor

from lightning_nc.theory.stability import locally_elastic_stability


class GeneralizationBounds(NamedTuple):
    """How far the expected loss can exceed the mean training loss, with high probability.

    Attributes:
        locally_elastic: The bound by ``sup_z E_{z_j} beta(z_j, z)``.
        uniform: The same bound by ``sup beta(z_j, z)``, over all pairs.
        classic: The bound of Bousquet & Elisseeff by ``sup beta(z_j, z)``, whose constants are
            smaller.
    """

    locally_elastic: Tensor
    uniform: Tensor
    classic: Tensor


def generalization_bounds(
    beta: Tensor, largest_loss: float, failure: float = 0.05
) -> GeneralizationBounds:
    r"""Bound the generalisation gap by how much each training sample changes each loss.

    .. math:: P \left( E \, l \ge \frac1m \sum_j l(z_j) + \frac{2 \sup_z E_{z_j} \beta(z_j, z)}{m}
        + \varepsilon \right) \le 2 \exp \left( - \frac{m \varepsilon^2}{8 \tilde M^2} \right),
        \qquad \tilde M = 2 \sup_z E_{z_j} \beta(z_j, z) + M_l

    for losses from 0 to M_l and m large enough (the paper adds an arbitrarily small constant to
    :math:`\tilde M`). In the paper beta is m times the change of the loss. With the right-hand side
    set to delta, the gap is at most

    .. math:: \frac{2 \sup_z E \beta}{m} + \tilde M \sqrt{\frac{8 \ln (2 / \delta)}{m}}

    except with probability delta. By uniform stability the supremum over all pairs takes the place
    of :math:`\sup_z E \beta`, and it is the larger one. The classic bound by uniform stability,
    :math:`2 \sup \beta / m + (4 \sup \beta + M_l) \sqrt{\ln(1 / \delta) / (2 m)}`, has smaller
    constants: for delta = 0.05 the locally elastic bound is below it where :math:`\sup \beta` is
    above about :math:`2.2 \sup_z E \beta + 0.9 \, M_l`.

    Args:
        beta: ``|l(A_S, z) - l(A_{S\j}, z)|`` of m training samples and n samples z, not yet
            multiplied by m, as from
            :func:`~lightning_nc.theory.stability.leave_one_out_stability`, shape ``(m, n)``.
        largest_loss: M_l, positive.
        failure: delta, above 0 and below 1.

    Returns:
        `GeneralizationBounds`, float64 scalars in the units of the loss.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        200 samples, each of which changes the loss on itself alone, by 1/200. Then sup E beta is
        1/200 and sup beta is 1. With delta = 2 exp(-1) the roots are 1/5, 1/5 and
        sqrt((1 - ln 2) / 400):

        >>> import torch
        >>> bounds = generalization_bounds(torch.eye(200) / 200, 1, failure=2 / math.e)
        >>> round(float(bounds.locally_elastic), 6)  # 0.01/200 + (0.01 + 1) / 5
        0.20205
        >>> bounds.uniform, bounds.classic  # 2/200 + 3 / 5; 2/200 + 5 * 0.0277
        (tensor(0.6100, dtype=torch.float64), tensor(0.1485, dtype=torch.float64))

    Source:
        Deng, He & Su (2021), "Toward better generalization bounds with locally elastic stability",
        ICML; Bousquet & Elisseeff (2002), "Stability and generalization", JMLR 2.
    """
    if not 0 < largest_loss < math.inf or not 0 < failure < 1:
        raise ValueError(
            "The largest loss must be positive and finite and the probability of failure between "
            f"0 and 1, got {largest_loss} and {failure}."
        )
    stability = locally_elastic_stability(beta)
    m = len(beta)
    root = math.sqrt(8 * math.log(2 / failure) / m)
    local, uniform = m * stability.locally_elastic, m * stability.uniform
    classic = (4 * uniform + largest_loss) * math.sqrt(math.log(1 / failure) / (2 * m))
    return GeneralizationBounds(
        2 * local / m + (2 * local + largest_loss) * root,
        2 * uniform / m + (2 * uniform + largest_loss) * root,
        2 * uniform / m + classic,
    )
