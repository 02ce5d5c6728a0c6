r"""Layers whose weight gradient is a sum of outer products over positions t.

.. math:: \partial_W = \sum_t g_t a_t^T

for a sample with inputs a_t, shape (T, k), and output gradients g_t, shape (T, o): of a linear
layer at each token, of a convolution with patches, of an embedding with one-hot tokens. Inner
products of two samples' gradients follow in either of two ways:

.. math:: \langle \partial_W, \partial_{W'} \rangle
    = \sum_{t,s} \langle a_t, a'_s \rangle \langle g_t, g'_s \rangle

from Gram matrices over positions, or from the gradients themselves, formed for some rows of W at a
time. The first takes m^2 T^2 (k + o) products, the second m T k o + m^2 k o.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nc.tangent.inner_products import exact, gram, widened

_AT_ONCE = 2**24  # numbers in the largest matrix that is formed at a time
_SMALL = 4  # a product in the small matrices of samples takes as long as so many in a large one


class OuterProducts(ABC):
    """A layer that ran, and what it adds to inner products of gradients.

    Args:
        module: The layer.
        names: Which of its parameters count, of ``weight`` and ``bias``.
        inputs: Its input in each run.
        samples: Their number m.
        directions: How many output gradients are to come.
    """

    in_groups = 1

    def __init__(
        self, module: Any, names: set[str], inputs: Sequence[Tensor], samples: int, directions: int
    ) -> None:
        self.module, self.names, self.runs = module, names, [widened(x) for x in inputs]
        self.m, self.directions = samples, directions
        self._products: Tensor | None = None

    @abstractmethod
    def positions(self) -> int:
        """T, over all runs."""

    @abstractmethod
    def output_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Gradients of the runs' outputs as (m, T, o)."""

    @abstractmethod
    def input_products(self, samples: slice) -> Tensor:
        """<a_t, a'_s> of some samples with all, shape ``(b T, m T)``."""

    @abstractmethod
    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Rows of each sample's weight gradient, shape ``(m, rows k)``."""

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Inner products of the gradients of all samples, shape ``(m, m)``, float64.

        Args:
            left: Gradients of the outputs of each run.
            right: Others, or the same.
        """
        same = left is right
        left, right = [widened(each) for each in left], [widened(each) for each in right]
        g = self.output_gradients(left)
        other = g if same else self.output_gradients(right)
        total = torch.zeros(self.m, self.m, dtype=torch.float64, device=exact(g[:0]).device)
        if "bias" in self.names:
            total += gram(g.sum(1), other.sum(1))
        if "weight" in self.names:
            if self._by_positions(g.shape[2]):
                total += self._gram_by_positions(g, other)
            else:
                total += self._gram_by_samples(left, left if same else right, g.shape[2])
        return total

    def _by_positions(self, o: int) -> bool:
        """Whether Gram matrices over positions are cheaper than gradients of each sample."""
        if self.in_groups > 1:
            return False
        m, T, k = self.m, self.positions(), self.module.weight[0].numel()
        # products of inputs are kept for all directions, if they are not too many
        inputs = k / self.directions if (m * T) ** 2 <= _AT_ONCE else k
        return m**2 * T**2 * (inputs + o) < _SMALL * (m * T * k * o + m**2 * k * o)

    def _gram_by_positions(self, g: Tensor, other: Tensor) -> Tensor:
        m, T, _ = g.shape
        flat = other.flatten(0, 1)
        rows = []
        for samples in _slices(m, T * m * T):
            b = g[samples]
            products = b.flatten(0, 1) @ flat.mT
            products *= self._kept_input_products(samples)
            rows.append(exact(products.view(len(b), T, m, T).sum((1, 3), dtype=torch.float64)))
        return torch.cat(rows)

    def _kept_input_products(self, samples: slice) -> Tensor:
        if (self.m * self.positions()) ** 2 > _AT_ONCE:
            return self.input_products(samples)
        if self._products is None:
            self._products = self.input_products(slice(0, self.m))
        return self._products

    def _gram_by_samples(self, left: Sequence[Tensor], right: Sequence[Tensor], o: int) -> Tensor:
        k = self.module.weight[0].numel()
        # rows of one group of a convolution see other inputs than those of the next
        chunks = _slices(o, self.m * k) if self.in_groups == 1 else [slice(0, o)]
        grams = []
        for rows in chunks:
            gradients = self.weight_gradients(left, rows)
            others = gradients if left is right else self.weight_gradients(right, rows)
            grams.append(gram(gradients, others))
        return torch.stack(grams).sum(0)


class Linear(OuterProducts):
    """`nn.Linear`, on one vector of each sample or on several."""

    def positions(self) -> int:
        """Tokens of a sample, over all runs."""
        return sum(x[..., 0].numel() for x in self.runs) // self.m

    def output_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Those of all runs, one after another."""
        return torch.cat([each.reshape(self.m, -1, each.shape[-1]) for each in g], 1)

    def input_products(self, samples: slice) -> Tensor:
        """Of the inputs as they are."""
        a = self.output_gradients(self.runs)
        return a[samples].flatten(0, 1) @ a.flatten(0, 1).mT

    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Matrix products of each sample."""
        a = self.output_gradients(self.runs)
        return (self.output_gradients(g)[..., rows].mT @ a).flatten(1)


class Embedding(OuterProducts):
    """`nn.Embedding`: a token is a one-hot input."""

    def positions(self) -> int:
        """Tokens of a sample, over all runs."""
        return sum(tokens.numel() for tokens in self.runs) // self.m

    def output_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Those of all runs, one after another; none at padding."""
        gradients = torch.cat([each.reshape(self.m, -1, each.shape[-1]) for each in g], 1)
        if self.module.padding_idx is None:
            return gradients
        return gradients * (self._tokens() != self.module.padding_idx)[..., None]

    def input_products(self, samples: slice) -> Tensor:
        """1 where tokens are the same."""
        tokens = self._tokens()
        same = tokens[samples].flatten()[:, None] == tokens.flatten()
        return same.to(self.module.weight.dtype)

    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Never formed: almost all of it is zero."""
        raise NotImplementedError

    def _by_positions(self, o: int) -> bool:
        return True

    def _tokens(self) -> Tensor:
        return torch.cat([tokens.reshape(self.m, -1) for tokens in self.runs], 1)


def _slices(rows: int, size: int) -> list[slice]:
    """Cut rows of this many numbers each into parts that are not too large."""
    step = max(_AT_ONCE // size, 1)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
