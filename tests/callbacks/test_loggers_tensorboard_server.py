"""What TensorBoard itself, asked over HTTP and seen in a browser, makes of a run."""

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import build_opener

import pytest
from matplotlib.image import imread
from pytorch_lightning.loggers import TensorBoardLogger

from tests import nets
from tests.browser import needs_chromium, picture
from tests.callbacks import records

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(*nets.only_our_warnings)]


class Server:
    """TensorBoard on a free port of this machine."""

    def __init__(self, folder, log):
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
        options = ["--port=0", "--host=127.0.0.1", "--load_fast=false", "--reload_interval=1"]
        self.process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        self.log = Path(log.name)

    def start(self, timeout=600):
        deadline = time.monotonic() + timeout
        while (found := re.search(r"http://127\.0\.0\.1:\d+/", self.log.read_text())) is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        self.url = found.group()
        while not self.get("plugin/scalars/tags"):  # before it has read the run
            assert time.monotonic() < deadline, "no run was read"
            time.sleep(0.2)
        return self

    def read(self, path, **query):
        address = f"{self.url}data/{path}" + (f"?{urlencode(query)}" if query else "")
        with build_opener().open(address, timeout=60) as answer:
            return answer.read()

    def get(self, path, **query):
        return json.loads(self.read(path, **query))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server, the callbacks of the run it shows, and the name of that run."""
    folder = tmp_path_factory.mktemp("run")
    used = [kind() for kind in nets.CALLBACKS]
    nets.fit(folder, used, logger=TensorBoardLogger(folder, name=None, version="run"), max_epochs=4)
    with (tmp_path_factory.mktemp("server") / "log").open("w") as log:
        server = Server(folder, log)
        try:
            yield server.start(), used, "run"
        finally:
            server.process.terminate()
            server.process.wait(30)


def test_the_server_has_every_scalar(served):
    server, used, run = served
    tags = set(server.get("plugin/scalars/tags")[run])
    keys = {key for callback in used for key in callback.history[0].values}
    assert tags >= set(map(records.tensorboard_key, keys))
    for callback in used:
        key = records.tensorboard_key(callback.record.prefix + "epochs_completed")
        points = server.get("plugin/scalars/scalars", run=run, tag=key)
        assert [value for _, _, value in points] == [0, 1, 2, 3, 4]


def test_every_chart_of_the_layout_finds_its_scalars(served):
    server, used, run = served
    layout = server.get("plugin/custom_scalars/layout")
    categories = {category["title"]: category["chart"] for category in layout["category"]}
    assert list(categories) == [callback.family for callback in used]
    for charts in categories.values():
        for chart in charts:
            # as the page asks for a chart of several keys
            pattern = "|".join(f"({key})" for key in chart["multiline"]["tag"])
            found = server.get("plugin/custom_scalars/scalars", run=run, tag=pattern)
            assert found["regex_valid"]
            assert found["tag_to_events"], chart
    (layers,) = [c for c in categories["separation"] if c["title"] == "D at each layer (train)"]
    (pattern,) = layers["multiline"]["tag"]
    found = server.get("plugin/custom_scalars/scalars", run=run, tag=pattern)["tag_to_events"]
    names = ["input", "net.2", "net.6"]
    assert sorted(found) == [f"separation_layers/train/{name}" for name in names]


def test_the_server_has_every_image(served):
    server, used, run = served
    tags = server.get("plugin/images/tags")[run]
    drawn = [nets.drawings(c) | nets.drawings_at_end(c) for c in used]
    assert set(tags) == {tag for drawings in drawn for tag in drawings}
    for tag in tags:
        images = server.get("plugin/images/images", run=run, tag=tag, sample=0)
        assert images[-1]["step"] == 11
        png = server.read(f"plugin/images/individualImage?{images[-1]['query']}")
        assert imread(io.BytesIO(png), format="png").std() > 0.01


@needs_chromium
@pytest.mark.parametrize("page", ["timeseries", "custom_scalars", "images"])
def test_a_browser_shows_the_dashboard(page, served):
    server, _, _ = served
    wait = "--virtual-time-budget=20000"
    pixels = picture(f"{server.url}#{page}", f"tensorboard_{page}", "1400,2200", wait)[100:]
    if page == "timeseries":  # its lines are dark; the bar on top is left out
        drawn = pixels.max(axis=2) < 0.4
    else:
        drawn = pixels.max(axis=2) - pixels.min(axis=2) > 0.2  # colour
    assert drawn.mean() > 0.002
