"""What loggers of other packages get, by stand-ins that do what these have been seen to do."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.image import imread
from PIL import Image
from pytorch_lightning.loggers import Logger

from lightning_nc import EquiSeparation, NeuralCollapse
from tests import nets
from tests.callbacks.test_loggers import STEPS, callbacks, figures, said
from tests.measures.own_family import LayerwiseVarianceCallback

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


class OfOthers(Logger):
    """A logger with an experiment of another package, which keeps values."""

    name, version = "other", 0

    def __init__(self, experiment, folder=None):
        super().__init__()
        self.experiment, self.folder, self.values = experiment, folder, {}

    @property
    def save_dir(self):
        return self.folder

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        for key, value in metrics.items():
            self.values.setdefault(key, {})[step] = value


class AimLogger(OfOthers):
    """Its folder is the database of Aim, where nobody looks for figures."""


class DVCLiveLogger(OfOthers):
    """It has no folder."""


class Run:
    """Keeps what Aim's run would track."""

    def __init__(self):
        self.tracked = {}

    def track(self, value, name=None, step=None):
        self.tracked.setdefault(name, {})[step] = value


class Live:
    """Writes images as DVCLive does."""

    def __init__(self, folder):
        self.plots_dir = str(folder / "plots")

    def log_image(self, name, val):
        path = Path(self.plots_dir, "images", name)
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(val).save(path)


def opened(image):
    """The pixels that Aim keeps of an image, or the number of frames of its file."""
    if isinstance(image, str):
        with Image.open(image) as film:
            return film.n_frames
    return Image.fromarray(image).size


def test_aim_has_every_figure_as_an_image_and_the_film(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aim", SimpleNamespace(Image=opened))
    used, logger = callbacks(), AimLogger(Run(), tmp_path / ".aim")
    nets.fit(tmp_path, used, logger=logger)
    tracked = logger.experiment.tracked
    assert tracked.pop("nc/train/collapse") == {STEPS[-1]: len(STEPS)}
    assert {tag: [*images] for tag, images in tracked.items()} == figures(used)
    assert all(min(size) > 100 for images in tracked.values() for size in images.values())
    of_logger = logger.values["nc/train/nc1"]
    assert of_logger == {m.step: m.values["nc/train/nc1"] for m in used[1].history}
    assert not list(tmp_path.rglob("*.png"))


def test_dvclive_has_every_figure_in_a_folder_of_steps(tmp_path, caplog):
    used, logger = callbacks(), DVCLiveLogger(Live(tmp_path / "dvclive"))
    with caplog.at_level("INFO"):
        nets.fit(tmp_path, used, logger=logger)
    images = Path(logger.experiment.plots_dir, "images")
    expected = {f"{tag}/{step}.png" for tag, steps in figures(used).items() for step in steps}
    assert {str(path.relative_to(images)) for path in images.rglob("*.png")} == expected
    assert all(imread(images / name).std() > 0.01 for name in expected)
    (sentence,) = said(caplog)
    assert f"DVCLiveLogger has no place for films, which are in {tmp_path / 'figures'}" in sentence


def test_two_figures_of_one_step_are_two_images_of_dvclive(tmp_path):
    logger = DVCLiveLogger(Live(tmp_path))
    nets.fit(tmp_path, [EquiSeparation()], batch_size=30, logger=logger)
    law = Path(logger.experiment.plots_dir, "images/separation/train/law")
    # one batch per epoch: steps 0, 0, 1
    assert {path.name for path in law.iterdir()} == {"0.png", "0-2.png", "1.png"}


def test_no_figure_is_left_in_the_hidden_folder_of_a_tracker(tmp_path, caplog):
    used, logger = callbacks(), OfOthers(None, tmp_path / ".neptune")
    with caplog.at_level("INFO"):
        nets.fit(tmp_path / "run", used, logger=logger)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert list((tmp_path / "run/figures/nc/train/cosines").glob("*.png"))
    (sentence,) = said(caplog)
    assert f"has no place for figures, which are in {tmp_path / 'run/figures'}" in sentence


class Unready(OfOthers):
    """A logger that has no folder before its server answers."""

    @property
    def log_dir(self):
        raise ConnectionError("no run yet")


def test_a_logger_that_cannot_say_its_folder_costs_warnings_and_no_value(tmp_path):
    callback, logger = LayerwiseVarianceCallback(), Unready(None)
    with nets.our_warnings() as told:
        run = nets.fit(tmp_path, [callback], logger=logger)
    assert run.state.finished
    assert all("ConnectionError('no run yet')" in text for text in told)
    (key,) = {key for key in logger.values if key.endswith("/epochs_completed")}
    assert [*logger.values[key].values()] == [0, 1, 2]


def test_without_the_package_of_a_logger_figures_cost_a_warning_and_no_value(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aim", None)
    used, logger = [NeuralCollapse()], AimLogger(Run())
    with pytest.warns(RuntimeWarning, match="Could not log a figure to AimLogger"):
        nets.fit(tmp_path, used, logger=logger)
    assert [*logger.values["nc/train/nc1"]] == STEPS
