"""Everything about a network that a measurement could change, written down in mid-run."""

import sys
from collections.abc import Mapping
from typing import Any

import lightning.pytorch
import pytorch_lightning
import torch

from tests import traces


def snapshot(module, *generators) -> dict[str, tuple[Any, Any]]:
    """Identity and content of all that modules hold, by name, and the state of the process.

    Args:
        module: The network.
        generators: Random generators that data hold.
    """
    parts: dict[str, Any] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        for key, value in vars(part).items():
            parts[f"{name}.{key}"] = value
            if isinstance(value, Mapping):  # of modules, parameters, buffers, hooks, in their order
                parts |= {f"{name}.{key}.{inner}": item for inner, item in value.items()}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        parts[f"{name}.grad"] = parameter.grad
        parts[f"{name}._backward_hooks"] = parameter._backward_hooks
    parts |= {f"generator {number}": each for number, each in enumerate(generators)}
    written = {name: (value, content(value)) for name, value in parts.items()}
    return written | {name: (None, state) for name, state in process_state().items()}


def content(value):
    """What could change in a thing that stays the same object."""
    if isinstance(value, torch.Tensor):
        place = value.data_ptr() if value.layout is torch.strided else None
        return value.detach().clone(), value.requires_grad, place
    if isinstance(value, Mapping):
        return list(value)
    return len(value) if isinstance(value, list) else traces.state_of(value)


def process_state():
    dynamo = sys.modules.get("torch._dynamo")
    return traces.global_generators() | {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "anomaly detection": torch.is_anomaly_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "default dtype": torch.get_default_dtype(),
        "compile stance": str(dynamo.eval_frame._stance.stance) if dynamo else "default",
        "global hooks": len(torch.nn.modules.module._global_forward_hooks),
    }


def changes(before, after):
    """Names of all that is not the same object with the same content."""
    names = [name for name in before if name not in after]
    names += [name for name in after if name not in before]
    for name in before.keys() & after.keys():
        (value, was), (now, is_now) = before[name], after[name]
        if value is not now or not traces.same(was, is_now):
            names.append(name)
    return sorted(names)


class OfBoth(pytorch_lightning.Callback, lightning.pytorch.Callback):
    """A callback for the Trainers of both namespaces: older ones take no other."""


class Watch(OfBoth):
    """Stands before and after other callbacks, and writes down what these change in each hook."""

    def __init__(self):
        self.before: dict[str, Any] | None = None
        self.changes: list[str] = []
        self.hooks: set[str] = set()
        self.saw_gradients: set[str] = set()

    def look(self, pl_module, hook):
        now = snapshot(pl_module, *pl_module.held.values())
        if self.before is None:
            self.before = now
            self.hooks.add(hook)
            if any(p.grad is not None for p in pl_module.parameters()):
                self.saw_gradients.add(hook)
        else:
            self.changes += [f"{name} in {hook}" for name in changes(self.before, now)]
            self.before = None

    def around(self, callbacks):
        """This one, the others, and this one again by proxy."""
        return [self, *callbacks, _Proxy(self)]


class _Proxy(OfBoth):
    def __init__(self, watch):
        self.look = watch.look


def _hook(name):
    def look(self, trainer, pl_module):
        self.look(pl_module, name)

    return look


for _name in (
    "on_train_start",
    "on_train_epoch_end",
    "on_validation_end",
    "on_test_end",
    "on_train_end",
):
    for _kind in (Watch, _Proxy):
        setattr(_kind, _name, _hook(_name))
