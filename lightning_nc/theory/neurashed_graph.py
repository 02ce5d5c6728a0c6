"""The graph of a neurashed: features level by level, and the pathways of sample types."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Levels = Sequence[Mapping[str, Collection[str]]]
Pathways = Mapping[str, Collection[str]]


class GradedGraph:
    """Nodes in levels, edges between neighbouring levels, and the nodes that sample types activate.

    Args:
        levels: Level by level, the children of each node by its name; nodes of level 1 have none.
        pathways: The nodes that each sample type activates: exactly one of the last level, and at
            least one child of every activated node above level 1.

    Attributes:
        levels: Names of the nodes, level by level.
        types: Names of the sample types.
        active: For each level A^l, whether a type activates a node, bool, shape ``(T, N_l)``.
        children: For each level above the first C^l, with entry 1 if a node of the level below is a
            child of a node and 0 otherwise, float64, shape ``(N_l, N_{l-1})``.

    Raises:
        ValueError: If the levels or the pathways are not as described.

    Example:
        >>> graph = GradedGraph(
        ...     [{"tail": (), "wing": ()}, {"cat": ["tail"], "bird": ["tail", "wing"]}],
        ...     {"tabby": ["tail", "cat"], "owl": ["wing", "bird"]},
        ... )
        >>> graph.active[0]
        tensor([[ True, False],
                [False,  True]])
        >>> graph.children[0]
        tensor([[1., 0.],
                [1., 1.]], dtype=torch.float64)
    """

    def __init__(self, levels: Levels, pathways: Pathways) -> None:
        _check_levels(levels)
        _check_pathways(levels, pathways)
        self.levels = [list(level) for level in levels]
        self.types = list(pathways)
        self.active = [_incidence(pathways.values(), level) for level in levels]
        self.children = [
            _incidence(level.values(), below).double() for below, level in pairwise(levels)
        ]

    def index(self, kind: str) -> int:
        """Return the row of A that belongs to a sample type.

        Raises:
            ValueError: If there is no such type.
        """
        if kind not in self.types:
            raise ValueError(f"There is no sample type {kind!r}; there are {self.types}.")
        return self.types.index(kind)


def _incidence(sets: Iterable[Collection[str]], nodes: Iterable[str]) -> Tensor:
    """Whether each set contains each node, bool, shape ``(sets, nodes)``."""
    nodes = list(nodes)
    return torch.tensor([[node in each for node in nodes] for each in sets], dtype=torch.bool)


def _check_levels(levels: Levels) -> None:
    """Raise unless every node has a unique name and children in the level just below."""
    if len(levels) < 2 or not all(levels):
        raise ValueError(
            "A neurashed needs two or more levels, none of them empty; "
            f"got levels of {[len(level) for level in levels]} nodes."
        )
    names = [node for level in levels for node in level]
    twice = sorted({node for node in names if names.count(node) > 1})
    if twice:
        raise ValueError(f"A node must be in one level only; give {twice} another name in each.")
    below: Collection[str] = ()
    for height, level in enumerate(levels, 1):
        for node, children in level.items():
            astray = sorted(set(children) - set(below))
            if astray:
                raise ValueError(
                    "Children must be in the level just below; "
                    f"{astray} of {node!r} in level {height} are not."
                )
            if height > 1 and not children:
                raise ValueError(
                    f"{node!r} in level {height} has no children; give it at least one."
                )
        below = level


def _check_pathways(levels: Levels, pathways: Pathways) -> None:
    """Raise unless every type has one class and each activated node an activated child."""
    if not pathways:
        raise ValueError("A neurashed needs one or more sample types, got no pathways.")
    names = {node for level in levels for node in level}
    for kind, pathway in pathways.items():
        activated = set(pathway)
        if activated - names:
            raise ValueError(
                f"The pathway of {kind!r} has {sorted(activated - names)}, which are in no level."
            )
        classes = sorted(activated & set(levels[-1]))
        if len(classes) != 1:
            raise ValueError(
                "A pathway must have exactly one class of the last level; "
                f"that of {kind!r} has {classes}."
            )
        for level in levels[1:]:
            for node in activated & set(level):
                if not activated & set(level[node]):
                    raise ValueError(
                        f"{kind!r} activates {node!r} but none of its children "
                        f"{sorted(level[node])}: activate one, or leave {node!r} out."
                    )
