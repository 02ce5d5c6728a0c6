"""Agreement between processes: votes of fixed size, and sums."""

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_nc.probe.runner import SHARDING

T = TypeVar("T")

_TEXT = 2048  # bytes in which a process tells the others what went wrong


class MeasurementError(RuntimeError):
    """A measurement failed, and all processes know; the message says on which and why."""


class MissedMeeting(MeasurementError):
    """Not all processes came to a measurement in time, and all that did know."""


class Processes(NamedTuple):
    """The processes that measure together.

    Attributes:
        rank: This one.
        world: How many there are.
        device: On which they communicate.
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
            result = work()
            number = digest()
        except MeasurementError:
            raise  # by a vote that was held during the work
        except Exception as failure:
            error = failure
        self._hold_vote(number, error)
        return result

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
            raise error if error is not None else MeasurementError(text)
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


def tell(trainer: Any, text: str) -> None:
    """Warn; where warnings are errors, one process must not stop while others wait for it."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    except Exception as refused:  # what shows warnings may be anybody's code
        if trainer.world_size == 1 and isinstance(refused, RuntimeWarning):
            raise
        with suppress(Exception):
            logging.getLogger("lightning_nc").warning(text)


def require_processes(trainer: Any, name: str) -> None:
    """Refuse strategies whose processes could not agree, or see parts of the features each.

    Raises:
        ValueError: Names the strategy and those that can be measured.
    """
    kinds = [kind.__name__ for kind in type(trainer.strategy).__mro__]
    _, replicas = replicas_of(trainer)
    refused = next((kind for kind in kinds if "DeepSpeed" in kind or "XLA" in kind), None)
    if refused is None and replicas != trainer.world_size:
        refused = f"{kinds[0]} with tensor_parallel_size={trainer.world_size // replicas}"
    if refused is not None:
        raise ValueError(
            f"{name} cannot measure under {refused}: take DDP, FSDP or ModelParallelStrategy("
            "tensor_parallel_size=1), or leave the callback out and measure a checkpoint with "
            "lightning_nc.measure(model, loader)."
        )


def require_whole_parameters(trainer: Any, name: str) -> None:
    """Refuse strategies under which a process has a part of the parameters.

    Raises:
        ValueError: Names the strategy and the way out.
    """
    kinds = [kind.__name__ for kind in type(trainer.strategy).__mro__]
    sharding = next((kind for kind in kinds if kind in SHARDING), None)
    if sharding is not None:
        raise ValueError(
            f"{name} cannot compare gradients under {sharding}, where each process has a part of "
            f'the parameters: take {name}(parameters="last_layer"), DDP, or '
            "lightning_nc.functional.gradient_kernel on a checkpoint."
        )


def replicas_of(trainer: Any) -> tuple[int, int]:
    """Which of the processes that read different data this one is, and how many there are."""
    sampling = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    return sampling["rank"], sampling["num_replicas"]


def trainer_processes(trainer: Any) -> Processes:
    """The processes of a Trainer that read different data."""
    return Processes(*replicas_of(trainer), trainer.strategy.root_device)
