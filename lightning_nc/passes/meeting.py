"""Meetings: processes wait for one another in the store of their group before they communicate.

A collective that some processes enter while others wait elsewhere never ends. A store is not a
collective: writing to it or reading from it waits for nobody. So each process first writes there
that it has arrived, and enters a collective only when all have arrived.

Before a measurement it waits until a deadline. Within one it waits for slower processes as long as
these go on: in a collective, they would end the run at the timeout of the group.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch.distributed as dist

_PAUSES = 0.0005, 0.02  # seconds between two looks into the store: the first and the longest


class MeetingPlace(NamedTuple):
    """Where the processes of a group can meet.

    Attributes:
        store: A ``torch.distributed.Store`` that all of them share.
        rank: Rank of this process.
        world: Number of processes.
    """

    store: Any
    rank: int
    world: int

    def part(self, name: str) -> "MeetingPlace":
        """A part of the store with its own namespace."""
        prefix = f"lightning_nc/{name}"
        return self._replace(store=dist.PrefixStore(prefix, self.store))  # type: ignore[attr-defined]

    def within_timeout(self, seconds: float) -> float:
        """No more seconds than half the group's timeout: another process may be in a collective.

        Example:
            >>> from datetime import timedelta
            >>> place = MeetingPlace(dist.HashStore(), rank=0, world=2)
            >>> place.store.set_timeout(timedelta(seconds=90))
            >>> place.within_timeout(30), place.within_timeout(60)
            (30, 45.0)
        """
        return min(seconds, self.store.timeout.total_seconds() / 2)

    def meet(
        self,
        name: str,
        seconds: float,
        meanwhile: Callable[[], None] = lambda: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> list[int] | None:
        """Wait until all processes have arrived at a meeting, or until one has waited too long.

        A process that has waited too long calls the meeting off. The first decision in the store
        is final: all processes leave with the same answer, even those that arrive later.

        Args:
            name: Name of the meeting; not to be reused while a process may still arrive at it.
            seconds: How long this process waits for the others.
            meanwhile: Called again and again during the wait; its exceptions are ignored.
            interrupted: Says whether to wait no longer, for a signal to the program.

        Returns:
            The ranks that had not arrived when the meeting was called off; empty if all arrived,
            None if a process stopped waiting for a signal.

        Example:
            >>> MeetingPlace(dist.HashStore(), rank=1, world=2).meet("after epoch 1", seconds=0.1)
            [0]
        """
        here = self.part(name)
        here.store.set(f"came/{self.rank}", "")
        if here.store.add("came", 1) == self.world:
            here.decide([])
        until, pause = time.monotonic() + seconds, _PAUSES[0]
        while not here.store.check(["decided"]):
            if interrupted():
                here.decide(None)
            elif time.monotonic() > until:
                # empty if the last process has just arrived: it will read the same decision
                here.decide([r for r in range(self.world) if not here.store.check([f"came/{r}"])])
            else:
                with suppress(Exception):  # once here it must stay: others count on it
                    meanwhile()
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])
        absent: list[int] | None = json.loads(here.store.get("decided"))
        if here.store.add("left", 1) == self.world:
            here.clear()
        return absent

    def decide(self, absent: list[int] | None) -> None:
        """Record what `meet` returns, unless another process has decided already."""
        self.store.compare_set("decided", "", json.dumps(absent))

    def clear(self) -> None:
        """Delete all keys of a meeting that every process has left."""
        for key in ("decided", "came", "left", *(f"came/{rank}" for rank in range(self.world))):
            self.store.delete_key(key)


class WaitingRoom:
    """Where a process that has done its work waits for slower ones, outside of any collective.

    Args:
        place: The meeting place; without one, nobody waits.
        name: Name of the room, one for each measurement.
        seconds: For how long to wait while none of the others goes on.

    Example:
        >>> with WaitingRoom(MeetingPlace(dist.HashStore(), rank=0, world=2), "one", 0.1) as room:
        ...     room.go_on()
        ...     room.wait()
    """

    def __init__(
        self, place: MeetingPlace | None = None, name: str = "", seconds: float = 0
    ) -> None:
        self._here = None if place is None else place.part(f"within {name}")
        self._seconds, self._waits, self._shown = seconds, 0, -math.inf

    def __enter__(self) -> "WaitingRoom":
        """Come in."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait here no more; the last process to leave deletes all keys."""
        with suppress(Exception):  # here and below: if the store is gone, nobody waits there
            if self._here is not None and self._here.store.add("left", 1) == self._here.world:
                for key in ("came", "signs", "left"):
                    self._here.store.delete_key(key)

    def go_on(self) -> None:
        """Show the others that this process goes on; to be called at each step of its work."""
        now = time.monotonic()
        # not at each step, since a store serves up to hundreds of processes
        if self._here is not None and now - self._shown > self._seconds / 10:
            self._shown = now
            with suppress(Exception):
                self._here.store.add("signs", 1)

    def wait(self) -> None:
        """Return when all processes have come to this wait, or none has gone on for too long."""
        self._waits += 1
        if self._here is not None:
            with suppress(Exception):
                self._wait(self._here.store, self._waits * self._here.world)

    def _wait(self, store: Any, arrivals: int) -> None:
        store.add("came", 1)
        signs, pause = 0, _PAUSES[0]
        started = heard = time.monotonic()
        while store.add("came", 0) < arrivals:
            now, found = time.monotonic(), store.add("signs", 0)
            if found > signs:
                signs, heard = found, now
            elif now - heard > self._seconds or store.check(["left"]):
                return  # one that has left before the others came has failed
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1] + (now - started) / 20)


def meeting_place() -> MeetingPlace | None:
    """The store of torch's default group; None if there is no group, or if it has no store.

    ``_get_default_store`` is private in torch. Without it processes cannot meet, and continue as if
    all had arrived.
    """
    with suppress(Exception):
        if dist.is_initialized():
            store = dist.distributed_c10d._get_default_store()
            return MeetingPlace(store, dist.get_rank(), dist.get_world_size())
    return None
