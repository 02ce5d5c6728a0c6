"""Messages to the user, none of which may stop a process for which others wait."""

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def tell(trainer: Any, text: str) -> None:
    """Warn, on the first process alone.

    Where warnings are errors, a single process stops with it, as was asked for; one of several goes
    on, since others would wait for it, and the text goes to the log.
    """
    if not trainer.is_global_zero:
        return
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    except Exception as refused:  # what shows warnings may be anybody's code
        if trainer.world_size == 1 and isinstance(refused, RuntimeWarning):
            raise
        with suppress(Exception):
            logging.getLogger("lightning_nc").warning(text)


def tell_once(trainer: Any, told: set[str], topic: str, text: str) -> bool:
    """Warn, unless this topic has been told before.

    Args:
        trainer: The Trainer.
        told: Topics that have been told; this one is added.
        topic: What the text is about.
        text: The message.

    Returns:
        Whether it was told now.
    """
    new = topic not in told
    told.add(topic)
    if new:
        tell(trainer, text)
    return new


def safely(trainer: Any, told: set[str], what: str, do: Callable[[], Any]) -> None:
    """Do something that may fail, at the cost of one message and no more.

    Args:
        trainer: The Trainer.
        told: What has been told before. A failure is told once, whatever file it is about: most
            come back with every measurement.
        what: What is done; a verb and its object.
        do: Does it, without communication.
    """
    try:
        do()
    except Exception as error:
        reason = f"Could not {what}: {_shown(error)}"
        tell_once(trainer, told, reason, reason + _place(error))


def _shown(error: Exception) -> str:
    try:
        return repr(error)
    except Exception:
        return f"{type(error).__name__}, an error that cannot be shown"


def _place(error: Exception) -> str:
    """The file or folder that an error is about, which `repr` leaves out."""
    return f" at {error.filename!r}" if isinstance(error, OSError) and error.filename else ""
