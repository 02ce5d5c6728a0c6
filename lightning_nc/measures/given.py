"""Checks of the network and of the measures that a user gives."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.measures.measure import Evaluation, Measure
from lightning_nc.measures.quantity import Quantity
from lightning_nc.network.in_memory import source_of
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Request
from lightning_nc.wording import shown


def require_module(model: Any) -> None:
    """Raise unless a network is one.

    Raises:
        TypeError: If it is no module of torch.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be an nn.Module, got {shown(model)}: give the network itself"
            f"{_called(model)}. A "
            "function that calls it goes to the data: Probe(..., forward=lambda module, inputs: "
            "...)."
        )


def probe_given(loader: Any, model: nn.Module, **options: Any) -> Probe:
    """Return the probe that is given in place of a loader, or one with options on the data given.

    Raises:
        ValueError: If the probe is on a Trainer's loader.
    """
    if not isinstance(loader, Probe):
        return Probe(source_of(loader, model), "data", **options)
    if isinstance(loader.source, str):
        raise ValueError(
            f'Probe source "{loader.source}" is a Trainer\'s loader, but there is no Trainer. Give '
            'the loader or its dataset: Probe(source=loader, name="my_probe").'
        )
    return loader


def require_measure(value: Any) -> Measure:
    """Return the value; raise unless it is a measure with all that describes it.

    Raises:
        ValueError: If it is something else, or without family, title, question or quantities.
    """
    if not isinstance(value, Measure):
        raise ValueError(
            f"measure must be a Measure, got {shown(value)}: give an object of one{_called(value)}."
        )
    name = type(value).__name__
    for attribute in ("family", "title", "question"):
        text = getattr(value, attribute, None)
        if not isinstance(text, str) or (attribute == "family" and (not text or "/" in text)):
            what = "a name without a slash" if attribute == "family" else "a text"
            raise ValueError(
                f"{name}.{attribute} must be {what}, {_got(value, attribute)}: set it in the class."
            )
    for attribute in ("quantities", "layer_quantities"):
        rows = getattr(value, attribute, None)
        if not isinstance(rows, tuple | list) or not all(isinstance(r, Quantity) for r in rows):
            raise ValueError(
                f"{name}.{attribute} must be a tuple of Quantity, {_got(value, attribute)}: "
                f"{attribute} = (Quantity(...),)."
            )
        names = [row.name for row in rows]
        if twice := [each for each in dict.fromkeys(names) if names.count(each) > 1]:
            raise ValueError(f"{name}.{attribute} has several rows named {shown(twice[0])}.")
    if taken := {row.name for row in value.quantities} & {row.name for row in BOOKKEEPING}:
        raise ValueError(
            f"{name}.quantities has a row named {shown(min(taken))}, which is logged of every "
            "measure: give it another name."
        )
    return value


def request_of(measure: Measure) -> Request | Exception:
    """What a measure requests, or why it does not: a measure that fails costs no other."""
    try:
        request = measure.request()
    except Exception as error:
        return error
    if isinstance(request, Request):
        return request
    name = type(measure).__name__
    return TypeError(f"{name}.request() must return a Request, got {shown(request)}.")


def require_evaluation(measure: Measure, found: Any) -> Evaluation:
    """Return what a measure has evaluated, its values as numbers; raise unless it can be logged.

    Raises:
        TypeError: If it is no evaluation, or of something else than numbers, tensors and texts.
    """
    what = f"{type(measure).__name__}.evaluate()"
    if not isinstance(found, Evaluation):
        raise TypeError(f"{what} must return an Evaluation, got {shown(found)}.")
    for field, kind in (("arrays", Tensor), ("notes", str), ("alerts", str)):
        for name, value in getattr(found, field).items():
            if not isinstance(value, kind):
                raise TypeError(
                    f"{what} has {shown(value)} among its {field}, as {name!r}, and not a "
                    f"{kind.__name__}."
                )
    numbers: list[dict[str, float]] = [{}, {}]
    for of_part, part in zip(numbers, (found.values, found.layers), strict=True):
        for name, value in part.items():
            try:
                of_part[name] = float(value)
            except Exception as error:
                raise TypeError(
                    f"{what} has {shown(value)} as {name!r}, not one number."
                ) from error
    return found._replace(values=numbers[0], layers=numbers[1])


def measures_given(given: Any) -> list[Measure]:
    """The measures in what was given: measures, or callbacks that have one; also one alone.

    Raises:
        ValueError: If something else is among them.
    """
    listed = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    return [_measure_in(each) for each in (given if listed else [given])]


def _measure_in(each: Any) -> Measure:
    found = each if isinstance(each, Measure | type) else getattr(each, "measure", None)
    if not isinstance(found, Measure):
        example = f"{each.__name__}()" if isinstance(each, type) else "NeuralCollapse()"
        raise ValueError(
            "measures must be objects of Measure, or callbacks that have one, got "
            f"{shown(each)}. Give a list of them: measures=[{example}]."
        )
    return require_measure(found)


def _called(value: Any) -> str:
    """How to make an object of a class; empty for anything else."""
    return f", {value.__name__}()" if isinstance(value, type) else ""


def _got(value: Any, attribute: str) -> str:
    missing = not hasattr(value, attribute)
    return "but is missing" if missing else f"got {shown(getattr(value, attribute))}"
