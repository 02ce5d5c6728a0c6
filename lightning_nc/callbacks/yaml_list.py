"""The callbacks that a YAML text lists: checked as text before anything is made of it.

Whoever can write the text must not be able to do more than choose what is measured. So it can name
our callbacks, probes and functions, and callbacks of the program's own that it has imported. For a
text nothing is imported, and nothing is called but the constructors of these.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

import yaml  # type: ignore[import-untyped]

import lightning_nc.callbacks as page
from lightning_nc.arguments import POOLINGS
from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.summary import GeometrySummary
from lightning_nc.network.pooling import first_token, last_token, masked_mean, spatial_mean
from lightning_nc.network.positions import next_token
from lightning_nc.passes.probe import Probe

Ours = MeasureCallback | GeometrySummary

LONGEST = 65_536  # characters of a text
_MOST_VALUES = 10_000  # values of a text, with each alias counted as what it stands for
_FUNCTIONS = {
    each.__name__: each for each in (first_token, last_token, masked_mean, spatial_mean, next_token)
}
_TAKE_FUNCTIONS = ("pool", "loss", "unpack")  # arguments


def callbacks_of(text: str) -> list[Ours]:
    """Create the callbacks that a YAML text lists.

    Args:
        text: A list as in a configuration of LightningCLI, with ``class_path`` and ``init_args``.
            The class path of our own classes may omit the package. A probe may be given by its
            arguments alone.

    Returns:
        The callbacks, in the order of the list.

    Raises:
        ValueError: If the text is not such a list, is too long, or names something else than our
            classes and functions and callbacks that the program has imported.
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
    entries = _values_of(text)
    if not isinstance(entries, list):
        raise ValueError(
            "The file must be a list of entries such as {class_path: NeuralCollapse, init_args: "
            f"{{every_n_epochs: 10}}}}, got {shortened(entries)}."
        )
    described = [(_callback_class(entry), _arguments(entry)) for entry in entries]
    callbacks = [kind(**arguments) for kind, arguments in described]
    measuring = [each for each in callbacks if isinstance(each, MeasureCallback)]
    prefixes = Counter(each.record.prefix for each in measuring)
    for prefix, times in prefixes.items():
        if times > 1:
            raise ValueError(
                f"{times} callbacks of the file would log the keys {prefix}...; give their probes "
                "different names: probe: {name: other}."
            )
    return callbacks


def _values_of(text: str) -> Any:
    """Return the values of a YAML text, unless they are too many.

    A few lines can stand for any number of values, by aliases of aliases or of themselves.
    """
    if len(text) > LONGEST:
        raise ValueError(f"The file is longer than {LONGEST:,} characters, the most that is read.")
    node = yaml.compose(text, yaml.SafeLoader)
    if node is not None and _size_of(node, {}) > _MOST_VALUES:
        raise ValueError(
            f"The file stands for more than {_MOST_VALUES:,} values, by aliases such as *name; "
            "write out what you mean."
        )
    return yaml.safe_load(text)


def _size_of(node: Any, known: dict[int, float]) -> float:
    """Return the number of values below a node; infinite where it contains itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # until it is known
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        below = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size_of(each, known) for each in below)
    return known[id(node)]


def _callback_class(entry: Any) -> type[Any]:
    """Return the class of an entry: one of ours, or a subclass that the program has imported."""
    if not isinstance(entry, Mapping) or "class_path" not in entry:
        raise ValueError(
            f"{shortened(entry)} is not a callback of lightning_nc; set class_path to one of "
            f"{_names()}, or to the path of your own MeasureCallback, and put arguments under "
            "init_args."
        )
    path = entry["class_path"]
    package, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    ours = package in ("", "lightning_nc", page.__name__)
    # the names that a module has; to ask it for others may run code of its own
    module = page if ours else sys.modules.get(package)
    found = getattr(module, "__dict__", {}).get(name)
    if not isinstance(found, type) or not issubclass(found, Ours):
        raise ValueError(
            f"class_path {shortened(path)} is no callback that can be used; lightning_nc has "
            f"{_names()}. Your own MeasureCallback needs its full path, such as my_package.Mine, "
            "and a program that imports it: nothing is imported for a file."
        )
    return found


def _arguments(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an entry, with its probe and functions in place of their names."""
    arguments = _given(entry)
    probe = arguments.get("probe")
    if isinstance(probe, Mapping):
        if "class_path" in probe:
            if probe["class_path"] not in ("Probe", "lightning_nc.Probe"):
                raise _not_to_be_made(probe)
            probe = _given(probe)
        arguments["probe"] = Probe(**_with_functions(probe))
    return _with_functions(arguments)


def _given(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments under ``init_args``."""
    unknown = set(entry) - {"class_path", "init_args"}
    if unknown:
        raise ValueError(
            f"{entry['class_path']} has {', '.join(map(repr, sorted(unknown, key=str)))} beside "
            "class_path; put arguments under init_args."
        )
    given = entry.get("init_args") or {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ValueError(
            f"{entry['class_path']} has init_args {shortened(given)}, which do not map names to "
            "values; write init_args: {every_n_epochs: 10}."
        )
    return dict(given)


def _with_functions(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with our functions in place of their names."""
    found = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, Mapping) and "class_path" in value:
            raise _not_to_be_made(value)
        if name in _TAKE_FUNCTIONS and isinstance(value, str) and value not in POOLINGS:
            if value.removeprefix("lightning_nc.") not in _FUNCTIONS:
                raise ValueError(
                    f"{name} {shortened(value)} is none of the functions that a file can name: "
                    f"{', '.join(_FUNCTIONS)}. For others write a subclass of the callback in your "
                    "program, and name it in the file."
                )
            found[name] = _FUNCTIONS[value.removeprefix("lightning_nc.")]
    return found


def _not_to_be_made(value: Mapping[str, Any]) -> ValueError:
    return ValueError(
        f"{shortened(value['class_path'])} is not made for a file, which describes callbacks and "
        "their probes only. For data of your own write a subclass of the callback in your program, "
        "and name it in the file."
    )


def _names() -> str:
    kinds = (kind for kind in vars(page).values() if isinstance(kind, type))
    return ", ".join(kind.__name__ for kind in kinds if issubclass(kind, Ours))
