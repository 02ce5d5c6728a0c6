"""What kind a logger is, under which names it logs, and whether it sends messages."""

from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Any


def is_a(logger: Any, kind: str) -> bool:
    """Whether a logger is of a class of this name, in either namespace of Lightning."""
    return any(base.__name__ == kind for base in type(logger).__mro__)


def key_of(logger: Any, key: str) -> str:
    """The key under which a logger logs: users can have theirs put a prefix before all."""
    prefix = getattr(logger, "_prefix", None)
    return f"{prefix}{logger.LOGGER_JOIN_CHAR}{key}" if prefix else key


def folder_of(logger: Any) -> Any:
    """Where a logger keeps its files; None if it has no such place."""
    return getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None)


def local_folder_of(logger: Any) -> Path | None:
    """The same if it is on this machine; None for ``s3://...`` and the like."""
    folder = folder_of(logger)
    return None if not folder or "://" in str(folder) else Path(folder)


def free_name(stem: str, ending: str, taken: Callable[[str], bool]) -> str:
    """A file's name that is not taken: the stem, or the stem and a number from 2 on."""
    again = chain([""], map("-{}".format, count(2)))
    names = (f"{stem}{suffix}{ending}" for suffix in again)
    return next(name for name in names if not taken(name))


def send_alert(logger: Any, title: str, text: str) -> None:
    """Send a message by a logger that can: W&B writes mails."""
    if is_a(logger, "WandbLogger"):
        logger.experiment.alert(title=title, text=text)
