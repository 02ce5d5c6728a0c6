"""Where outputs need not collapse: classes meet the convex hull of others, or are separable."""

import torch
from torch import Tensor


def share_in_hulls(features: Tensor, labels: Tensor) -> Tensor:
    r"""The share of the samples of each class that lie in the convex hull of each other class.

    .. math:: \frac{1}{n_i} \left| \{x \in C_i : x = \sum_{z \in C_j} \lambda_z z, \;
        \lambda \ge 0, \; \sum_z \lambda_z = 1 \} \right|

    If it is above 0 two layers before the output, outputs need not collapse, even in networks that
    could: what a shallow network adds on one side of a class acts on the class itself, see
    :func:`~lightning_nc.theory.saturating_flow.output_gap_limit`. In high dimension it tends to be
    0: a random point is in the hull of others only if these are exponentially many.

    Solves one linear program for each pair of classes, since hulls of separable ones do not meet,
    and one for each sample against each class from which its own cannot be separated. Requires
    scipy.

    Args:
        features: Features two layers before the output, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        Shares from 0 to 1 in row i and column j, float64, shape ``(K, K)``; NaN on the diagonal.
        Points on the boundary of a hull count as inside, up to 1e-7 of the largest feature.

    Raises:
        ValueError: If shapes do not match, features are not finite, labels are no class indices, or
            a class has no samples.

    Example:
        The class {0} lies between -1 and 1, which are not in its hull, a point:

        >>> x = torch.tensor([[0.0], [-1.0], [1.0]])
        >>> share_in_hulls(x, torch.tensor([0, 1, 1]))
        tensor([[nan, 1.],
                [0., nan]], dtype=torch.float64)

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    classes = _samples_of_classes(features, labels)
    shares = torch.full((len(classes), len(classes)), torch.nan, dtype=torch.float64)
    for i, own in enumerate(classes):
        for j, others in enumerate(classes):
            if i != j and _are_separable(own, others):
                shares[i, j] = 0
            elif i != j:
                inside = [_is_in_hull(x, others) for x in own]
                shares[i, j] = sum(inside) / len(inside)
    return shares


def linearly_separable(features: Tensor, labels: Tensor) -> Tensor:
    r"""Whether a hyperplane has all samples of one class on one side and those of another beyond.

    .. math:: \exists \, w, b: \quad w^\top x + b \ge 1 \; (x \in C_i), \quad
        w^\top x + b \le -1 \; (x \in C_j)

    If so two layers before the output, and the rest is a shallow ReLU network, outputs need not
    collapse: the classes have a continuum of maximum margin classifiers, none of them constant on
    a class with more than a point, see
    :func:`~lightning_nc.theory.maximum_margin.maximum_margin_classifier`. Requires scipy.

    Args:
        features: Features two layers before the output, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        Whether classes i and j are separable, symmetric, false on the diagonal, shape ``(K, K)``.
        Gaps below about 1e-8 of the largest feature are not seen.

    Raises:
        ValueError: If shapes do not match, features are not finite, labels are no class indices, or
            a class has no samples.

    Example:
        Of three classes on a line, only the outer ones are on one side of a point:

        >>> x = torch.tensor([[0.0], [-2.0], [-1.0], [1.0], [2.0]])
        >>> linearly_separable(x, torch.tensor([0, 1, 2, 2, 2]))
        tensor([[False,  True, False],
                [ True, False,  True],
                [False,  True, False]])

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    classes = _samples_of_classes(features, labels)
    separable = torch.zeros(len(classes), len(classes), dtype=torch.bool)
    for i, own in enumerate(classes):
        for j, others in enumerate(classes[:i]):
            separable[i, j] = separable[j, i] = _are_separable(own, others)
    return separable


def _samples_of_classes(features: Tensor, labels: Tensor) -> list[Tensor]:
    """The samples of each class, centred and scaled to coordinates up to 1, float64, on the CPU."""
    if features.ndim != 2 or features.numel() == 0 or labels.shape != features.shape[:1]:
        raise ValueError(
            "Need features of N >= 1 samples, shape (N, d), d >= 1, and labels, shape (N,); got "
            f"{tuple(features.shape)} and {tuple(labels.shape)}."
        )
    x, y = features.detach().cpu().double(), labels.cpu()
    if not bool(x.isfinite().all()):
        raise ValueError(f"{int((~x.isfinite()).sum())} feature(s) are not finite.")
    indices, found = set(range(int(y.max()) + 1)), set(y.tolist())
    if found - indices:
        raise ValueError(f"Labels must be integers from 0, got {sorted(found - indices)[0]}.")
    missing = sorted(indices - found)
    if missing:
        raise ValueError(f"Classes {missing} have no samples: number the classes without gaps.")
    x = x - x.mean(0)  # neither hulls nor hyperplanes depend on the origin or the unit
    x = x / x.abs().max().clamp(min=torch.finfo(x.dtype).tiny)
    return [x[y == k] for k in range(int(y.max()) + 1)]


def _is_in_hull(x: Tensor, others: Tensor) -> bool:
    """Whether x, ``(d,)``, is a convex combination of others, ``(n, d)``."""
    ones = torch.ones(len(others), 1, dtype=x.dtype)
    return _is_feasible(
        A_eq=torch.cat([others, ones], 1).mT, b_eq=torch.cat([x, ones[0]]), bounds=(0, None)
    )


def _are_separable(one: Tensor, other: Tensor) -> bool:
    """Whether there are w and b with ``w x + b <= -1`` on one side and ``>= 1`` on the other."""
    signed = torch.cat([one, -other])
    offsets = torch.ones(len(signed), 1, dtype=signed.dtype)
    offsets[len(one) :] = -1
    return _is_feasible(
        A_ub=torch.cat([signed, offsets], 1),
        b_ub=-torch.ones(len(signed), dtype=signed.dtype),
        bounds=(None, None),
    )


def _is_feasible(bounds: tuple[int | None, None], **constraints: Tensor) -> bool:
    """Whether a linear program has a solution; raise if that could not be found out."""
    from scipy.optimize import linprog

    arrays = {name: each.numpy() for name, each in constraints.items()}
    variables = next(each.shape[1] for each in constraints.values() if each.ndim == 2)
    result = linprog([0.0] * variables, **arrays, bounds=bounds, method="highs")
    if result.status not in (0, 2):  # solved, or infeasible
        raise RuntimeError(f"The linear program was not solved: {result.message}")
    return bool(result.status == 0)
