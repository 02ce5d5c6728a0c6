"""What a measurement for several callbacks has found, added to their records."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning_nc.callbacks.failures import count_failures
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.record import Record
from lightning_nc.callbacks.telling import tell_of_measurement
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.together import Found


class Recorded(NamedTuple):
    """What was added to the records.

    Attributes:
        measured: The measurements.
        failed: Why others failed.
        values: What is logged, under its keys.
    """

    measured: Sequence[tuple[Record, Measurement]]
    failed: Sequence[tuple[Record, Exception]]
    values: Mapping[str, float]


def add_to_records(
    trainer: Any,
    records: Sequence[Record],
    found: Sequence[Found | Exception],
    moment: Moment,
    seconds: float,
) -> Recorded:
    """Add measurements to the histories of callbacks, and count what failed.

    Args:
        trainer: The Trainer, or what stands for it.
        records: The records of the callbacks.
        found: What was found for each of them, or why it failed.
        moment: When it was measured.
        seconds: How long it took.
    """
    measured: list[tuple[Record, Measurement]] = []
    failed: list[tuple[Record, Exception]] = []
    for record, each in zip(records, found, strict=True):
        record.attempts += 1
        if isinstance(each, Exception):
            failed.append((record, each))
            continue
        measured.append((record, record.add(each, moment, seconds)))
        tell_of_measurement(trainer, record, each.answer, each.evaluation)
    failed = count_failures(trainer, failed, moment)
    values = {key: value for _, each in measured for key, value in each.values.items()}
    values |= {record.prefix + "failures": float(record.failures) for record, _ in failed}
    return Recorded(measured, failed, values)
