"""What loggers wrote, read back from their files."""

import csv
import json
import struct
import time
import zipfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.custom_scalar import layout_pb2

from lightning_nc.measures.bookkeeping import BOOKKEEPING, GROUP

BOOK = {row.name for row in BOOKKEEPING}


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


def tensorboard_key(key):
    """The key under which TensorBoard has a value: bookkeeping is a group of its own."""
    return f"{GROUP}{key}" if key.rpartition("/")[2] in BOOK else key


def tensorboard_layouts(folder):
    """Every layout of custom scalars that was written, as keys by category and title of chart."""
    layouts = []
    for file in folder.rglob("events.out.tfevents.*"):
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "custom_scalars":
                    layout = layout_pb2.Layout.FromString(value.tensor.string_val[0])
                    charts = {c.title: _charts(c) for c in layout.category}
                    layouts.append((event.wall_time, charts))
    # names of files end with numbers that do not sort as text
    return [charts for _, charts in sorted(layouts, key=lambda each: each[0])]


def _charts(category):
    return {chart.title: list(chart.multiline.tag) for chart in category.chart}


def comet_messages(folder):
    """Type and content of what an offline experiment of Comet would send, and its files."""
    (path,) = folder.rglob("*.zip")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    messages = map(json.loads, files["messages.json"].decode().splitlines())
    return [(message["type"], message["payload"]) for message in messages], files


def wandb_history(folder):
    """The rows that an offline run of W&B would send."""
    return [_row(history) for history in _wandb_records(folder, "history")]


def wandb_alerts(folder):
    """Title and text of the alerts that an offline run of W&B would send."""
    return [(alert.title, alert.text) for alert in _wandb_records(folder, "alert")]


def wandb_summary(folder):
    """What an offline run of W&B would keep of the run as a whole."""
    return {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for summary in _wandb_records(folder, "summary")
        for item in summary.update
    }


def wandb_axes(folder):
    """Every metric that an offline run of W&B would define, and over which other, in order."""
    metrics = _wandb_records(folder, "metric")
    return [(metric.name or metric.glob_name, metric.step_metric) for metric in metrics]


def wandb_tables(folder, tag):
    """The tables under a tag, from the files of an offline run of W&B."""
    names = [row[tag]["path"] for row in wandb_history(folder) if tag in row]
    paths = [path for name in names for path in folder.rglob(name.rpartition("/")[2])]
    return [json.loads(path.read_text()) for path in paths]


def wandb_charts(folder):
    """The settings of the charts that an offline run of W&B would show, by tag."""
    updates = [u for config in _wandb_records(folder, "config") for u in config.update]
    return {
        update.nested_key[2]: json.loads(update.value_json)["panel_config"]
        for update in updates
        if list(update.nested_key[:2]) == ["_wandb", "visualize"]
    }


def _wandb_records(folder, kind, timeout=20):
    """All records of a kind, once the process of W&B has written the last one."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.rglob("run-*.wandb")
    deadline = time.monotonic() + timeout
    while True:
        records = []
        for data in _leveldb_log(path.read_bytes()):
            records.append(wandb_internal_pb2.Record())
            records[-1].ParseFromString(data)
        kinds = [record.WhichOneof("record_type") for record in records]
        if "exit" in kinds:
            return [getattr(r, kind) for r, k in zip(records, kinds, strict=True) if k == kind]
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
