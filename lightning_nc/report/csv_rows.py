"""Read a metrics.csv row by row, whatever is in it."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TextIO

from lightning_nc.report.keys import STEP
from lightning_nc.report.remarks import Remarks, clipped

_LONGEST = 10_000_000  # characters of a line; a table of 100,000 columns has fewer


class CsvFile:
    """The rows of a metrics.csv.

    Args:
        file: The file.
        remarks: Takes what cannot be read.

    Attributes:
        names: Names of the columns, without those that come twice.
    """

    def __init__(self, file: TextIO, remarks: Remarks) -> None:
        self._remarks = remarks
        self._lines = csv.reader(_lines(file, remarks))
        self._header = next(self._read(), [])
        columns = Counter(filter(None, self._header))
        self.names = [name for name, count in columns.items() if count == 1]
        for name, count in columns.items():
            if count > 1:
                self._remark("a column that comes twice is left out", clipped(name))

    def rows(self, keys: Mapping[str, str]) -> Iterator[dict[str, float]]:
        """Yield the numbers of each row, with its step.

        Args:
            keys: The keys under which to yield them, by the names of their columns.
        """
        named = {**keys, **({STEP: STEP} if STEP in self.names else {})}
        places = [(self._header.index(name), key) for name, key in named.items()]
        for row in self._read():
            if len(row) != len(self._header):
                if row:
                    self._remark("a row that has not as many columns as the header is left out")
                continue
            cells = {key: row[place] for place, key in places if row[place]}
            if any(cells.get(key) == name for name, key in keys.items()):
                if row == self._header:
                    continue  # two files of the same columns were put together
                self._remark("another header; what follows is left out")
                return
            yield self._numbers(cells)

    def _numbers(self, cells: Mapping[str, str]) -> dict[str, float]:
        numbers = {}
        for key, cell in cells.items():
            try:
                numbers[key] = float(cell)
            except ValueError:
                where = f"{clipped(key)} is {clipped(cell, 40)!r}"
                self._remark("a value that is no number is left out", where)
        return numbers

    def _read(self) -> Iterator[list[str]]:
        """Yield rows; the reader goes on with the next line after one that it cannot read."""
        while True:
            try:
                yield next(self._lines)
            except StopIteration:
                return
            except csv.Error as error:
                self._remark(f"a row that cannot be read ({error}) is left out")

    def _remark(self, what: str, where: str = "") -> None:
        line = f"line {self._lines.line_num}"
        self._remarks.add(what, f"{line}, {where}" if where else line)


def _lines(file: TextIO, remarks: Remarks) -> Iterator[str]:
    """Yield the whole lines of a file: a last one without its end was cut off while written."""
    whole = True
    while line := file.readline(_LONGEST):
        begins, whole = whole, line.endswith(("\n", "\r"))
        if begins and whole:
            yield line
        elif begins and len(line) == _LONGEST:
            remarks.add(f"a line of over {_LONGEST:,} characters is left out")
        elif begins:
            remarks.add("the last row, which has no end, is left out")
