"""Restore many things, whatever fails among them, and say what could not be restored."""

import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lightning_nc.wording import listed


class NotRestored(RuntimeError):
    """What a measurement has changed could not be restored; the message names it.

    Attributes:
        reasons: Why not, by name of the thing.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__(
            f"{listed(reasons, 3)} could not be restored after a measurement "
            f"({next(iter(reasons.values()))}), so training may no longer be what it would have "
            "been. Train without the callback, or without what cannot be restored."
        )


@contextmanager
def restoring() -> Iterator[Callable[..., None]]:
    """Restore things after the block, every one of them, whatever the block or one of them raises.

    One that raises is tried once more, since an interruption or another signal may have come in its
    midst. An interruption is raised again at the end.

    Yields:
        ``later(what, restore, *arguments)``, which asks for ``restore(*arguments)`` after the
        block, in the order of these calls. It must do no harm if called twice. ``what`` names the
        thing.

    Raises:
        NotRestored: At the end, with the names of all that raised twice, also of those of blocks
            within this one. If another error is on its way, this is a warning instead.
    """
    steps: deque[tuple[str, Callable[..., None], tuple[Any, ...]]] = deque()
    ended = False
    try:
        yield lambda what, restore, *given: steps.append((what, restore, given))
        ended = True
    finally:
        reasons: dict[str, str] = {}
        interruption: BaseException | None = None
        failed: Any = None
        while steps:
            try:
                while steps:
                    _, restore, given = steps[0]
                    restore(*given)
                    steps.popleft()
            except BaseException as error:
                interruption = interruption if isinstance(error, Exception) else error
                if steps and steps[0] is failed:
                    reasons[steps.popleft()[0]] = _in_one_line(error)
                failed = steps[0] if steps else None
        raised = None if ended else sys.exc_info()[1]
        if isinstance(raised, NotRestored):
            reasons, raised = {**raised.reasons, **reasons}, None
        if reasons and interruption is None and raised is None:
            raise NotRestored(reasons)
        if reasons:
            with suppress(Warning):  # where warnings are errors, the other error goes first
                warnings.warn(str(NotRestored(reasons)), RuntimeWarning, stacklevel=2)
        if interruption is not None:
            raise interruption


def _in_one_line(error: BaseException) -> str:
    """Describe an error, also one that cannot describe itself."""
    return traceback.format_exception_only(error)[-1].splitlines()[0]
