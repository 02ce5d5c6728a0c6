"""Metrics of an epoch that Lightning has not computed yet and that need all processes.

A metric logged with ``on_epoch=True, sync_dist=True`` is computed, by collectives, when it is first
read. A single process may read it first: a progress bar reads metrics at the end of an epoch, and
only process 0 shows one. This works because the other processes compute the same metrics a moment
later. It would not work if they waited for process 0 at a measurement instead. So process 0
announces what it is computing, and the processes that wait for it compute the same.
"""

import json
from contextlib import suppress
from typing import Any

from lightning_nc.callbacks.lightning_internals import (
    compute_metric,
    epoch_results,
    pending_metrics,
)
from lightning_nc.passes.meeting import MeetingPlace, meeting_place


def announce_computing(trainer: Any) -> None:
    """Make this process announce the metrics it computes if they need all processes."""
    stop_announcing(trainer)
    results, place = epoch_results(trainer), meeting_place()
    if results is None or place is None:
        return
    compute, mine = results.metrics, _announcements(place)

    def metrics(on_step: bool) -> Any:
        names = [] if on_step else pending_metrics(results)
        if not names:
            return compute(on_step)
        with suppress(Exception):  # if the store is gone, no process meets there
            mine.store.set(str(mine.rank), json.dumps(names))
        try:
            return compute(on_step)
        finally:
            with suppress(Exception):
                mine.store.set(str(mine.rank), "[]")

    results.metrics = metrics


def stop_announcing(trainer: Any) -> None:
    """Undo `announce_computing`."""
    results = epoch_results(trainer)
    if results is not None:
        vars(results).pop("metrics", None)


def compute_with_others(trainer: Any, place: MeetingPlace) -> None:
    """Compute the metrics that other processes have begun to compute.

    No other metric is computed: metrics of the user may still be incomplete.

    Args:
        trainer: The Trainer.
        place: The meeting place of its processes.
    """
    results, all_of_them = epoch_results(trainer), _announcements(place)
    for rank in range(place.world):
        if rank != place.rank and all_of_them.store.check([str(rank)]):
            pending = pending_metrics(results)
            for name in json.loads(all_of_them.store.get(str(rank))):
                if name in pending:
                    compute_metric(results, name)


def _announcements(place: MeetingPlace) -> MeetingPlace:
    return place.part("computing epoch metrics")
