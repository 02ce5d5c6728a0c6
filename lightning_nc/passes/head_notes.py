"""What is said of a head, or of there being none."""

import math

from torch import Tensor

from lightning_nc.network.blocks import call_advice, is_bypassed
from lightning_nc.network.calling import has_forward
from lightning_nc.network.module_run import ModuleRun
from lightning_nc.network.parameters import parameters_of, takes_one
from lightning_nc.network.points import Point, script_advice
from lightning_nc.network.trace import Trace
from lightning_nc.network.unpacking import LABEL_KEYS
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
    why, _ = _why_apart(found, head, request)
    if why:
        return {"rows": f"{why} {_NOT_LOGGED}"}
    return _rows_note(head, classes, n, request) | _bypass_note(found, head, request)


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


def is_apart(found: Trace, head: ModuleRun, request: Request) -> bool:
    """Whether only the input of a head is measured: its rows are not of the features there.

    Raises:
        DoesNotApply: If the rows are what is wanted.
    """
    why, advice = _why_apart(found, head, request)
    if why and (request.needs_head or request.head is not None):
        raise DoesNotApply(f"{why}{advice}")
    return bool(why)


def _why_apart(found: Trace, head: ModuleRun, request: Request) -> tuple[str, str]:
    """Why the rows of a head are not of the features at its input, and what to do; or nothing."""
    if head.shape and head.input_shape and head.shape[0] != head.input_shape[0]:
        return (
            f"The head '{head.name}' makes {head.shape} of {head.input_shape}, as of an ensemble "
            "whose members are stacked, so that its rows are not of the features there.",
            "",
        )
    if request.pool == "auto" and head.several_positions:
        return (
            f"The head '{head.name}' is a convolution over several positions, so that its rows are "
            "not of the features at one.",
            " Give a pool= that returns the features that a row multiplies.",
        )
    if request.head is None and _is_regrouped(found, head):
        return (
            f"The network returns {found.output_shape}, made of the {head.rows} rows of the head "
            f"'{head.name}', so that a class has no row of its own.",
            f' If the first rows are those of the classes: head="{head.name}".',
        )
    return "", ""


def _is_regrouped(found: Trace, head: ModuleRun) -> bool:
    """Whether the network makes fewer columns than there are rows, but not by leaving rows out.

    So do the members of an ensemble that share a layer, and classes with several centres.
    """
    shape, node = found.output_shape, found.output
    if shape is None or len(shape) != 2 or not 1 < shape[1] < (head.rows or 0):
        return False
    if found.depends_on_input(without={*head.nodes}):
        return False
    while type(node).__name__ in ("SliceBackward0", "ViewBackward0"):
        node = node.next_functions[0][0]
    return node not in head.nodes or shape[:1] != (head.shape or ())[:1]


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
    silent = {
        name: module
        for name, module in found.modules.items()
        if name
        and module not in ran
        and has_forward(module)
        and takes_one(module)
        # a loss holds rows of classes, too, and takes their labels
        and parameters_of(module).keys().isdisjoint(LABEL_KEYS)
    }
    holding = (
        name
        for name, module in silent.items()
        if found.holds_matrix(module, last.rows, classes_seen)
    )
    inner = next(holding, "")
    # a module around it that only flattens or normalises first
    around = (
        name
        for name, module in silent.items()
        if inner.startswith(f"{name}.") and [*module.parameters()] == [*silent[inner].parameters()]
    )
    return next(around, inner)
