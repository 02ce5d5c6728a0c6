"""Agreement between processes: votes of fixed size, and sums."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_TEXT = 2048  # bytes of the error text that a failed process sends to the others


class MeasurementError(RuntimeError):
    """A measurement failed, and all processes know it; the message says where and why."""


class MissedMeeting(MeasurementError):
    """Some processes did not reach a measurement in time; all that did raise this error."""


class Interrupted(MeasurementError):
    """A measurement was broken off on all processes, since the program has other things to do."""

    def __init__(self) -> None:
        super().__init__("a signal to the program arrived before the measurement was complete")


class Disagreement(MeasurementError):
    """Processes settled on different things, and all know it.

    Attributes:
        failures: Why requests failed on some processes alone, by number of the request.
    """

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        super().__init__(
            "processes read different samples or networks: indices, labels, layers, shapes or "
            "options differ. Give every process the same dataset, seeds and callbacks."
        )
        self.failures = failures


class Processes(NamedTuple):
    """The processes that measure together.

    Attributes:
        rank: Rank of this process.
        world: Number of processes.
        device: The device used for communication.
        requests: Number of requests that may fail one by one; each has a place in every vote.
        interrupted: Says whether this process has to break off, and says so from then on.
        wait: Waits for slower processes before a vote, in which they would be waited for less long.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    requests: int = 0
    interrupted: Callable[[], bool] = lambda: False
    wait: Callable[[], None] = lambda: None

    def agree(
        self,
        work: Callable[[], T],
        digest: Callable[[], int],
        failed: dict[int, Exception] | None = None,
    ) -> T:
        """Do local work on every process; if it fails on one, raise on all.

        The processes hold one vote, whether or not the work succeeds: a process that failed still
        takes part. Only after a failure does a second reduction send the causes to the others.

        Args:
            work: The work of this process. It may communicate only right after `in_step`.
            digest: Returns a number that must be the same on all processes after the work.
            failed: Why requests have failed, by number; the same on all processes before the work.
                The work adds those that fail on this process, and the vote those of the others.

        Returns:
            What the work returned.

        Raises:
            Exception: If the work failed on this process: the error it raised.
            MeasurementError: If the work failed on another process.
            Interrupted: If a process has to break off.
            Disagreement: If the digests differ.
        """
        failed = {} if failed is None else failed
        known = set(failed)
        error: Exception | None = None
        number = 0
        try:
            try:
                if not self.interrupted():
                    result = work()
                    number = digest()
            except MeasurementError:
                raise  # raised by a vote during the work: the others know already
            except Exception as failure:
                error = failure
            self.wait()
            if self.interrupted():  # which is more than anything that has failed
                error = Interrupted()
            new = {n: failure for n, failure in failed.items() if n not in known}
            failed |= self._hold_vote(number, error, new)
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
        self._hold_vote(0, None, {})

    def all_reduce(self, flat: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes; for one process the tensor itself."""
        if self.world == 1:
            return flat
        shared = flat.to(self.device)
        torch.distributed.all_reduce(shared)
        return shared.to(flat.device)

    def least(self, value: float) -> float:
        """Return the least of the values of all processes."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MIN)
        return float(shared)

    def _hold_vote(
        self, digest: int, error: Exception | None, new: Mapping[int, Exception]
    ) -> dict[int, Exception]:
        """Vote, and return why requests have failed, on this process or on another."""
        stopped, agreed, owners = self._vote(error, digest, new)
        if stopped is not None and stopped >= self.world:
            raise Interrupted
        if stopped is not None:
            text = self._texts([stopped], [error])[0]
            try:
                raise error if error is not None else MeasurementError(text)
            finally:
                del error  # see `agree`
        causes = [new.get(n) for n in owners]
        texts = self._texts(list(owners.values()), causes) if owners else []
        told = {text: MeasurementError(text) for text in texts}  # a shared cause is one error
        failures = {
            n: cause or told[text] for n, cause, text in zip(owners, causes, texts, strict=True)
        }
        if not agreed:
            raise Disagreement(failures)
        return failures

    def _texts(self, owners: Sequence[int], errors: Sequence[Exception | None]) -> list[str]:
        """Error messages, each sent to all processes by the one that owns it."""
        texts = ["" if error is None else told_by(self.rank, error) for error in errors]
        if self.world == 1:
            return texts
        sent = torch.zeros(len(owners), _TEXT, dtype=torch.uint8, device=self.device)
        for row, owner, text in zip(sent, owners, texts, strict=True):
            if owner == self.rank:
                # file names may contain surrogates, which UTF-8 cannot encode
                coded = text.encode(errors="backslashreplace")[:_TEXT]
                raw = torch.frombuffer(bytearray(coded), dtype=torch.uint8)
                row[: len(raw)] = raw.to(self.device)
        torch.distributed.all_reduce(sent)  # the others add zeros
        return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in sent.tolist()]

    def _vote(
        self, error: Exception | None, digest: int, new: Mapping[int, Exception]
    ) -> tuple[int | None, bool, dict[int, int]]:
        """Hold a vote.

        Returns:
            The highest rank that was stopped, if any, plus the number of processes if one has to
            break off; whether all digests are equal; and for each request that has failed, the
            highest rank on which it did.
        """
        if self.world == 1:
            return (None if error is None else 0), True, dict.fromkeys(new, 0)
        mine = self.rank + 1
        stopped = 0 if error is None else mine
        if isinstance(error, Interrupted):
            stopped += self.world
        flags = [mine if n in new else 0 for n in range(self.requests)]
        # max(x) = -max(-x) only if all x are equal
        votes = [stopped, digest, -digest, *flags]
        ballot = torch.tensor(votes, device=self.device)
        torch.distributed.all_reduce(ballot, op=torch.distributed.ReduceOp.MAX)
        last, highest, lowest, *ranks = ballot.tolist()
        owners = {n: rank - 1 for n, rank in enumerate(ranks) if rank}
        return (last - 1 if last else None), highest == -lowest, owners


def told_by(rank: int, error: Exception) -> str:
    """Describe an error and the process on which it was raised."""
    try:
        message = str(error)
    except Exception:
        message = "(an error that cannot be shown)"
    if isinstance(error, MeasurementError):
        return message
    return f"process {rank} raised {type(error).__name__}: {message}"
