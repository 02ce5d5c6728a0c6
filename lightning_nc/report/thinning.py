"""Long series, of which a page shows some measurements in bounded memory."""

from typing import Generic, TypeVar

Item = TypeVar("Item")
MOST = 2000  # measurements of one callback that are kept


class Thinned(Generic[Item]):
    """The items of a series: all of them, or every 2nd, 4th, 8th ... and the last.

    Attributes:
        every: Every how many-th item is kept.
        count: How many items were added.
    """

    def __init__(self) -> None:
        self.every = 1
        self.count = 0
        self._kept: list[Item] = []
        self._last: list[Item] = []

    def add(self, item: Item) -> None:
        """Add the next item."""
        if self.count % self.every == 0:
            self._kept.append(item)
        if len(self._kept) > MOST:
            self._kept = self._kept[::2]
            self.every *= 2
        self._last = [item] if self.count % self.every else []
        self.count += 1

    def items(self) -> list[Item]:
        """The items that are kept, in order."""
        return self._kept + self._last
