"""Which modules run when a network is called once, in what order, and what depends on what."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_nc.network.nesting import floating_tensor_in, replaced, tensors_in
from lightning_nc.network.points import named_modules
from lightning_nc.network.pooling import main_tensor


class ModuleRun(NamedTuple):
    """One run of one module within a forward pass.

    Attributes:
        name: Clean name of the module.
        module: The module itself.
        nodes: Autograd nodes of its output tensors.
        features: Size of the last axis of its first input tensor; None without one.
        rows: Rows of its weight matrix; None without one.
    """

    name: str
    module: nn.Module
    nodes: list[Any]
    features: int | None
    rows: int | None


class Trace(NamedTuple):
    """A forward pass: runs in the order in which they ended, and the autograd graph.

    Attributes:
        runs: All runs.
        sources: Autograd nodes of the input, or of the embeddings of tokens.
        output: Autograd node of the network's output; None if it has none.
        raw: The raw input if it is a floating-point tensor; None otherwise.
        modules: All modules by name, including those that did not run.
    """

    runs: list[ModuleRun]
    sources: set[Any]
    output: Any
    raw: Tensor | None
    modules: dict[str, nn.Module]

    def runs_of_each(self) -> dict[str, int]:
        """Return how often each module ran, in running order."""
        return dict(Counter(run.name for run in self.runs))

    def depends_on_input(self, without: set[Any]) -> bool:
        """Whether the output still depends on the input with some nodes detached."""
        waiting, seen = [self.output], set(without)
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            if node in self.sources:
                return True
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
        return False


class _Needed(Exception):
    """A forward pass needs the values that its autograd graph was to do without."""


def trace(model: nn.Module, inputs: Any, call: Callable[[Any], Any]) -> Trace:
    """Call the network once and record what ran, and its autograd graph.

    The graph holds no values, so that this takes no more memory than a forward pass without
    gradients, unless the network differentiates in its own forward pass.

    Args:
        model: The network, in the state in which it is measured.
        inputs: The inputs of one batch.
        call: Calls the network with inputs.
    """
    found = _without_values(model, inputs, call, tokens=True)
    if found.sources or found.raw is not None or floating_tensor_in(inputs) is None:
        return found
    # the whole numbers are no tokens, such as labels of a network that takes the whole batch
    return _without_values(model, inputs, call, tokens=False)


def _without_values(
    model: nn.Module, inputs: Any, call: Callable[[Any], Any], tokens: bool
) -> Trace:
    try:
        with torch.autograd.graph.saved_tensors_hooks(lambda _: None, _refuse):
            return _trace(model, inputs, call, tokens)
    except _Needed:
        return _trace(model, inputs, call, tokens)


def _refuse(_: None) -> Tensor:
    raise _Needed


def _trace(model: nn.Module, inputs: Any, call: Callable[[Any], Any], tokens: bool) -> Trace:
    runs: list[ModuleRun] = []
    sources: set[Any] = set()
    derived_sources: set[Any] = set()
    names: dict[nn.Module, str] = {}
    modules = named_modules(model)
    for name, module in modules.items():
        names.setdefault(module, name)

    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        nodes = [tensor.grad_fn for tensor in tensors_in(output) if tensor.grad_fn is not None]
        first = next(tensors_in([args, kwargs]), None)
        features = first.shape[-1] if first is not None and first.ndim else None
        runs.append(ModuleRun(names[module], module, nodes, features, _weight_rows(module)))

    def embed(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        tokens = next(tensors_in(args), None)
        if tokens is None:
            return output
        if any(_same_memory(tokens, given) for given in given_tensors):
            return _source(output, sources)
        if any(tokens.shape == given.shape for given in given_tensors):
            return _source(output, derived_sources)  # such as tokens cast to another integer type
        return output

    given_tensors = list(tensors_in(inputs))
    whole_numbers = any(not tensor.is_floating_point() for tensor in given_tensors)
    has_embedding = any(isinstance(module, nn.Embedding) for module in names)
    tokens_given = tokens and whole_numbers and has_embedding
    raw = None if tokens_given else floating_tensor_in(inputs)
    with ExitStack() as hooks, torch.enable_grad():
        for module in names:
            if isinstance(module, torch.jit.ScriptModule):
                continue  # it accepts no hooks
            if tokens_given and isinstance(module, nn.Embedding):
                hooks.enter_context(module.register_forward_hook(embed))
            hooks.enter_context(module.register_forward_hook(record, with_kwargs=True))
        if raw is not None:
            inputs = replaced(inputs, raw, _source(raw, sources))
        output = main_tensor(call(inputs))
    node = output.grad_fn if isinstance(output, Tensor) else None
    return Trace(runs, sources or derived_sources, node, raw, modules)


def _source(tensor: Tensor, sources: set[Any]) -> Tensor:
    """Return a copy of a tensor, and add its autograd node to the sources."""
    # a clone, since networks may change their input in place, which a leaf forbids
    copy = tensor.detach().requires_grad_(True).clone()
    sources.add(copy.grad_fn)
    return copy


def _weight_rows(module: nn.Module) -> int | None:
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Embedding) or not isinstance(weight, Tensor) or weight.ndim < 2:
        return None
    return weight.shape[0]


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr()
