"""Messages to the user. None of them may stop a process that others wait for."""

import logging
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_nc.guards.signals import signals_held

T = TypeVar("T")


def tell(trainer: Any, text: str, here: bool | None = None) -> None:
    """Warn, on one process only.

    If warnings are errors, a single process stops with the warning, as the user requested. One of
    several processes continues, since the others would wait for it, and the text is logged instead.

    Args:
        trainer: The Trainer.
        text: The message.
        here: Whether this process is the one; by default the first is.
    """
    if not (trainer.is_global_zero if here is None else here):
        return
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    except Exception as refused:  # user code that shows warnings may raise anything
        if trainer.world_size == 1 and isinstance(refused, RuntimeWarning):
            raise
        with suppress(Exception):
            logging.getLogger("lightning_nc").warning(text)


def tell_once(trainer: Any, told: set[str], topic: str, text: str) -> bool:
    """Warn, unless this topic has been reported before.

    Args:
        trainer: The Trainer.
        told: Topics reported so far; this one is added.
        topic: What the text is about.
        text: The message.

    Returns:
        Whether the topic is new.
    """
    new = topic not in told
    told.add(topic)
    if new:
        tell(trainer, text)
    return new


def say_once(trainer: Any, told: set[str], topic: str, text: str) -> None:
    """Say what is no fault in Lightning's log, on the first process, unless it was said before.

    Args:
        trainer: The Trainer.
        told: Topics reported so far; this one is added.
        topic: What the text is about.
        text: The message.
    """
    new = topic not in told
    told.add(topic)
    if new and trainer.is_global_zero:
        safely(trainer, told, "write to Lightning's log", lambda: rank_zero_info(text))


def topic_of(text: str) -> str:
    """Return a text without its numbers, which change from one time to the next.

    Numbers of epochs, sizes, seconds and addresses do not make a cause a new one.

    Example:
        >>> topic_of("OSError: no answer in epoch 12 after 0.5 s from <Store at 0x7f3a>")
        'OSError: no answer in epoch # after # s from <Store at #>'
    """
    return re.sub(r"0x[0-9a-fA-F]+|\d+(\.\d+)?", "#", text)


@signals_held()  # what their handlers raise is no failure of ours
def safely(trainer: Any, told: set[str], what: str, do: Callable[[], T]) -> T | None:
    """Do something that may fail; a failure costs one warning and nothing else.

    Args:
        trainer: The Trainer.
        told: Topics reported so far. A failure is reported once, whatever file it concerns and
            whatever numbers it names, since most failures recur at every measurement.
        what: What is done, as a verb and its object.
        do: A function without arguments that does it, without communication.

    Returns:
        What the function returns; None if it fails.
    """
    try:
        return do()
    except Exception as error:
        reason = f"Could not {what}: {_shown(error)}"
        tell_once(trainer, told, topic_of(reason), reason + _place(error))
        return None


def _shown(error: Exception) -> str:
    try:
        return repr(error)
    except Exception:
        return f"{type(error).__name__}, an error that cannot be shown"


def _place(error: Exception) -> str:
    """Return the file or folder that an error concerns, which `repr` leaves out."""
    return f" at {error.filename!r}" if isinstance(error, OSError) and error.filename else ""
