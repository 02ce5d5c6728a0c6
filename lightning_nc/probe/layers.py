"""Where features are taken: modules by name, what of their output, and how it is flattened."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

INPUT = "input"
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")

Pool = Callable[..., Tensor]
Layers = str | Iterable[str] | Mapping[str, Pool]


@dataclass(frozen=True)
class Point:
    """One place in the network at which features are taken.

    Attributes:
        name: How it is called in logged keys.
        module: Clean name of the module; None for the raw input of the network.
        run: Which of the module's runs within a forward pass, counted from 0.
        side: Whether the module's output or its input is taken.
        pool: Makes (N, d) features of what is found there; None flattens.
    """

    name: str
    module: str | None
    run: int = 0
    side: Literal["output", "input"] = "output"
    pool: Pool | None = None


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by name, without the parts of names that wrappers add.

    Shared modules appear under each of their names, a wrapper gives its name to what it wraps.
    """
    modules = model.named_modules(remove_duplicate=False)
    return {clean_name(name): module for name, module in modules}


def clean_name(name: str) -> str:
    """Strip the components that compilation, sharding and checkpointing put into module names.

    Example:
        >>> clean_name("net._orig_mod.layer1._checkpoint_wrapped_module.0")
        'net.layer1.0'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def match_layers(
    layers: Layers, runs: Mapping[str, int], modules: Mapping[str, nn.Module]
) -> list[Point]:
    """Find the points that names, globs or ``{name: callable}`` stand for, in running order.

    Args:
        layers: Names or globs as in ``named_modules()``, or a mapping from such to a callable that
            makes (N, d) features of a module's output; ``"input"`` is the raw input.
        runs: How often each module runs in a forward pass, in running order.
        modules: All modules of the network by name; one with two names runs under the first.

    Raises:
        ValueError: If a name matches no module, or only modules that do not run, or a layer is
            named twice with different callables.
    """
    first_names: dict[nn.Module, str] = {}
    for name, module in modules.items():
        first_names.setdefault(module, name)
    wanted = [layers] if isinstance(layers, str) else list(layers)
    points: list[Point] = []
    for pattern in wanted:
        pool = layers[pattern] if isinstance(layers, Mapping) else None
        if pattern == INPUT and INPUT not in runs:
            points.append(Point(INPUT, None))
            continue
        # a glob does not mean the network as a whole, whose name is empty
        matching = [n for n in modules if n == pattern or (n and fnmatchcase(n, pattern))]
        meant = {first_names[modules[name]] for name in matching}
        found = [name for name in runs if name in meant]
        if not found:
            raise ValueError(_why_silent(pattern, matching, list(modules)))
        points += [point for name in found for point in points_of_runs(name, runs[name], pool)]
    points = list(dict.fromkeys(points))
    names = [point.name for point in points]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"layers= names '{twice[0]}' twice, with different callables; a layer has one value."
        )
    order = {name: position for position, name in enumerate(runs)}
    return sorted(points, key=lambda p: (-1 if p.module is None else order[p.module], p.run))


def points_of_runs(name: str, count: int, pool: Pool | None = None) -> list[Point]:
    """One point per run of a module: ``relu``, or ``relu-1``, ``relu-2`` if it runs twice."""
    if count == 1:
        return [Point(name, name, pool=pool)]
    return [Point(f"{name}-{run + 1}", name, run, pool=pool) for run in range(count)]


def features_of(value: Any, point: Point, inputs: Any, samples: int) -> Tensor:
    """Make (N, d) features of what was found at a point.

    Raises:
        TypeError: If there is no floating-point tensor to be found.
        ValueError: If a sequence comes without a pooling, or samples are lost or multiplied.
    """
    # the input of most classifiers is pooled by the network itself
    pooled = point.side == "input" and getattr(value, "ndim", None) == 2
    if point.pool is not None and not pooled:
        features = _call_pool(point.pool, value, inputs)
    else:
        features = main_tensor(value)
        if isinstance(features, Tensor) and features.ndim == 3 and point.module is not None:
            raise ValueError(_sequence_without_pool(point.name, features))
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(
            f"Layer '{point.name}' gives {kind}, not a floating-point tensor; say what to take "
            f"from it: layers={{'{point.name}': lambda output: ...}}."
        )
    if features.ndim == 0 or len(features) != samples:
        raise ValueError(
            f"Layer '{point.name}' gives features of shape {tuple(features.shape)} for {samples} "
            "samples; the first axis must be that of the samples. Name other layers, or give a "
            "callable that returns shape (N, d)."
        )
    return features.detach().reshape(samples, -1)


def main_tensor(value: Any) -> Any:
    """The tensor meant by an output: itself, a tuple's first, the logits or states of a mapping."""
    if isinstance(value, Mapping):
        for key in ("logits", "last_hidden_state"):
            if key in value:
                return value[key]
        return next((item for item in value.values() if isinstance(item, Tensor)), value)
    if isinstance(value, tuple | list):
        return main_tensor(value[0]) if value else value
    return value


def first_token(states: Any) -> Tensor:
    """Pool a sequence (N, T, d) to its first token, where BERT and ViT keep their summary.

    What is (N, d) already is left as it is, here and by the other two pools.

    Example:
        >>> first_token(torch.tensor([[[1.0], [2.0]]]))
        tensor([[1.]])
    """
    h = main_tensor(states)
    return h if h.ndim == 2 else h[:, 0]


def last_token(states: Any, inputs: Any = None) -> Tensor:
    """Pool a sequence (N, T, d) to its last token, by ``attention_mask`` if the inputs have one.

    Example:
        >>> last_token(torch.tensor([[[1.0], [2.0]]]), {"attention_mask": torch.tensor([[1, 0]])})
        tensor([[1.]])
    """
    h = main_tensor(states)
    mask = _attention_mask(inputs)
    if h.ndim == 2:
        return h
    if mask is None:
        return h[:, -1]
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (mask.bool() * positions).argmax(1)  # also with padding on the left
    return h[torch.arange(len(h), device=h.device), last]


def masked_mean(states: Any, inputs: Any = None) -> Tensor:
    """Pool a sequence (N, T, d) to the mean of its tokens, by ``attention_mask`` if there is one.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0]]]))
        tensor([[2.]])
        >>> masked_mean(torch.tensor([[[1.0], [3.0]]]), {"attention_mask": torch.tensor([[1, 0]])})
        tensor([[1.]])
    """
    h = main_tensor(states)
    mask = _attention_mask(inputs)
    if h.ndim == 2:
        return h
    if mask is None:
        return h.mean(1)
    weights = mask.to(h.dtype)[..., None]  # (N, T, 1)
    return (weights * h).sum(1) / weights.sum(1)


def _attention_mask(inputs: Any) -> Tensor | None:
    return inputs.get("attention_mask") if isinstance(inputs, Mapping) else None


def _call_pool(pool: Pool, value: Any, inputs: Any) -> Tensor:
    """Call ``pool(value)``, or ``pool(value, inputs)`` if it has a parameter ``inputs``."""
    try:
        wants_inputs = "inputs" in inspect.signature(pool).parameters
    except (TypeError, ValueError):  # builtins without a signature
        wants_inputs = False
    return pool(value, inputs=inputs) if wants_inputs else pool(value)


def _why_silent(pattern: str, silent: list[str], names: list[str]) -> str:
    if silent:
        return (
            f"Layer '{silent[0]}' never runs when the network is called (it may be used through "
            "its weights alone, or not in evaluation); name a module that is called."
        )
    named = [name for name in names if name]
    leaf = pattern.split(".")[-1].strip("*")
    near = [name for name in named if leaf and leaf in name] + get_close_matches(pattern, named, 5)
    shown = list(dict.fromkeys(near))[:5] or named[:5]
    return (
        f"Unknown layer '{pattern}': no module has that name. Similar or first names are "
        f"{', '.join(map(repr, shown))}; all are in dict(model.named_modules())."
    )


def _sequence_without_pool(name: str, features: Tensor) -> str:
    return (
        f"Layer '{name}' gives a sequence of shape {tuple(features.shape)}; say how to make one "
        "feature vector per sample of it: pool=lightning_nc.first_token, "
        "pool=lightning_nc.masked_mean, pool=lightning_nc.last_token, or pool=torch.nn.Flatten() "
        "to keep all of it."
    )
