"""Agreement between processes: votes of fixed size, and sums."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


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

        One vote, whatever happens: a process that fails still takes part in it.

        Args:
            work: What this process does, without communication.
            digest: Number that must be the same on all processes when the work is done.

        Raises:
            Exception: What the work raised on this process.
            RuntimeError: If it failed on another process, or digests differ.
        """
        try:
            result, error = work(), None
        except Exception as failure:
            error = failure
        failed, agreed = self._vote(error is not None, 0 if error else digest())
        if error is not None:
            raise error
        if failed is not None:
            raise RuntimeError(f"The measurement failed on process {failed}, which says why.")
        if not agreed:
            raise RuntimeError(
                "Processes read different samples or networks: indices, labels, layers or shapes "
                "differ. Give every process the same dataset and the same seeds."
            )
        return result

    def all_reduce(self, flat: Tensor) -> Tensor:
        """Add a tensor up over all processes."""
        shared = flat.to(self.device)
        torch.distributed.all_reduce(shared)
        return shared.to(flat.device)

    def _vote(self, failed: bool, digest: int) -> tuple[int | None, bool]:
        """The highest rank that failed, and whether all others have the same digest."""
        if self.world == 1:
            return (0 if failed else None), True
        # max(x) and max(-x) are each other's negative only if all x are the same
        ballot = torch.tensor([self.rank + 1 if failed else 0, digest, -digest], device=self.device)
        torch.distributed.all_reduce(ballot, op=torch.distributed.ReduceOp.MAX)
        last_failed, highest, lowest = ballot.tolist()
        return (last_failed - 1 if last_failed else None), highest == -lowest


def trainer_processes(trainer: Any) -> Processes:
    """The processes of a Trainer that read different data."""
    sampling = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    return Processes(sampling["rank"], sampling["num_replicas"], trainer.strategy.root_device)
