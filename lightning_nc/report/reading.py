"""Read what TensorBoardLogger and CSVLogger wrote, as lists of measurements."""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lightning_nc.measures import MEASURES
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.measures.family import Family, read_families

_LIGHTNINGS = "epoch"  # counted from 0; Lightning logs it with every row, ours included
_WHEN = re.compile(r"([^/]+)/(.+)/epochs_completed")
_FAILURES = re.compile(r"([^/]+)/(.+)/failures")


class NothingToReport(Exception):
    """A folder without values of this package; the message tells the user what to do."""


class LoggedMeasurement(NamedTuple):
    """One measurement of one callback.

    Attributes:
        values: Values by what follows ``family/probe/`` in their keys.
        layers: Values of layers by what follows ``family_layers/probe/`` in their keys.
    """

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
    records: dict[tuple[str, str], list[LoggedMeasurement]]
    failures: dict[tuple[str, str], int]
    in_depth: bool
    keys: list[str]
    span: tuple[float, float]
    families: dict[str, Family]


def read_logs(root: Path) -> list[Log]:
    """Read all logs in a folder and its subfolders.

    Args:
        root: The folder.

    Raises:
        NothingToReport: If it is not a folder, or no logger wrote there.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise NothingToReport(
            f"{root} {what}: give the log directory of a run (event files of TensorBoardLogger or "
            "the metrics.csv of CSVLogger), or a folder that contains several."
        )
    of_events = sorted({path.parent for path in root.rglob("events.out.tfevents.*")})
    logs = [_read_events(folder) for folder in of_events]
    logs += [_read_csv(path) for path in sorted(root.rglob("metrics.csv"))]
    if not logs:
        raise NothingToReport(
            f"{root} and its subfolders contain neither event files (TensorBoardLogger) nor a "
            "metrics.csv (CSVLogger): give the folder that the Trainer's logger wrote to."
        )
    return logs


def _read_events(folder: Path) -> Log:
    """Read event files, which keep the order of logging and round values to float32."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
            EventAccumulator,
        )
    except ModuleNotFoundError as missing:
        raise NothingToReport(
            f"{folder} has event files, and reading them needs TensorBoard ({missing}). "
            "Run pip install 'lightning-neural-collapse[tensorboard]'."
        ) from missing
    # 0 keeps all; images are not needed, but at least one per tag is kept
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    rows: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    families = _families_of(folder, scalars)
    for tag, key in _read_keys(scalars, families).items():
        seen: dict[int, int] = defaultdict(int)  # with one batch per epoch, a step can come twice
        for event in scalars[tag]:
            rows[event.step, seen[event.step]][key] = event.value
            seen[event.step] += 1
    ordered = [rows[place] for place in sorted(rows)]
    return _log(folder, ordered, list(scalars), families, in_depth=True)


def _read_csv(path: Path) -> Log:
    """Read a metrics.csv, whose columns are sorted by name: the order of layers is lost."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        keys = [key for key in reader.fieldnames or [] if key]
        families = _families_of(path.parent, keys)
        read = _read_keys(keys, families).items()
        rows = [{key: float(row[name]) for name, key in read if row[name]} for row in reader]
    return _log(path.parent, rows, keys, families, in_depth=False)


def _families_of(folder: Path, names: Iterable[str]) -> dict[str, Family]:
    """Families of this package, those described in the folder, and those inferred from keys."""
    names = list(names)
    own = [Family.of(kind) for kind in MEASURES]
    known = {each.name: each for each in [*own, *read_families(folder)]}
    either = "|".join(map(re.escape, known))
    of_known = re.compile(rf"(?:.*-)?(?:{either})/.+/epochs_completed")
    ours = {row.name for row in BOOKKEEPING}
    for match in filter(None, map(_WHEN.fullmatch, names)):
        family, probe = match.groups()
        start = f"{family}/{probe}/"
        of_probe = [name.removeprefix(start) for name in names if name.startswith(start)]
        if not of_known.fullmatch(match[0]) and ours <= set(of_probe):
            quantities = [name for name in of_probe if name not in ours]
            known[family] = Family.of_names(family, quantities)
    return known


def _read_keys(names: Iterable[str], families: Iterable[str]) -> dict[str, str]:
    """The keys to read, by the logger's names for them, which may start with a user's prefix."""
    either = "|".join(map(re.escape, families))
    ours = re.compile(rf"(?:{either})(?:_layers)?/.+/.+|{_LIGHTNINGS}")
    book = re.compile(rf"(.*?-)??(?:{either})/.+/(?:epochs_completed|failures)")
    prefix = next((match[1] or "" for match in map(book.fullmatch, names) if match), "")
    keys = {name: name.removeprefix(prefix) for name in names}
    return {name: key for name, key in keys.items() if ours.fullmatch(key)}


def _log(
    folder: Path,
    rows: list[dict[str, float]],
    keys: list[str],
    families: dict[str, Family],
    in_depth: bool,
) -> Log:
    """Sort values by family and probe; a row without ``epochs_completed`` reports a failure."""
    records, failures = {}, {}
    for key in {key: None for row in rows for key in row}:
        if match := _WHEN.fullmatch(key):
            family, probe = match.groups()
            of_probe = [row for row in rows if key in row]
            records[family, probe] = [_record(row, family, probe) for row in of_probe]
        elif match := _FAILURES.fullmatch(key):
            family, probe = match.groups()
            failures[family, probe] = int([row[key] for row in rows if key in row][-1])
    epochs = [row[_LIGHTNINGS] for row in rows if _LIGHTNINGS in row] or [math.nan]
    span = min(epochs), max(epochs)
    measured = {family for family, _ in [*records, *failures]}
    described = {name: family for name, family in families.items() if name in measured}
    return Log((folder,), records, failures, in_depth, keys, span, described)


def _record(row: dict[str, float], family: str, probe: str) -> LoggedMeasurement:
    values, layers = (
        {key.removeprefix(start): value for key, value in row.items() if key.startswith(start)}
        for start in (f"{family}/{probe}/", f"{family}_layers/{probe}/")
    )
    return LoggedMeasurement(values, layers)
