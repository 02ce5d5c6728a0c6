"""Rows of numbers; what fails or takes too long becomes a row with its cause."""

import gc
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.gpu import lines
from tests.gpu.device import on_cuda


class TimeIsUp(BaseException):
    """Signals that the time is up; not an Exception, which the code under test may catch."""


@contextmanager
def limit(seconds):
    """Raise `TimeIsUp` in the block after so many seconds."""

    def ring(*_):
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Rows:
    """Writes rows to a file, one per line, until the time is up.

    Args:
        path: The file.
        seconds: Time for all rows.
        each: Longest time for one row.
    """

    def __init__(self, path, seconds, each=40):
        self.path, self.each = Path(path), each
        self.end = time.monotonic() + seconds
        self.path.write_text("")

    @property
    def left(self):
        return self.end - time.monotonic()

    def add(self, section, name, what, work):
        """Do some work and record the numbers that it returns, or why there are none.

        Args:
            section: The table of the row.
            name: Name of the subject, such as a network.
            what: What is measured.
            work: Function that returns numbers and texts by column.

        Returns:
            The numbers; an empty dictionary if there are none.
        """
        numbers, cause = {}, None
        if self.left <= 0:
            cause = "not measured: the time for all rows was up"
        else:
            numbers, cause = self._attempt(work)
        row = {"section": section, "name": name, "what": what, "numbers": numbers, "cause": cause}
        lines.append(self.path, row)
        print(" | ".join(map(str, (section, name, what, cause or numbers))), flush=True)
        return numbers

    def _attempt(self, work):
        seconds = min(self.each, self.left)
        try:
            with limit(seconds):
                return work(), None
        except TimeIsUp:
            return {}, f"given up after {seconds:.0f} s"
        except Exception as error:
            return {}, shown(error)
        finally:
            if on_cuda():
                gc.collect()
                torch.cuda.empty_cache()


def shown(error, length=300):
    """The type of an error and the first line of its message."""
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {said[0]}"[:length]
