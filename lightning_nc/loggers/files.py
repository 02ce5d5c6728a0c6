"""The files that are written for a logger: where, under which names, and given to it."""

import re
from collections.abc import Callable
from hashlib import sha256
from itertools import chain, count
from pathlib import Path
from typing import Any

from lightning_nc.loggers.kinds import is_a


def local_folder_of(logger: Any) -> Path | None:
    """The folder of a logger's files, where a user looks for them.

    Returns:
        None if it has none, a remote one such as ``s3://...``, or a hidden one such as ``.neptune``
        with the database of a tracker.
    """
    folder = getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None)
    if not folder or "://" in str(folder) or re.match(r"\.[^.]", Path(folder).name):
        return None
    return Path(folder)


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


def save_file(
    folder: str | Path, stem: str, ending: str, write: Callable[[Path], object], logger: Any
) -> Path | None:
    """Write a file below ``figures`` in a local folder, without overwriting one.

    Nothing is written to a remote folder, such as ``s3://...``.

    Args:
        folder: The logger's folder.
        stem: The path of the file without its ending, such as a tag's `path_of`.
        ending: The ending, with the dot.
        write: Writes the file to a path.
        logger: A logger that is given the file if it takes files. It may use the name of the file
            alone, in which parts of the stem are then separated by dots.

    Returns:
        The file; None if none was written.
    """
    if "://" in str(folder):
        return None
    path = Path(folder, "figures", stem.replace("/", ".") if takes_files(logger) else stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_name(free_name(path.name, ending, lambda name: path.with_name(name).exists()))
    write(path)
    if takes_files(logger):
        logger.log_file(str(path))
    return path
