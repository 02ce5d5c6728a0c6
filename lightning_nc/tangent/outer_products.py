r"""Layers whose weight gradient is a sum of outer products over positions t.

.. math:: \partial_W = \sum_t g_t a_t^T

for a sample with inputs a_t, shape (T, k), and output gradients g_t, shape (T, o). The inputs are
the tokens of a linear layer, the patches of a convolution, or the one-hot tokens of an embedding.
The inner product of two samples' gradients is computed in one of two ways:

.. math:: \langle \partial_W, \partial_{W'} \rangle
    = \sum_{t,s} \langle a_t, a'_s \rangle \langle g_t, g'_s \rangle

from Gram matrices over positions, or from the gradients themselves, formed for some rows of W at a
time. The first needs m^2 T^2 (k + o) multiplications, the second m T k o + m^2 k o.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nc.tangent.inner_products import exact, gram, widened

_AT_ONCE = 2**24  # elements of the largest matrix that is formed at a time
_SMALL = 4  # a product in small per-sample matrices takes as long as this many in a large one


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
        self._products: Tensor | None = None

    @abstractmethod
    def positions(self) -> int:
        """Return the number of positions T per sample, over all runs."""

    @abstractmethod
    def output_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Return the gradients of the outputs of all runs, shape ``(m, T, o)``."""

    @abstractmethod
    def input_products(self, samples: slice) -> Tensor:
        """Return <a_t, a'_s> for b samples and all samples, shape ``(b T, m T)``."""

    @abstractmethod
    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Return some rows of each sample's weight gradient, shape ``(m, rows * k)``."""

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Return the inner products of the gradients of all samples.

        Args:
            left: Gradients of the outputs, one tensor per run.
            right: Other gradients of the outputs, or the same.

        Returns:
            Shape ``(m, m)``, float64.
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
        """Whether Gram matrices over positions are cheaper than the gradients of each sample."""
        if self.in_groups > 1:
            return False
        m, T, k = self.m, self.positions(), self.module.weight[0].numel()
        # inner products of inputs are kept for all directions if they are not too many
        inputs = k / self.directions if (m * T) ** 2 <= _AT_ONCE else k
        return m**2 * T**2 * (inputs + o) < _SMALL * (m * T * k * o + m**2 * k * o)

    def _gram_by_positions(self, g: Tensor, other: Tensor) -> Tensor:
        """Return the inner products of weight gradients from output gradients ``(m, T, o)``."""
        m, T, _ = g.shape
        flat = other.flatten(0, 1)
        rows = []
        for samples in slices(m, T * m * T):
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
        # the rows of each group of a convolution see different inputs
        chunks = slices(o, self.m * k) if self.in_groups == 1 else [slice(0, o)]
        grams = []
        for rows in chunks:
            gradients = self.weight_gradients(left, rows)
            others = gradients if left is right else self.weight_gradients(right, rows)
            grams.append(gram(gradients, others))
        return torch.stack(grams).sum(0)


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
        return a[samples].flatten(0, 1) @ a.flatten(0, 1).mT

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
        same = tokens[samples].flatten()[:, None] == tokens.flatten()
        return same.to(self.module.weight.dtype)

    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Raise: these gradients are never formed, since almost all entries are zero."""
        raise NotImplementedError

    def _by_positions(self, o: int) -> bool:
        return True

    def _tokens(self) -> Tensor:
        return torch.cat([tokens.reshape(self.m, -1) for tokens in self.runs], 1)


def slices(rows: int, size: int) -> list[slice]:
    """Cut rows of ``size`` elements each into parts of bounded size."""
    step = max(_AT_ONCE // size, 1)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
