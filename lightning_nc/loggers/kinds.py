"""A logger's class, the keys and files it writes, and the alerts it can send."""

from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Any


def is_a(logger: Any, kind: str) -> bool:
    """Whether a logger is an instance of a class, in either namespace of Lightning.

    Args:
        logger: Any logger.
        kind: Name of the class, such as ``"WandbLogger"``.
    """
    return any(base.__name__ == kind for base in type(logger).__mro__)


def key_of(logger: Any, key: str) -> str:
    """Return a key as the logger writes it, with the prefix that users can give to a logger.

    Args:
        logger: Any logger.
        key: The key without a prefix.
    """
    prefix = getattr(logger, "_prefix", None)
    return f"{prefix}{logger.LOGGER_JOIN_CHAR}{key}" if prefix else key


def folder_of(logger: Any) -> Any:
    """The folder of a logger's files; None if it has none."""
    return getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None)


def local_folder_of(logger: Any) -> Path | None:
    """The folder of a logger's files; None if it has none, or a remote one such as ``s3://...``."""
    folder = folder_of(logger)
    return None if not folder or "://" in str(folder) else Path(folder)


def free_name(stem: str, ending: str, taken: Callable[[str], bool]) -> str:
    """Return a file name that is not taken: the stem alone, else the stem with ``-2``, ``-3``, ...

    Args:
        stem: The name without its ending.
        ending: The ending, with the dot.
        taken: Function that says whether a name is taken.
    """
    again = chain([""], map("-{}".format, count(2)))
    names = (f"{stem}{suffix}{ending}" for suffix in again)
    return next(name for name in names if not taken(name))


def send_alert(logger: Any, title: str, text: str) -> None:
    """Send an alert through a W&B logger; other loggers cannot send any.

    Args:
        logger: Any logger.
        title: Title of the alert.
        text: Text of the alert.
    """
    if is_a(logger, "WandbLogger"):
        logger.experiment.alert(title=title, text=text)
