"""Find the blocks and the head of a network from one forward pass."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import nn

from lightning_nc.guards.unobtrusive import unobtrusive
from lightning_nc.network.calling import calling
from lightning_nc.network.module_run import ModuleRun
from lightning_nc.network.points import (
    Point,
    Pool,
    contained,
    input_name,
    points_of_runs,
    script_advice,
)
from lightning_nc.network.trace import Trace, ancestors, trace
from lightning_nc.network.unpacking import unpack_batch

# of torch's own modules, those that their authors call layers of a network
_TORCH_BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_NOT_NONLINEARITIES = (
    nn.MultiheadAttention,
    nn.Softmax,
    nn.Softmax2d,
    nn.LogSoftmax,
    nn.Softmin,
)


def find_blocks(model: nn.Module, batch: Any) -> list[str]:
    """Return the names of the layers that ``layers="blocks"`` selects in a network.

    Layer 0 is the raw input, if it is a floating-point tensor. The next layers, in running order,
    are the modules of one class that is not torch's own, or of ``nn.TransformerEncoderLayer`` or
    ``nn.TransformerDecoderLayer``. A class is a candidate if two or more instances ran, of which
    none is inside another, and every one of them is a bottleneck: with its output detached, the
    network's output no longer depends on the input (for tokens, on their embedding). The candidate
    with the most instances is chosen; on a tie, the outermost. Without a candidate, it is a module
    that runs again and again, as in ALBERT, if every run is a bottleneck; otherwise every
    nonlinearity that ran is a layer. A module that runs several times is a layer for each run that
    leads to the head. Logits are never a layer, nor is what does not lead to the head, such as an
    auxiliary branch or a second view, and what is inside a ScriptModule cannot be seen.

    Args:
        model: The network; it is left as it was.
        batch: A batch as the network's loader yields it, or only the inputs.

    Returns:
        The names of the layers, in running order.

    Raises:
        ValueError: If no layer is found. Name the layers with ``layers=`` in this case.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> find_blocks(model, torch.zeros(5, 4))
        ['input', '1']
    """
    way = calling(model)
    try:
        inputs = way.inputs_of(batch, unpack_batch(batch)[0])
    except TypeError:
        inputs = batch
    with unobtrusive(model):
        found = trace(model, inputs, way.function)
    head = find_head(found, None, None)
    return [point.name for point in block_points(found, head)]


def block_points(found: Trace, head: ModuleRun | None, pool: Pool = "auto") -> list[Point]:
    """Return the points of ``layers="blocks"``; see `find_blocks` for the rule.

    Args:
        found: A traced forward pass.
        head: The head's run; None without a head.
        pool: Makes (N, d) features of a block's output.

    Raises:
        ValueError: If no block is found.
    """
    last = [found.output] if head is None else head.nodes
    hidden = _before_logits(found.leading_to(last), head)
    chosen = _of_bottlenecks(found, hidden) or _nonlinearities(hidden)
    if not chosen:
        raise ValueError(
            "Found no blocks: there is no class of modules with two or more instances that the "
            "signal must pass through, and no nonlinearity module. Name the layers: "
            'layers=["layer1", "layer2"], globs such as "encoder.layer.*", or '
            f"{{name: callable}}.{script_advice(found.modules)}"
        )
    raw = Point(input_name([run.name for run in found.runs]), None)
    points = points_of_runs([run.key for run in chosen], found.keys(), pool)
    return points if found.raw is None else [raw, *points]


def find_head(found: Trace, name: str | None, classes_seen: int | None) -> ModuleRun | None:
    """Find the head: the last module to run with one weight row per class, or one row for two.

    Args:
        found: A traced forward pass.
        name: The head's name, if the user gives it.
        classes_seen: Largest label + 1, if known. The head is the last module with this many rows,
            of those that lead to the network's output if any do. Without one, it is the last module
            with a weight matrix if that has more rows (then a class is missing).

    Returns:
        The head's run; None if no head is found.

    Raises:
        ValueError: If a named head does not run or has no weight matrix.
    """
    candidates = [run for run in found.runs if run.rows is not None]
    if name is not None:
        named = [run for run in found.runs if run.module is found.modules.get(name)]
        head = found.last_of([run._replace(rows=_rows_of(run)) for run in named])
        if head is None or head.rows is None:
            silent = not named and name in found.modules
            way = f" If it takes what the network returns, {call_advice(name)}" if silent else ""
            raise ValueError(
                f"The head '{name}' has no weight matrix or never runs. The last modules that have "
                f"one and run are {', '.join(repr(run.name) for run in candidates[-5:])}.{way}"
                f"{script_advice(found.modules)}"
            )
        return head
    if classes_seen is None:
        return candidates[-1] if candidates else None

    rows = {classes_seen, 1} if classes_seen == 2 else {classes_seen}
    # an auxiliary head, or that of another task, does not lead to the output that decides
    best = found.last_of([run for run in candidates if run.rows in rows])
    larger = [run for run in candidates[-1:] if run.rows is not None and run.rows > classes_seen]
    return best or next(iter(larger), None)


def call_advice(name: str) -> str:
    """What to do about a head that the network does not call itself."""
    return f"call it: Probe(..., forward=lambda module, inputs: module.{name}(module(inputs)))."


def returns_more(found: Trace, name: str) -> bool:
    """Whether the output depends on tensors that a block returns beside the main one."""
    runs = [run for run in found.runs if run.name == name]
    if not all(len(run.nodes) > 1 and run.main in run.nodes for run in runs):
        return False
    return found.depends_on_input(without={run.main for run in runs})


def first_apart(runs: Sequence[ModuleRun], found: Trace) -> tuple[ModuleRun, ModuleRun] | None:
    """The first of some runs that is not computed from the one before, with that one.

    Of runs whose way from the input is not known, as without gradients, it cannot be told.
    """
    known: list[ModuleRun] = []
    for run in runs:
        behind = ancestors(run.nodes)
        if behind.isdisjoint(found.sources):
            continue
        if known and behind.isdisjoint(known[-1].nodes):
            return known[-1], run
        known.append(run)
    return None


def is_bypassed(found: Trace, head: ModuleRun) -> bool:
    """Whether the output depends on a head, and on the input also by a way around it."""
    nodes = {node for run in found.runs if run.module is head.module for node in run.nodes}
    leads = not ancestors([found.output]).isdisjoint(nodes)
    return leads and found.depends_on_input(without=nodes)


def _rows_of(run: ModuleRun) -> int | None:
    """Rows of a module's weight matrix, or of the affine map that its parts may make together."""
    if run.rows is not None or run.shape is None or len(run.shape) < 2:
        return run.rows
    holds = next(chain(run.module.parameters(), run.module.buffers()), None) is not None
    return run.shape[-1] if holds else None


def _before_logits(runs: list[ModuleRun], head: ModuleRun | None) -> list[ModuleRun]:
    """Return the runs that end before the head's; no logits are among them."""
    if head is None:
        return runs
    end = max(position for position, run in enumerate(runs) if run.module is head.module)
    inside = f"{head.name}."
    before = [run for run in runs[:end] if run.module is not head.module]
    return [run for run in before if not run.name.startswith(inside)]


def _of_bottlenecks(found: Trace, hidden: list[ModuleRun]) -> list[ModuleRun]:
    """Return the runs of the modules of the chosen class; empty if there is none."""
    classes: dict[type, dict[str, list[ModuleRun]]] = {}
    for run in hidden:
        kind = _written_class(run.module)
        if not kind.__module__.startswith("torch.") or issubclass(kind, _TORCH_BLOCKS):
            classes.setdefault(kind, {}).setdefault(run.name, []).append(run)
    for instances in classes.values():
        for inner in contained(instances):
            del instances[inner]
    # outermost first, because it is chosen on a tie
    by_depth = sorted(classes.values(), key=lambda names: min(name.count(".") for name in names))
    several = [[*names.values()] for names in by_depth if len(names) > 1]
    in_loops = [[[run] for run in chain(*names.values())] for names in by_depth if len(names) == 1]
    chosen = _most_bottlenecks(found, several) or _most_bottlenecks(found, in_loops)
    names = {run.name for run in chain(*chosen)}
    return [run for run in hidden if run.name in names]


def _most_bottlenecks(found: Trace, classes: list[list[list[ModuleRun]]]) -> list[list[ModuleRun]]:
    """Return the longest list of two or more bottlenecks, of which each is one or several runs."""
    best: list[list[ModuleRun]] = []
    for layers in classes:
        if len(layers) > max(len(best), 1) and all(_is_bottleneck(found, runs) for runs in layers):
            best = layers
    return best


def _is_bottleneck(found: Trace, runs: list[ModuleRun]) -> bool:
    outputs = {node for run in runs for node in run.nodes}
    return bool(outputs) and not found.depends_on_input(without=outputs)


def _nonlinearities(hidden: list[ModuleRun]) -> list[ModuleRun]:
    return [
        run
        for run in hidden
        if (kind := _written_class(run.module)).__module__ == "torch.nn.modules.activation"
        and kind not in _NOT_NONLINEARITIES
    ]


def _written_class(module: nn.Module) -> type:
    """A module's class as written by its author: FSDP2 and parametrizations derive their own."""
    made = ("torch.distributed.", "torch.nn.utils.")
    return next(kind for kind in type(module).__mro__ if not kind.__module__.startswith(made))
