"""Metrics that Lightning has yet to compute of an epoch, which takes all processes.

A metric that is logged with ``on_epoch=True, sync_dist=True`` is computed, by collectives, when
somebody reads it for the first time. That may be one process alone: a progress bar reads at the end
of an epoch, and only process 0 shows one. Lightning goes on all the same, since the others compute
the same metrics a moment later. They would not if they met process 0 for a measurement first: so
process 0 announces what it is computing, and who waits for it computes the same.
"""

import json
from contextlib import suppress
from typing import Any

from lightning_nc.callbacks.lightning_internals import (
    compute_metric,
    epoch_results,
    pending_metrics,
)
from lightning_nc.passes.meeting import Place, meeting_place


def announce_computing(trainer: Any) -> None:
    """Have this process say so whenever it computes metrics that take all processes."""
    stop_announcing(trainer)
    results, place = epoch_results(trainer), meeting_place()
    if results is None or place is None:
        return
    compute, mine = results.metrics, _announcements(place)

    def metrics(on_step: bool) -> Any:
        names = [] if on_step else pending_metrics(results)
        if not names:
            return compute(on_step)
        with suppress(Exception):  # a store that is gone: nobody meets there any more
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


def compute_with_others(trainer: Any, place: Place) -> None:
    """Compute what other processes are computing right now, and are waiting for.

    No metric is computed that no process has begun to compute: the user's may be incomplete.

    Args:
        trainer: The Trainer.
        place: Where its processes meet.
    """
    results, all_of_them = epoch_results(trainer), _announcements(place)
    for rank in range(place.world):
        if rank != place.rank and all_of_them.store.check([str(rank)]):
            pending = pending_metrics(results)
            for name in json.loads(all_of_them.store.get(str(rank))):
                if name in pending:
                    compute_metric(results, name)


def _announcements(place: Place) -> Place:
    return place.part("computing epoch metrics")
