"""Small logs as the loggers write them, damaged ones, and what a report has of them."""

from hypothesis import settings
from hypothesis import strategies as st
from torch.utils.tensorboard import SummaryWriter

from lightning_nc import __main__ as command
from lightning_nc.report.page import report_page
from lightning_nc.report.reading import NothingToReport
from lightning_nc.report.runs import read_runs
from tests.report.pages import Page

HEADER = ["epoch", "nc/train/epochs_completed", "nc/train/failures", "nc/train/nc1", "step"]
ROWS = [[0, 0, 0, 4.0, 0], [0, 1, 0, 2.0, 2], [1, 2, 0, 1.0, 5]]


def text_of(header=HEADER, rows=ROWS):
    """A metrics.csv as CSVLogger writes it."""
    return "".join(",".join(map(str, row)) + "\r\n" for row in (header, *rows))


def write(folder, content=None, name="metrics.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    content = text_of() if content is None else content
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    (folder / name).write_bytes(data)


def write_events(folder, tags=None, steps=3):
    """Event files as TensorBoardLogger writes them."""
    tags = tags or {"nc/train/nc1": 4.0, "nc/train/failures": 0, "nc/train/epochs_completed": 0}
    with SummaryWriter(folder) as writer:
        for step in range(steps):
            for tag, value in {**tags, "epoch": step}.items():
                value = step if tag.endswith("/epochs_completed") else value
                writer.add_scalar(tag, value, step)
    (path,) = folder.glob("events*")
    return path


def nc1(root, run=""):
    """NC1 of a run, and the remarks."""
    runs, remarks = read_runs(root)
    (series,) = (each.series["nc", "train"] for each in runs if run in each.name)
    return series.values["nc1"], remarks


def to_page(root, tmp_path, capsys):
    """The page as the command writes it, and what it prints."""
    page = tmp_path / "page.html"
    command.main(["report", str(root), "--output", str(page)])
    return page.read_text(encoding="utf-8"), capsys.readouterr()


def damages(data):
    """Cut, overwrite, insert and repeat pieces of a file."""
    place = st.integers(0, len(data))
    piece = st.one_of(st.binary(max_size=20), st.sampled_from([b'"', b"\r\n", b",", b"\0", b"nan"]))
    return st.lists(st.tuples(place, place, piece), min_size=1, max_size=4)


def damaged(data, edits):
    for start, end, piece in edits:
        data = data[: min(start, end)] + piece + data[max(start, end) :]
    return data


FUZZ = settings(max_examples=300)


def shown_or_a_sentence(root):
    """Whatever is in a folder, there is a page or a sentence."""
    try:
        reading = read_runs(root)
    except NothingToReport:
        return
    Page(report_page(*reading))
