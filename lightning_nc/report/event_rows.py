"""Read event files record by record, whatever is in them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lightning_nc.measures.bookkeeping import GROUP
from lightning_nc.report.keys import STEP
from lightning_nc.report.remarks import Remarks


class _Record(NamedTuple):
    """A record of an event file, which need not be sound."""

    data: bytes
    checksum: int
    place: str


class EventFiles:
    """The scalars in the event files of one folder, in the order of writing.

    Args:
        paths: The files.
        remarks: Takes what cannot be read.

    Attributes:
        names: Tags of the scalars, in the order of their first values.

    Raises:
        ModuleNotFoundError: If TensorBoard is not installed.
    """

    def __init__(self, paths: Sequence[Path], remarks: Remarks) -> None:
        self._paths, self._remarks = paths, remarks
        # which of the tags are ours is known when all are known: the files are read twice
        scalars = (_key(value.tag) for *_, values in self._events(remarks) for value in values)
        self.names = list(dict.fromkeys(scalars))

    def rows(self, keys: Mapping[str, str]) -> Iterator[dict[str, float]]:
        """Yield what was logged at once with its step: scalars, until one of them comes again.

        Args:
            keys: The keys under which to yield them, by their tags.
        """
        from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
            masked_crc32c,
        )

        row: dict[str, float] = {}
        at: Any = None
        for path, step, record, values in self._events(Remarks("")):  # it has been told
            tagged = [(_key(each.tag), each.simple_value) for each in values]
            ours = [(keys[key], value) for key, value in tagged if key in keys]
            if ours and masked_crc32c(record.data) != record.checksum:
                self._remarks.add("a record with a wrong checksum is left out", record.place)
                continue
            for key, value in ours:
                if row and ((path, step) != at or key in row):
                    yield row
                    row = {}
                row[STEP], row[key], at = step, value, (path, step)
        if row:
            yield row

    def _events(self, remarks: Remarks) -> Iterator[tuple[Path, int, _Record, list[Any]]]:
        """Yield file, step, record and scalars of each event that has scalars."""
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

        for path in self._paths:
            try:
                with path.open("rb") as file:
                    for record in _records(file, path.name, remarks):
                        try:
                            event = Event.FromString(record.data)
                        except DecodeError:
                            remarks.add("a record that is no event is left out", record.place)
                            continue
                        summary = event.summary.value
                        scalars = [each for each in summary if each.HasField("simple_value")]
                        if scalars:
                            yield path, event.step, record, scalars
            except OSError as error:
                remarks.add(f"it cannot be read ({error.strerror})", path.name)


def _key(tag: str) -> str:
    """The key without the group in which TensorBoard shows bookkeeping."""
    return tag.replace(GROUP, "", 1)


def _records(file: BinaryIO, name: str, remarks: Remarks) -> Iterator[_Record]:
    """Yield the records of an event file, up to the first place from which there are none."""
    from tensorboard.summary.writer.record_writer import masked_crc32c

    while header := file.read(12):
        place = f"{name} at byte {file.tell() - len(header)}"
        known = len(header) == 12
        if known and masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
            remarks.add("it is damaged, or no event file: what follows is left out", place)
            return
        length = int.from_bytes(header[:8], "little")
        if not known or length + 4 > os.fstat(file.fileno()).st_size - file.tell():
            remarks.add("the last record, which has no end, is left out", place)
            return
        data = file.read(length)
        yield _Record(data, int.from_bytes(file.read(4), "little"), place)
