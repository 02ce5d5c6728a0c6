"""Processes meet before they communicate: through the store of their group, with a deadline.

A collective that some processes enter while others wait elsewhere never ends. A store is no
collective: whoever writes to it or reads from it waits for nobody. So processes first write there
that they have come, and enter a collective only when all have.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch.distributed as dist

_PAUSES = 0.0005, 0.02  # seconds between two looks into the store, the first and the longest


class Place(NamedTuple):
    """Where the processes of a group can meet.

    Attributes:
        store: A ``torch.distributed.Store`` that all of them share.
        rank: Which of them this one is.
        world: How many there are.
    """

    store: Any
    rank: int
    world: int

    def part(self, name: str) -> "Place":
        """A part of the store in which names are its own."""
        prefix = f"lightning_nc/{name}"
        return self._replace(store=dist.PrefixStore(prefix, self.store))  # type: ignore[attr-defined]

    def meet(
        self, name: str, seconds: float, meanwhile: Callable[[], None] | None = None
    ) -> list[int]:
        """Wait until all processes have come to a meeting, or until one has waited too long.

        Who has waited too long calls the meeting off. That is decided in the store, by whoever is
        the first: all processes leave with the same answer, also those that come later.

        Args:
            name: Of the meeting; no other has it while a process may still be on its way to this.
            seconds: How long this process waits for others.
            meanwhile: Called now and then while it waits; what it raises is passed over.

        Returns:
            The processes that had not come when the meeting was called off; empty if all are here.

        Example:
            >>> Place(dist.HashStore(), rank=1, world=2).meet("after epoch 1", seconds=0.1)
            [0]
        """
        here = self.part(name)
        here.store.set(f"came/{self.rank}", "")
        if here.store.add("came", 1) == self.world:
            here.decide([])
        until, pause = time.monotonic() + seconds, _PAUSES[0]
        while not here.store.check(["decided"]):
            if time.monotonic() > until:
                # empty if the last has come in this instant: it is here, and will read the same
                here.decide([r for r in range(self.world) if not here.store.check([f"came/{r}"])])
            elif meanwhile is not None:
                with suppress(Exception):  # who has come must stay: the others count on it
                    meanwhile()
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])
        absent: list[int] = json.loads(here.store.get("decided"))
        if here.store.add("left", 1) == self.world:
            here.clear()
        return absent

    def decide(self, absent: list[int]) -> None:
        """Say who is absent, unless another process has said so before."""
        self.store.compare_set("decided", "", json.dumps(absent))

    def clear(self) -> None:
        """Leave nothing of a meeting: all have been there."""
        for key in ("decided", "came", "left", *(f"came/{rank}" for rank in range(self.world))):
            self.store.delete_key(key)


def meeting_place() -> Place | None:
    """The store of torch's default group; None without a group, or one that has no store.

    The name is private in torch. Without it processes cannot meet, and go on as if all had come.
    """
    with suppress(Exception):
        if dist.is_initialized():
            store = dist.distributed_c10d._get_default_store()
            return Place(store, dist.get_rank(), dist.get_world_size())
    return None
