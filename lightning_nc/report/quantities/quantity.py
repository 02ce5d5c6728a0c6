"""What the page says about a logged quantity."""

import math
from collections.abc import Callable
from typing import NamedTuple

Cost = Callable[[float], float]


class Quantity(NamedTuple):
    """A row of the page.

    Attributes:
        name: What follows ``family/probe/`` in its key.
        label: For people.
        meaning: One sentence.
        ideal: Its ideal value; empty if there is none.
        worry: When to.
        cost: Smallest where the quantity is best; None if no value is better than another.
        alarming: Whether a last value is one to worry about, where a number decides that.
    """

    name: str
    label: str
    meaning: str
    ideal: str
    worry: str
    cost: Cost | None = None
    alarming: Callable[[float], bool] | None = None


def low(value: float) -> float:
    """Less is better."""
    return value


def high(value: float) -> float:
    """More is better."""
    return -value


def near_one(value: float) -> float:
    """Best at 1."""
    return abs(value - 1)


def short_half_life(value: float) -> float:
    """A negative half-life, depth in which D doubles, is worse than any positive one."""
    return -1 / value if value else math.inf
