"""Normalisation layers, which scale and shift their normalised inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_nc.guards.functional_call import functional_call
from lightning_nc.tangent.inner_products import exact, gram_of, widened


class AffineNorm:
    r"""A layer :math:`w \odot \hat x + b`, with gradients sum g x^ for w and sum g for b.

    These are BatchNorm with running statistics, LayerNorm, GroupNorm, InstanceNorm and RMSNorm.

    Args:
        module: The layer.
        names: The parameters that count, out of ``weight`` and ``bias``.
        inputs: The layer's input in each run.
        samples: The number of samples m.
    """

    def __init__(
        self, module: nn.Module, names: set[str], inputs: Sequence[Tensor], samples: int
    ) -> None:
        self.names, self.m = names, samples
        weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, Tensor)
        neutral = {name: widened(b) for name, b in module.named_buffers()}
        neutral["weight"] = torch.ones_like(widened(weight))
        if isinstance(bias, Tensor):
            neutral["bias"] = torch.zeros_like(widened(bias))
        with torch.no_grad():
            self.normalised = [functional_call(module, neutral, (x,)) for x in inputs]
        self.shape = weight.shape
        # one weight per channel, on axis 1; otherwise one per element of the last axes
        self.of_channels = not isinstance(module, nn.LayerNorm | nn.RMSNorm)

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Return the inner products of the gradients of all samples; see `Gram`."""
        return gram_of(self._gradients, left, right)

    def _gradients(self, g: Sequence[Tensor]) -> Tensor:
        parts = []
        if "weight" in self.names:
            products = [a * b for a, b in zip(self.normalised, g, strict=True)]
            parts.append(torch.stack([self._sum(each) for each in products]).sum(0))
        if "bias" in self.names:
            parts.append(torch.stack([self._sum(each) for each in g]).sum(0))
        return torch.cat(parts, 1)

    def _sum(self, each: Tensor) -> Tensor:
        """Sum over the positions of each sample, shape ``(m, elements of the weight)``."""
        if self.of_channels:
            of_channels = exact(each).flatten(2).sum(2) if each.ndim > 2 else exact(each)
            return of_channels.reshape(self.m, -1, *self.shape).sum(1)
        return exact(each).reshape(self.m, -1, self.shape.numel()).sum(1)
