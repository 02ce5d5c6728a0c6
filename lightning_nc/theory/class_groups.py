"""Groups of classes of equal size, which are exchangeable: a few numbers describe a group."""

import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

MAX_GROUPS = 10  # a program of G groups has G + G^2 variables
SIMILAR = 1.1  # counts within this ratio are merged first


class ClassGroups(NamedTuple):
    """Classes grouped by size, from the largest count down.

    Attributes:
        group_of: Group of each class, shape ``(K,)``.
        sizes: Number of classes in each group, ``m_g``, shape ``(G,)``.
        counts: Samples per class in each group, ``n_g``: the arithmetic mean over its classes,
            which preserves the total number of samples, shape ``(G,)``.
        merged: Whether classes of different counts share a group.
    """

    group_of: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray
    merged: bool


def group_classes(class_counts: Iterable[float]) -> ClassGroups:
    """Group classes by size: exactly for up to 10 distinct counts, else into at most 10 groups.

    With more than 10 distinct counts, those within 10 % of a group's largest are merged first. Then
    the two groups closest in ``ln n`` are merged, again and again, until 10 are left.

    Args:
        class_counts: Samples per class ``n_k``, shape ``(K,)``.

    Returns:
        `ClassGroups`.

    Raises:
        ValueError: If there are fewer than two classes, or a count is not positive and finite.

    Example:
        >>> groups = group_classes([5, 100, 5])
        >>> groups.group_of.tolist(), groups.sizes.tolist(), groups.counts.tolist()
        ([1, 0, 1], [1, 2], [100.0, 5.0])
    """
    counts = np.array([float(count) for count in class_counts])
    if len(counts) < 2:
        raise ValueError(f"Need the counts of two classes or more, got {len(counts)}.")
    wrong = ~((counts > 0) & np.isfinite(counts))
    if wrong.any():
        raise ValueError(
            f"Class counts must be positive and finite; class {int(wrong.argmax())} "
            f"has {counts[wrong][0]:g}. Leave out classes without samples."
        )
    members = Counter(counts.tolist())
    distinct = sorted(members, reverse=True)
    groups = [[count] for count in distinct]
    if len(groups) > MAX_GROUPS:
        groups = _merge_closest(_merge_similar(distinct), members)
    index = {count: g for g, group in enumerate(groups) for count in group}
    group_of = np.array([index[count] for count in counts.tolist()])
    sizes = np.bincount(group_of)
    return ClassGroups(
        group_of, sizes, np.bincount(group_of, counts) / sizes, len(groups) < len(distinct)
    )


def _merge_similar(distinct: list[float]) -> list[list[float]]:
    """Split decreasing counts into runs, each within 10 % of the first count of its run."""
    groups = [[distinct[0]]]
    for count in distinct[1:]:
        if groups[-1][0] <= SIMILAR * count:
            groups[-1].append(count)
        else:
            groups.append([count])
    return groups


def _merge_closest(groups: list[list[float]], members: dict[float, int]) -> list[list[float]]:
    """Merge the neighbours with the smallest ratio of mean counts until 10 groups are left."""

    def mean(group: list[float]) -> float:
        return sum(n * members[n] for n in group) / sum(members[n] for n in group)

    while len(groups) > MAX_GROUPS:
        level = [math.log(mean(group)) for group in groups]
        g = int(np.argmin([larger - smaller for larger, smaller in pairwise(level)]))
        groups = [*groups[:g], groups[g] + groups[g + 1], *groups[g + 2 :]]
    return groups
