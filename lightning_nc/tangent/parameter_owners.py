"""The owner of each parameter: the smallest module around it that runs on rows of samples."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_nc.tangent.recomputed_modules import ModuleCall, first_tensor

Rows = tuple[list[int], int | None]  # of the input tensors of a run, and of its output


class Owner(NamedTuple):
    """A module and the parameters whose gradients are computed from its runs.

    Attributes:
        path: The module's name.
        module: The module.
        parameters: The parameters' names within the module, by full name.
        batched: For each run and tensor argument, whether the first axis is the sample axis.
    """

    path: str
    module: nn.Module
    parameters: dict[str, str]
    batched: list[list[bool]]


class Look(NamedTuple):
    """One forward pass: its output, and how many rows each module received and returned."""

    output: Tensor
    rows: dict[nn.Module, list[Rows]]


def look(model: nn.Module, run: Callable[[], Tensor]) -> Look:
    """Run a network and record how many rows its modules receive and return.

    Args:
        model: The network.
        run: Runs the network and returns its output.
    """
    rows: dict[nn.Module, list[Rows]] = {}

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        taken = [len(x) if x.ndim else 0 for x in ModuleCall(args, kwargs).tensors()]
        out = first_tensor(output)
        given = len(out) if isinstance(out, Tensor) and out.ndim else None
        rows.setdefault(module, []).append((taken, given))

    with ExitStack() as hooks:
        for module in model.modules():
            if not isinstance(module, torch.jit.ScriptModule):  # it accepts no hooks
                hook = module.register_forward_hook(note, with_kwargs=True)
                hooks.enter_context(hook)
        return Look(run(), rows)


def find_owners(
    model: nn.Module, selected: Iterable[str], one: Look, two: Look, whole: Iterable[str] = ()
) -> list[Owner]:
    """Find the owners of the selected parameters.

    The owner of a parameter is the module that holds it, or the smallest module around all its
    holders if it is shared. If that module does not run, or does not run on rows of samples, the
    owner is the next module around it that does. For example, attention uses the weight of its
    projection without running the projection.

    Args:
        model: The network.
        selected: Names of the selected parameters.
        one: A look at one sample.
        two: A look at two samples.
        whole: Names of the parameters to be owned by the network as a whole.

    Raises:
        ValueError: If the network's output does not have one row per sample.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    parameters = dict(model.named_parameters())
    owners: dict[str, Owner] = {}
    for name in selected:
        holders = [place.rpartition(".")[0] for place in places[id(parameters[name])]]
        path = "" if name in whole else _smallest(holders, modules)
        while path and side_by_side(modules[path], one, two) is None:
            path = path.rpartition(".")[0]
        batched = side_by_side(modules[path], one, two)
        if batched is None:
            raise ValueError(
                "The network's output does not have one row per sample, so the samples' gradients "
                "cannot be separated. Set outputs= to a function that returns one number per "
                "sample."
            )
        local = name[len(path) + 1 :] if path else name
        owners.setdefault(path, Owner(path, modules[path], {}, batched)).parameters[name] = local
    return list(owners.values())


def side_by_side(module: nn.Module, one: Look, two: Look) -> list[list[bool]] | None:
    """Find which tensor arguments of a module have samples in their rows.

    Args:
        module: The module.
        one: A look at one sample.
        two: A look at two samples.

    Returns:
        For each run, whether each tensor has; None if the module does not run or an output does
        not have samples in its rows.
    """
    of_one, of_two = one.rows.get(module, []), two.rows.get(module, [])
    if not of_one or len(of_one) != len(of_two):
        return None
    batched = []
    for (taken, given), (taken_by_two, given_by_two) in zip(of_one, of_two, strict=True):
        if given is None or given_by_two != 2 * given or len(taken) != len(taken_by_two):
            return None
        if any(b not in (a, 2 * a) for a, b in zip(taken, taken_by_two, strict=True)):
            return None
        batched.append([b == 2 * a > 0 for a, b in zip(taken, taken_by_two, strict=True)])
    return batched


def _smallest(holders: list[str], modules: Mapping[str, nn.Module]) -> str:
    """Return the name of the smallest module around all holders, or of the only holder."""
    if len({id(modules[path]) for path in holders}) == 1:
        return holders[0]
    parts = [path.split(".") for path in holders]
    common = next((i for i, at in enumerate(zip(*parts, strict=False)) if len(set(at)) > 1), None)
    return ".".join(parts[0][: min(map(len, parts)) if common is None else common])
