"""Measuring the checkpoints of a finished run, without a Trainer."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lightning_nc.callbacks.moments import of_checkpoint
from lightning_nc.measures.measure_network import measure
from lightning_nc.measures.progress import bar_of_tqdm
from lightning_nc.measures.shown import Frame, frame_of
from lightning_nc.network.points import Layers, Pool

Network = nn.Module | type[nn.Module] | Callable[[Path], nn.Module]


def measure_checkpoints(
    folder: str | Path,
    loader: Any,
    model: Network,
    *,
    layers: Layers | None = "blocks",
    head: str | Literal[False] | None = None,
    pool: Pool = "auto",
    measures: Iterable[Any] | None = None,
    pattern: str = "**/*.ckpt",
    weights_only: bool = True,
    progress: bool = True,
) -> Frame:
    """Measure all checkpoints in a folder, and return a pandas frame with a row for each.

    Args:
        folder: The folder, such as that of a run.
        loader: The data, see `measure`.
        model: A module, into which the weights of each checkpoint are loaded; its own are put back
            at the end. Or a LightningModule class that saved its hyperparameters, or a function
            that makes the module of a checkpoint from its path.
        layers: See `measure`.
        head: See `measure`.
        pool: See `measure`.
        measures: See `measure`.
        pattern: Which files in the folder are checkpoints.
        weights_only: Whether to refuse files that contain more than tensors and plain values, as
            `torch.load` does: others can run any code.
        progress: Whether to show a progress bar.

    Returns:
        A frame with the columns ``checkpoint``, ``epochs_completed``, ``step``, and one for each
        logged key, in the order in which the checkpoints were written in training.
        ``epochs_completed`` and ``step`` are NaN for checkpoints that do not tell them. To compare
        with what a run logged, match ``epochs_completed``: Lightning logs the end of an epoch under
        the last step before that of its checkpoint.

    Raises:
        ModuleNotFoundError: If pandas is not installed.
        FileNotFoundError: If there are no such files.
        Exception: If none of the checkpoints can be measured: why the first cannot.

    Warns:
        RuntimeWarning: If a checkpoint cannot be measured; it is left out.

    Example::

        frame = measure_checkpoints("lightning_logs/version_0", val_loader, Classifier())
        frame.plot("epochs_completed", "nc/data/nc1", logy=True)
    """
    frame_of([])  # without pandas, nothing is measured
    folder, measures = Path(folder), None if measures is None else list(measures)
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise FileNotFoundError(
            f"There are no files '{pattern}' in '{folder}'. Give the folder of a run, or another "
            "pattern=."
        )
    rows: list[dict[str, Any]] = []
    failed: list[Exception] = []
    options: dict[str, Any] = {"layers": layers, "head": head, "pool": pool, "measures": measures}
    options["progress"] = None if progress else False  # of the passes through one network
    with _loading(model) as network_of:
        for path in bar_of_tqdm()(paths, "checkpoints", disable=not progress):
            name = str(path.relative_to(folder))
            try:
                checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only)
                found = measure(network_of(path, checkpoint), loader, **options)
            except Exception as error:
                failed.append(error)
                why = f"measure_checkpoints() leaves out {name}: {error}"
                warnings.warn(why, RuntimeWarning, stacklevel=2)
            else:
                rows.append({"checkpoint": name, **_counters_of(checkpoint), **found.values})
    if not rows:
        raise failed[0]
    in_order = ["epochs_completed", "step", "checkpoint"]
    return frame_of(rows).sort_values(in_order, ignore_index=True)


@contextmanager
def _loading(model: Network) -> Iterator[Callable[[Path, Any], nn.Module]]:
    """Return a function that makes the network of a checkpoint from its path and content."""
    if not isinstance(model, nn.Module):
        load: Callable[..., nn.Module] = model
        if isinstance(model, type):
            load = partial(getattr(model, "load_from_checkpoint", model), map_location="cpu")
        yield lambda path, checkpoint: load(path)
        return
    before = deepcopy(model.state_dict())

    def load_into(path: Path, checkpoint: Any) -> nn.Module:
        model.load_state_dict(checkpoint.get("state_dict", checkpoint))
        return model

    try:
        yield load_into
    finally:
        model.load_state_dict(before)


def _counters_of(checkpoint: Any) -> dict[str, float]:
    """Epochs completed and step at the time of a checkpoint; NaN where it does not tell them."""
    epochs, step = math.nan, math.nan
    if isinstance(checkpoint, Mapping) and "state_dict" in checkpoint:  # else weights, or a module
        try:
            epochs, step = of_checkpoint(checkpoint)
        except Exception:  # Lightning has other counters
            epochs, step = (
                checkpoint.get("epoch", math.nan),
                checkpoint.get("global_step", math.nan),
            )
    return {"epochs_completed": epochs, "step": step}
