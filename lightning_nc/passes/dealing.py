"""Dealing the batches of a probe to processes: batch j goes to process j mod world."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from lightning_nc.network.samples import Samples
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.sweeps import Reading

T = TypeVar("T")


def share_of(plan: Plan, samples: Samples, probe: Probe, processes: Processes) -> Reading:
    """The batches of this process.

    A process with one batch fewer than others reads an extra one, which does not count: forward
    passes of sharded networks communicate, and every process must see the head run.
    """
    own = _dealt(plan.batches, processes)
    idle = -(-len(plan.batches) // processes.world) - len(own)
    batches = own + plan.batches[:idle]
    return Reading(samples, batches, probe, plan.classes, plan.widths, plan.of_positions, idle)


def places_of(plan: Plan, processes: Processes) -> Tensor:
    """Which samples of the probe this process has, in the order in which it takes them."""
    sizes = [batch.size for batch in plan.batches]
    of_each = torch.split(torch.arange(sum(sizes)), sizes)
    return torch.cat([torch.arange(0), *_dealt(of_each, processes)])


def _dealt(of_batches: Sequence[T], processes: Processes) -> list[T]:
    """The items of this process, given one item per batch of the probe."""
    return [*of_batches[processes.rank :: processes.world]]
