"""Restore dictionaries in which torch's modules hold their parts and hooks."""

from collections.abc import Callable, Mapping
from typing import Any

Entries = tuple[tuple[Any, Any], ...]


def restore_later(
    later: Callable[..., None], what: str, owner: Any, held: Mapping[str, Any]
) -> None:
    """Ask for the attributes of something to be restored, with the entries of dictionaries.

    Args:
        later: As `restoring` yields it.
        what: What the attributes are.
        owner: The thing.
        held: Its attributes, by name.
    """
    for name, value in held.items():
        entries = tuple(value.items()) if hasattr(value, "items") else None
        later(what, _restore, owner, name, value, entries)


def _restore(owner: Any, name: str, value: Any, entries: Entries | None) -> None:
    if getattr(owner, name) is not value:
        setattr(owner, name, value)
    if entries is not None:
        _restore_entries(value, entries)


def _restore_entries(now: dict[Any, Any], before: Entries) -> None:
    """Give a dictionary the same entries in the same order as before, unless it still has them."""
    if len(now) == len(before) and all(
        key == name and value is thing
        for (key, value), (name, thing) in zip(now.items(), before, strict=True)
    ):
        return
    if isinstance(now, dict):
        now.clear()
        now.update(before)
    else:  # that of a ScriptModule, whose entries can only be set
        for key, value in before:
            now[key] = value
