"""What TensorBoardLogger and CSVLogger wrote, as lists of measurements."""

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

_LIGHTNINGS = "epoch"  # from 0; Lightning logs it, and so do we, with all else
_WHEN = re.compile(r"([^/]+)/(.+)/epochs_completed")
_FAILURES = re.compile(r"([^/]+)/(.+)/failures")


class NothingToReport(Exception):
    """A folder without values of this package; the message is a sentence for its user."""


class LoggedMeasurement(NamedTuple):
    """One measurement of one callback.

    Attributes:
        values: By what follows ``family/probe/`` in their keys.
        layers: By what follows ``family_layers/probe/``.
    """

    values: dict[str, float]
    layers: dict[str, float]


class Log(NamedTuple):
    """What one logger wrote.

    Attributes:
        folders: Where; several of a run that was resumed.
        records: In the order of writing, by family and probe.
        failures: Measurements that were skipped, by family and probe.
        in_depth: Whether layers come in the order in which they were logged, which is depth.
        keys: All scalars, also those of others.
        span: The first and the last epoch, from 0, in which anything was logged.
        families: What there is to say of the numbers, by family.
    """

    folders: tuple[Path, ...]
    records: dict[tuple[str, str], list[LoggedMeasurement]]
    failures: dict[tuple[str, str], int]
    in_depth: bool
    keys: list[str]
    span: tuple[float, float]
    families: dict[str, Family]


def read_logs(root: Path) -> list[Log]:
    """Read all logs in a folder and below it.

    Args:
        root: The folder.

    Raises:
        NothingToReport: If it is no folder, or no logger wrote there.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise NothingToReport(
            f"{root} {what}: give the log directory of a run (event files of TensorBoardLogger or "
            "the metrics.csv of CSVLogger), or a folder above several."
        )
    of_events = sorted({path.parent for path in root.rglob("events.out.tfevents.*")})
    logs = [_read_events(folder) for folder in of_events]
    logs += [_read_csv(path) for path in sorted(root.rglob("metrics.csv"))]
    if not logs:
        raise NothingToReport(
            f"{root} has neither event files (TensorBoardLogger) nor a metrics.csv (CSVLogger), "
            "nor has any folder below it: give the folder that the Trainer's logger wrote to."
        )
    return logs


def _read_events(folder: Path) -> Log:
    """Event files keep the order in which values were logged; numbers are rounded to float32."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
            EventAccumulator,
        )
    except ModuleNotFoundError as missing:
        raise NothingToReport(
            f"{folder} has event files, and reading them needs TensorBoard ({missing}): "
            "pip install 'lightning-neural-collapse[tensorboard]'."
        ) from missing
    # 0 keeps all; images are of no use here, and of each tag one is kept at least
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    rows: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    families = _families_of(folder, scalars)
    for tag, key in _read_keys(scalars, families).items():
        seen: dict[int, int] = defaultdict(int)  # with one batch per epoch, a step comes twice
        for event in scalars[tag]:
            rows[event.step, seen[event.step]][key] = event.value
            seen[event.step] += 1
    ordered = [rows[place] for place in sorted(rows)]
    return _log(folder, ordered, list(scalars), families, in_depth=True)


def _read_csv(path: Path) -> Log:
    """CSVLogger sorts its columns by name, so that the order of layers is lost."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        keys = [key for key in reader.fieldnames or [] if key]
        families = _families_of(path.parent, keys)
        read = _read_keys(keys, families).items()
        rows = [{key: float(row[name]) for name, key in read if row[name]} for row in reader]
    return _log(path.parent, rows, keys, families, in_depth=False)


def _families_of(folder: Path, names: Iterable[str]) -> dict[str, Family]:
    """Families of this package, those described in the folder, and what keys look like."""
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
    """Keys to be read by the names of the logger, which may have a prefix of the user's."""
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
    """Sort values by family and probe; a row without ``epochs_completed`` tells of a failure."""
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
