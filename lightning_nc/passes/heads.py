"""The head of a request: as named, as found, or none."""

import re

import torch

from lightning_nc.network.blocks import find_head, is_bypassed
from lightning_nc.network.module_run import ModuleRun
from lightning_nc.network.parameters import takes_one
from lightning_nc.network.points import Point
from lightning_nc.network.trace import Trace, ancestors, depends_on
from lightning_nc.passes.head_notes import no_head
from lightning_nc.passes.request import DoesNotApply, Request

# words in the names of modules, and of their classes, whose outputs are no logits
_PROJECTION = re.compile(
    r"(^|[._])(proj|projector|projection|predictor|prediction|prototypes)(_?head)?([._]|$)"
)
_PROJECTION_CLASS = re.compile(r"Project(ion|or)Head$")


def settle_head(found: Trace, request: Request, classes_seen: int) -> ModuleRun | None:
    """The head of a request: the module that it names, or that the rows of weights tell.

    Args:
        found: A traced forward pass.
        request: The request.
        classes_seen: Largest label + 1.

    Returns:
        The run of the head; None if there is none and none is required.

    Raises:
        ValueError: If a named head does not run or has no weight matrix, if a head is required and
            there is none, if it has fewer rows than there are classes, or if two could be meant.
    """
    if request.head is False:
        return None
    if request.head is None:
        head, other = _found_head(found, classes_seen)
    else:
        head, other = find_head(found, request.head, classes_seen), None
    if not request.classifier:
        # a last layer with other rows may be that of an encoder, which says nothing about classes
        fits = head is not None and head.rows in (1, classes_seen) and other is None
        return head if fits else None
    if head is None:
        if request.needs_head:
            raise DoesNotApply(no_head(found, classes_seen))
        return None
    if other is not None:
        raise ValueError(
            f"Cannot tell which layer is the head: '{head.name}' has a row for each of the "
            f"{classes_seen} classes in the probe, but '{other.name}', which runs later, has "
            f'{other.rows} rows. Name the head: head="{head.name}" or head="{other.name}".'
        )
    rows = max(head.rows or 0, 2)
    if classes_seen > rows:
        raise ValueError(
            f"Label {classes_seen - 1} is out of range for the {rows} rows of the head "
            f"'{head.name}'. Number the classes 0 .. {rows - 1} in the dataset or in "
            "Probe(unpack=...)."
        )
    return head


def num_logits_of(found: Trace, classes_seen: int) -> int:
    """How many logits a sample has: one for each row of the head, or class if there is no head."""
    head, _ = _found_head(found, classes_seen)
    return classes_seen if head is None else max(head.rows or 0, classes_seen)


def _found_head(found: Trace, classes_seen: int) -> tuple[ModuleRun | None, ModuleRun | None]:
    """The head that the rows of weights tell, and a later layer with more rows than classes."""
    named, last = find_head(found, None, classes_seen), found.last_weighted()
    if named is None:
        return None, None
    head = _whole(found, named)
    is_exact = head.rows == classes_seen or (head.rows, classes_seen) == (1, 2)
    by_name = any(_projects(found, name) for name in _ancestors(named.name))
    if not is_exact and (by_name or _makes_features(found, head, classes_seen)):
        return None, None
    is_later = last is not None and last.name != head.name and (last.rows or 0) > classes_seen
    return head, last if is_later and not _decides_alone(found, head, last) else None


def _decides_alone(found: Trace, head: ModuleRun, other: ModuleRun | None) -> bool:
    """Whether the output is computed from a head and not from another layer, as of a projector."""
    leading = found.leading_to([found.output])
    return head in leading and other not in leading


def _whole(found: Trace, head: ModuleRun) -> ModuleRun:
    """The module that adds up several maps of one input, one of which was found as the head.

    So are low-rank adapters: the head is the module with the same input as the frozen map, and with
    the maps and the adapter inside it.
    """

    def adds_up(run: ModuleRun) -> bool:
        parts = [r for r in found.runs if _is_inside(r, run) and r.rows == head.rows]
        same_input = any(part.source is run.source is not None for part in parts)
        # what the head itself is computed from is not added to its output
        beside = [p for p in parts if p is not head and p.shape == head.shape]
        adds = run.matrices or not all(depends_on(head.source, set(part.nodes)) for part in beside)
        same_shape = run.shape is not None and run.shape == head.shape
        return bool(adds) and same_input and same_shape and takes_one(run.module)

    # a run of a part is within the run that ends next of a module around it
    later = found.runs[found.runs.index(head) + 1 :]
    around = {r.name: r for r in reversed(later) if r.name and _is_inside(head, r)}
    whole = next((run for run in around.values() if adds_up(run)), head)
    return whole._replace(rows=head.rows)


def _is_inside(run: ModuleRun, around: ModuleRun) -> bool:
    return run.name.startswith(f"{around.name}.")


def last_layer_point(found: Trace, head: ModuleRun | None, request: Request) -> Point:
    """Where the last-layer features are: at the head's input.

    Without a head they are the input of a projection head that runs last, or of the first of
    several in a row, as in BYOL, or else what the network returns, as an encoder does.
    """
    last = _projection(found) if head is None else head
    if last is not None:
        return Point(f"input of {last.name}", last.name, last.number, "input", request.pool)
    return Point("output", "", side="returned", pool=request.pool)


def _projection(found: Trace) -> ModuleRun | None:
    """The projection head that runs last, or the first of several in a row; None without one."""
    first, runs = None, found.runs
    while (run := _last_projection(found, runs)) is not None:
        path = ancestors([run.source])
        first, runs = run, [each for each in runs if not path.isdisjoint(each.nodes)]
    return first


def _last_projection(found: Trace, runs: list[ModuleRun]) -> ModuleRun | None:
    """The projection head that the last layer of some runs is, or is in; None if there is none."""
    last = next((run for run in reversed(runs) if run.rows is not None), None)
    names = [] if last is None else _ancestors(last.name)
    named = next((name for name in names if _projects(found, name)), None)
    run = found.last_of([run for run in runs if run.name == named])
    # the last layer of a residual block is often called a projection too
    return None if run is None or is_bypassed(found, run) else run


def _projects(found: Trace, name: str) -> bool:
    """Whether a module's name, or that of its class, says that its outputs are no logits."""
    kind = type(found.modules.get(name)).__name__
    return bool(_PROJECTION.search(name) or _PROJECTION_CLASS.search(kind))


def _makes_features(found: Trace, head: ModuleRun, classes_seen: int) -> bool:
    """Whether a last layer with other rows than classes computes no logits.

    So it is with the last layer within a residual block, with a convolution over several positions,
    and with ArcFace, whose loss holds a matrix from this layer's rows to the classes.
    """
    if head.several_positions or is_bypassed(found, head):
        return True
    layers = {run.module for run in found.runs if run.rows is not None}
    others = set(found.modules.values()) - layers
    return any(found.holds_matrix(each, head.rows, classes_seen) for each in others)


def _ancestors(name: str) -> list[str]:
    """A module's name after those of the modules that contain it, outermost first."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def require_hooks(found: Trace, last: Point, classes_seen: int) -> None:
    """Raise if last-layer features are at a ScriptModule, which accepts no hooks.

    Raises:
        ValueError: If they are; the message says what to do.
    """
    if isinstance(found.modules.get(last.module or ""), torch.jit.ScriptModule):
        raise ValueError(no_head(found, classes_seen))
