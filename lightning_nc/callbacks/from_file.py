"""Callbacks from a YAML file, for programs that do not configure them in code."""

from pathlib import Path
from typing import Any

from lightning_nc.callbacks.lightning_base import CallbackBase
from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.messages import tell
from lightning_nc.callbacks.summary import GeometrySummary
from lightning_nc.callbacks.yaml_list import LONGEST, Ours, callbacks_of
from lightning_nc.passes.meeting import meeting_place

_PATIENCE = 60  # seconds that a process waits for the others before the text is broadcast


class CallbacksOfFile(CallbackBase):
    """Callback that adds those of a file to a Trainer, unless others log the same keys.

    They are added when a run is set up. Before that, Lightning refuses two callbacks with the same
    state key, and the callbacks of the module are not known yet. Whatever goes wrong, the run
    continues with a warning.

    Args:
        path: The YAML file, in the format of `callbacks_of`; the first process reads it for all.
        variable: The environment variable that names the file, for messages.
    """

    def __init__(self, path: str, variable: str) -> None:
        super().__init__()
        self.path, self.variable = Path(path).absolute(), variable
        self.callbacks: list[Ours] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Read the file once, and add its callbacks to the Trainer."""
        if self.callbacks is None:
            self.callbacks = self._read(trainer)
        for callback in self.callbacks:
            if callback in trainer.callbacks:  # from the last run; others may now log its keys
                trainer.callbacks.remove(callback)
        for callback in reversed(self.callbacks):
            self._join(callback, trainer, pl_module, stage)

    def _read(self, trainer: Any) -> list[Ours]:
        place = meeting_place() if trainer.world_size > 1 else None
        seconds = _PATIENCE if place is None else place.within_timeout(_PATIENCE)
        absent = place.meet("a file of callbacks", seconds) if place is not None else []
        if absent:
            who = ", ".join(map(str, absent))
            self._tell(
                trainer,
                f"adds no callbacks, so nothing is measured: process {who} did not reach setup "
                f"within {seconds:.3g} s.",
            )
            return []
        text = trainer.strategy.broadcast(_text_of(self.path) if trainer.is_global_zero else None)
        try:
            if isinstance(text, Exception):
                raise text
            return callbacks_of(text)
        except Exception as error:
            self._tell(trainer, f"adds no callbacks, so nothing is measured: {_said(error)}")
            return []

    def _join(self, callback: Ours, trainer: Any, pl_module: Any, stage: str) -> None:
        others = trainer.callbacks
        if any(_does_the_same(other, callback) for other in others):
            return  # callbacks of the program take precedence
        after = others.index(self) + 1
        # a new list: Lightning is iterating over the old one and would set up a second time
        trainer.callbacks = [*others[:after], callback, *others[after:]]
        try:
            callback.setup(trainer, pl_module, stage)
        except Exception as error:
            trainer.callbacks = others
            name = type(callback).__name__
            self._tell(trainer, f"lists {name}; it is left out of this run: {_said(error)}")

    def _tell(self, trainer: Any, text: str) -> None:
        tell(trainer, f"{self.variable} names {self.path}, which {text}")


def _does_the_same(other: Any, callback: Ours) -> bool:
    """Whether a callback of the Trainer logs the same keys, or both print the summary."""
    if isinstance(callback, GeometrySummary):
        return isinstance(other, GeometrySummary)
    return isinstance(other, MeasureCallback) and other.record.prefix == callback.record.prefix


def _text_of(path: Path) -> str | Exception:
    """Return the text, or the error: the other processes wait for one or the other."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe may never end
            raise ValueError("it is not a file")
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST + 1)  # longer ones are refused
    except (OSError, ValueError) as error:
        return error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
