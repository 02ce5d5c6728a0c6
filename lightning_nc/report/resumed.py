"""Join the logs of a run that was resumed from a checkpoint: its logger began a new folder."""

import math
import re
from collections.abc import Sequence

from lightning_nc.report.reading import Log, LoggedMeasurement

_VERSION = re.compile(r"version_(\d+)")


def join_resumed(logs: Sequence[Log]) -> list[Log]:
    """Join the logs of each run that was resumed.

    A log that could continue several others stays on its own.
    """
    joined: list[Log] = []
    for log in sorted(
        logs, key=lambda log: (not log.in_depth, log.folders[0].parent, _number(log))
    ):
        earlier = [one for one in joined if _continues(log, one)]
        if len(earlier) == 1:
            joined[joined.index(earlier[0])] = _join(earlier[0], log)
        else:
            joined.append(log)
    return joined


def _number(log: Log) -> int:
    """The version number of a log's last folder; -1 if it has none."""
    version = _VERSION.fullmatch(log.folders[-1].name)
    return int(version[1]) if version else -1


def _continues(log: Log, earlier: Log) -> bool:
    """Whether a log continues an earlier one from a checkpoint."""
    began, reached = log.span[0], earlier.span[1]
    return (
        log.folders[0].parent == earlier.folders[0].parent
        and log.in_depth == earlier.in_depth
        and _number(log) > _number(earlier) >= 0
        and bool(log.records)
        and log.records.keys() == earlier.records.keys()
        and began <= reached + 1  # a checkpoint after the last epoch resumes with the next one
        and all(_goes_on(log.records[key], earlier.records[key], began) for key in log.records)
    )


def _goes_on(
    records: Sequence[LoggedMeasurement], earlier: Sequence[LoggedMeasurement], began: float
) -> bool:
    """Whether measurements of a run that began in an epoch continue earlier ones.

    A separate run of the same experiment begins before the earlier one ends, even if it is first
    measured later. A run can be resumed from before its end; it then repeats measurements.
    """
    epochs, theirs = ([r.values["epochs_completed"] for r in each] for each in (records, earlier))
    before = [epoch for epoch in theirs if epoch < epochs[0]]
    return (
        bool(before)
        and math.floor(max(before)) <= began
        and set(theirs) - set(before) <= set(epochs)
        and records[0].values.keys() == earlier[-1].values.keys()
        and records[0].layers.keys() == earlier[-1].layers.keys()
    )


def _join(earlier: Log, log: Log) -> Log:
    """Join two logs; of repeated measurements, which are told apart later, the last one counts."""
    records = {key: earlier.records[key] + of_log for key, of_log in log.records.items()}
    # the later log counts on from the checkpoint; what failed after that was measured anew
    keys = earlier.failures | log.failures
    failures = {k: max(each.failures.get(k, 0) for each in (earlier, log)) for k in keys}
    return log._replace(
        folders=earlier.folders + log.folders,
        records=records,
        failures=failures,
        span=(earlier.span[0], log.span[1]),
    )
