"""Points: the places in a network at which features are taken, found by module names."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_nc.globs import deeper_advice, matching

INPUT = "input"
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")

Pool = Callable[..., Tensor] | Literal["auto", "flatten"]
Layers = str | Iterable[str] | Mapping[str, Callable[..., Tensor]]
Place = tuple[str | None, int, str]  # module, number of its run, and side


@dataclass(frozen=True)
class Point:
    """One place in the network at which features are taken.

    Attributes:
        name: The point's name in logged keys.
        module: Clean name of the module; None for the raw input of the network.
        run: Number of the module's run within a forward pass, counted from 0.
        side: Whether the module's output or its input is used; ``"returned"`` is what the call of
            the network returns, which may be that of one of its parts, or of a function.
        pool: Makes (N, d) features of the output or input. ``"auto"`` is replaced by what suits its
            shape, once that is known.
    """

    name: str
    module: str | None
    run: int = 0
    side: Literal["output", "input", "returned"] = "output"
    pool: Pool = "auto"

    @property
    def place(self) -> Place:
        """Where the features are, however they are pooled."""
        return self.module, self.run, self.side


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by name, without the parts of names that wrappers add.

    A shared module appears under each of its names, a wrapped module under the wrapper's name.
    """
    modules = model.named_modules(remove_duplicate=False)
    return {clean_name(name): module for name, module in modules}


def clean_name(name: str) -> str:
    """Strip the components that compilation, sharding and checkpointing add to module names.

    Example:
        >>> clean_name("net._orig_mod.layer1._checkpoint_wrapped_module.0")
        'net.layer1.0'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def input_name(names: Collection[str]) -> str:
    """The name of the raw input: ``"input"``, or ``"raw_input"`` if a module that ran has that."""
    return "raw_input" if INPUT in names else INPUT


def match_layers(
    layers: Layers,
    runs: Sequence[tuple[str, int]],
    modules: Mapping[str, nn.Module],
    pool: Pool = "auto",
) -> list[Point]:
    """Find the points that names, globs or ``{name: callable}`` select, in running order.

    Args:
        layers: Names or globs as in ``named_modules()``, or a mapping from these to callables that
            make (N, d) features of a module's output; ``"input"`` is the raw input, see
            `input_name`. A ``*`` in a glob stops at a dot, ``**`` does not.
        runs: The module's name of each run in a forward pass, in running order, and the run's
            number among those of its module, counted from 0.
        modules: All modules of the network by name; the first name of a shared module is used in
            ``runs``.
        pool: Makes (N, d) features of layers that have no callable of their own, except for the raw
            input.

    Raises:
        ValueError: If a name matches no module or only modules that do not run, if it matches a
            ScriptModule, which accepts no hooks, or if a layer is named twice with different
            callables.
    """
    first_names: dict[nn.Module, str] = {}
    for name, module in modules.items():
        first_names.setdefault(module, name)
    names = list(dict.fromkeys(name for name, _ in runs))
    raw = input_name(names)
    wanted = [layers] if isinstance(layers, str) else list(layers)
    points: list[Point] = []
    for pattern in wanted:
        own: Pool = layers[pattern] if isinstance(layers, Mapping) else pool
        if pattern == raw:
            points.append(Point(raw, None, pool=own if isinstance(layers, Mapping) else "auto"))
            continue
        # a glob does not match the network as a whole, whose name is empty
        matched = [name for name in matching(pattern, modules) if name or not pattern]
        meant = {first_names[modules[name]] for name in matched}
        found = [run for run in runs if run[0] in meant]
        if not found or any(isinstance(modules[name], torch.jit.ScriptModule) for name in matched):
            raise ValueError(_why_silent(pattern, matched, names, modules))
        points += points_of_runs(found, runs, own)
    points = list(dict.fromkeys(points))
    chosen = [point.name for point in points]
    twice = sorted({name for name in chosen if chosen.count(name) > 1})
    if twice:
        raise ValueError(
            f"layers= names '{twice[0]}' twice, with different callables. Use one for each."
        )
    order = {run: position for position, run in enumerate(runs)}
    return sorted(points, key=lambda p: -1 if p.module is None else order[p.module, p.run])


def points_of_runs(
    chosen: Iterable[tuple[str, int]], runs: Iterable[tuple[str, int]], pool: Pool = "auto"
) -> list[Point]:
    """Return the point of each of some runs: ``relu``, or ``relu-1``, ``relu-2`` if it runs twice.

    Args:
        chosen: The name of the module and the number of each run, as in `match_layers`.
        runs: All runs of the forward pass.
        pool: Makes (N, d) features of their output.
    """
    counts = Counter(name for name, _ in runs)
    return [
        Point(name if counts[name] == 1 else f"{name}-{number + 1}", name, number, pool=pool)
        for name, number in chosen
    ]


def contained(names: Iterable[str]) -> dict[str, str]:
    """Return the points within a module that has a point as well, each with the nearest one around.

    Args:
        names: The names of points, as `points_of_runs` makes them.

    Example:
        >>> contained(["layer1.0", "layer1", "block.relu", "block-1", "block-2", "layer10"])
        {'layer1.0': 'layer1', 'block.relu': 'block-1'}
    """
    listed = list(names)
    of_module = {re.sub(r"-\d+$", "", name): name for name in reversed(listed)}
    of_module |= {name: name for name in listed}
    found = {}
    for name in listed:
        around = name.rpartition(".")[0]
        while around and around not in of_module:
            around = around.rpartition(".")[0]
        if around:
            found[name] = of_module[around]
    return found


def script_advice(modules: Mapping[str, nn.Module]) -> str:
    """Return what to do about the first ScriptModule; nothing if there is none."""
    for name, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule):
            what = repr(name) if name else "The network"
            way = "name modules outside of it, or measure" if name else "measure"
            return (
                f" {what} is a ScriptModule, which accepts no hooks: {way} the eager module from "
                "which it was made."
            )
    return ""


def _why_silent(
    pattern: str, silent: list[str], running: list[str], modules: Mapping[str, nn.Module]
) -> str:
    around = {n: m for n, m in modules.items() if any(_is_in(s, n) for s in silent or [pattern])}
    advice = script_advice(around)
    if advice:
        return f"Layer '{pattern}' cannot be measured.{advice}"
    deeper = deeper_advice(pattern, filter(None, running))
    if silent:
        return (
            f"Layer '{silent[0]}' never runs when the network is called (perhaps only its weights "
            "are used, it does not run in evaluation mode, or a traced graph has taken its place). "
            f"Name a module that is called.{deeper}"
        )
    if deeper:
        return f"Unknown layer '{pattern}': no module matches it.{deeper}"
    named = [name for name in modules if name]
    leaf = pattern.split(".")[-1].strip("*")
    near = [name for name in named if leaf and leaf in name] + get_close_matches(pattern, named, 5)
    shown = list(dict.fromkeys(near))[:5] or named[:5]
    return (
        f"Unknown layer '{pattern}': no module matches it. Similar names, or the first ones, are "
        f"{', '.join(map(repr, shown))}; dict(model.named_modules()) lists all."
    )


def _is_in(name: str, around: str) -> bool:
    """Whether a name is that of a module or of a part of it; all are parts of the network."""
    return not around or f"{name}.".startswith(f"{around}.")
