"""Globs over the dotted names of modules and parameters."""

import re
from collections.abc import Iterable
from fnmatch import translate

from lightning_nc.wording import listed

_TOKENS = re.compile(r"\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"**": ".*", "*": "[^.]*", "?": "[^.]"}


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a glob matches, and a name that equals it, in their order.

    ``*``, ``?`` and ``[...]`` do not match a dot; ``**`` matches anything.

    Example:
        >>> names = ["layer.0", "layer.0.relu", "layer.1", "layer.10"]
        >>> matching("layer.*", names)
        ['layer.0', 'layer.1', 'layer.10']
        >>> matching("layer.?", names), matching("**relu", names)
        (['layer.0', 'layer.1'], ['layer.0.relu'])
    """
    glob = re.compile("".join(map(_expression, _TOKENS.findall(pattern))), re.DOTALL)
    return [name for name in names if name == pattern or glob.fullmatch(name)]


def deeper_advice(pattern: str, names: Iterable[str]) -> str:
    """Return what to write for a glob that would match if its stars did not stop at a dot.

    Args:
        pattern: A glob that matches none of the names.
        names: The names.

    Returns:
        A sentence, or nothing if no name would match then either.

    Example:
        >>> deeper_advice("*.bias", ["encoder.0.bias"])
        " A '*' stops at a dot and '**' does not: '**.bias' matches 'encoder.0.bias'."
    """
    deeper = re.sub(r"\*+", "**", pattern)
    found = matching(deeper, names)
    if deeper == pattern or not found:
        return ""
    shown = listed(map(repr, found), 3)
    return f" A '*' stops at a dot and '**' does not: '{deeper}' matches {shown}."


def _expression(token: str) -> str:
    """The regular expression of one token of a glob."""
    if len(token) > 1 and token not in _WILD:  # a set of characters, without its anchor at the end
        return r"(?!\.)" + translate(token).rpartition(")")[0] + ")"
    return _WILD.get(token, re.escape(token))
