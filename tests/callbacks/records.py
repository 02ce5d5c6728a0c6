"""What loggers wrote, read back from their files."""

import csv
import json
import struct
import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def csv_rows(folder):
    """The rows of the only metrics.csv, as dicts of text."""
    (path,) = folder.rglob("metrics.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tensorboard_events(folder):
    """All events of a TensorBoard folder."""
    (path,) = {file.parent for file in folder.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


def wandb_history(folder, timeout=20):
    """The rows that an offline run of W&B would send; its own process writes them."""
    records = _wandb_records(folder, timeout)
    return [_row(r.history) for r in records if r.WhichOneof("record_type") == "history"]


def wandb_alerts(folder, timeout=20):
    """Title and text of the alerts that an offline run of W&B would send."""
    records = _wandb_records(folder, timeout)
    alerts = [r.alert for r in records if r.WhichOneof("record_type") == "alert"]
    return [(alert.title, alert.text) for alert in alerts]


def _wandb_records(folder, timeout):
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.rglob("run-*.wandb")
    deadline = time.monotonic() + timeout
    while True:
        records = []
        for data in _leveldb_log(path.read_bytes()):
            records.append(wandb_internal_pb2.Record())
            records[-1].ParseFromString(data)
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        assert time.monotonic() < deadline, "the run of W&B was not finished"
        time.sleep(0.2)


def _row(history):
    row = {}
    for item in history.item:
        key, *field = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if field:
            row.setdefault(key, {})[field[0]] = value
        else:
            row[key] = value
    return row


def _leveldb_log(content, header=7, block=2**15):
    """Records of a LevelDB log: pieces with (crc, length, type), none across a block of 32 KiB."""
    position, parts = header, []
    while position + 7 <= len(content):
        left = block - position % block
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        if position + 7 + length > len(content):
            return  # still being written
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # complete, or the last piece
            yield b"".join(parts)
            parts = []
