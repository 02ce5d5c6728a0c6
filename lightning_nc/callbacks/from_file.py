"""Callbacks from a YAML file, for programs that do not configure them in code."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml  # type: ignore[import-untyped]

import lightning_nc.callbacks as page
from lightning_nc.arguments import POOLINGS
from lightning_nc.callbacks.lightning_base import CallbackBase
from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.messages import tell
from lightning_nc.callbacks.summary import GeometrySummary
from lightning_nc.passes.meeting import meeting_place

Ours = MeasureCallback | GeometrySummary

_PATIENCE = 60  # seconds that a process waits for the others before the text is broadcast
_FUNCTIONS = ("pool", "loss", "unpack")  # arguments that are functions, which a file can only name


class CallbacksOfFile(CallbackBase):
    """Callback that adds those of a file to a Trainer, unless others log the same keys.

    They are added when a run is set up. Before that, Lightning refuses two callbacks with the same
    state key, and the callbacks of the module are not known yet. Whatever goes wrong, the run
    continues with a warning.

    Args:
        path: The YAML file, in the format of `callbacks_of`; the first process reads it for all.
        variable: The environment variable that names the file, for messages.
    """

    def __init__(self, path: str, variable: str) -> None:
        self.path, self.variable = Path(path).absolute(), variable
        self.callbacks: list[Ours] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Read the file once, and add its callbacks to the Trainer."""
        if self.callbacks is None:
            self.callbacks = self._read(trainer)
        for callback in self.callbacks:
            if callback in trainer.callbacks:  # from the last run; others may now log its keys
                trainer.callbacks.remove(callback)
        for callback in reversed(self.callbacks):
            self._join(callback, trainer, pl_module, stage)

    def _read(self, trainer: Any) -> list[Ours]:
        place = meeting_place() if trainer.world_size > 1 else None
        absent = place.meet("a file of callbacks", _PATIENCE) if place is not None else []
        if absent:
            who = ", ".join(map(str, absent))
            self._tell(
                trainer,
                f"adds no callbacks, so nothing is measured: process {who} did not reach setup "
                f"within {_PATIENCE} s.",
            )
            return []
        text = trainer.strategy.broadcast(_text_of(self.path) if trainer.is_global_zero else None)
        try:
            if isinstance(text, OSError):
                raise text
            return callbacks_of(text)
        except Exception as error:
            self._tell(trainer, f"adds no callbacks, so nothing is measured: {_said(error)}")
            return []

    def _join(self, callback: Ours, trainer: Any, pl_module: Any, stage: str) -> None:
        others = trainer.callbacks
        if any(_does_the_same(other, callback) for other in others):
            return  # callbacks of the program take precedence
        after = others.index(self) + 1
        # a new list: Lightning is iterating over the old one and would set up a second time
        trainer.callbacks = [*others[:after], callback, *others[after:]]
        try:
            callback.setup(trainer, pl_module, stage)
        except Exception as error:
            trainer.callbacks = others
            name = type(callback).__name__
            self._tell(trainer, f"lists {name}; it is left out of this run: {_said(error)}")

    def _tell(self, trainer: Any, text: str) -> None:
        tell(trainer, f"{self.variable} names {self.path}, which {text}")


def callbacks_of(text: str) -> list[Ours]:
    """Create the callbacks that a YAML text lists.

    Args:
        text: A list as in a configuration of LightningCLI, with ``class_path`` and ``init_args``.
            The class path of our own classes may omit the package. A probe may be given by its
            arguments alone.

    Returns:
        The callbacks, in the order of the list.

    Raises:
        ValueError: If the text is not such a list, or names something that does not exist.
        TypeError: If a class does not accept its arguments.
        yaml.YAMLError: If the text is not YAML.

    Example:
        >>> made, = callbacks_of('''
        ... - class_path: NeuralCollapse
        ...   init_args: {every_n_epochs: 10, probe: {source: val, samples_per_class: 50}}
        ... ''')
        >>> made.record.schedule.every_n_epochs, made.probe.samples_per_class
        (10, 50)
    """
    entries = yaml.safe_load(text)
    if not isinstance(entries, list):
        raise ValueError(
            "The file must be a list of entries such as {class_path: NeuralCollapse, init_args: "
            f"{{every_n_epochs: 10}}}}, got {entries!r}."
        )
    callbacks = [_callback(entry) for entry in entries]
    measuring = [each for each in callbacks if isinstance(each, MeasureCallback)]
    prefixes = Counter(each.record.prefix for each in measuring)
    for prefix, times in prefixes.items():
        if times > 1:
            raise ValueError(
                f"{times} callbacks of the file would log the keys {prefix}...; give their probes "
                "different names: probe: {name: other}."
            )
    return callbacks


def _callback(entry: Any) -> Ours:
    made = _made(entry) if isinstance(entry, Mapping) and "class_path" in entry else None
    if not isinstance(made, MeasureCallback | GeometrySummary):
        raise ValueError(
            f"{entry!r} is not a callback of lightning_nc; set class_path to one of {_names()}, "
            "or to the path of your own MeasureCallback, and put arguments under init_args."
        )
    return made


def _made(value: Any) -> Any:
    """Build the object that a class path and its arguments describe; nested ones first."""
    if not isinstance(value, Mapping) or "class_path" not in value:
        return value
    unknown = set(value) - {"class_path", "init_args"}
    if unknown:
        raise ValueError(
            f"{value['class_path']} has {', '.join(map(repr, sorted(unknown)))} beside class_path; "
            "put arguments under init_args."
        )
    given = value.get("init_args") or {}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{value['class_path']} has init_args {given!r}, which do not map names to values; "
            "write init_args: {every_n_epochs: 10}."
        )
    kind, arguments = _named(value["class_path"]), dict(given)
    probe = arguments.get("probe")
    if isinstance(probe, Mapping) and "class_path" not in probe:
        arguments["probe"] = {"class_path": "Probe", "init_args": probe}
    arguments = {key: _made(argument) for key, argument in arguments.items()}
    for key in set(_FUNCTIONS) & set(arguments):
        if isinstance(arguments[key], str) and arguments[key] not in POOLINGS:
            arguments[key] = _named(arguments[key])
    return kind(**arguments)


def _named(path: Any) -> Any:
    """Return the object at a dotted path; a name without dots is looked up in `lightning_nc`."""
    try:
        return resolve_name(path if "." in path else f"lightning_nc.{path}")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path!r} cannot be found ({error}); lightning_nc has {_names()}, and anything else "
            "needs its full path, such as my_package.my_module.MyClass."
        ) from error


def _names() -> str:
    kinds = (kind for kind in vars(page).values() if isinstance(kind, type))
    return ", ".join(kind.__name__ for kind in kinds if issubclass(kind, Ours))


def _does_the_same(other: Any, callback: Ours) -> bool:
    """Whether a callback of the Trainer logs the same keys, or both print the summary."""
    if isinstance(callback, GeometrySummary):
        return isinstance(other, GeometrySummary)
    return isinstance(other, MeasureCallback) and other.record.prefix == callback.record.prefix


def _text_of(path: Path) -> str | OSError:
    """Return the text, or the error: the other processes wait for one or the other."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
