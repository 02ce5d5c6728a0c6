"""A logger's class, the keys and files it writes, and the alerts it can send."""

import re
from collections.abc import Callable
from hashlib import sha256
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


def takes_files(logger: Any) -> bool:
    """Whether a logger has a method ``log_file``, as that of Lightning's own platform."""
    return callable(getattr(logger, "log_file", None)) and not is_a(logger, "DummyLogger")


_PLAIN = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)$)[a-z0-9_-]{1,80}")


def path_of(tag: str) -> str:
    """Return the path of a tag's files: inside the logger's folder, and no other tag has it.

    Each part of the tag becomes a name that every file system accepts. A part of up to 80 small
    letters, digits, ``_`` and ``-`` is kept. Any other is shortened and gets a hash, since it may
    be too long, lead out of the folder, or be another part there, as ``Val`` may be ``val``.

    Args:
        tag: The tag; its parts, which are separated by ``/``, can have any letters.

    Example:
        >>> path_of("nc/train/law"), path_of("nc/../Law")
        ('nc/train/law', 'nc/_~5ec1f7e700f3/Law~b78c1618fd97')
    """
    return "/".join(map(_folder_name, tag.split("/")))


def _folder_name(part: str) -> str:
    if _PLAIN.fullmatch(part):
        return part
    digest = sha256(part.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{re.sub('[^A-Za-z0-9_-]+', '_', part)[:80]}~{digest[:12]}"


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
