"""What an offline experiment of Comet would send."""

import json
import multiprocessing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.callbacks import records

pytestmark = pytest.mark.slow


def train(folder):
    """Train with a Comet logger, and write down what was measured and what was warned of."""
    import comet_ml  # noqa: F401  # wants to be imported before torch
    from pytorch_lightning.loggers import CometLogger

    from lightning_nc import EquiSeparation, NeuralCollapse
    from tests import nets

    used = EquiSeparation(), NeuralCollapse()
    logger = CometLogger(
        project="mine",
        offline_directory=folder,
        **dict.fromkeys(("log_code", "log_env_details", "log_git_metadata"), False),
    )
    with nets.our_warnings() as told:
        nets.fit(folder, used, logger=logger)
    logger.experiment.end()
    measured = {
        "values": [[m.values for m in callback.history] for callback in used],
        "figures": [tag for callback in used for tag in nets.drawings(callback)],
        "at end": [tag for callback in used for tag in nets.drawings_at_end(callback)],
        "warned": told,
    }
    Path(folder, "measured.json").write_text(json.dumps(measured))


def test_comet_has_every_value_with_its_epoch_and_every_figure(tmp_path, monkeypatch):
    # with `online=False` the logger disables the experiment, and nothing is written at all
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    # comet_ml changes other libraries for good where it is imported
    process = multiprocessing.get_context("spawn").Process(target=train, args=(str(tmp_path),))
    process.start()
    process.join(180)
    assert process.exitcode == 0
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert measured["warned"] == []
    messages, files = records.comet_messages(tmp_path)
    metrics = [content["metric"] for kind, content in messages if kind == "metric_msg"]
    for history in measured["values"]:
        for key in history[0]:
            logged = [
                (each["step"], each["epoch"], each["metricValue"])
                for each in metrics
                if each["metricName"] == key
            ]
            expected = [pytest.approx(values[key]) for values in history]
            assert logged == list(zip((0, 2, 5), (0, 0, 1), expected, strict=True)), key
    uploads = [content for _, content in messages if "additional_params" in content]
    (film,) = (u for u in uploads if u["additional_params"].get("fileName", "").endswith(".gif"))
    assert film["additional_params"]["fileName"] == "nc/train/collapse.gif"
    assert files[film["file_path"]].startswith(b"GIF")
    uploads.remove(film)
    shown = [(u["additional_params"]["figName"], u["additional_params"]["step"]) for u in uploads]
    expected = [(tag, step) for tag in measured["figures"] for step in (0, 2, 5)]
    assert sorted(shown) == sorted([*expected, *((tag, 5) for tag in measured["at end"])])
    for upload in uploads:
        drawing = ElementTree.fromstring(files[upload["file_path"]])
        assert len(drawing.findall(".//{http://www.w3.org/2000/svg}path")) > 10
