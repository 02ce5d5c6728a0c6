"""Neurashed: a graph of features that strengthens what a batch activates and weakens the rest."""

import math

import torch
from torch import Tensor

from lightning_nc.theory.neurashed_graph import GradedGraph, Levels, Pathways


class Neurashed:
    r"""A graph of features that imitates how a network learns, starting from zero.

    Level 1 has the simplest features. Each node above is a feature made of nodes of the level just
    below, its children; the nodes of the last level are the classes. A sample type activates a set
    of nodes at each level, its pathway, which is part of the graph and not learned. What is learned
    is the amplification :math:`\lambda_j^l` of node j of level l, which starts at 0. A node of the
    first level has the value 1 if it is activated, whatever its amplification. The value of an
    activated node above is

    .. math:: v_j^l = \lambda_j^l \sum_{i \text{ child of } j} v_i^{l-1}

    and that of other nodes is 0. Classes are an exception, since the class to predict is unknown:
    each of them has the value above, activated or not. This value is its logit,

    .. math:: p_c = \exp(v_c) \Big/ \sum_k \exp(v_k)

    A step on a batch activates all nodes that any of its types activates, including their classes:

    .. math::
        \lambda_j^l \leftarrow \lambda_j^l + a \text{ if activated}, \qquad
        \lambda_j^l \leftarrow (1 - b) \lambda_j^l \text{ if not}

    The model shows three phenomena of networks:

    - *Local elasticity.* A step on one type raises the logit of another through the nodes that they
      share. In the example below, tiger, cat and plane share the outline, which has 2 children, and
      tiger and cat share the coat, which has 3. With a = 1 and b = 0, amplifications count the
      steps that activated a node. After N steps on each type, the class cat and its whiskers have
      N, the coat 2 N and the outline 3 N, so that the logit of cat is

      .. math:: v_{cat} = N \, (2 \lambda_{outline} + 3 \lambda_{coat} + \lambda_{whiskers})
          = N \, (6 N + 6 N + N)

      and that of plane N (6 N + N). One more step on tiger adds 1 to the outline and to the coat,
      and 5 N to the logit of cat but 2 N to that of plane: 5 : 2, for every N.

      With d more levels, at each of which tiger and cat share a node with the amplification 2 N,
      and plane has two of its own with N each, the rises are
      :math:`N \, ((2 N + 1)^d (12 N + 5) - (2 N)^d \, 12 N)` and :math:`N \, (2 N)^d \, 2`. Their
      ratio

      .. math:: \tfrac12 \left( \left( 1 + \tfrac{1}{2 N} \right)^d (12 N + 5) - 12 N \right)

      grows with depth for every N: for N = 1 from 2.5 to 6.75, 13.1 and 22.7, for large N to
      5.5, 8.5 and 11.5.
    - *Implicit regularisation.* Steps on single types strengthen common features more than rare
      ones, see :func:`expected_amplification`; steps on all types at once strengthen all equally.
    - *Information bottleneck.* Rare nodes fade, those of the first level too, and types that only
      they tell apart become indistinguishable, see :meth:`bits`.

    Args:
        levels: Level by level, the children of each node by its name; nodes of level 1 have none.
        pathways: The nodes that each sample type activates: exactly one class, and at least one
            child of every activated node above level 1.
        growth: Growth a of activated nodes, positive.
        decay: Decay b of the other nodes, from 0 to 1.

    Attributes:
        graph: The `GradedGraph`, with the names of nodes and types in the order of all tensors.
        amplification: :math:`\lambda^l` of each level, float64, shape ``(N_l,)``.

    Raises:
        ValueError: If the graph, the pathways or the rates are not as described.

    Example:
        >>> children = {
        ...     "outline": ["edge", "corner"], "coat": ["ear", "paw", "tail"],
        ...     "stripes": ["stripe"], "whiskers": ["whisker"], "hull": ["wing"],
        ... }
        >>> classes = {
        ...     "tiger": ["outline", "coat", "stripes"],
        ...     "cat": ["outline", "coat", "whiskers"],
        ...     "plane": ["outline", "hull"],
        ... }
        >>> first = {feature: () for features in children.values() for feature in features}
        >>> pathways = {
        ...     kind: [*sum((children[node] for node in nodes), []), *nodes, kind]
        ...     for kind, nodes in classes.items()
        ... }
        >>> neurashed = Neurashed([first, children, classes], pathways, growth=1, decay=0)
        >>> for kind in pathways:  # N = 1
        ...     neurashed.step(kind)
        >>> neurashed.logits("cat"), neurashed.logits("plane")[2]  # 6 + 6, 6 + 6 + 1, 6; 6 + 1
        (tensor([12., 13.,  6.], dtype=torch.float64), tensor(7., dtype=torch.float64))
        >>> neurashed.step("tiger")
        >>> neurashed.logits("cat")[1], neurashed.logits("plane")[2]  # 13 + 5, 7 + 2
        (tensor(18., dtype=torch.float64), tensor(9., dtype=torch.float64))

    Source:
        Su (2021), "Envisioning future deep learning theories: some basic concepts and
        characteristics", arXiv:2112.09741, with the rules of its talk; in the paper, each edge to
        the last level has an amplification.
    """

    def __init__(self, levels: Levels, pathways: Pathways, growth: float, decay: float) -> None:
        _check_rates(growth, decay)
        self.graph = GradedGraph(levels, pathways)
        self.growth, self.decay = growth, decay
        self.amplification = [torch.zeros(len(level), dtype=torch.float64) for level in levels]

    def step(self, *types: str) -> None:
        """Learn from one batch that contains each of these types.

        Args:
            types: One or more sample types; how often a type occurs makes no difference.

        Raises:
            ValueError: If no type is given, or one is unknown.
        """
        if not types:
            raise ValueError("A step needs one or more sample types, got none.")
        batch = [self.graph.index(kind) for kind in types]
        a, b = self.growth, self.decay
        self.amplification = [
            torch.where(A[batch].any(0), lambda_ + a, (1 - b) * lambda_)
            for A, lambda_ in zip(self.graph.active, self.amplification, strict=True)
        ]

    def values(self, kind: str) -> list[Tensor]:
        """The value of each node on a sample of this type; 0 for features that are not activated.

        Those of the first level are 1 if they are.

        Args:
            kind: The sample's type.

        Returns:
            ``v^l`` of each level, float64, shapes ``(N_l,)``; the last level has the logits.

        Raises:
            ValueError: If the type is unknown.
        """
        t = self.graph.index(kind)
        activated = [A[t] for A in self.graph.active]
        activated[-1] = torch.ones_like(activated[-1])  # every class has its logit
        v = [activated[0].double()]
        for A, lambda_, C in zip(
            activated[1:], self.amplification[1:], self.graph.children, strict=True
        ):
            v.append(A * lambda_ * (C @ v[-1]))
        return v

    def logits(self, kind: str) -> Tensor:
        """The logit of each class on a sample of this type, float64 and >= 0, shape ``(K,)``."""
        return self.values(kind)[-1]

    def probabilities(self, kind: str) -> Tensor:
        """The probability of each class on a sample of this type, float64, shape ``(K,)``."""
        return self.logits(kind).softmax(0)

    def bits(self, threshold: float) -> Tensor:
        r"""The bits that tell types apart by the surviving nodes of each level; ideally log2 K.

        A node survives if its amplification is at least ``threshold`` times the largest of its
        level. The pattern of a type is the set of surviving nodes that it activates:

        .. math::
            \log_2 \left|\{A^l_{t, J_l} : t \text{ a type}\}\right|, \qquad
            J_l = \{j : \lambda^l_j \ge \text{threshold} \cdot \max_i \lambda^l_i\}

        Before training all amplifications are equal and all nodes survive.

        Args:
            threshold: From 0, where every node survives, to 1.

        Returns:
            The bits of each level, from 0 to the log2 of the number of types, float64, one per
            level.

        Raises:
            ValueError: If the threshold is not between 0 and 1.

        Example:
            Two classes of four types each. The types of a class activate the pairs 12, 23, 45 and
            56 of its six features. Above these, *left* has the children 1, 2 and 3, *right* has
            4, 5 and 6, and *main* has all six:

            >>> levels, pathways = [{}, {}, {}], {}
            >>> for c in "xy":
            ...     levels[0] |= {c + i: () for i in "123456"}
            ...     halves = {"left": "123", "right": "456", "main": "123456"}
            ...     levels[1] |= {c + F: [c + i for i in f] for F, f in halves.items()}
            ...     levels[2] |= {c: [c + F for F in halves]}
            ...     for pair in ("12", "23", "45", "56"):
            ...         half = "left" if "2" in pair else "right"
            ...         pathways[c + pair] = [c + f for f in (*pair, half, "main")] + [c]
            >>> neurashed = Neurashed(levels, pathways, growth=1, decay=0.01)
            >>> neurashed.bits(0.4)  # 8 patterns, 4 patterns, 2 classes
            tensor([3., 2., 1.], dtype=torch.float64)

            Each batch has one type of each class. It activates 1, 3, 4 and 6 with probability 1/4,
            and 2 and 5 with probability 1/2. In the long run their amplifications are
            (a/b) (1/4)/(3/4) and (a/b) (1/2)/(1/2), in the ratio 1 : 3, so that only 2, 2, 5 and 5
            remain of the pairs. *left* and *right* also tend to (a/b) (1/2)/(1/2), while *main*
            grows without bound, and only *main* remains. For small b, the ratios after t steps are
            (1 - u^3) / (3 (1 - u^2)) with u = exp(-b t / 4), and (1 - exp(-b t / 2)) / (b t). Both
            start at 1/2; they reach 0.4 at b t = 4 ln(10 / (1 + sqrt(21))) = 2.33 and b t = 0.93:

            >>> for _ in range(150):
            ...     for pair in ("12", "45", "23", "56"):
            ...         neurashed.step("x" + pair, "y" + pair)
            >>> neurashed.bits(0.4)  # x or y with 2 or 5; x or y; x or y
            tensor([2., 1., 1.], dtype=torch.float64)
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"The threshold must be between 0 and 1, got {threshold}.")
        survives = [lambda_ >= threshold * lambda_.max() for lambda_ in self.amplification]
        patterns = [
            {tuple(pattern) for pattern in A[:, J].tolist()}
            for A, J in zip(self.graph.active, survives, strict=True)
        ]
        return torch.tensor([len(each) for each in patterns], dtype=torch.float64).log2()


def expected_amplification(p: float, steps: int, growth: float, decay: float) -> float:
    r"""The mean amplification of a node that each step activates with probability p.

    In the mean, one step is :math:`\lambda \to p (\lambda + a) + (1 - p) (1 - b) \lambda`, so that

    .. math::
        E \lambda_t = p a \sum_{s=0}^{t-1} r^s = \frac{a}{b} \frac{p}{1 - p} (1 - r^t), \qquad
        r = 1 - (1 - p) b

    which increases with p. With batches of one sample, features of 4, 2 and 1 of 8 equally frequent
    types first grow in the ratio 4 : 2 : 1, and tend to the ratio of p/(1-p), 1 : 1/3 : 1/7. With
    full batches p = 1 for all of them, and rare features are as strong as common ones.

    Args:
        p: Probability that a step activates the node, from 0 to 1.
        steps: Number of steps t, 0 or more.
        growth: Growth a of activated nodes, positive.
        decay: Decay b of the other nodes, from 0 to 1.

    Returns:
        The mean amplification in the units of a, from 0 to ``a t``, its value at p = 1.

    Raises:
        ValueError: If the probability, the steps or the rates are not as described.

    Example:
        r = 3/4, and the mean is 1/2 (1 + 3/4):

        >>> expected_amplification(p=0.5, steps=2, growth=1, decay=0.5)
        0.875

    Source:
        Su (2021), "Envisioning future deep learning theories: some basic concepts and
        characteristics", arXiv:2112.09741, with g+(x) = x + a and g-(x) = (1 - b) x.
    """
    _check_rates(growth, decay)
    if not 0 <= p <= 1:
        raise ValueError(f"The probability must be between 0 and 1, got p = {p}.")
    if not steps >= 0:
        raise ValueError(f"The number of steps must be 0 or more, got {steps}.")
    a, b = growth, decay
    if p == 0 or steps == 0:
        return 0.0
    lost = (1 - p) * b  # 1 - r, which is above 0 but may be rounded to it
    if lost == 0:
        return a * p * steps
    log_r = math.log1p(-lost) if lost < 1 else -math.inf
    return -a * p / lost * math.expm1(steps * log_r)  # 1 - r^t without cancellation


def _check_rates(growth: float, decay: float) -> None:
    """Raise unless growth is positive and finite, and decay is between 0 and 1."""
    if not 0 < growth < math.inf:
        raise ValueError(
            f"The growth of activated nodes must be positive and finite, got {growth}."
        )
    if not 0 <= decay <= 1:
        raise ValueError(f"The decay of other nodes must be between 0 and 1, got {decay}.")
