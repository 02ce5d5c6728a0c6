"""The samples on which a network is measured, and how they are read."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor

from lightning_nc.arguments import (
    require_function,
    require_module_name,
    require_number,
    require_one_of,
    require_whole_number,
    require_whole_numbers,
    require_yes_or_no,
)
from lightning_nc.network.calling import Forward
from lightning_nc.network.positions import IGNORED

_TRAINER_SOURCES = ("train", "val", "test")
_WHOLE_NUMBERS = {
    "samples_per_class": 1,
    "min_samples_per_class": 1,
    "batch_size": 1,
    "ignore_index": None,
    "seed": None,
    "num_workers": 0,
}


@dataclass(frozen=True, eq=False)
class Probe:
    """The samples on which a network is measured, and how they are read.

    Which samples these are depends on ``seed`` alone: they are the same at every measurement, in
    every run, on any number of processes. They are drawn class by class (a stratified probe
    measures the class-balanced problem; D depends on the number of samples per class) and read in
    batches that are formed once and distributed whole.

    Args:
        source: The Trainer's loader to draw from: ``"train"``, ``"val"`` or ``"test"`` (measured
            only by ``trainer.test()``). Or a ``Dataset``, a ``DataLoader``, or a function that
            returns one.
        name: The probe's name in logged keys; required unless ``source`` is a string.
        samples_per_class: How many samples of each class to draw; None uses the whole source.
        classes: Labels of the classes to measure; by default all that have samples.
        min_samples_per_class: Classes with fewer samples in the source are left out.
        ignore_index: If positions have labels, those with this label are left out.
        unpack: ``unpack(batch) -> (inputs, labels)``; inputs are a tensor, or a dict or tuple that
            is passed on as keyword or positional arguments. By default a pair is used as it is,
            and a dict or dataclass is split at its key ``labels``, ``label``, ``targets``,
            ``target`` or ``y``. Items after a pair are left out if they cannot be labels. A
            network whose first parameter is called ``batch`` is called with the whole batch.
        forward: How the network is called if not by its own ``forward``: the name of a submodule or
            method, or ``forward(module, inputs) -> outputs``.
        batch_norm: ``"eval"`` measures with running statistics, ``"batch"`` with those of each
            probe batch, as the papers on the law of equi-separation do.
        user_hooks: Whether your forward hooks and forward pre-hooks on modules run when the network
            is measured, as they run in training. With False they do not, so a hook that counts
            or collects sees training only. Hooks that belong to the network always run:
            those defined in torch, Transformers, PEFT or Accelerate (pruning, weight and spectral
            norm, quantisation, adapters), and objects of classes derived from theirs.
        cache_mb: Features up to this size in MB are kept for the second sweep: on the GPU, or in
            pinned memory of the host if they would fill half of what is free there. Above it,
            the network runs twice.
        memory_mb: Limit in MB on the accumulators: three arrays of 8 K d bytes per layer. Layers
            that do not fit together are measured one group after another; a layer that does not
            fit alone is an error. On a GPU, a group takes at most half of what is free.
        seed: Decides which samples are drawn, how they are batched, and every random number that
            data and network draw during a measurement.
        batch_size: Samples per batch; by default the batch size of the source.
        num_workers: Worker processes that read the probe.
        wait_seconds: How many seconds a process waits for the others to reach a measurement; after
            that, all processes skip it. At most half the timeout of the process group. After each
            missed measurement the next wait is half as long.

    Raises:
        ValueError: If an argument is out of range, or if a source of your own has no name that can
            be part of keys.

    Example:
        >>> import lightning_nc, torch
        >>> from torch.utils.data import TensorDataset
        >>> points = torch.tensor([[2.0, 0], [3, 0], [0, 2], [0, 3], [-2, -2], [-3, -3]])
        >>> data = TensorDataset(points, torch.arange(6) // 2)
        >>> module = torch.nn.ModuleDict({"net": torch.nn.Linear(2, 3)})  # it has no forward
        >>> measured = lightning_nc.measure(module, Probe(data, "own", forward="net"), layers=None)
        >>> round(measured.values["nc/own/nc1"], 6)  # Sigma_W = Sigma_B / 25: 2/25 / 3
        0.026667
    """

    source: Any = "train"
    name: str | None = None
    samples_per_class: int | None = 100
    classes: Sequence[int] | None = None
    min_samples_per_class: int = 1
    ignore_index: int = IGNORED
    unpack: Callable[[Any], tuple[Any, Tensor]] | None = None
    forward: Forward | None = None
    batch_norm: Literal["eval", "batch"] = "eval"
    user_hooks: bool = True
    cache_mb: float = 512
    memory_mb: float = 4096
    seed: int = 0
    batch_size: int | None = None
    num_workers: int = 0
    wait_seconds: float = 60

    def __post_init__(self) -> None:
        """Refuse values that could not be measured later."""
        _require_source(self.source)
        _require_name(self.name, self.source)
        require_one_of("batch_norm", self.batch_norm, ("eval", "batch"))
        hooks = require_yes_or_no("user_hooks of a Probe", self.user_hooks)
        object.__setattr__(self, "user_hooks", hooks)
        require_function("unpack of a Probe", self.unpack, ": batch -> (inputs, labels)")
        if self.forward is not None and not callable(self.forward):
            require_module_name("forward of a Probe", self.forward, ", or a function")
        if self.classes is not None:
            classes = require_whole_numbers("classes of a Probe", self.classes)
            object.__setattr__(self, "classes", tuple(classes))
            if len(set(classes)) < 2:
                raise ValueError(
                    f"classes of a Probe needs two or more labels, got {classes}: measures "
                    "compare classes."
                )
        for field, least in _WHOLE_NUMBERS.items():
            value = getattr(self, field)
            if value is not None or field not in ("samples_per_class", "batch_size"):
                value = require_whole_number(f"{field} of a Probe", value, least)
                object.__setattr__(self, field, value)
        for field in ("cache_mb", "memory_mb", "wait_seconds"):
            require_number(f"{field} of a Probe", getattr(self, field), 0)

    def __eq__(self, other: object) -> bool:
        """Whether both read the same object in the same way; its contents are not compared."""
        if not isinstance(other, Probe):
            return False
        names = [field.name for field in fields(self) if field.name != "classes"]
        values = [(getattr(self, name), getattr(other, name)) for name in names]
        plain = (str, int, float)
        same = all(a is b or (isinstance(a, plain) and a == b) for a, b in values)
        return same and self.classes == other.classes

    def __hash__(self) -> int:
        """Equal probes have equal hashes."""
        return hash((self.key, self.seed))

    @property
    def key(self) -> str:
        """The probe's name in logged keys."""
        return self.name or str(self.source)

    @property
    def settings(self) -> dict[str, str]:
        """The settings that decide which samples are drawn and how they are read, in words."""
        names = ("samples_per_class", "classes", "min_samples_per_class", "batch_norm", "seed")
        return {name: str(getattr(self, name)) for name in names}


def _require_source(source: Any) -> None:
    """Raise unless samples can be read from a source, or a Trainer has it."""
    of_trainer = ", ".join(_TRAINER_SOURCES)
    if isinstance(source, str) and source not in _TRAINER_SOURCES:
        raise ValueError(
            f"Probe source {source!r} is none of {of_trainer}. Give one of these, or a Dataset, a "
            "DataLoader or a function that returns one."
        )
    if source is None or isinstance(source, int | float):
        raise ValueError(
            f"source of a Probe must hold samples, got {source!r}. Give a Dataset, a DataLoader, a "
            f"function that returns one, or one of {of_trainer}."
        )


def _require_name(name: Any, source: Any) -> None:
    """Raise unless a name can be part of keys; samples of the user's own need one."""
    if not isinstance(source, str) and not name:
        raise ValueError(
            f"A probe on {type(source).__name__} needs a name for the logged keys: "
            'Probe(source=..., name="my_probe").'
        )
    if name is not None and not isinstance(name, str):
        raise ValueError(f"name of a Probe must be a string for keys, got {name!r}.")
    if name and not _is_key(name):
        raise ValueError(
            "name of a Probe is part of logged keys, which loggers may use as paths: give "
            "printable text without an empty part, '.' or '..' between slashes, such as "
            f"'my_probe', got {name!r}."
        )


def _is_key(name: str) -> bool:
    """Whether a name can be part of a key: on one line, and no other key if it were a path."""
    parts = re.split(r"[/\\]", name)
    return name.isprintable() and all(part.strip(" .") for part in parts)


def probe_of(probe: Any) -> Probe:
    """Return a probe, or the probe on a Trainer's loader that a string names.

    Raises:
        ValueError: If it is neither, such as a Dataset, which needs a name for the logged keys.
    """
    if isinstance(probe, Probe):
        return probe
    if isinstance(probe, str):
        return Probe(source=probe)
    raise ValueError(
        f"probe must be a Probe or one of {', '.join(_TRAINER_SOURCES)}, got "
        f"{type(probe).__name__}. Put samples of your own into a Probe with a name for the logged "
        'keys: probe=Probe(dataset, name="my_probe").'
    )
