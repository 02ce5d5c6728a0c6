"""A network and its data, by import path or from a configuration of LightningCLI."""

import inspect
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

from torch import nn


class NotFound(Exception):
    """There is no network or no data where these were looked for; the message says why."""


class Subject(NamedTuple):
    """What is checked: a network, and a source of data or a `Probe`."""

    model: nn.Module
    data: Any


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
    return Subject(network, _training_data(network if data is None else _imported(data)))


def from_configuration(path: Path) -> Subject:
    """Make network and data as a configuration of LightningCLI describes them.

    Args:
        path: A YAML file with ``model`` and ``data``, each with ``class_path`` and ``init_args``.

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
    parts = _parts(whole, path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    for key, part in parts.items():
        kind = _resolved(part["class_path"])
        parser.add_subclass_arguments(kind, key, fail_untyped=False, required=True)
    try:
        made = parser.instantiate_classes(parser.parse_object(parts))
    except jsonargparse.ArgumentError as wrong:
        raise NotFound(f"{path}: {wrong}") from None
    return Subject(made.model, _training_data(made.data if "data" in parts else made.model))


def _parts(whole: Any, path: Path) -> dict[str, Any]:
    """What a configuration says of the model, and of data if it does."""
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
    return parts


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


def _training_data(source: Any) -> Any:
    """The training loader of a datamodule or module; any other source as it is."""
    make = getattr(source, "train_dataloader", None)
    # Lightning's own, which only raises, if the module or datamodule has none
    missing = make is None or getattr(make, "__module__", "").endswith(".core.hooks")
    if missing and (make is not None or isinstance(source, nn.Module)):
        raise NotFound(
            f"{type(source).__name__} has no train_dataloader(). Give the path of a loader or "
            "datamodule, too: check mypackage.train:model mypackage.train:loader"
        )
    if make is None:
        return source
    source.prepare_data()
    source.setup("fit")
    return make()
