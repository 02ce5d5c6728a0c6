r"""Layers whose weight gradient is a sum of outer products over positions t.

.. math:: \partial_W = \sum_t g_t a_t^T

for a sample with inputs a_t, shape (T, k), and output gradients g_t, shape (T, o). The inputs are
the tokens of a linear layer, the patches of a convolution, or the one-hot tokens of an embedding.
The inner product of two samples' gradients is computed in one of two ways:

.. math:: \langle \partial_W, \partial_{W'} \rangle
    = \sum_{t,s} \langle a_t, a'_s \rangle \langle g_t, g'_s \rangle

from Gram matrices over positions, or from the gradients themselves, formed for some rows of W at a
time. The first needs m^2 T^2 (k + o) / 2 multiplications, since they are symmetric and the products
of inputs serve all directions; the second needs m T k o + m^2 k o.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_nc.tangent.inner_products import exact, gram_of, widened

_AT_ONCE = 2**24  # elements of the largest matrix that is formed at a time
_PARTS = 5  # of a symmetric matrix, whose upper triangle is formed part by part
_WORTH = 2**20  # elements below which a part takes longer to start than to form
_SYMMETRIC = 0.6  # the share of a matrix in these parts


class OuterProducts(ABC):
    """A layer that ran, and its contribution to the inner products of gradients.

    Args:
        module: The layer.
        names: The parameters that count, out of ``weight`` and ``bias``.
        inputs: The layer's input in each run.
        samples: The number of samples m.
        directions: The number of output directions for which `gram` will be called.
    """

    in_groups = 1

    def __init__(
        self, module: Any, names: set[str], inputs: Sequence[Tensor], samples: int, directions: int
    ) -> None:
        self.module, self.names, self.runs = module, names, [widened(x) for x in inputs]
        self.m, self.directions = samples, directions
        self._products: dict[int, Tensor] = {}

    @abstractmethod
    def positions(self) -> int:
        """Return the number of positions T per sample, over all runs."""

    @abstractmethod
    def output_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Return the gradients of the outputs of all runs, shape ``(m, T, o)``."""

    def bias_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Return each sample's bias gradient, shape ``(m, o)``."""
        return self.output_gradients(g).sum(1)

    @abstractmethod
    def input_products(self, samples: slice) -> Tensor:
        """Return <a_t, a'_s> for b samples and the n from the first of them on, ``(b T, n T)``."""

    @abstractmethod
    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Return some rows of each sample's weight gradient, shape ``(m, rows * k)``."""

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Return the inner products of the gradients of all samples; see `Gram`."""
        same = left is right
        left, right = [widened(each) for each in left], [widened(each) for each in right]
        right = left if same else right
        o, parts = len(self.module.weight), []
        if "bias" in self.names:
            parts.append(gram_of(self.bias_gradients, left, right))
        if "weight" in self.names and self._by_positions(o):
            g = self.output_gradients(left)
            parts.append(self._gram_by_positions(g, g if same else self.output_gradients(right)))
        elif "weight" in self.names:
            parts.append(self._gram_by_samples(left, right, o))
        return torch.stack(parts).sum(0)

    def _by_positions(self, o: int) -> bool:
        """Whether Gram matrices over positions are cheaper than the gradients of each sample."""
        if self.in_groups > 1:
            return False
        m, T, k = self.m, self.positions(), self.module.weight[0].numel()
        # inner products of inputs are kept for all directions if they are not too many
        inputs = k / self.directions if (m * T) ** 2 <= _AT_ONCE else k
        return _SYMMETRIC * m**2 * T**2 * (inputs + o) < m * T * k * o + m**2 * k * o

    def _gram_by_positions(self, g: Tensor, other: Tensor) -> Tensor:
        """Return the inner products of weight gradients from output gradients ``(m, T, o)``."""
        m, T, _ = g.shape
        K = torch.empty(m, m, dtype=torch.float64, device=exact(g[:0]).device)
        size = T * m * T
        step = min(_AT_ONCE // size, max(-(-m // _PARTS), _WORTH // size))
        for part in _parts(m, step):
            rest = slice(part.start, m)  # products with those before are known by symmetry
            inputs = self._kept_input_products(part)
            above = _contracted(g[part], other[rest], inputs)
            below = above if other is g else _contracted(other[part], g[rest], inputs)
            K[part, rest], K[rest, part] = above, below.mT
        return K

    def _kept_input_products(self, samples: slice) -> Tensor:
        if (self.m * self.positions()) ** 2 > _AT_ONCE:
            return self.input_products(samples)
        if samples.start not in self._products:
            self._products[samples.start] = self.input_products(samples)
        return self._products[samples.start]

    def _gram_by_samples(self, left: Sequence[Tensor], right: Sequence[Tensor], o: int) -> Tensor:
        k = self.module.weight[0].numel()
        # the rows of each group of a convolution see different inputs
        chunks = slices(o, self.m * k) if self.in_groups == 1 else [slice(0, o)]
        of_chunks = (partial(self.weight_gradients, rows=rows) for rows in chunks)
        return torch.stack([gram_of(each, left, right) for each in of_chunks]).sum(0)


class Linear(OuterProducts):
    """An `nn.Linear`, applied to one or more vectors per sample."""

    def positions(self) -> int:
        """Return the number of tokens per sample, over all runs."""
        return sum(x[..., 0].numel() for x in self.runs) // self.m

    def output_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Concatenate the gradients of all runs."""
        return torch.cat([each.reshape(self.m, -1, each.shape[-1]) for each in g], 1)

    def input_products(self, samples: slice) -> Tensor:
        """Return the inner products of the inputs."""
        a = self.output_gradients(self.runs)
        return a[samples].flatten(0, 1) @ a[samples.start :].flatten(0, 1).mT

    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Return each sample's matrix product of output gradients and inputs."""
        a = self.output_gradients(self.runs)
        return (self.output_gradients(g)[..., rows].mT @ a).flatten(1)


class Embedding(OuterProducts):
    """An `nn.Embedding`, with tokens as one-hot inputs."""

    def positions(self) -> int:
        """Return the number of tokens per sample, over all runs."""
        return sum(tokens.numel() for tokens in self.runs) // self.m

    def output_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Concatenate the gradients of all runs; they are zero at padding tokens."""
        gradients = torch.cat([each.reshape(self.m, -1, each.shape[-1]) for each in g], 1)
        if self.module.padding_idx is None:
            return gradients
        return gradients * (self._tokens() != self.module.padding_idx)[..., None]

    def input_products(self, samples: slice) -> Tensor:
        """Return 1 for equal tokens and 0 for others."""
        tokens = self._tokens()
        same = tokens[samples].flatten()[:, None] == tokens[samples.start :].flatten()
        return same.to(self.module.weight.dtype)

    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Raise: these gradients are never formed, since almost all entries are zero."""
        raise NotImplementedError

    def _by_positions(self, o: int) -> bool:
        return True

    def _tokens(self) -> Tensor:
        return torch.cat([tokens.reshape(self.m, -1) for tokens in self.runs], 1)


def _contracted(left: Tensor, right: Tensor, inputs: Tensor) -> Tensor:
    """Return sum_ts <a_t, a'_s> <g_t, g'_s> by sample, shape ``(b, n)``, float64.

    Args:
        left: Output gradients of b samples, shape ``(b, T, o)``.
        right: Those of n samples, shape ``(n, T, o)``.
        inputs: Inner products of their inputs, shape ``(b T, n T)``.
    """
    (b, T, _), n = left.shape, len(right)
    products = left.flatten(0, 1) @ right.flatten(0, 1).mT
    products *= inputs
    return exact(products.view(b * T, n, T).sum(2)).view(b, T, n).sum(1)


def slices(rows: int, size: int) -> list[slice]:
    """Cut rows of ``size`` elements each into parts of bounded size."""
    return _parts(rows, _AT_ONCE // size)


def _parts(rows: int, step: int) -> list[slice]:
    step = max(step, 1)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
