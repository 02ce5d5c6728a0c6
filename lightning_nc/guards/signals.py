"""Signals to the program wait until a measurement has been undone."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

# what schedulers and users send to end a run, or to have it saved and queued again
_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")


@contextmanager
def signals_held(interrupts: bool = False) -> Iterator[Callable[[], bool]]:
    """Run the program's signal handlers right after the block instead of within it.

    A handler may run between any two steps of a measurement. There the network is in evaluation,
    other processes are in collectives of ours, and an exception would pass for one of the data.
    Lightning's handlers communicate (SIGTERM) and write checkpoints (the signal to requeue), and
    those of programs raise. A long block should look whether a signal has arrived, and end early.

    Only handlers that the program has installed are held. A signal without one ends the process as
    ever, and Python raises its own KeyboardInterrupt at once.

    Args:
        interrupts: Whether to hold KeyboardInterrupt, too, in a short block that must be complete.

    Yields:
        A function that says whether a signal has arrived.

    Example:
        >>> told = []
        >>> before = signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
        >>> with signals_held() as arrived:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     arrived(), told
        (True, [])
        >>> told
        ['SIGTERM']
        >>> before = signal.signal(signal.SIGTERM, before)
    """
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)

    with ExitStack() as afterwards:  # it does all of this, even if a handler raises
        afterwards.callback(_deliver, noted)
        # handlers run in the main thread, which alone may set them
        if threading.current_thread() is threading.main_thread():
            for number in _handled(interrupts):
                afterwards.callback(_put_back, number, signal.signal(number, note), note)
        yield lambda: bool(noted)


def _handled(interrupts: bool) -> list[signal.Signals]:
    """Return the signals for which the program has a handler, with or without Python's own."""
    known = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in known}
    return [
        number
        for number, each in handlers.items()
        if callable(each) and (interrupts or each is not signal.default_int_handler)
    ]


def _put_back(number: int, handler: Any, ours: Any) -> None:
    if signal.getsignal(number) is ours:  # not one that was installed since
        signal.signal(number, handler)


def _deliver(numbers: Sequence[int]) -> None:
    with ExitStack() as each:
        for number in reversed(dict.fromkeys(numbers)):
            each.callback(signal.raise_signal, number)
