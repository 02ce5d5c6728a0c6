"""Read what TensorBoardLogger and CSVLogger wrote, as lists of measurements."""

import math
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from lightning_nc.measures.family import Family
from lightning_nc.report.csv_rows import CsvFile
from lightning_nc.report.event_rows import EventFiles
from lightning_nc.report.keys import LIGHTNINGS, STEP, families_of, groups_of, keys_to_read
from lightning_nc.report.remarks import Remarks, clipped
from lightning_nc.report.thinning import Thinned

Row = Mapping[str, float]
Group = tuple[str, str]  # family and probe
_EVENTS, _TABLE = "events.out.tfevents.", "metrics.csv"


class NothingToReport(Exception):
    """A folder without values of this package; the message tells the user what to do."""


class LoggedMeasurement(NamedTuple):
    """One measurement of one callback.

    Attributes:
        step: The step under which it was logged; NaN if unknown.
        values: Values by what follows ``family/probe/`` in their keys.
        layers: Values of layers by what follows ``family_layers/probe/`` in their keys.
    """

    step: float
    values: dict[str, float]
    layers: dict[str, float]


class Log(NamedTuple):
    """What one logger wrote.

    Attributes:
        folders: The logger's folder; several if the run was resumed.
        records: Measurements in the order of writing, by family and probe.
        failures: Number of skipped measurements, by family and probe.
        in_depth: Whether layers are in the order of logging, which is that of depth.
        keys: Keys of all scalars, those of others included.
        span: First and last epoch, counted from 0, in which anything was logged.
        families: Families of the quantities, by name.
    """

    folders: tuple[Path, ...]
    records: dict[Group, list[LoggedMeasurement]]
    failures: dict[Group, int]
    in_depth: bool
    keys: list[str]
    span: tuple[float, float]
    families: dict[str, Family]


class _Source(Protocol):
    """Rows of numbers with names."""

    names: list[str]

    def rows(self, keys: Mapping[str, str]) -> Iterator[Row]: ...


def read_logs(root: Path) -> tuple[list[Log], list[str]]:
    """Read all logs in a folder and its subfolders.

    Returns:
        The logs, and sentences on what could not be read.

    Raises:
        NothingToReport: If it is not a folder, or no logger wrote there.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise NothingToReport(
            f"{root} {what}: give the log directory of a run (event files of TensorBoardLogger or "
            "the metrics.csv of CSVLogger), or a folder that contains several."
        )
    events, tables, said = _find(root)
    reads = [(folder, partial(_read_events, folder, of)) for folder, of in sorted(events.items())]
    reads += [(path, partial(_read_table, path)) for path in sorted(tables)]
    if not reads and not said:
        raise NothingToReport(
            f"{root} and its subfolders contain neither event files (TensorBoardLogger) nor a "
            "metrics.csv (CSVLogger): give the folder that the Trainer's logger wrote to."
        )
    logs = []
    for path, read in reads:
        remarks = Remarks(str(path.relative_to(root)))
        log = _attempt(read, remarks)
        logs += [] if log is None else [log]
        said += remarks.sentences()
    return logs, said


def _find(root: Path) -> tuple[dict[Path, list[Path]], list[Path], list[str]]:
    """Event files by folder, tables, and sentences on what is neither although it is called so."""
    events: dict[Path, list[Path]] = defaultdict(list)
    tables, said = [], []

    def cannot(path: Path, why: str | None) -> None:
        remarks = Remarks(str(path.relative_to(root)))
        remarks.add(f"it cannot be read ({why})")
        said.extend(remarks.sentences())

    walk = os.walk(root, onerror=lambda error: cannot(Path(error.filename), error.strerror))
    for folder, folders, files in walk:
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            if name != _TABLE and not name.startswith(_EVENTS):
                continue
            try:
                if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe could take forever
                    cannot(path, "it is no file")
                elif name == _TABLE:
                    tables.append(path)
                else:
                    events[path.parent].append(path)
            except OSError as error:
                cannot(path, error.strerror)
    return events, tables, said


def _attempt(read: Callable[[Remarks], Log], remarks: Remarks) -> Log | None:
    """Read a log; a failure is a remark and costs this log alone."""
    try:
        return read(remarks)
    except ModuleNotFoundError as missing:
        remarks.add(
            f"to read event files needs TensorBoard ({missing}): run pip install "
            "'lightning-neural-collapse[tensorboard]'"
        )
    except OSError as error:
        remarks.add(f"it cannot be read ({error.strerror})")
    except Exception as error:  # whatever is in a file, the others are shown
        remarks.add(f"it cannot be read ({clipped(repr(error))})")
    return None


def _read_events(folder: Path, paths: list[Path], remarks: Remarks) -> Log:
    """Event files keep the order of logging and hold float32."""
    return _log(folder, EventFiles(paths, remarks), True, remarks)


def _read_table(path: Path, remarks: Remarks) -> Log:
    """The columns of a table are sorted by name, not in order of depth."""
    # bytes that are no UTF-8 become replacement characters
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return _log(path.parent, CsvFile(file, remarks), False, remarks)


def _log(folder: Path, source: _Source, in_depth: bool, remarks: Remarks) -> Log:
    """Sort values by family and probe."""
    families = families_of(folder, source.names, remarks)
    keys = keys_to_read(source.names, families)
    when, failing = groups_of(keys.values(), families)
    series: dict[str, Thinned[Row]] = defaultdict(Thinned)
    failures: dict[Group, int] = {}
    low, high = math.inf, -math.inf
    for row in source.rows(keys):
        # a row without `epochs_completed` reports a failure
        for key in filter(row.__contains__, when):
            if math.isfinite(row[key]):
                series[key].add(row)
            else:
                remarks.add("a measurement at no epoch is left out", f"{key} is {row[key]}")
        for key in filter(row.__contains__, failing):
            if 0 <= row[key] < math.inf:
                failures[failing[key]] = int(row[key])
            else:
                remarks.add("a number of failures that is none is left out", f"{key} is {row[key]}")
        epoch = row.get(LIGHTNINGS, math.nan)
        if math.isfinite(epoch):
            low, high = min(low, epoch), max(high, epoch)
    records = {when[key]: _records(each, *when[key], remarks) for key, each in series.items()}
    span = (low, high) if low <= high else (math.nan, math.nan)
    measured = {family for family, _ in [*records, *failures]}
    described = {name: family for name, family in families.items() if name in measured}
    return Log((folder,), records, failures, in_depth, source.names, span, described)


def _records(
    series: Thinned[Row], family: str, probe: str, remarks: Remarks
) -> list[LoggedMeasurement]:
    if series.every > 1:
        remarks.add(
            f"{family}/{probe}: of {series.count:,} measurements, one in {series.every} and the "
            "last are shown, and all numbers are of these"
        )
    return [_record(row, family, probe) for row in series.items()]


def _record(row: Row, family: str, probe: str) -> LoggedMeasurement:
    values, layers = (
        {key.removeprefix(start): value for key, value in row.items() if key.startswith(start)}
        for start in (f"{family}/{probe}/", f"{family}_layers/{probe}/")
    )
    return LoggedMeasurement(row.get(STEP, math.nan), values, layers)
