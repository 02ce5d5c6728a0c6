"""The blocks of a network, and its head, found by looking at one forward pass."""

from functools import partial
from typing import Any

from torch import nn

from lightning_nc.guards.unobtrusive import unobtrusive
from lightning_nc.network.capture import call_model
from lightning_nc.network.labels import unpack_batch
from lightning_nc.network.points import INPUT, Point, Pool, points_of_runs
from lightning_nc.network.trace import ModuleRun, Trace, trace

_NOT_NONLINEARITIES = (
    nn.MultiheadAttention,
    nn.Softmax,
    nn.Softmax2d,
    nn.LogSoftmax,
    nn.Softmin,
)


def find_blocks(model: nn.Module, batch: Any) -> list[str]:
    """Show which points ``layers="blocks"`` stands for in a network.

    Point 0 is the raw input (of floating point). Then, in running order, the modules of one class
    that is not torch's own: of the classes with two or more instances that ran, those are kept
    whose every instance is a bottleneck (with its output detached, the network's output no longer
    depends on the input, or for tokens on their embedding), and of these the class with the most
    instances is taken, on a tie the outermost. Without such a class it is every nonlinearity that
    ran. Logits are never a point.

    Args:
        model: The network; left as it was.
        batch: A batch as the network's loader yields it, or its inputs alone.

    Raises:
        ValueError: If nothing is found; name the layers then.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> find_blocks(model, torch.zeros(5, 4))
        ['input', '1']
    """
    try:
        inputs, _ = unpack_batch(batch)
    except TypeError:
        inputs = batch
    with unobtrusive(model):
        found = trace(model, inputs, partial(call_model, model))
    head = find_head(found, None, None)
    return [point.name for point in block_points(found, head)]


def block_points(found: Trace, head: ModuleRun | None, pool: Pool | None = None) -> list[Point]:
    """The points of ``layers="blocks"``; see `find_blocks` for the rule.

    Raises:
        ValueError: If nothing is found.
    """
    hidden = _before_logits(found.runs, head)
    chosen = _bottleneck_class(found, hidden) or _nonlinearities(hidden)
    if not chosen:
        raise ValueError(
            "Found no blocks: no class of modules with two or more instances that the signal must "
            "pass, and no nonlinearity module. Name the layers: "
            'layers=["layer1", "layer2"], globs such as "encoder.layer.*", or '
            "{name: callable}."
        )
    first = [Point(INPUT, None)] if found.raw is not None else []
    return first + [
        point for name, runs in chosen.items() for point in points_of_runs(name, runs, pool)
    ]


def find_head(found: Trace, name: str | None, classes_seen: int | None) -> ModuleRun | None:
    """The classifier: the last module to run with a weight row per class, or one row for two.

    Args:
        found: A forward pass.
        name: The head's name, if the user gives it.
        classes_seen: Largest label + 1, if known. Of modules with as many rows the last is taken;
            if there is none, the last of all if it has more (then a class is missing).

    Raises:
        ValueError: If a named head does not run or has no weight matrix.
    """
    candidates = [run for run in found.runs if run.rows is not None]
    if name is not None:
        named = [run for run in candidates if run.module is found.modules.get(name)]
        if not named:
            raise ValueError(
                f"The head '{name}' has no weight matrix or never runs. Modules that do are "
                f"{', '.join(repr(run.name) for run in candidates[-5:])}."
            )
        return named[-1]
    if classes_seen is None:
        return candidates[-1] if candidates else None
    exact = [r for r in candidates if r.rows == classes_seen or (r.rows == 1 and classes_seen == 2)]
    larger = [run for run in candidates[-1:] if run.rows is not None and run.rows > classes_seen]
    return next(iter(exact[-1:] or larger), None)


def _before_logits(runs: list[ModuleRun], head: ModuleRun | None) -> list[ModuleRun]:
    """The runs that end before the head does: no logits among them."""
    if head is None:
        return runs
    end = max(position for position, run in enumerate(runs) if run.module is head.module)
    return [run for run in runs[:end] if run.module is not head.module]


def _bottleneck_class(found: Trace, hidden: list[ModuleRun]) -> dict[str, int]:
    """The modules of the chosen class and how often each ran; empty if there is none."""
    classes: dict[type, dict[str, list[ModuleRun]]] = {}
    for run in hidden:
        if not type(run.module).__module__.startswith("torch."):
            classes.setdefault(type(run.module), {}).setdefault(run.name, []).append(run)
    best: dict[str, list[ModuleRun]] = {}
    # the outermost first: of two classes that run equally often it is the one to keep
    by_depth = sorted(classes.values(), key=lambda names: min(name.count(".") for name in names))
    for instances in by_depth:
        if len(instances) < 2 or len(instances) <= len(best):
            continue
        if all(_is_bottleneck(found, runs) for runs in instances.values()):
            best = instances
    return {name: len(runs) for name, runs in best.items()}


def _is_bottleneck(found: Trace, runs: list[ModuleRun]) -> bool:
    outputs = {node for run in runs for node in run.nodes}
    return bool(outputs) and not found.depends_on_input(without=outputs)


def _nonlinearities(hidden: list[ModuleRun]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for run in hidden:
        kind = type(run.module)
        if kind.__module__ == "torch.nn.modules.activation" and kind not in _NOT_NONLINEARITIES:
            counts[run.name] = counts.get(run.name, 0) + 1
    return counts
