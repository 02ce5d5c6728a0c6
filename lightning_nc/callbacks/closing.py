"""What is logged once, when training is over: figures over all of it, and films."""

from functools import partial
from typing import TYPE_CHECKING, Any

from lightning_nc.callbacks.publish import publish_figures, publish_films
from lightning_nc.probe.generators import generators_kept

if TYPE_CHECKING:
    from lightning_nc.callbacks.geometry_callback import GeometryCallback


@generators_kept()  # what draws may draw random numbers
def close(trainer: Any, callback: "GeometryCallback") -> None:
    """Log what a callback draws at the end, on the first process, without communication."""
    fitted = [measurement for measurement in callback.history if measurement.stage == "fit"]
    if not (fitted and callback.figures and trainer.is_global_zero):
        return
    last = fitted[-1]
    publish_figures(trainer, callback.told, partial(callback.draw_at_end, last), last.step)
    publish_films(trainer, callback.told, partial(callback.films, last), last.step)
