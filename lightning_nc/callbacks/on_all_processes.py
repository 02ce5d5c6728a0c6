"""Callbacks that some processes lack, or have with other options, are left out on all.

Each process writes into the store of the group what it has when it sets up, and looks there before
the first measurement. Between the two Lightning waits for all, so that looking waits for nobody.
What is written is deleted when all have come to a measurement and so have looked, or at the end of
the run. By then the first process may be gone and with it the store, which torch says at length.
In a run without measurements no process looks: another one may have come to its end before.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from lightning_nc.callbacks.messages import tell
from lightning_nc.callbacks.record import Record
from lightning_nc.passes.meeting import MeetingPlace, meeting_place

_OF_A_PROCESS = {"name", "num_workers", "wait_seconds"}  # settings that may differ


def announce(trainer: Any, record: Record) -> None:
    """Let other processes see that this one has a callback, and with which options."""
    place = _place_of(trainer, record)
    record.announced = record.compared = False
    if place is not None:
        with suppress(Exception):  # a store that is gone is told where processes meet
            place.store.set(str(place.rank), _options_of(record))
            record.announced = True


def withdraw(trainer: Any, record: Record) -> None:
    """Undo `announce`: the next run may have other callbacks."""
    place = _place_of(trainer, record) if record.announced else None
    record.announced = False
    if place is not None:
        with suppress(Exception):
            place.store.delete_key(str(place.rank))


def leave_out_others(trainer: Any, records: Sequence[Record]) -> None:
    """Leave out the callbacks that some processes do not have like this one; say so once each.

    Raises:
        ValueError: If one of them has ``on_error="raise"``.
    """
    for record in records:
        look = record.announced and not record.compared
        place = _place_of(trainer, record) if look else None
        record.compared = True  # one look is enough
        found = {} if place is None else _found(place)
        lacking = [rank for rank, options in found.items() if options is None]
        others = [rank for rank, options in found.items() if options not in (None, found[0])]
        if not (lacking or others):
            continue
        record.left_out = True
        who = f"process {', '.join(map(str, lacking or others))}"
        what = "does not have it" if lacking else "has it with other options than process 0"
        text = (
            f"{record.title} is left out of this run: {who} {what}. Give "
            "all processes the same callbacks; they measure together, and process 0 logs."
        )
        if record.on_error == "raise":
            raise ValueError(text)
        first = next(rank for rank in found if rank not in lacking)
        tell(trainer, text, here=trainer.global_rank == first)


def _place_of(trainer: Any, record: Record) -> MeetingPlace | None:
    place = meeting_place() if trainer.world_size > 1 else None
    name = f"who has {record.prefix} of run {record.runs}"
    return None if place is None else place.part(name)


def _found(place: MeetingPlace) -> dict[int, bytes | None]:
    """The options on each process, None where it does not have the callback; empty if unknown."""
    with suppress(Exception):
        store, names = place.store, [str(rank) for rank in range(place.world)]
        if store.check(names):  # two requests, since each of hundreds of processes makes them
            return dict(enumerate(store.multi_get(names)))
        return {n: store.get(name) if store.check([name]) else None for n, name in enumerate(names)}
    return {}


def _options_of(record: Record) -> str:
    """The options that decide when and how processes communicate."""
    plain = (str, int, float, tuple, type(None))
    probe = {each.name: getattr(record.probe, each.name) for each in fields(record.probe)}
    kept = {k: v for k, v in probe.items() if k not in _OF_A_PROCESS and isinstance(v, plain)}
    return repr((record.schedule, kept, record.on_error))
