"""Runs, assembled from what their loggers wrote."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightning_nc.figures.time_axis import time_axis
from lightning_nc.measures import MEASURES
from lightning_nc.measures.family import Family
from lightning_nc.report.depth import order_in_depth
from lightning_nc.report.reading import Log, LoggedMeasurement, NothingToReport, read_logs
from lightning_nc.report.remarks import clipped, printable
from lightning_nc.report.resumed import join_resumed
from lightning_nc.wording import listed


@dataclass(frozen=True)
class Series:
    """The measurements of one callback.

    Attributes:
        epochs: Epochs completed at each measurement, increasing.
        values: Value at each measurement, NaN if undefined, by what follows ``family/probe/`` in
            the key.
        layers: Value at each measurement, by layer in order of depth.
        in_depth: Whether the order of layers is known to be that of depth.
        failures: Number of skipped measurements.
        steps: The step of each measurement; NaN if unknown.
    """

    epochs: list[float]
    values: dict[str, list[float]]
    layers: dict[str, list[float]]
    in_depth: bool
    failures: int
    steps: list[float]

    @property
    def times(self) -> list[str]:
        """The time of each measurement in words, such as ``"epoch 3"``."""
        return time_axis([self.epochs], [self.steps]).words()

    @property
    def passes(self) -> tuple[tuple[float, ...], ...]:
        """When its passes were, how long, and how many failed: equal where passes are shared."""
        return tuple(self.epochs), tuple(self.values.get("seconds", ())), (self.failures,)


@dataclass(frozen=True)
class Run:
    """What the callbacks of one run measured.

    Attributes:
        name: Its folder, relative to that of the report; several folders if it was resumed.
        series: Measurements by family and probe.
        families: Families of the quantities, in the order of the page.
    """

    name: str
    series: dict[tuple[str, str], Series]
    families: list[Family]


class Reading(NamedTuple):
    """What was read of a folder.

    Attributes:
        runs: The runs in it.
        remarks: Sentences on what could not be read.
    """

    runs: list[Run]
    remarks: list[str]


def read_runs(root: Path) -> Reading:
    """Read all runs in a folder and its subfolders.

    A run with several loggers, or one that was resumed, is read as one run. What cannot be read
    costs nothing else.

    Raises:
        NothingToReport: If there are no logs, or none has values of this package.
    """
    logs, remarks = read_logs(root)
    ours = [log for log in logs if log.records or log.failures]
    if not ours:
        others = sorted({key for log in logs for key in log.keys})
        named = listed(clipped(printable(key), 60) for key in others)
        found = f"only {named}" if others else "nothing"
        raise NothingToReport(
            f"The {len(logs)} log(s) in {root} have no values of this package's callbacks, "
            f"{found}: give the folder of a run whose Trainer had one, such as NeuralCollapse()."
            + "".join(f"\n{r}" for r in remarks)
        )
    together: list[list[Log]] = []
    for log in join_resumed(ours):
        same = [group for group in together if _same_run(group[0], log)]
        if same:
            same[0].append(log)
        else:
            together.append([log])
    folder = root.resolve()
    above = folder if len(together) > 1 else folder.parent
    runs = [Run(_name(group[0], above), _series(group), _families(group)) for group in together]
    return Reading(
        runs, remarks + _of_others(root, [log for log in logs if not (log.records or log.failures)])
    )


def _of_others(root: Path, logs: Sequence[Log]) -> list[str]:
    """A sentence on logs without values of this package, if there are any."""
    if not logs:
        return []
    names = listed(printable(str(log.folders[0].relative_to(root))) for log in logs)
    return [f"{names}: no values of this package's callbacks"]


def _families(logs: Sequence[Log]) -> list[Family]:
    """All families of the logs, those of this package first."""
    found = {name: family for log in logs for name, family in log.families.items()}
    own = [each.family for each in MEASURES if each.family in found]
    return [found[name] for name in dict.fromkeys([*own, *found])]


def _name(log: Log, above: Path) -> str:
    """The folder of a run, and the names of those in which it was resumed."""
    first, *others = log.folders
    return " + ".join([str(first.resolve().relative_to(above)), *(each.name for each in others)])


def _same_run(one: Log, other: Log) -> bool:
    """Whether two logs agree, seconds included, at the epochs that both have."""
    if one.records.keys() != other.records.keys() or one.in_depth == other.in_depth:
        return False
    pairs = [
        (mine[time], theirs[time])
        for mine, theirs in (map(_by_time, (one.records[k], other.records[k])) for k in one.records)
        for time in mine.keys() & theirs.keys()  # CSVLogger may have restarted its file
    ]
    return bool(pairs) and all(
        mine.values.keys() == theirs.values.keys()
        and np.allclose(
            [mine.values[name] for name in mine.values],
            [theirs.values[name] for name in mine.values],
            rtol=1e-6,  # event files hold float32
            atol=1e-37,
            equal_nan=True,
        )
        for mine, theirs in pairs
    )


def _series(logs: Sequence[Log]) -> dict[tuple[str, str], Series]:
    """Series from the longest log of a run, in float64 if there is a choice; failures from all."""
    series = {}
    keys = {key: None for log in logs for key in [*log.records, *log.failures]}
    for key in keys:
        of_logs = [(log.records.get(key, []), log.in_depth) for log in logs]
        records, _ = max(of_logs, key=lambda each: (len(each[0]), not each[1]))
        depth = next((list(r[-1].layers) for r, known in of_logs if known and r), None)
        failures = max(log.failures.get(key, 0) for log in logs)
        series[key] = _one_series(records, depth, failures)
    return series


def _by_time(
    records: Sequence[LoggedMeasurement],
) -> dict[tuple[float, float], LoggedMeasurement]:
    """Measurements by epochs completed; within a first epoch of unknown length by step."""
    times = [(record.values["epochs_completed"], record.step) for record in records]
    told = [(epoch, 0 if epoch or math.isnan(step) else step) for epoch, step in times]
    return dict(zip(told, records, strict=True))


def _one_series(
    records: Sequence[LoggedMeasurement], depth: list[str] | None, failures: int
) -> Series:
    """A series with the last measurement at each time: a resumed run repeats some."""
    by_time = _by_time(records)
    ordered = [by_time[time] for time in sorted(by_time)]
    names = {name: None for record in ordered for name in record.values}
    values = {
        name: [record.values.get(name, math.nan) for record in ordered]
        for name in names
        if name != "epochs_completed"
    }
    found = list({name: None for record in ordered for name in record.layers})
    D = {name: [record.layers.get(name, math.nan) for record in ordered] for name in found}
    known = depth is not None
    if depth is None and found:
        unknown = [math.nan] * len(ordered)  # for families without a law
        law = (np.array(values.get(name, unknown)) for name in ("rho", "total"))
        depth, known = order_in_depth(found, np.array([D[name] for name in found]).T, *law)
    layers = {name: D[name] for name in (*(depth or ()), *D)}
    epochs = [record.values["epochs_completed"] for record in ordered]
    steps = [record.step for record in ordered]
    return Series(epochs, values, layers, known, failures, steps)
