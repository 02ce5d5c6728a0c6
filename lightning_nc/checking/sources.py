"""A network and its data, by import path or from a configuration of LightningCLI."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

from torch import nn

import lightning_nc.callbacks as page
from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.passes.probe import Probe


class NotFound(Exception):
    """There is no network or no data where these were looked for; the message says why."""


class Subject(NamedTuple):
    """What is checked: a network, a source of data or a `Probe`, and callbacks on it."""

    model: nn.Module
    data: Any
    callbacks: list[MeasureCallback] | None = None  # all families


def from_paths(model: str, data: str | None) -> Subject:
    """Import a network and its data; what is callable is called without arguments.

    Args:
        model: Path of a module, or of a class or function that makes one: ``package.file:name``.
        data: Path of a loader, dataset, datamodule or probe, or of a function that makes one; None
            for the training loader of the network itself.

    Raises:
        NotFound: If there is nothing of this kind.
    """
    network = _imported(model)
    if not isinstance(network, nn.Module):
        raise NotFound(
            f"{model} is of type {type(network).__name__}, not a module. Give the path of a "
            "module or of a class or function that makes one without arguments: "
            "mypackage.train:make_model."
        )
    return Subject(network, _loader_of(network if data is None else _imported(data)))


def from_configuration(path: Path) -> list[Subject]:
    """Make network, data and callbacks as a configuration of LightningCLI describes them.

    Args:
        path: A YAML file with ``model`` and ``data``, each with ``class_path`` and ``init_args``.
            Of the callbacks of its ``trainer``, those that measure are made.

    Returns:
        What to check on each probe of these callbacks; all families if there are none.

    Raises:
        NotFound: If it does not describe them.
    """
    try:
        import jsonargparse
        import yaml  # type: ignore[import-untyped]
    except ModuleNotFoundError as missing:
        raise NotFound(
            f"{missing}. Configurations need: pip install 'jsonargparse[signatures]'"
        ) from None
    try:
        whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise NotFound(
            f"The configuration {path} cannot be read: {error}. Give the path of a YAML file as "
            f"seen from {Path.cwd()}."
        ) from error
    parts, callbacks = _parts(whole, path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    for key, part in parts.items():
        kind = _resolved(part["class_path"])
        parser.add_subclass_arguments(kind, key, fail_untyped=False, required=True)
    parser.add_argument("--callbacks", type=list[MeasureCallback])
    try:
        made = parser.instantiate_classes(parser.parse_object({**parts, "callbacks": callbacks}))
    except jsonargparse.ArgumentError as wrong:
        raise NotFound(f"{path}: {wrong}") from None
    return _subjects(made.model, made.data if "data" in parts else made.model, made.callbacks)


def _subjects(model: nn.Module, data: Any, callbacks: list[MeasureCallback]) -> list[Subject]:
    """What to check on each probe of callbacks, or on the training data if there are none."""
    of_each: dict[Probe, list[MeasureCallback]] = {}
    for callback in callbacks:
        of_each.setdefault(callback.probe, []).append(callback)
    if not of_each:
        return [Subject(model, _loader_of(data))]
    loaders = _loaders_of(data, {each.source for each in of_each if isinstance(each.source, str)})
    return [
        Subject(model, replace(probe, source=loaders[probe.source], name=probe.key), these)
        if isinstance(probe.source, str)
        else Subject(model, probe, these)
        for probe, these in of_each.items()
    ]


def _parts(whole: Any, path: Path) -> tuple[dict[str, Any], list[Any]]:
    """What a configuration says of the model, of data if it does, and of our callbacks."""
    if not isinstance(whole, dict):
        raise NotFound(f"{path} is no configuration: it must map model and data to classes.")
    whole = whole.get("fit") or whole  # as saved by a run of a subcommand
    parts = {key: whole.get(key) for key in ("model", "data") if key == "model" or whole.get(key)}
    for key, part in parts.items():
        if not isinstance(part, dict) or "class_path" not in part:
            raise NotFound(
                f"{path} has no class_path for {key}, as where the program names the class itself: "
                "LightningCLI(MyModel). Give import paths instead: check mypackage.train:MyModel "
                "mypackage.train:MyData"
            )
    callbacks = (whole.get("trainer") or {}).get("callbacks") or []
    listed = [callbacks] if isinstance(callbacks, Mapping) else callbacks
    return parts, [each for each in listed if _measures(each)]


def _measures(entry: Any) -> bool:
    """Whether an entry of a configuration is a callback that measures."""
    path = str(entry.get("class_path") if isinstance(entry, Mapping) else entry)
    kind = _resolved(path) if "." in path else getattr(page, path, None)
    return isinstance(kind, type) and issubclass(kind, MeasureCallback)


def _imported(path: str) -> Any:
    """The object at a path, called unless it is a module of torch or data."""
    file, _, name = path.partition(":")
    if not name:
        raise NotFound(f"{path} names no object. Give what to check in a file: {file}:name.")
    found = _resolved(path)
    makes_one = isinstance(found, type) or not isinstance(found, nn.Module)
    if not (callable(found) and makes_one):
        return found
    _require_no_arguments(found, path)
    return found()


def _require_no_arguments(function: Any, path: str) -> None:
    try:
        inspect.signature(function).bind()
    except ValueError:
        return  # its parameters are unknown, such as those of a function of C
    except TypeError as error:
        raise NotFound(
            f"{path} cannot be called without arguments: {error}. Give the path of a function that "
            "makes it without any, or --config with a file of LightningCLI that has init_args."
        ) from None


def _resolved(path: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look into the current folder
    try:
        return resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise NotFound(
            f"{path} cannot be imported: {error}. Give its path as seen from {Path.cwd()}."
        ) from error


def _loader_of(source: Any) -> Any:
    """The training loader of a datamodule or module; any other source as it is."""
    return _loaders_of(source, {"train"})["train"]


def _loaders_of(source: Any, stages: set[str]) -> dict[str, Any]:
    """The loaders of a datamodule or module, which is set up once; any other source as it is."""
    make = {stage: _maker_of(source, f"{stage}_dataloader") for stage in stages}
    if None in make.values():
        return dict.fromkeys(stages, source)
    if stages:
        source.prepare_data()
    for stage in sorted({"test" if stage == "test" else "fit" for stage in stages}):
        source.setup(stage)
    return {stage: make[stage]() for stage in stages}


def _maker_of(source: Any, name: str) -> Any:
    """What makes a loader of a datamodule or module; None for any other source."""
    make = getattr(source, name, None)
    # Lightning's own, which only raises, if the module or datamodule has none
    missing = make is None or getattr(make, "__module__", "").endswith(".core.hooks")
    if missing and (make is not None or isinstance(source, nn.Module)):
        raise NotFound(
            f"{type(source).__name__} has no {name}(). Give the path of a loader or "
            "datamodule, too: check mypackage.train:model mypackage.train:loader"
        )
    return make
