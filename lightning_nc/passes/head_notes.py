"""What is said of a head, or of there being none."""

import math

from torch import Tensor

from lightning_nc.network.blocks import call_advice, is_bypassed
from lightning_nc.network.module_run import ModuleRun
from lightning_nc.network.parameters import takes_one
from lightning_nc.network.points import Point, script_advice
from lightning_nc.network.trace import Trace
from lightning_nc.passes.request import DoesNotApply, Request
from lightning_nc.wording import listed

_NOT_LOGGED = "What needs a head is not logged: NC3, NC4, NC2 of classifier rows and accuracy."


def head_notes(
    found: Trace, head: ModuleRun, classes: Tensor, n: Tensor, request: Request
) -> dict[str, str]:
    """What a user should know of a head.

    Args:
        found: A traced forward pass.
        head: The head.
        classes: Labels of the classes with samples, shape ``(K,)``.
        n: Samples of each, shape ``(K,)``.
        request: The request that the head is of.
    """
    if is_apart(head, request):
        return {"positions": f"{_of_several_positions(head)} {_NOT_LOGGED}"}
    return _rows_note(head, classes, n, request) | _bypass_note(found, head, request)


def _of_several_positions(head: ModuleRun) -> str:
    return (
        f"The head '{head.name}' is a convolution over several positions, so that its rows are not "
        "of the features at one."
    )


def _rows_note(head: ModuleRun, classes: Tensor, n: Tensor, request: Request) -> dict[str, str]:
    """Say that a head has rows of classes without samples, or nothing."""
    rows, K = max(head.rows or 0, 2), len(classes)
    missing = sorted({*range(rows)} - {*classes.tolist()})
    if not missing:
        return {}
    named = f"class{'es' * (len(missing) > 1)} {listed(missing, 3)}"
    found = request.head is None and not request.needs_head
    advice = " If the network has no classifier: head=False." if found else ""
    each = " to ".join(map(str, sorted({int(n.min()), int(n.max())})))
    return {
        "classes": f"the head '{head.name}' has {rows} rows, and the probe has samples of {K} of "
        f"these classes ({each} each), none of {named}. Values are over "
        f"the {K} classes and their rows; decisions are over all rows.{advice}"
    }


def _bypass_note(found: Trace, head: ModuleRun, request: Request) -> dict[str, str]:
    """Say that a head, or this run of it, is not all that the output is made of, or nothing."""
    runs = [run for run in found.leading_to([found.output]) if run.module is head.module]
    if len(runs) > 1 and found.depends_on_input(without={*head.nodes}):
        return {
            "bypass": f"the network's output depends on {len(runs)} runs of the head "
            f"'{head.name}', as on several views: features are those of the last run, decisions "
            "those of the output."
        }
    if request.head is not None or not is_bypassed(found, head):
        return {}
    decisions, shape = "those of the output", found.output_shape
    single = shape is not None and shape[1:] in ((), (1,))  # the logit of two rows
    # such as the nodes of a graph that are samples, without their neighbours
    some = shape and head.shape and shape[1:] == head.shape[1:] and shape[0] < head.shape[0]
    decided = single or some
    if shape and head.shape and not decided and math.prod(shape) != math.prod(head.shape):
        decisions = f"its own, since the network returns {shape} and the head {head.shape}"
    return {
        "bypass": f"the network's output does not depend on the head '{head.name}' alone: "
        f"features, W and b are those of this head, decisions {decisions}. If another "
        "module is meant, name it: head=..."
    }


def outputs_note(found: Trace, request: Request) -> dict[str, str]:
    """Say that the network returns other logits that may be meant, or nothing.

    These are of as many layers as the first, such as those of another task, or of more, such as the
    last of several exits. Layers alone are the same unless there are more.
    """
    if request.head is not None:
        return {}
    layers = {
        way: _weighted_layers(found, node)
        for way, (node, shape) in found.beside.items()
        if shape == found.output_shape
    }
    first = _weighted_layers(found, found.output)
    way = max(layers, key=lambda way: layers[way], default="")
    if not way or layers[way] < first + (not request.classifier):
        return {}
    return {
        "outputs": f"the network returns {len(layers) + 1} outputs of shape {found.output_shape}, "
        "of which the first is measured. To measure another, return it: Probe(..., forward=lambda "
        f"module, inputs: module(inputs){way})."
    }


def _weighted_layers(found: Trace, node: object) -> int:
    return sum(run.rows is not None for run in found.leading_to([node]))


def is_apart(head: ModuleRun, request: Request) -> bool:
    """Whether only the input of a head is measured: its rows are not of the features there.

    Raises:
        DoesNotApply: If the rows are what is wanted.
    """
    if request.pool != "auto" or not head.several_positions:
        return False
    if request.needs_head or request.head is not None:
        raise DoesNotApply(
            f"{_of_several_positions(head)} Give a pool= that returns the features that a row "
            "multiplies."
        )
    return True


def no_head_note(found: Trace, classes_seen: int, last: Point) -> dict[str, str]:
    """Say that there is no head, what the features are, and what is not logged for that."""
    features, shape = f"the {last.name}", found.returned_shape
    if last.side == "returned" and shape is not None:
        features = f"what the network returns, of shape {shape}"
        if shape[-1] == classes_seen:
            features += '; if these are logits, name the part before: Probe(forward="backbone")'
    return {
        "no head": f"{no_head(found, classes_seen)} Features are {features}. {_NOT_LOGGED} "
        "head=False says that there is none."
    }


def no_head(found: Trace, classes_seen: int) -> str:
    """Say that no head was found, and what to do."""
    last, what = found.last_weighted(), ""
    if last is not None:
        what = f"; the last layer, '{last.name}', has {last.rows} row{'s' * (last.rows != 1)}"
    return (
        f"Found no head: no module with a weight row for each of {classes_seen} classes ran{what}. "
        f"{_way_to_a_head(found, last, classes_seen)}{script_advice(found.modules)}"
    )


def _way_to_a_head(found: Trace, last: ModuleRun | None, classes_seen: int) -> str:
    """What to do if there is a head, by what the last layer computes."""
    name = 'head="classifier"'
    if last is None or (last.rows or 0) < classes_seen:
        return (
            f"Either label {classes_seen - 1} is out of range and must be corrected (classes are "
            f"numbered from 0), or the head must be named: {name}."
        )
    silent = _beside(found, last, classes_seen)
    if not silent:
        return f"If one of the modules is a head, name it: {name}."
    return (
        f"'{silent}' has one, but does not run when the network is called. If it is the head, "
        f"{call_advice(silent)}"
    )


def _beside(found: Trace, last: ModuleRun, classes_seen: int) -> str:
    """Name of a module from the last layer to the classes that did not run; empty without one."""
    ran = {run.module for run in found.runs}
    return next(
        (
            name
            for name, module in found.modules.items()
            if module not in ran
            and found.holds_matrix(module, last.rows, classes_seen)
            and takes_one(module)
        ),
        "",
    )
