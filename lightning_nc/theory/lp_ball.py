"""The best output for a class if its l^p norm is bounded: a vertex of a simplex."""

import math
from typing import NamedTuple

from lightning_nc.arguments import require_whole_number


class BallMinimizer(NamedTuple):
    """The output of least loss in a ball of radius 1, ``z_i = alpha e_i + beta sum_j!=i e_j``.

    Attributes:
        alpha: The entry of the own class, from 0 to 1.
        beta: The entry of every other class, from -1 to 0.
    """

    alpha: float
    beta: float


def lp_ball_minimizer(num_classes: int, p: float) -> BallMinimizer:
    r"""The unique output of least cross-entropy in an l^p ball, the same for every class i.

    .. math:: \min_{\lVert z \rVert_p \le R} -\ln \frac{e^{z_i}}{\sum_j e^{z_j}}
        \quad \text{at} \quad z_i = R \, (\alpha e_i + \beta \sum_{j \ne i} e_j)

    The loss is strictly convex across the direction (1, .., 1) and symmetric in the other classes,
    so that their entries are equal. It is then ln(1 + (K-1) exp(R (beta - alpha))), smallest where
    alpha - beta is largest on the unit sphere, that is, where
    :math:`\alpha^{p-1} = (K-1) \lvert \beta \rvert^{p-1}`:

    .. math:: \alpha = \left( 1 + (K-1)^{-1/(p-1)} \right)^{-1/p}, \qquad
        \beta = -(K-1)^{-1/(p-1)} \alpha

    They depend on p and K, neither on i nor on R. For p = 2 the minimisers of the K classes are the
    vertices of a regular simplex with its centre at the origin. Over all functions into the ball
    the minimiser of the risk is ``h = z_i`` on class i, however probable the classes are.

    Args:
        num_classes: K, 2 or more.
        p: From above 1 to below infinity.

    Returns:
        `BallMinimizer`.

    Raises:
        ValueError: If K or p are not as described.

    Example:
        For p = 2 and four classes z_1 = sqrt(3)/2 (1, -1/3, -1/3, -1/3):

        >>> alpha, beta = lp_ball_minimizer(4, p=2)
        >>> round(alpha**2, 12), round(beta / alpha, 12)
        (0.75, -0.333333333333)

        For p = 3 and five classes ``|beta| = alpha / 2``, and ``alpha^3 (1 + 4/8) = 1``:

        >>> alpha, beta = lp_ball_minimizer(5, p=3)
        >>> round(alpha**3, 12), beta / alpha
        (0.666666666667, -0.5)

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    num_classes = require_whole_number("num_classes", num_classes, None)
    if num_classes < 2 or not 1 < p < math.inf:
        raise ValueError(
            f"Need two classes or more and 1 < p < infinity, got K = {num_classes} and p = {p}."
        )
    ratio = (num_classes - 1) ** (-1 / (p - 1))
    alpha = (1 + ratio) ** (-1 / p)
    return BallMinimizer(alpha, -ratio * alpha)
