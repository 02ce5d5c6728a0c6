"""Convolutions as sums of outer products: the input at each position is a patch."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from lightning_nc.tangent.outer_products import OuterProducts, slices

_SMALLER = 8  # parts of patches on a CPU, by this factor, so that they stay in its cache
_WEIGHT_GRADIENT: dict[int, Any] = {1: conv1d_weight, 2: conv2d_weight, 3: conv3d_weight}


class Convolution(OuterProducts):
    """An `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`; the arguments are those of `OuterProducts`."""

    def __init__(
        self, module: Any, names: set[str], inputs: Sequence[Tensor], samples: int, directions: int
    ) -> None:
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padded = [F.pad(x, _padding(module), mode=mode) for x in inputs]
        super().__init__(module, names, padded, samples, directions)
        self.in_groups = module.groups

    def positions(self) -> int:
        """Return the number of output positions per sample, over all runs."""
        return sum(len(x) * math.prod(self._places(x)) for x in self.runs) // self.m

    def output_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Return the gradients at all positions of all runs, channels last."""
        by_place = [each.flatten(2).mT for each in g]
        return torch.cat([each.reshape(self.m, -1, each.shape[2]) for each in by_place], 1)

    def bias_gradients(self, g: Sequence[Tensor]) -> Tensor:
        """Return each sample's sum over the positions of all runs."""
        of_runs = [each.flatten(2).sum(2).view(self.m, -1, each.shape[1]).sum(1) for each in g]
        return torch.stack(of_runs).sum(0)

    def input_products(self, samples: slice) -> Tensor:
        """Return the inner products of patches."""
        patches = [self._patches(x) for x in self.runs]
        a = torch.cat([each.reshape(self.m, -1, each.shape[2]) for each in patches], 1)
        return a[samples].flatten(0, 1) @ a[samples.start :].flatten(0, 1).mT

    def weight_gradients(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        """Return each sample's product of output gradients and patches; groups share none."""
        return (self._sample_by_sample if self.in_groups > 1 else self._by_patches)(g, rows)

    def _by_patches(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        k, total = self.module.weight[0].numel(), None
        for x, each in zip(self.runs, g, strict=True):
            b = each[:, rows].flatten(2)
            if len(x) > self.m:  # a run may have several rows of a batch for each sample
                b = b.view(self.m, -1, *b.shape[1:]).movedim(1, 2).flatten(2)
            per = len(x) // self.m
            size = b.shape[2] * k * (_SMALLER if x.device.type == "cpu" else 1)
            if total is None:
                total = b.new_zeros(self.m, b.shape[1], k)
            for part in slices(self.m, size):
                patches = self._patches(x[part.start * per : part.stop * per])
                total[part].baddbmm_(b[part], patches.reshape(-1, b.shape[2], k))
        assert total is not None
        return total.flatten(1)

    def _sample_by_sample(self, g: Sequence[Tensor], rows: slice) -> Tensor:
        layer = self.module
        shape = layer.weight[rows].shape
        step, gradient = (layer.stride, 0, layer.dilation), _WEIGHT_GRADIENT[len(layer.stride)]
        of_runs = []
        for x, each in zip(self.runs, g, strict=True):
            cut = zip(x.chunk(self.m), each[:, rows].chunk(self.m), strict=True)
            of_samples = [gradient(a, shape, b, *step, layer.groups).flatten() for a, b in cut]
            of_runs.append(torch.stack(of_samples))
        return torch.stack(of_runs).sum(0)

    def _places(self, x: Tensor) -> list[int]:
        sizes = zip(x.shape[2:], *self._windows(), strict=True)
        return [(n - dilation * (k - 1) - 1) // s + 1 for n, k, s, dilation in sizes]

    def _patches(self, x: Tensor) -> Tensor:
        """Return what the kernel sees at each position, shape ``(n, T, k)``."""
        spatial = len(self.module.stride)
        for axis, (k, stride, dilation) in enumerate(zip(*self._windows(), strict=True), 2):
            x = x.unfold(axis, dilation * (k - 1) + 1, stride)[..., ::dilation]
        # from (n, channels, positions..., offsets within the kernel...); positions stay last, next
        # to one another in memory, since that is the fastest way to copy them
        offsets_first = x.movedim(tuple(range(-spatial, 0)), tuple(range(2, 2 + spatial)))
        return offsets_first.flatten(2 + spatial).flatten(1, 1 + spatial).mT

    def _windows(self) -> tuple[Any, Any, Any]:
        return self.module.kernel_size, self.module.stride, self.module.dilation


def _padding(module: Any) -> list[int]:
    """Return the padding before and after each axis, last axis first, as `F.pad` expects it."""
    sides: list[int] = []
    for axis in reversed(range(len(module.stride))):
        if module.padding == "same":  # output as long as input; an odd remainder goes after
            total = module.dilation[axis] * (module.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        else:
            sides += [0 if module.padding == "valid" else module.padding[axis]] * 2
    return sides
