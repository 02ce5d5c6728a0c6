"""What a training leaves behind, and whether two of them are the same to the last bit."""

import random
from typing import Any, NamedTuple

import numpy as np
import torch


class Trace(NamedTuple):
    """All that training leaves behind."""

    weights: Any
    buffers: Any
    optimizers: Any
    schedulers: Any
    steps: Any
    generators: Any
    modes: Any
    hooks: Any
    logged: Any


def trace_of(run, module):
    """What a training has left in a Trainer, a module and the generators."""
    modules = dict(module.named_modules())
    persistent = module.state_dict()
    logged = {key: v for key, v in run.callback_metrics.items() if key.startswith(("loss", "val_"))}
    return Trace(
        weights={name: p.detach() for name, p in module.named_parameters()},
        buffers=persistent | dict(module.named_buffers()),
        optimizers=[optimizer.state_dict() for optimizer in run.optimizers],
        schedulers=[config.scheduler.state_dict() for config in run.lr_scheduler_configs],
        steps=module.steps,
        generators=generator_states(module),
        modes={n: (m.training, getattr(m, "switches", 0)) for n, m in modules.items()},
        hooks={
            f"{n}.{kind}": len(hooks)
            for n, m in modules.items()
            for kind, hooks in vars(m).items()
            if kind.endswith("_hooks")
        },
        logged=logged,
    )


def generator_states(module):
    """Those of the global generators, those that modules hold, and those of data and loader."""
    held = {f"{n}.{k}": v for n, m in module.named_modules() for k, v in vars(m).items()}
    states = {name: state_of(value) for name, value in (held | module.held).items()}
    return global_generators() | {name: s for name, s in states.items() if s is not None}


def global_generators():
    _, key, *position = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "numpy": (key.tobytes(), *position),
        "python": str(random.getstate()),
    }


def state_of(value):
    """The state of a random generator; None of anything else."""
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    return value.get_state() if isinstance(value, torch.Generator) else None


def same(a, b):
    """Whether two nested things are equal to the last bit."""
    return difference(a, b) is None


def difference(a, b, place=""):
    """Where two nested things first differ in a bit, such as ``weights.net.0.bias``; or None."""
    if hasattr(a, "_asdict") and hasattr(b, "_asdict"):
        a, b = a._asdict(), b._asdict()
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return None if a.dtype == b.dtype and a.shape == b.shape and bits_equal(a, b) else place
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        parts = [(f"{place}.{key}".lstrip("."), a[key], b[key]) for key in a]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        parts = [(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(a, b, strict=True))]
    else:
        return None if type(a) is type(b) and repr(a) == repr(b) else place or "everything"
    return next((d for name, x, y in parts if (d := difference(x, y, name)) is not None), None)


def bits_equal(a, b):
    """Also of NaN, and of zeros with a sign."""
    a, b = (dense(t).contiguous().flatten().view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)


def dense(x):
    return x.detach() if x.layout is torch.strided else x.detach().to_dense()
