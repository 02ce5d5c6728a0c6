"""Checks of arguments, when an object is made: what was given, and what to give instead."""

import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from lightning_nc.wording import shown

POOLINGS = ("auto", "flatten")  # names of poolings that may be given instead of a function


def require_whole_number(name: str, value: Any, least: int | None, meaning: str = "") -> int:
    """Return the value as an int, also one of numpy; raise unless it is ``least`` or more.

    Example:
        >>> require_whole_number("every_n_epochs", 1.5, 1)
        Traceback (most recent call last):
        ValueError: every_n_epochs must be 1 or more, got 1.5: give a whole number.
    """
    bounds = "a whole number" if least is None else f"{least}{meaning} or more"
    try:
        found = operator.index(value)
    except (TypeError, RuntimeError):
        found = None
    if found is None or isinstance(value, bool):
        raise ValueError(f"{name} must be {bounds}, got {shown(value)}: give a whole number.")
    if least is not None and found < least:
        raise ValueError(f"{name} must be {bounds}, got {found}.")
    return found


def require_number(name: str, value: Any, least: float) -> None:
    """Raise unless the value is a number of ``least`` or more, which NaN is not."""
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= least:
        raise ValueError(f"{name} must be {least:g} or more, got {shown(value)}.")


def require_whole_numbers(name: str, values: Any, meaning: str = "") -> list[int]:
    """Return the values as ints; raise unless they are whole numbers of 0 or more."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError(f"{name} must be a list of whole numbers, got {shown(values)}.")
    return [require_whole_number(f"each of {name}", value, 0, meaning) for value in values]


def require_one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise unless the value is one of some words."""
    if not isinstance(value, str) or value not in allowed:
        words = [f'"{word}"' for word in allowed]
        raise ValueError(
            f"{name} must be {', '.join(words[:-1])} or {words[-1]}, got {shown(value)}."
        )


def require_figures(value: Any) -> Any:
    """Return which figures are logged; raise unless it is True, False, ``"all"`` or ``"last"``."""
    if isinstance(value, str) and value in ("all", "last"):
        return value
    return require_yes_or_no("figures", value, ', "all" or "last"')


def require_yes_or_no(name: str, value: Any, otherwise: str = "") -> bool:
    """Return the value; raise unless it is True or False, and tell what else may be given."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise ValueError(f"{name} must be True or False{otherwise}, got {shown(value)}.")
    return bool(value)


def require_module_name(name: str, value: Any, hint: str = "") -> None:
    """Raise unless the value is the name of a module or None."""
    if value is not None and (not isinstance(value, str) or not value):
        raise ValueError(
            f"{name} must be the name of a module as in named_modules(){hint}, got {shown(value)}."
        )


def require_function(name: str, value: Any, hint: str) -> None:
    """Raise unless the value is a function or None."""
    if value is not None and not callable(value):
        raise ValueError(f"{name} must be a function{hint}, got {shown(value)}.")


def require_pooling(value: Any) -> None:
    """Raise unless the value is a pooling."""
    if callable(value) or (isinstance(value, str) and value in POOLINGS):
        return
    words = "".join(f', or "{word}"' for word in POOLINGS)
    raise ValueError(
        f"pool must be a function such as lightning_nc.first_token, masked_mean or last_token"
        f"{words}, got {shown(value)}."
    )


def require_names(name: str, value: Any, hint: str) -> Any:
    """Return the value, a list if it can be read only once; raise unless it holds names.

    Args:
        name: The argument.
        value: A list of one or more strings, or a mapping from such to functions.
        hint: What to give instead, as a sentence.
    """
    listed = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    found = list(value) if listed else []
    if not found or not all(isinstance(each, str) and each for each in found):
        raise ValueError(f"{name} must be one or more names, got {shown(value)}. {hint}")
    if not isinstance(value, Mapping):
        return found
    for each in found:
        require_function(f"{name}[{each!r}]", value[each], " that makes (N, d) features")
    return value


def require_layers(value: Any) -> Any:
    """Return layers, a list if they can be read only once; raise unless they name some."""
    if isinstance(value, str) and value:
        return value
    hint = 'Give "blocks", a list such as ["encoder.*"], or {name: callable}.'
    return require_names("layers", value, hint)
