"""The figures of the page: what is drawn, and the words around it."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from lightning_nc.figures.epochs import ZERO
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.measures.family import Family
from lightning_nc.measures.neural_collapse import first_without_error
from lightning_nc.measures.quantity import charts_of_rows
from lightning_nc.report.over_depth import depth_of_runs_svg, depth_svg
from lightning_nc.report.over_epochs import panel_svg
from lightning_nc.report.remarks import clipped
from lightning_nc.report.runs import Series

_OF_LAW = {"rho", "pearson_r"}  # quantities of a law that the values per layer can obey


class Picture(NamedTuple):
    """A figure of the page.

    Attributes:
        title: Title above it.
        caption: Text below it.
        svg: The figure; empty if there is nothing to draw, or if it could not be drawn.
        failure: Why it could not be drawn.
    """

    title: str
    caption: str
    svg: str
    failure: str = ""

    @property
    def has_zeros(self) -> bool:
        """Whether it marks zeros on a logarithmic axis."""
        return ZERO in self.svg


def pictures(family: Family, runs: Mapping[str, Series]) -> list[Picture]:
    """Return the figures of a family: values against depth, then its panels over epochs."""
    found = [*_against_depth(family, runs)]
    for panel, curves in charts_of_rows(family.quantities).items():
        caption = panel.caption + (_fitted(runs) if panel.terminal else "")
        if len(runs) > 1 and not all(curve.compared for curve in curves.values()):
            compared = [curve.label for curve in curves.values() if curve.compared]
            are = "are" if len(compared) > 1 else "is"
            caption += f" With several runs, only {' and '.join(compared)} {are} shown."
        found.append(_drawn(panel.title, caption, panel_svg, panel, curves, runs))
    return found


def pictures_of_seconds(
    families: Iterable[tuple[Family, Mapping[str, Series]]],
) -> list[Picture]:
    """Return a figure of the duration of measurements for each family; one for shared passes.

    Args:
        families: Families, each with its measurements by the name of the run.
    """
    ((panel, curves),) = charts_of_rows(BOOKKEEPING).items()
    together: dict[Any, tuple[list[str], Mapping[str, Series]]] = {}
    for family, runs in families:
        passes = tuple((run, series.passes) for run, series in runs.items())
        together.setdefault(passes, ([], runs))[0].append(family.title)
    return [
        _drawn(f"{', '.join(titles)}: seconds", panel.caption, panel_svg, panel, curves, runs)
        for titles, runs in together.values()
    ]


def _drawn(title: str, caption: str, draw: Callable[..., str], *arguments: Any) -> Picture:
    """Draw a figure, or say why there is none: no value that was logged costs the page."""
    try:
        with warnings.catch_warnings():
            for kind in (UserWarning, RuntimeWarning):  # letters without a glyph, values too large
                warnings.simplefilter("ignore", kind)
            return Picture(title, caption, draw(*arguments))
    except ModuleNotFoundError:  # matplotlib is missing
        raise
    except Exception as error:
        return Picture(title, caption, "", clipped(f"{type(error).__name__}: {error}"))


def _against_depth(family: Family, runs: Mapping[str, Series]) -> Iterator[Picture]:
    """Yield values against depth, if a layer has one: of all runs, then of each run."""
    one_each = len(family.layer_quantities) == 1 and not family.layer_quantities[0].name
    runs = {run: series for run, series in runs.items() if series.layers}
    if not one_each or not runs:
        return
    row = family.layer_quantities[0]
    label, symbol = row.label, row.symbol or row.label
    law = {row.name for row in family.quantities} >= _OF_LAW
    if len(runs) > 1:
        unknown = [run for run, series in runs.items() if not series.in_depth]
        caption = "The last measurement of each run. "
        if unknown:
            caption += (
                f"Layers of {', '.join(unknown)} are sorted by name, which need not be their order "
                "in depth."
            )
        elif law:
            caption += "The law is a falling straight line."
        yield _drawn(f"{label} against depth, all runs", caption, depth_of_runs_svg, runs, label)
    for run, series in runs.items():
        title = f"{label} against depth" + (f": {run}" if len(runs) > 1 else "")
        yield _drawn(title, _depth_caption(series, law, symbol), depth_svg, series, label, law)


def _depth_caption(series: Series, law: bool, symbol: str) -> str:
    caption = "One line per measurement, from dark to light."
    if not series.in_depth:
        caption += (
            " CSVLogger sorts layers by name, and no order of them matches the logged rho: layers "
            "are shown by name, which need not be their order in depth"
            f"{', and the law is not drawn' if law else ''}. TensorBoardLogger keeps the order."
        )
    elif law:
        caption += (
            f" The law, by which {symbol} falls by the same ratio rho at every layer, is a "
            "straight line. It is fitted to the last measurement (dots)."
        )
    return caption


def _fitted(runs: Mapping[str, Series]) -> str:
    """Say since when there is no error, or by when if a run was not measured from its start."""
    starts = {}
    for run, series in runs.items():
        if "accuracy" not in series.values:
            continue
        first, begins = first_without_error(series.values["accuracy"]), series.epochs[0]
        known = "" if begins <= 0 else f" or earlier (first measured at epoch {begins:g})"
        starts[run] = "" if first is None else f"{series.times[first]}{known}"
    if not starts:
        return ""
    if len(runs) > 1:
        of_runs = ", ".join(f"{run}: {start or 'not yet'}" for run, start in starts.items())
        return f" First without an error on the probe: {of_runs}."
    (began,) = starts.values()
    if not began:
        return (
            " There are errors on the probe throughout; the terminal phase begins when there are "
            "none on training data."
        )
    return (
        f" Shaded: since the first measurement without an error on the probe, {began}. On all "
        "training data, this is the terminal phase."
    )
