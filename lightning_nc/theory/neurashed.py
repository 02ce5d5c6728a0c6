"""Neurashed: a graph of features that strengthens what a batch activates and forgets the rest."""

import math

import torch
from torch import Tensor

from lightning_nc.theory.neurashed_graph import GradedGraph, Levels, Pathways


class Neurashed:
    r"""A graph of features that imitates how a network learns, starting from no ability at all.

    Level 1 has the simplest features, each level above has features made of those below, its
    children, and the last has the classes. A sample type activates a given set of nodes at each
    level, its pathway: which ones is part of the graph and not learned. What is learned is how much
    node j of level l amplifies, :math:`\lambda_j^l`, which starts at 0. On a sample, its value is

    .. math::
        v_j^1 = \lambda_j^1, \qquad v_j^l = \lambda_j^l \sum_{i \text{ child of } j} v_i^{l-1}

    if it is activated, and else 0. Classes alone need not be activated, since what is to be
    predicted is not known: each sums its children, and its value is its logit,

    .. math:: p_c = \exp(v_c) \Big/ \sum_k \exp(v_k)

    A step on a batch activates what any of its types activates, of the classes those of its types:

    .. math::
        \lambda_j^l \leftarrow \lambda_j^l + a \text{ if activated}, \qquad
        \lambda_j^l \leftarrow (1 - b) \lambda_j^l \text{ if not}

    Three things that networks do can be read from it:

    - *Local elasticity.* A step on one type raises another type's logit by what they share. In the
      example below cat shares a feature with tiger at both levels, plane at the first alone. Where
      every amplification is 1, each logit is 1 (1 + 1) (1 + 1) = 4. With a = 1 and b = 0 a step on
      tiger makes shared ones 2, so that cat's is 1 (2 + 1) (2 + 1) = 9 and plane's
      1 (2 + 1) (1 + 1) = 6: they rise in the ratio 5 : 2. With L levels below the classes it is

      .. math:: (3^L - 2^L) : (3 \cdot 2^{L-1} - 2^L) = 2 \left((3/2)^L - 1\right) : 1

      that is 1, 2.5, 4.75, 8.125 to 1: it grows with depth.
    - *Implicit regularisation.* Steps on single types strengthen common features more than rare
      ones, see :func:`expected_amplification`; steps on all types at once strengthen all alike.
    - *Information bottleneck.* Rare nodes fade, and types that they alone tell apart become one,
      see :meth:`bits`.

    Args:
        levels: The children of each node, by its name, level by level; those of level 1 have none.
        pathways: The nodes that each sample type activates, exactly one of them a class, and with
            any node above level 1 one or more of its children.
        growth: a, positive.
        decay: b, from 0 to 1.

    Attributes:
        graph: Names of nodes and types, in the order of all tensors.
        amplification: :math:`\lambda^l` of each level, float64, shape ``(N_l,)``.

    Raises:
        ValueError: If graph, pathways or rates are not as described.

    Example:
        >>> levels = [
        ...     {"edge": (), "claw": (), "whisker": (), "wing": ()},
        ...     {
        ...         "face": ("edge", "claw", "whisker"), "stripes": ("edge", "claw"),
        ...         "fur": ("edge", "whisker"), "hull": ("edge", "wing"), "tail": ("edge", "wing"),
        ...     },
        ...     {"tiger": ("face", "stripes"), "cat": ("face", "fur"), "plane": ("hull", "tail")},
        ... ]
        >>> pathways = {
        ...     "tiger": ("edge", "claw", "face", "stripes", "tiger"),
        ...     "cat": ("edge", "whisker", "face", "fur", "cat"),
        ...     "plane": ("edge", "wing", "hull", "tail", "plane"),
        ... }
        >>> neurashed = Neurashed(levels, pathways, growth=1, decay=0)
        >>> neurashed.step("tiger", "cat", "plane")  # every amplification becomes 1
        >>> neurashed.logits("cat")  # the face is a tiger's, too: 1 * 1 * (1 + 1)
        tensor([2., 4., 0.], dtype=torch.float64)
        >>> neurashed.step("tiger")
        >>> neurashed.logits("cat")[1], neurashed.logits("plane")[2]
        (tensor(9., dtype=torch.float64), tensor(6., dtype=torch.float64))

    Source:
        Su (2021), "Envisioning future deep learning theories: some basic concepts and
        characteristics", arXiv:2112.09741; there the last level amplifies edge by edge.
    """

    def __init__(self, levels: Levels, pathways: Pathways, growth: float, decay: float) -> None:
        _check_rates(growth, decay)
        self.graph = GradedGraph(levels, pathways)
        self.growth, self.decay = growth, decay
        self.amplification = [torch.zeros(len(level), dtype=torch.float64) for level in levels]

    def step(self, *types: str) -> None:
        """Learn from one batch, in which each of these types occurs.

        Args:
            types: One or more; how often a type occurs makes no difference.

        Raises:
            ValueError: If there is none, or one of them is unknown.
        """
        if not types:
            raise ValueError("A step is on one or more sample types, got none.")
        batch = [self.graph.index(kind) for kind in types]
        a, b = self.growth, self.decay
        self.amplification = [
            torch.where(A[batch].any(0), lambda_ + a, (1 - b) * lambda_)
            for A, lambda_ in zip(self.graph.active, self.amplification, strict=True)
        ]

    def values(self, kind: str) -> list[Tensor]:
        """How strongly each node responds to a sample of this type; 0 where it does not.

        Args:
            kind: The sample's type.

        Returns:
            ``v^l`` of each level, float64, shapes ``(N_l,)``; of the last level the logits.

        Raises:
            ValueError: If the type is unknown.
        """
        t = self.graph.index(kind)
        activated = [A[t] for A in self.graph.active]
        activated[-1] = torch.ones_like(activated[-1])  # every class has its logit
        gains = [A * lambda_ for A, lambda_ in zip(activated, self.amplification, strict=True)]
        v = [gains[0]]
        for gain, C in zip(gains[1:], self.graph.children, strict=True):
            v.append(gain * (C @ v[-1]))
        return v

    def logits(self, kind: str) -> Tensor:
        """The score of each class on a sample of this type, float64 and >= 0, shape ``(K,)``."""
        return self.values(kind)[-1]

    def probabilities(self, kind: str) -> Tensor:
        """The probability of each class on a sample of this type, float64, shape ``(K,)``."""
        return self.logits(kind).softmax(0)

    def bits(self, threshold: float) -> Tensor:
        r"""Bits that tell apart the patterns of each level's surviving nodes; ideally log2 K.

        A node survives if it amplifies at least ``threshold`` times as much as the strongest of its
        level, and the pattern of a type is which of these it activates:

        .. math::
            \log_2 \left|\{A^l_{t, J_l} : t \text{ a type}\}\right|, \qquad
            J_l = \{j : \lambda^l_j \ge \text{threshold} \cdot \max_i \lambda^l_i\}

        Before training no node stands out and all survive.

        Args:
            threshold: From 0, where every node survives, to 1.

        Returns:
            One for each level, float64, from 0 to the log2 of the number of types, shape ``(L,)``.

        Raises:
            ValueError: If the threshold is not between 0 and 1.

        Example:
            Two classes of four types each. In a class, types activate the pairs 12, 23, 45 and 56
            of six features; above, *left* is 1, 2 or 3, *right* is 4, 5 or 6, and *main* is any:

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

            Batches have one type of each class. They activate 1, 3, 4 and 6 with probability 1/4
            and 2 and 5 with 1/2, which in the long run are (a/b) (1/4)/(3/4) and (a/b) (1/2)/(1/2),
            1 : 3: of the pairs remain 2, 2, 5 and 5. *left* and *right* are at (a/b) (1/2)/(1/2),
            too, while *main* grows on and on, and alone remains. For small b, the ratios are
            (1 - u^3) / (3 (1 - u^2)) with u = exp(-b t / 4), and (1 - exp(-b t / 2)) / (b t): they
            start at 1/2 and are at 0.4 for b t = 4 ln(10 / (1 + sqrt(21))) = 2.33 and b t = 0.93:

            >>> for _ in range(150):
            ...     for pair in ("12", "45", "23", "56"):
            ...         neurashed.step("x" + pair, "y" + pair)
            >>> neurashed.bits(0.4)  # xy and 2 or 5, xy, xy
            tensor([2., 1., 1.], dtype=torch.float64)
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"The threshold is between 0 and 1, got {threshold}.")
        survives = [lambda_ >= threshold * lambda_.max() for lambda_ in self.amplification]
        patterns = [
            {tuple(pattern) for pattern in A[:, J].tolist()}
            for A, J in zip(self.graph.active, survives, strict=True)
        ]
        return torch.tensor([len(each) for each in patterns], dtype=torch.float64).log2()


def expected_amplification(p: float, steps: int, growth: float, decay: float) -> float:
    r"""Mean amplification of a node that each step activates with probability p; it grows with p.

    The mean of one step is :math:`\lambda \to p (\lambda + a) + (1 - p) (1 - b) \lambda`, so that

    .. math::
        E \lambda_t = p a \sum_{s=0}^{t-1} r^s = \frac{a}{b} \frac{p}{1 - p} (1 - r^t), \qquad
        r = 1 - (1 - p) b

    With batches of one sample, features that 4, 2 and 1 of 8 equally frequent types have start to
    grow as 4 : 2 : 1 and end, as p/(1-p), in 1 : 1/3 : 1/7. In full batches p = 1 for all of them,
    and rare features are as strong as common ones.

    Args:
        p: Share of the steps that activate the node, from 0 to 1.
        steps: t, 0 or more.
        growth: a, positive.
        decay: b, from 0 to 1.

    Returns:
        From 0, in units of a, to ``a t``, where p = 1.

    Raises:
        ValueError: If probability, steps or rates are not as described.

    Example:
        r = 3/4, and 1/2 (1 + 3/4):

        >>> expected_amplification(p=0.5, steps=2, growth=1, decay=0.5)
        0.875

    Source:
        Su (2021), "Envisioning future deep learning theories: some basic concepts and
        characteristics", arXiv:2112.09741, with g+(x) = x + a and g-(x) = (1 - b) x.
    """
    _check_rates(growth, decay)
    if not 0 <= p <= 1:
        raise ValueError(f"A probability is between 0 and 1, got p = {p}.")
    if steps < 0:
        raise ValueError(f"The number of steps is 0 or more, got {steps}.")
    a, b = growth, decay
    if p == 0:
        return 0.0
    lost = (1 - p) * b  # 1 - r, below 1
    if lost == 0:
        return a * p * steps
    return -a * p / lost * math.expm1(steps * math.log1p(-lost))  # 1 - r^t without cancellation


def _check_rates(growth: float, decay: float) -> None:
    """Raise unless activated nodes grow, and others do not."""
    if not 0 < growth < math.inf:
        raise ValueError(f"Activated nodes grow by a finite amount above 0, got {growth}.")
    if not 0 <= decay <= 1:
        raise ValueError(f"Other nodes lose a share between 0 and 1, got {decay}.")
