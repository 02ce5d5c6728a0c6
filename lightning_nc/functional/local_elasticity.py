"""Local elasticity: whether a gradient step on one sample moves its own class more than others."""

from typing import NamedTuple

import torch
from torch import Tensor


def relative_ratio(kernel: Tensor, labels: Tensor, self_pairs: bool = False) -> Tensor:
    r"""The strength of local elasticity: 1/2 if there is none, 1 if steps move only their class.

    .. math:: \frac{\bar K_{same}}{\bar K_{same} + \bar K_{different}}, \quad
        \bar K(a, b) = \frac{K(a, b)}{\sqrt{K(a, a) K(b, b)}}

    where :math:`\bar K_{same}` and :math:`\bar K_{different}` are the means of the normalised
    kernel over ordered pairs of samples of the same class and of different classes.

    Args:
        kernel: K, symmetric, shape ``(m, m)``.
        labels: Classes, shape ``(m,)``.
        self_pairs: Whether to count a sample paired with itself, whose value is 1, as a pair of the
            same class; the paper's figures on training pairs do.

    Returns:
        A float64 scalar in (0, 1); NaN if either mean is not positive or has no pairs.

    Example:
        Norms 2, 1 and 1; the pair of the same class has cosine 1, the others 1/2:

        >>> K = torch.tensor([[4.0, 2.0, 1.0], [2.0, 1.0, 0.5], [1.0, 0.5, 1.0]])
        >>> relative_ratio(K, torch.tensor([0, 0, 1]))  # 1 / (1 + 1/2)
        tensor(0.6667, dtype=torch.float64)

    Source:
        Chen, He & Su (2020), "Label-aware neural tangent kernel: toward better generalization and
        local elasticity", NeurIPS.
    """
    return _share_of_same(*_means(normalised_kernel(kernel), labels, self_pairs))


def rectangular_relative_ratio(
    kernel: Tensor,
    row_diagonal: Tensor,
    column_diagonal: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
) -> Tensor:
    r"""The relative ratio over pairs of a sample of one set and a sample of another.

    This is `relative_ratio` over the pairs (a, b) of a rectangle, such as those of a test sample a
    and a training sample b. With the same samples as rows and as columns, it counts self pairs.

    Args:
        kernel: K(a, b), shape ``(n, m)``.
        row_diagonal: K(a, a) of the rows' samples, shape ``(n,)``.
        column_diagonal: K(b, b) of the columns' samples, shape ``(m,)``.
        row_labels: Classes of the rows' samples, shape ``(n,)``.
        column_labels: Classes of the columns' samples, shape ``(m,)``.

    Returns:
        A float64 scalar in (0, 1); NaN if either mean is not positive or has no pairs, or if a
        sample's K(a, a) is not positive.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        A test sample has cosine 1 with the training sample of its class, and 1/2 with the other:

        >>> K, k = torch.tensor([[4.0, 1.0]]), torch.tensor([4.0, 1.0])
        >>> labels = torch.tensor([0, 1])
        >>> rectangular_relative_ratio(K, k[:1], k, labels[:1], labels)  # 1 / (1 + 1/2)
        tensor(0.6667, dtype=torch.float64)

    Source:
        Chen, He & Su (2020), "Label-aware neural tangent kernel: toward better generalization and
        local elasticity", NeurIPS, Table 3, "test-train".
    """
    given = (kernel, row_diagonal, column_diagonal, row_labels, column_labels)
    shapes = [tuple(each.shape) for each in given]
    if kernel.ndim != 2 or shapes[1:] != 2 * [(size,) for size in kernel.shape]:
        raise ValueError(
            "Need a kernel of shape (n, m), its rows' diagonal and labels of shape (n,), and its "
            f"columns' of shape (m,), got {', '.join(map(str, shapes))}."
        )
    norms = [
        only_positive(diagonal.double()).sqrt() for diagonal in (row_diagonal, column_diagonal)
    ]
    K = kernel.double() / norms[0][:, None] / norms[1]
    same = row_labels[:, None] == column_labels
    return _share_of_same(K[same].mean(), K[~same].mean())


class ClassEffects(NamedTuple):
    """The mean effect on other samples of a unit step on one sample.

    Attributes:
        intra: alpha, the effect on samples of the same class.
        inter: beta, the effect on samples of other classes.
    """

    intra: Tensor
    inter: Tensor


def class_effects(similarity: Tensor, labels: Tensor) -> ClassEffects:
    r"""The intra-class effect alpha and the inter-class effect beta of a step on a sample.

    .. math:: \alpha = \operatorname{mean}_{i \ne j,\, y_i = y_j} S_{ij}, \quad
        \beta = \operatorname{mean}_{y_i \ne y_j} S_{ij}

    For the trace kernel divided by the number of outputs, K / C, these are the mean changes of a
    logit due to a step that raises the same logit of another sample, per unit of learning rate and
    of the loss gradient with respect to that logit.

    In the model of the source, classes separate only where alpha > beta, see
    :func:`~lightning_nc.theory.locally_elastic_sde.locally_elastic_sde`. The converse is no
    evidence: samples of a class are alike, so that untrained networks and linear classifiers have
    alpha > beta, too. What training adds is in `relative_ratio`.

    Args:
        similarity: S_ij, the effect on sample j of a step on sample i, shape ``(m, m)``.
        labels: Classes, shape ``(m,)``.

    Returns:
        `ClassEffects`, float64 scalars in the units of the similarity; NaN if there is no pair.

    Example:
        >>> S = torch.tensor([[9.0, 2.0, 1.0], [2.0, 9.0, 0.0], [1.0, 0.0, 9.0]])
        >>> alpha, beta = class_effects(S, torch.tensor([0, 0, 1]))
        >>> float(alpha), float(beta)
        (2.0, 0.5)

    Source:
        Zhang, Wang & Su (2021), "Imitating deep learning dynamics via locally elastic stochastic
        differential equations", NeurIPS.
    """
    return ClassEffects(*_means(similarity.double(), labels, self_pairs=False))


def normalised_kernel(kernel: Tensor) -> Tensor:
    """K(a, b) / sqrt(K(a, a) K(b, b)), float64; NaN where a diagonal entry is not positive."""
    K = kernel.double()
    norms = only_positive(K.diagonal()).sqrt()
    return K / norms[:, None] / norms


def _share_of_same(same: Tensor, different: Tensor) -> Tensor:
    """The relative ratio of the means over pairs of the same class and of different classes."""
    return torch.where((same > 0) & (different > 0), same / (same + different), torch.nan)


def _means(S: Tensor, labels: Tensor, self_pairs: bool) -> tuple[Tensor, Tensor]:
    """The means over ordered pairs of the same class and of different classes."""
    same = labels[:, None] == labels
    different = ~same
    if not self_pairs:
        same = same & ~torch.eye(len(S), dtype=torch.bool, device=S.device)
    return S[same].mean(), S[different].mean()


def only_positive(numbers: Tensor) -> Tensor:
    """Replace numbers that are not positive by NaN, for use as divisors."""
    return torch.where(numbers > 0, numbers, torch.nan)
