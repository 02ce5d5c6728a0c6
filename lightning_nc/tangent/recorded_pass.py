"""One forward pass of which the inner products of gradients are made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lightning_nc.guards.torch_internals import convolves_like
from lightning_nc.tangent.affine_norms import AffineNorm
from lightning_nc.tangent.convolution import Convolution
from lightning_nc.tangent.outer_products import Embedding, Linear, OuterProducts
from lightning_nc.tangent.parameter_owners import Owner
from lightning_nc.tangent.recomputed_modules import ModuleCall, Recomputed, first_tensor

_CONVOLUTIONS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)


class Gram(Protocol):
    """What an owner adds to inner products of gradients."""

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """From gradients of its outputs, by run: shape ``(m, m)``, float64."""


class _Tap(NamedTuple):
    """The place of an owner's output in the graph; none if no gradient comes there."""

    edge: Any
    zeros: Callable[[], Tensor]


class RecordedPass:
    """A forward pass in which owners keep their inputs, and their outputs are tapped.

    Args:
        owners: The modules to watch.
    """

    def __init__(self, owners: Iterable[Owner]) -> None:
        self.owners = {owner.path: owner for owner in owners}
        self.runs: dict[str, list[ModuleCall]] = {path: [] for path in self.owners}
        self._taps: dict[str, list[_Tap]] = {path: [] for path in self.owners}

    def forward(self, run: Callable[[], Tensor]) -> Tensor:
        """ModuleCall the network; its output."""
        with ExitStack() as hooks:
            for path, owner in self.owners.items():
                # first of all hooks: others may change the output
                hook = owner.module.register_forward_hook(
                    partial(self._tap, path), with_kwargs=True, prepend=True
                )
                hooks.enter_context(hook)
            return run()

    def keep(self, parameters: set[str]) -> None:
        """Leave out what does not answer for any of these parameters."""
        for path, owner in list(self.owners.items()):
            kept = {name: local for name, local in owner.parameters.items() if name in parameters}
            self.owners[path] = owner._replace(parameters=kept)
            if not kept:
                del self.owners[path], self.runs[path], self._taps[path]

    def gradients(self, output: Tensor, direction: Tensor) -> dict[str, list[Tensor]]:
        """Gradients of each run of each owner's output, given that of the network's output."""
        edges = [tap.edge for taps in self._taps.values() for tap in taps if tap.edge is not None]
        found = iter(
            torch.autograd.grad(output, edges, direction, retain_graph=True, allow_unused=True)
        )
        gradients = {}
        for path, taps in self._taps.items():
            of_runs = [None if tap.edge is None else next(found) for tap in taps]
            pairs = zip(of_runs, taps, strict=True)
            gradients[path] = [tap.zeros() if g is None else g for g, tap in pairs]
        return gradients

    def gram_of(
        self, path: str, parameters: Mapping[str, Tensor], samples: int, directions: int
    ) -> Gram:
        """The cheapest way to inner products of gradients that an owner allows."""
        owner, runs = self.owners[path], self.runs[path]
        module: Any = owner.module
        names, inputs = set(owner.parameters.values()), [run.tensors() for run in runs]
        if names <= {"weight", "bias"} and all(len(tensors) == 1 for tensors in inputs):
            x = [tensors[0] for tensors in inputs]
            kind = _outer_products(module, x)
            if kind is not None:
                return kind(module, names, x, samples, directions)
            if type(module).forward in [norm.forward for norm in _NORMS]:
                return AffineNorm(module, names, x, samples)
        own = {local: parameters[name] for name, local in owner.parameters.items()}
        return Recomputed(module, own, runs, owner.batched, samples)

    def _tap(self, path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        out = first_tensor(output)
        self.runs[path].append(ModuleCall(args, kwargs))
        zeros = partial(torch.zeros, out.shape, dtype=out.dtype, device=out.device)
        if not out.requires_grad:
            self._taps[path].append(_Tap(None, zeros))
            return None
        # a clone: what comes next may write to the output, and its gradient is wanted as it was
        tapped = out.clone()
        self._taps[path].append(_Tap(torch.autograd.graph.get_gradient_edge(tapped), zeros))
        return tapped if out is output else type(output)((tapped, *output[1:]))


def _outer_products(module: Any, inputs: list[Tensor]) -> type[OuterProducts] | None:
    """How a layer's weight gradient is made of outer products; None if it is not, or not surely."""
    forward = type(module).forward  # of a subclass it may be another
    if forward is nn.Linear.forward:
        return Linear
    if forward is nn.Embedding.forward:
        plain = module.max_norm is None and not module.scale_grad_by_freq
        return Embedding if plain else None
    for kind in _CONVOLUTIONS:
        if convolves_like(module, kind):
            with_channels_second = all(x.ndim == len(module.stride) + 2 for x in inputs)
            return Convolution if with_channels_second else None
    return None
