"""Which modules run when a network is called once, in what order, and what depends on what."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_nc.network.answers import beside, has_columns
from lightning_nc.network.head import shapes_held
from lightning_nc.network.module_run import ModuleRun, run_of
from lightning_nc.network.nesting import floating_tensor_in, replaced, tensors_in
from lightning_nc.network.points import named_modules
from lightning_nc.network.pooling import main_tensor


class Trace(NamedTuple):
    """A forward pass: runs in the order in which they ended, and the autograd graph.

    Attributes:
        runs: All runs.
        sources: Autograd nodes of the input, or of the embeddings of tokens.
        output: Autograd node of the network's output, or of a view of it; None if it has none.
        output_shape: Shape of the network's output; None if it is no tensor.
        returned_shape: Shape of the main tensor that the network returns, which `answering` may
            find to be features beside the logits.
        beside: Autograd node and shape of what else the network returns, by the code that takes it;
            see `answers.beside`.
        raw: The raw input if it is a floating-point tensor; None otherwise.
        modules: All modules by name, including those that did not run.
        shapes: Shapes of the floating-point tensors that each module holds itself, as they were
            when the network ran: FSDP1 has them whole at no other time.
    """

    runs: list[ModuleRun]
    sources: set[Any]
    output: Any
    output_shape: tuple[int, ...] | None
    returned_shape: tuple[int, ...] | None
    beside: dict[str, tuple[Any, tuple[int, ...]]]
    raw: Tensor | None
    modules: dict[str, nn.Module]
    shapes: dict[nn.Module, set[tuple[int, ...]]]

    def answering(self, columns: int) -> "Trace":
        """The same, of the output that has so many columns; see `answers.answer_of`."""
        shape = self.output_shape
        if shape is None or len(shape) < 2 or has_columns(shape, columns):
            return self
        fits = {way: part for way, part in self.beside.items() if has_columns(part[1], columns)}
        if not fits:
            return self
        way, (node, shape) = next(iter(fits.items()))
        others = {name: part for name, part in self.beside.items() if name != way}
        return self._replace(output=node, output_shape=shape, beside=others)

    def keys(self) -> list[tuple[str, int]]:
        """Return the key of each run."""
        return [run.key for run in self.runs]

    def last_weighted(self) -> ModuleRun | None:
        """Return the run of the last module with a weight matrix; None if there is none."""
        return next((run for run in reversed(self.runs) if run.rows is not None), None)

    def leading_to(self, nodes: Sequence[Any]) -> list[ModuleRun]:
        """Return the runs that some nodes were computed from; all runs if there are no nodes.

        Of runs without gradients it cannot be told. They are among them, unless the input is known
        to lead there without them: then they are beside, such as a teacher without gradients.
        """
        path = ancestors(nodes)
        beside = not path.isdisjoint(self.sources)
        leading = [
            run
            for run in self.runs
            if (not path.isdisjoint(run.nodes) if run.nodes else not beside)
        ]
        return leading if path and leading else self.runs

    def last_of(self, runs: Sequence[ModuleRun]) -> ModuleRun | None:
        """Return the last of some runs that leads to the output, or else the last of them.

        What runs twice, as on a second view, leads there with one run and makes a loss of another.
        """
        leading = {run.key for run in self.leading_to([self.output])}
        of_output = [run for run in runs if run.key in leading]
        return next(reversed(of_output or runs), None)

    def holds_matrix(self, module: nn.Module, features: int | None, rows: int) -> bool:
        """Whether a module holds a matrix from features to rows itself, however it is called."""
        held = self.shapes.get(module, set())
        return not held.isdisjoint({(rows, features), (features, rows)})

    def depends_on_input(self, without: set[Any]) -> bool:
        """Whether the output still depends on the input with some nodes detached."""
        return depends_on(self.output, self.sources, without)


def ancestors(nodes: Iterable[Any], without: Collection[Any] = ()) -> set[Any]:
    """Autograd nodes and all that they were computed from, with some nodes detached."""
    waiting, seen = [*nodes], set(without)
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return seen.difference(without)


def depends_on(node: Any, sources: set[Any], without: Collection[Any] = ()) -> bool:
    """Whether an autograd node was computed from one of others, with some nodes detached."""
    return not sources.isdisjoint(ancestors([node], without))


class _Needed(Exception):
    """A forward pass needs the values that its autograd graph was to do without."""


def trace(model: nn.Module, inputs: Any, call: Callable[[Any], Any]) -> Trace:
    """Call the network and record what ran, and its autograd graph.

    The graph holds no values, so that this takes no more memory than a forward pass without
    gradients, unless the network differentiates in its own forward pass. If no path leads from the
    output to the input, the network is called a second time, with gradients also where it turns
    them off or detaches, as after a frozen backbone: its output depends on the input all the same.

    Args:
        model: The network, in the state in which it is measured.
        inputs: The inputs of one batch.
        call: Calls the network with inputs.
    """
    found = _without_values(model, inputs, call, tokens=True)
    tokens = bool(found.sources) or found.raw is not None or floating_tensor_in(inputs) is None
    if not tokens:
        # the whole numbers are no tokens, such as labels of a network that takes the whole batch
        found = _without_values(model, inputs, call, tokens=False)
    if not found.sources or found.depends_on_input(without=set()):
        return found
    with ExitStack() as hooks:
        for module in named_modules(model).values():
            if not isinstance(module, torch.jit.ScriptModule):
                hooks.enter_context(module.register_forward_pre_hook(_turn_gradients_on))
        hooks.enter_context(_Attached())
        try:
            return _without_values(model, inputs, call, tokens)
        except RuntimeError:  # such as numpy(), which a tensor in a graph refuses
            return found


class _Attached(TorchFunctionMode):
    """What a network detaches stays in the graph, such as features for an online classifier."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.detach and args[0].grad_fn is not None:
            return args[0].view_as(args[0])
        return func(*args, **(kwargs or {}))


def _turn_gradients_on(*_: Any) -> None:
    torch.set_grad_enabled(True)  # until the block that turned them off ends


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
    counts: Counter[str] = Counter()
    sources, modules = _Sources(inputs), named_modules(model)
    names: dict[nn.Module, str] = {}
    shapes: dict[nn.Module, set[tuple[int, ...]]] = {}
    for name, module in modules.items():
        names.setdefault(module, name)

    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        before, name = runs[-1].channels if runs else None, names[module]
        for each in () if runs else names:
            shapes[each] = shapes_held(each)
        runs.append(run_of(name, counts[name], module, [args, kwargs], output, before))
        counts[name] += 1

    has_embedding = any(isinstance(module, nn.Embedding) for module in names)
    tokens_given = tokens and has_embedding and sources.have_whole_numbers
    raw = None if tokens_given else floating_tensor_in(inputs)
    with ExitStack() as hooks, torch.enable_grad():
        for module in names:
            if isinstance(module, torch.jit.ScriptModule):
                continue  # it accepts no hooks
            if tokens_given and isinstance(module, nn.Embedding):
                hooks.enter_context(module.register_forward_hook(sources.on_embedding))
            hooks.enter_context(module.register_forward_hook(record, with_kwargs=True))
        if raw is not None:
            inputs = replaced(inputs, raw, _source(raw, sources.given))
        returned = call(inputs)
        output = main_tensor(returned)
        node = _held_node(output) if isinstance(output, Tensor) else None
        parts = beside(returned, output) if isinstance(output, Tensor) else {}
        others = {way: (_held_node(part), tuple(part.shape)) for way, part in parts.items()}
    others = {way: other for way, other in others.items() if other[0] is not None}
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    origin = sources.given or sources.derived
    return Trace(runs, origin, node, shape, shape, others, raw, modules, shapes)


class _Sources:
    """The autograd nodes at which a graph begins: of the raw input, or of embedded tokens.

    Attributes:
        given: Nodes of what is given to the network.
        derived: Nodes of tokens that have the shape of given ones, such as tokens that were cast to
            another integer type.
    """

    def __init__(self, inputs: Any) -> None:
        self.given, self.derived = set[Any](), set[Any]()
        self._inputs = list(tensors_in(inputs))

    @property
    def have_whole_numbers(self) -> bool:
        """Whether inputs may be tokens."""
        return not all(map(Tensor.is_floating_point, self._inputs))

    def on_embedding(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Note an embedding of tokens (a forward hook)."""
        tokens = next(tensors_in(args), None)
        if tokens is None:
            return output
        if any(_same_memory(tokens, x) for x in self._inputs):
            return _source(output, self.given)
        if any(tokens.shape == x.shape for x in self._inputs):
            return _source(output, self.derived)
        return output


def _held_node(tensor: Tensor) -> Any:
    """Return an autograd node that keeps the graph of a tensor when the tensor is gone.

    In older torch, the node of a ``torch.autograd.Function``, such as that of a full backward hook,
    does not keep itself; that of a view keeps it.
    """
    return (tensor.view_as(tensor) if tensor.layout is torch.strided else tensor).grad_fn


def _source(tensor: Tensor, sources: set[Any]) -> Tensor:
    """Return a copy of a tensor, and add its autograd node to the sources."""
    # a clone, since networks may change their input in place, which a leaf forbids
    copy = tensor.detach().requires_grad_(True).clone()
    sources.add(copy.grad_fn)
    return copy


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr()
