"""Signals to the program wait until a measurement has been undone."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

# what schedulers and users send to end a run, or to have it saved and queued again
_ENDING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
# what a program gets of its workers, also of those that end as they should, and of its timer
_OTHERS = ("SIGCHLD", "SIGALRM")


@contextmanager
def signals_held(interrupts: bool = False) -> Iterator[Callable[[], bool]]:
    """Run the program's signal handlers right after the block instead of within it.

    A handler may run between any two steps of a measurement. There the network is in evaluation,
    other processes are in collectives of ours, and an exception would pass for one of the data.
    Lightning's handlers communicate (SIGTERM) and write checkpoints (the signal to requeue), and
    those of programs raise; so does torch's if a worker of a DataLoader has died (SIGCHLD). A long
    block should look whether a signal has arrived that is to end it, and end early.

    Only handlers that the program has installed are held. A signal without one ends the process as
    ever, and Python raises its own KeyboardInterrupt at once.

    Args:
        interrupts: Whether to hold KeyboardInterrupt, too, in a short block that must be complete.

    Yields:
        A function that says whether a signal has arrived that is to end the block.

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
    noted: dict[int, None] = {}  # each once, in their order
    passed_on: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if number in passed_on:  # by a handler that was installed within the block and found this
            passed_on[number](number, frame)
        else:
            noted[number] = None

    ending = {getattr(signal, name, None) for name in _ENDING}
    with ExitStack() as afterwards:  # it does all of this, even if a handler raises
        afterwards.callback(_deliver, noted)
        # handlers run in the main thread, which alone may set them
        if threading.current_thread() is threading.main_thread():
            for number in _handled(interrupts):
                handler = signal.signal(number, note)
                afterwards.callback(_put_back, number, handler, note, passed_on)
        yield lambda: not ending.isdisjoint(noted)


def _handled(interrupts: bool) -> list[signal.Signals]:
    """Return the signals for which the program has a handler, with or without Python's own."""
    known = [getattr(signal, name) for name in (*_ENDING, *_OTHERS) if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in known}
    return [
        number
        for number, each in handlers.items()
        if callable(each) and (interrupts or each is not signal.default_int_handler)
    ]


def _put_back(number: int, handler: Any, ours: Any, passed_on: dict[int, Any]) -> None:
    passed_on[number] = handler
    if signal.getsignal(number) is ours:  # not one that was installed since
        signal.signal(number, handler)


def _deliver(numbers: dict[int, None]) -> None:
    with ExitStack() as each:
        for number in reversed(numbers):
            each.callback(signal.raise_signal, number)
