"""Agreement between processes: votes of fixed size, and sums."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_TEXT = 2048  # bytes of the error text that a failed process sends to the others


class MeasurementError(RuntimeError):
    """A measurement failed, and all processes know it; the message says where and why."""


class MissedMeeting(MeasurementError):
    """Some processes did not reach a measurement in time; all that did raise this error."""


class Processes(NamedTuple):
    """The processes that measure together.

    Attributes:
        rank: Rank of this process.
        world: Number of processes.
        device: The device used for communication.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    def agree(self, work: Callable[[], T], digest: Callable[[], int]) -> T:
        """Do local work on every process; if it fails on one, raise on all.

        The processes hold one vote, whether or not the work succeeds: a process that failed still
        takes part. Only after a failure does a second reduction send the cause to the others.

        Args:
            work: The work of this process. It may communicate only right after `in_step`.
            digest: Returns a number that must be the same on all processes after the work.

        Returns:
            What the work returned.

        Raises:
            Exception: If the work failed on this process: the error it raised.
            MeasurementError: If the work failed on another process, or the digests differ.
        """
        error: Exception | None = None
        number = 0
        try:
            try:
                result = work()
                number = digest()
            except MeasurementError:
                raise  # raised by a vote during the work: the others know already
            except Exception as failure:
                error = failure
            self._hold_vote(number, error)
            return result
        finally:
            # the error references this frame and all that the work held: break the cycle
            del error

    def in_step(self) -> None:
        """Wait until every process is about to start a forward pass that communicates.

        This is a vote of the same size as in `agree`, with digest 0. A process that has failed, or
        has finished its work, takes part in it with its vote in `agree`.

        Raises:
            MeasurementError: If another process has failed, or has finished its work already.
        """
        self._hold_vote(digest=0)

    def all_reduce(self, flat: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
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
        """The error message of the failed process, sent to all processes."""
        text = "" if error is None else told_by(self.rank, error)
        if self.world == 1:
            return text
        sent = torch.zeros(_TEXT, dtype=torch.uint8, device=self.device)
        if failed == self.rank:
            # file names may contain surrogates, which UTF-8 cannot encode
            coded = text.encode(errors="backslashreplace")[:_TEXT]
            raw = torch.frombuffer(bytearray(coded), dtype=torch.uint8)
            sent[: len(raw)] = raw.to(self.device)
        torch.distributed.all_reduce(sent)  # the others add zeros
        return bytes(sent.tolist()).rstrip(b"\0").decode(errors="ignore")

    def _vote(self, failed: bool, digest: int) -> tuple[int | None, bool]:
        """The highest rank that failed, if any, and whether all digests are equal."""
        if self.world == 1:
            return (0 if failed else None), True
        # max(x) = -max(-x) only if all x are equal
        ballot = torch.tensor([self.rank + 1 if failed else 0, digest, -digest], device=self.device)
        torch.distributed.all_reduce(ballot, op=torch.distributed.ReduceOp.MAX)
        last_failed, highest, lowest = ballot.tolist()
        return (last_failed - 1 if last_failed else None), highest == -lowest


def told_by(rank: int, error: Exception) -> str:
    """Describe an error and the process on which it was raised."""
    try:
        message = str(error)
    except Exception:
        message = "(an error that cannot be shown)"
    if isinstance(error, MeasurementError):
        return message
    return f"process {rank} raised {type(error).__name__}: {message}"
