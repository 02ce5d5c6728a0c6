"""A logger's class, the keys it writes, and the alerts it can send."""

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


def send_alert(logger: Any, title: str, text: str) -> None:
    """Send an alert through a W&B logger; other loggers cannot send any.

    Args:
        logger: Any logger.
        title: Title of the alert.
        text: Text of the alert.
    """
    if is_a(logger, "WandbLogger"):
        logger.experiment.alert(title=title, text=text)
