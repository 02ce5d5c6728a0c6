"""Normalisation layers: a scale and a shift of normalised inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_nc.tangent.inner_products import exact, gram, widened


class AffineNorm:
    r"""A layer of the form :math:`w \odot \hat x + b`, with the gradients sum g x^ and sum g.

    BatchNorm with running statistics, LayerNorm, GroupNorm, InstanceNorm and RMSNorm are.

    Args:
        module: The layer.
        names: Which of its parameters count, of ``weight`` and ``bias``.
        inputs: Its input in each run.
        samples: Their number m.
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
        # of channels, which come second; else of the last axes
        self.of_channels = not isinstance(module, nn.LayerNorm | nn.RMSNorm)

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Inner products of the gradients of all samples, shape ``(m, m)``, float64."""
        gradients = self._gradients(left)
        others = gradients if left is right else self._gradients(right)
        return gram(gradients, others)

    def _gradients(self, g: Sequence[Tensor]) -> Tensor:
        parts = []
        if "weight" in self.names:
            products = [a * b for a, b in zip(self.normalised, g, strict=True)]
            parts.append(torch.stack([self._sum(each) for each in products]).sum(0))
        if "bias" in self.names:
            parts.append(torch.stack([self._sum(each) for each in g]).sum(0))
        return torch.cat(parts, 1)

    def _sum(self, each: Tensor) -> Tensor:
        """Over all positions of a sample, shape ``(m, numbers of the weight)``."""
        if self.of_channels:
            of_channels = exact(each).flatten(2).sum(2) if each.ndim > 2 else exact(each)
            return of_channels.reshape(self.m, -1, *self.shape).sum(1)
        return exact(each).reshape(self.m, -1, self.shape.numel()).sum(1)
