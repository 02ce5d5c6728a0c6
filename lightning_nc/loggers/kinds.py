"""A logger's class, the keys it writes, and the alerts it can send."""

from typing import Any


def is_a(logger: Any, kind: str) -> bool:
    """Whether a logger is one of a class such as ``"WandbLogger"``, in either namespace."""
    return any(base.__name__ == kind for base in type(logger).__mro__)


def key_of(logger: Any, key: str) -> str:
    """Return a key as the logger writes it, with the prefix that users can give to a logger."""
    prefix = getattr(logger, "_prefix", None)
    return f"{prefix}{logger.LOGGER_JOIN_CHAR}{key}" if prefix else key


def send_alert(logger: Any, title: str, text: str) -> None:
    """Send an alert through a W&B logger; other loggers cannot send any."""
    if is_a(logger, "WandbLogger"):
        logger.experiment.alert(title=title, text=text)
