"""Restore dictionaries in which torch's modules hold their parts and hooks."""

from collections.abc import Callable, Mapping
from typing import Any


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
        entries = dict(value) if hasattr(value, "keys") else None
        later(what, _restore, owner, name, value, entries)


def _restore(owner: Any, name: str, value: Any, entries: Mapping[Any, Any] | None) -> None:
    if getattr(owner, name) is not value:
        setattr(owner, name, value)
    if entries is not None:
        _restore_entries(value, entries)


def _restore_entries(now: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    """Give a dictionary the same entries in the same order as before, unless it still has them."""
    same = [*now.keys()] == [*before.keys()]
    if same and all(now[key] is value for key, value in before.items()):
        return
    if isinstance(now, dict):
        now.clear()
        now.update(before)
    else:  # that of a ScriptModule, whose entries can only be set
        for key, value in before.items():
            now[key] = value
