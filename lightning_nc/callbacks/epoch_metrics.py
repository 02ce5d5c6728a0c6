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

from lightning_nc.callbacks.meeting import Place


class EpochMetrics:
    """The metrics that a training epoch has logged so far.

    All that is private in Lightning here is used under `suppress`: without it a process that
    computes alone is one that does not come to the meeting.

    Args:
        trainer: The Trainer.
        place: Where its processes meet.
    """

    def __init__(self, trainer: Any, place: Place) -> None:
        self.results = trainer.fit_loop.epoch_loop._results
        self.place = place.part("epoch metrics")

    def announce(self) -> None:
        """Have this process say so whenever it computes metrics that take all processes."""
        self.keep_quiet()
        compute = self.results.metrics

        def metrics(on_step: bool) -> Any:
            names = [] if on_step else self._pending()
            if not names:
                return compute(on_step)
            key = f"computing/{self.place.rank}"
            with suppress(Exception):  # a store that is gone: nobody meets there any more
                self.place.store.set(key, json.dumps(names))
            try:
                return compute(on_step)
            finally:
                with suppress(Exception):
                    self.place.store.set(key, "[]")

        self.results.metrics = metrics

    def keep_quiet(self) -> None:
        """Undo `announce`."""
        vars(self.results).pop("metrics", None)

    def compute_with_others(self) -> None:
        """Compute what other processes are computing right now, and are waiting for.

        No metric is computed that no process has begun to compute: the user's may be incomplete.
        """
        for rank in range(self.place.world):
            key = f"computing/{rank}"
            if rank != self.place.rank and self.place.store.check([key]):
                pending = self._pending()
                for name in json.loads(self.place.store.get(key)):
                    if name in pending:
                        self.results._get_cache(self.results[name], on_step=False)

    def _pending(self) -> list[str]:
        """Those that have not been computed, and communicate when they are; in their order."""
        names = []
        with suppress(Exception):
            for name, metric in self.results.valid_items():
                if metric.meta.on_epoch and metric._computed is None and _communicates(metric):
                    names.append(name)
        return names


def epoch_metrics(trainer: Any, place: Place) -> EpochMetrics | None:
    """Those of a Trainer; None if Lightning has them under other names."""
    try:
        return EpochMetrics(trainer, place)
    except AttributeError:
        return None


def _communicates(metric: Any) -> bool:
    """Whether a value that was logged, or the torchmetric, is computed from all processes."""
    if metric.is_tensor:
        return metric.meta.sync.should and not metric.meta.sync.rank_zero_only
    return metric.value.sync_on_compute and metric.value._computed is None
