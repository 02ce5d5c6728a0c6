"""Which of Lightning's strategies can be measured."""

from typing import Any

from lightning_nc.callbacks.lightning_internals import replicas_of
from lightning_nc.callbacks.trainer_access import SHARDING
from lightning_nc.passes.request import DoesNotApply


def require_processes(trainer: Any, name: str) -> None:
    """Refuse strategies whose processes cannot agree, or each see only part of the features.

    Raises:
        ValueError: If the strategy cannot be measured; the message names those that can.
    """
    kinds = [kind.__name__ for kind in type(trainer.strategy).__mro__]
    _, replicas = replicas_of(trainer)
    refused = next((kind for kind in kinds if "XLA" in kind), None)
    if "DeepSpeedStrategy" in kinds and getattr(trainer.strategy, "zero_stage_3", True):
        refused = "stage 3 of DeepSpeed, where each process has only part of the parameters"
    if refused is None and replicas != trainer.world_size:
        refused = f"{kinds[0]} with tensor_parallel_size={trainer.world_size // replicas}"
    if refused is not None:
        raise ValueError(
            f"{name} cannot measure under {refused}. Use DDP, FSDP, DeepSpeed at stage 1 or 2, or "
            f"ModelParallelStrategy(data_parallel_size={trainer.world_size}, "
            "tensor_parallel_size=1), or leave the callback out and measure a checkpoint with "
            "lightning_nc.measure(model, loader)."
        )


def require_whole_parameters(trainer: Any, name: str) -> None:
    """Refuse strategies that shard the parameters over the processes.

    Raises:
        DoesNotApply: If the strategy does; the message names alternatives.
    """
    kinds = [kind.__name__ for kind in type(trainer.strategy).__mro__]
    sharding = next((kind for kind in kinds if kind in SHARDING), None)
    if sharding is not None:
        raise DoesNotApply(
            f"{name} cannot compare gradients under {sharding}, where each process has only part "
            f'of the parameters. Use {name}(parameters="last_layer"), DDP, or '
            "lightning_nc.functional.gradient_kernel on a checkpoint."
        )
