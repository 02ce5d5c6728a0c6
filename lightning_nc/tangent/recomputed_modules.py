"""Modules without a closed form: the gradient of each sample by the module's backward pass."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from lightning_nc.guards.functional_call import functional_call
from lightning_nc.guards.torch_internals import tree_flatten, tree_unflatten, writes_so_far
from lightning_nc.tangent.inner_products import gram_of, widened
from lightning_nc.wording import first_sentence

_AT_ONCE = 2**26  # elements of the gradients that are held at a time


class ModuleCall:
    """The arguments of one call of a module.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    def __init__(self, args: Any, kwargs: Any) -> None:
        leaves, self.structure = tree_flatten((args, kwargs))
        self.leaves = [x.detach() if isinstance(x, Tensor) else x for x in leaves]
        self._versions = self._now()

    def tensors(self) -> list[Tensor]:
        """Return the tensors in the arguments, at any depth."""
        return [x for x in self.leaves if isinstance(x, Tensor)]

    def unchanged(self) -> bool:
        """Whether none of the tensors has been written to since the call."""
        return self._versions == self._now()

    def _now(self) -> list[float]:
        return [writes_so_far(x) for x in self.tensors() if not x.is_inference()]

    def arguments(self, tensors: Sequence[Tensor]) -> Any:
        """Return the positional and keyword arguments with these tensors in place of their own."""
        others = iter(tensors)
        leaves = [next(others) if isinstance(x, Tensor) else x for x in self.leaves]
        return tree_unflatten(leaves, self.structure)


class Recomputed:
    """A module that ran and is differentiated through its forward pass.

    Gradients come from `torch.func.vmap` over samples. Where that fails (data-dependent control
    flow, operations without a batching rule), they come from one backward pass per sample.

    Args:
        module: The module.
        parameters: The parameters that count, by their names within the module.
        runs: The arguments of each run.
        batched: For each run and tensor, whether the first axis is the sample axis.
        samples: The number of samples m.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, Tensor],
        runs: Sequence[ModuleCall],
        batched: Sequence[Sequence[bool]],
        samples: int,
    ) -> None:
        self.module, self.runs, self.batched, self.m = module, runs, batched, samples
        self.parameters = {name: p.detach() for name, p in parameters.items()}
        self.others = _widened_others(module, parameters)
        self.one_by_one: str | None = None  # why gradients are computed sample by sample

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Return the inner products of the gradients of all samples; see `Gram`."""
        of_groups = (partial(self._gradients, parameters=group) for group in self._groups())
        return torch.stack([gram_of(each, left, right) for each in of_groups]).sum(0)

    def _groups(self) -> Iterator[dict[str, Tensor]]:
        """Yield the parameters in groups whose gradients fit into memory together."""
        group: dict[str, Tensor] = {}
        for name, p in self.parameters.items():
            if group and self.m * sum(map(torch.numel, [*group.values(), p])) > _AT_ONCE:
                yield group
                group = {}
            group[name] = p
        yield group

    def _gradients(self, g: Sequence[Tensor], parameters: dict[str, Tensor]) -> Tensor:
        """Return each sample's gradient, summed over runs, shape ``(m, parameter elements)``."""
        if self.one_by_one is None:
            try:
                return self._by_vmap(g, parameters)
            except Exception as error:  # under vmap a module's code may raise anything
                # the advice of torch is not for the user
                self.one_by_one = first_sentence(str(error)) or type(error).__name__
        return self._by_samples(g, parameters)

    def _by_vmap(self, g: Sequence[Tensor], parameters: dict[str, Tensor]) -> Tensor:
        of_runs = []
        for number, each in enumerate(g):

            def gradient(own: list[Tensor], out: Tensor, number: int = number) -> Tensor:
                def forward(p: dict[str, Tensor]) -> Tensor:
                    return self._output(number, own, p)

                backward: Any = vjp(forward, parameters)[1]
                (gradients,) = backward(out)
                return torch.cat([gradients[name].flatten() for name in parameters])

            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")  # in attention
                of_runs.append(vmap(gradient)(self._own(number), self._cut(each)))
        return torch.stack(of_runs).sum(0)

    def _by_samples(self, g: Sequence[Tensor], parameters: dict[str, Tensor]) -> Tensor:
        of_runs = []
        for number, each in enumerate(g):
            of_samples = []
            for *own, out in zip(*self._own(number), self._cut(each), strict=True):
                p = {name: value.detach().requires_grad_() for name, value in parameters.items()}
                with torch.enable_grad():
                    output = self._output(number, own, p)
                gradients = torch.autograd.grad(
                    output, list(p.values()), out, materialize_grads=True
                )
                of_samples.append(torch.cat([gradient.flatten() for gradient in gradients]))
            of_runs.append(torch.stack(of_samples))
        return torch.stack(of_runs).sum(0)

    def _output(self, number: int, own: Sequence[Tensor], p: dict[str, Tensor]) -> Tensor:
        """Return the output of a run for one sample, given that sample's tensors."""
        of_sample, run = iter(own), self.runs[number]
        pairs = zip(run.tensors(), self.batched[number], strict=True)
        args, kwargs = run.arguments([next(of_sample) if own else x for x, own in pairs])
        buffers = {name: widened(b.clone()) for name, b in self.module.named_buffers()}
        tensors = {**self.others, **buffers, **p}
        return first_tensor(functional_call(self.module, tensors, args, kwargs))

    def _own(self, number: int) -> list[Tensor]:
        """Return the tensors of a run cut into samples, without those that all samples share."""
        pairs = zip(self.runs[number].tensors(), self.batched[number], strict=True)
        return [self._cut(x) for x, own in pairs if own]

    def _cut(self, x: Tensor) -> Tensor:
        """Group rows by sample; a sample may have several, such as the windows of an image."""
        return x.reshape(self.m, -1, *x.shape[1:])


def _widened_others(module: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the other half-precision parameters in float32, as in the run of the network."""
    by_all_names = dict(module.named_parameters(remove_duplicate=False))
    given = {id(by_all_names[name]) for name in parameters}
    others = {name: p for name, p in module.named_parameters() if id(p) not in given}
    wide = {name: widened(p.detach()) for name, p in others.items()}
    return {name: p for name, p in wide.items() if p.dtype != others[name].dtype}


def first_tensor(output: Any) -> Any:
    """Return the output itself, or the first item of a tuple or list."""
    return output[0] if type(output) in (tuple, list) and output else output
