"""One forward pass from which the inner products of gradients are computed."""

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
    """An owner's contribution to the inner products of gradients."""

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Return the inner products of the gradients of all samples.

        Args:
            left: Gradients of the owner's outputs, one tensor per run.
            right: Other gradients of the outputs, or the same.

        Returns:
            Shape ``(m, m)``, float64.
        """


class _Tap(NamedTuple):
    """The edge of an owner's output in the autograd graph; None if no gradient reaches it."""

    edge: Any
    zeros: Callable[[], Tensor]


class RecordedPass:
    """A forward pass that records the inputs of owners and taps their outputs for gradients.

    Args:
        owners: The owners to watch.
    """

    def __init__(self, owners: Iterable[Owner]) -> None:
        self.owners = {owner.path: owner for owner in owners}
        self.runs: dict[str, list[ModuleCall]] = {path: [] for path in self.owners}
        self._taps: dict[str, list[_Tap]] = {path: [] for path in self.owners}

    def forward(self, run: Callable[[], Tensor]) -> Tensor:
        """Run the network and return its output."""
        with ExitStack() as hooks:
            for path, owner in self.owners.items():
                # before all other hooks, which may change the output
                hook = owner.module.register_forward_hook(
                    partial(self._tap, path), with_kwargs=True, prepend=True
                )
                hooks.enter_context(hook)
            return run()

    def keep(self, parameters: set[str]) -> None:
        """Restrict the owners to these parameters, and drop owners that have none of them."""
        for path, owner in list(self.owners.items()):
            kept = {name: local for name, local in owner.parameters.items() if name in parameters}
            self.owners[path] = owner._replace(parameters=kept)
            if not kept:
                del self.owners[path], self.runs[path], self._taps[path]

    def gradients(self, output: Tensor, direction: Tensor) -> dict[str, list[Tensor]]:
        """Return the gradients of the owners' outputs, given that of the network's output.

        Args:
            output: The network's output, shape ``(m, C)``.
            direction: Its gradient, shape ``(m, C)``.

        Returns:
            For each owner's path, one gradient per run.
        """
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
        """Choose the cheapest way to compute an owner's inner products of gradients.

        Args:
            path: The owner's path.
            parameters: Parameters by full name.
            samples: The number of samples m.
            directions: The number of output directions.
        """
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
        # a clone: later operations may write to the output, and its gradient before that is needed
        tapped = out.clone()
        self._taps[path].append(_Tap(torch.autograd.graph.get_gradient_edge(tapped), zeros))
        return tapped if out is output else type(output)((tapped, *output[1:]))


def _outer_products(module: Any, inputs: list[Tensor]) -> type[OuterProducts] | None:
    """Return the class for a layer whose weight gradient sums outer products; None if unsure."""
    forward = type(module).forward  # a subclass may override it
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
