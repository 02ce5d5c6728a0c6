"""The state of a callback in checkpoints: its version, and what is said if it cannot be read."""

from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn

VERSION = 2  # of the first release


def why_not_read(state: Any) -> str:
    """Return why a state is not read at all; empty if it is, or parts of it are."""
    if not isinstance(state, dict):
        return f"it is {type(state).__name__}, not a dictionary"
    version = state.get("version", VERSION)
    if type(version) is not int or version < VERSION:
        return "its version is damaged"
    if version > VERSION:
        return "it was written by a newer release, which can read it"
    return ""


def tell_of_state(who: str, why_not: str, lost: list[str]) -> None:
    """Warn, on the first process, of what could not be read; in one sentence, or not at all."""
    if why_not:
        text = f"{who} starts with an empty history, without its state in the checkpoint: {why_not}"
    elif lost:
        text = f"{who} goes on without {', '.join(lost)} in the checkpoint, which cannot be read"
    else:
        return
    rank_zero_warn(f"{text}.", category=RuntimeWarning)
