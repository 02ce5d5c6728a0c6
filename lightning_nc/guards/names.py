"""What holds values by names: objects, classes, functions and their globals."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import CellType, CodeType, FunctionType
from typing import Any, NamedTuple

from torch import nn

_ABOVE = {"_trainer", "_fabric", "trainer"}  # references to the Trainer
# torch's own attributes of each module, which other guards restore or calls do not change, and what
# Lightning notes of how it was compiled
OWN = {*vars(nn.Module()), *_ABOVE, "_compile_kwargs"}


class Names(NamedTuple):
    """What holds values by names.

    Attributes:
        owner: What it is called.
        look: Returns what it holds now.
        assign: Gives a name a value.
        remove: Removes a name.
        counts: Whether a name is one of those to put back.
    """

    owner: str
    look: Callable[[], Mapping[str, Any]]
    assign: Callable[[str, Any], Any]
    remove: Callable[[str], Any]
    counts: Callable[[str], bool] = bool

    def now(self) -> dict[str, Any]:
        """The values to put back, by name."""
        return {name: value for name, value in self.look().items() if self.counts(name)}


def in_module(module: nn.Module) -> Names:
    """The attributes of a module of the network but for torch's own."""
    return _in_space(type(module).__name__, vars(module), lambda name: name not in OWN)


def in_object(value: Any) -> Iterator[Names]:
    """The attributes of an object, in its dictionary and in slots."""
    kind = type(value)
    space = getattr(value, "__dict__", None)
    if isinstance(space, dict):
        yield _in_space(kind.__name__, space, lambda name: name not in _ABOVE)
    slots = {slot for each in kind.__mro__ for slot in _slots(each)} - {"__dict__", "__weakref__"}
    if slots:
        yield Names(
            kind.__name__,
            lambda: {name: getattr(value, name) for name in slots if hasattr(value, name)},
            partial(object.__setattr__, value),
            partial(object.__delattr__, value),
        )


def in_class(kind: type) -> Names:
    """The attributes of a class, but for special ones."""
    return Names(
        kind.__name__,
        lambda: vars(kind),
        partial(type.__setattr__, kind),
        partial(type.__delattr__, kind),
        lambda name: not name.startswith(("__", "_abc_")),
    )


def in_function(function: FunctionType, with_globals: bool) -> Iterator[Names]:
    """The variables around a function, its attributes, and the globals that its code names."""
    name, cells = function.__name__, function.__closure__ or ()
    for variable, cell in zip(function.__code__.co_freevars, cells, strict=True):
        yield _in_cell(name, variable, cell)
    yield _in_space(name, vars(function))
    if with_globals:
        space, named = function.__globals__, set(_named_in(function.__code__))
        yield Names(
            function.__module__,
            lambda: {name: space[name] for name in named if name in space},
            space.__setitem__,
            space.__delitem__,
        )


def _in_space(owner: str, space: dict[str, Any], counts: Callable[[str], bool] = bool) -> Names:
    return Names(owner, lambda: space, space.__setitem__, space.__delitem__, counts)


def _in_cell(owner: str, variable: str, cell: CellType) -> Names:
    return Names(
        owner,
        lambda: {variable: cell.cell_contents} if cell != CellType() else {},  # empty ones raise
        lambda _, value: setattr(cell, "cell_contents", value),
        lambda _: delattr(cell, "cell_contents"),
    )


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else slots


def _named_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _named_in(constant)
