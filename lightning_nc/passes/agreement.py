"""Agreement between processes: votes of fixed size, and sums."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_TEXT = 2048  # bytes in which a process tells the others what went wrong


class MeasurementError(RuntimeError):
    """A measurement failed, and all processes know; the message says on which and why."""


class MissedMeeting(MeasurementError):
    """Not all processes came to a measurement in time, and all that did know."""


class Processes(NamedTuple):
    """The processes that measure together.

    Attributes:
        rank: The number of this one.
        world: How many there are.
        device: The device on which they communicate.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    def agree(self, work: Callable[[], T], digest: Callable[[], int]) -> T:
        """Do local work on every process; if it fails on one, raise on all.

        One vote, whatever happens: a process that fails still takes part in it. Only if one has
        failed, it tells the others why.

        Args:
            work: What this process does, without communication.
            digest: Number that must be the same on all processes when the work is done.

        Raises:
            Exception: What the work raised on this process.
            MeasurementError: If it failed on another process, or digests differ.
        """
        error: Exception | None = None
        number = 0
        try:
            try:
                result = work()
                number = digest()
            except MeasurementError:
                raise  # by a vote that was held during the work
            except Exception as failure:
                error = failure
            self._hold_vote(number, error)
            return result
        finally:
            # an error holds this frame, and all that the work held: it must not be held in return
            del error

    def in_step(self) -> None:
        """Before a forward pass that communicates: go on if every process is about to start one.

        It is a vote of the same size as those of `agree`, with another digest: a process that has
        failed, or has come to the end of its work, meets the others here.

        Raises:
            MeasurementError: If work failed on another process.
        """
        self._hold_vote(digest=0)

    def all_reduce(self, flat: Tensor) -> Tensor:
        """Add a tensor up over all processes."""
        shared = flat.to(self.device)
        torch.distributed.all_reduce(shared)
        return shared.to(flat.device)

    def _hold_vote(self, digest: int, error: Exception | None = None) -> None:
        failed, agreed = self._vote(error is not None, digest)
        if failed is not None:
            text = self._text_of(failed, error)
            try:
                raise error if error is not None else MeasurementError(text)
            finally:
                del error  # see `agree`
        if not agreed:
            raise MeasurementError(
                "processes read different samples or networks: indices, labels, layers or shapes "
                "differ. Give every process the same dataset and the same seeds."
            )

    def _text_of(self, failed: int, error: Exception | None) -> str:
        """What the process that failed says, told to all."""
        text = "" if error is None else told_by(self.rank, error)
        if self.world == 1:
            return text
        sent = torch.zeros(_TEXT, dtype=torch.uint8, device=self.device)
        if failed == self.rank:
            # names of files may hold what UTF-8 has no code for
            coded = text.encode(errors="backslashreplace")[:_TEXT]
            raw = torch.frombuffer(bytearray(coded), dtype=torch.uint8)
            sent[: len(raw)] = raw.to(self.device)
        torch.distributed.all_reduce(sent)  # of zeros on all others
        return bytes(sent.tolist()).rstrip(b"\0").decode(errors="ignore")

    def _vote(self, failed: bool, digest: int) -> tuple[int | None, bool]:
        """The highest rank that failed, and whether all others have the same digest."""
        if self.world == 1:
            return (0 if failed else None), True
        # max(x) and max(-x) are each other's negative only if all x are the same
        ballot = torch.tensor([self.rank + 1 if failed else 0, digest, -digest], device=self.device)
        torch.distributed.all_reduce(ballot, op=torch.distributed.ReduceOp.MAX)
        last_failed, highest, lowest = ballot.tolist()
        return (last_failed - 1 if last_failed else None), highest == -lowest


def told_by(rank: int, error: Exception) -> str:
    """What went wrong, and on which process."""
    try:
        message = str(error)
    except Exception:
        message = "(an error that cannot be shown)"
    if isinstance(error, MeasurementError):
        return message
    return f"process {rank} says: {type(error).__name__}: {message}"
