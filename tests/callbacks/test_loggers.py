"""What the loggers of Lightning have on disk after a run."""

import collections
import io
import math
import re
import signal
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, Probe
from lightning_nc.loggers.images import save_figure
from lightning_nc.measures import neural_collapse
from tests import nets
from tests.callbacks import records
from tests.callbacks.scripts.train import train

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

NC1 = "nc/train/nc1"
# three batches in each of two epochs: before training, and the last batch of each epoch
STEPS = [0, 2, 5]
# which barebones would refuse
QUIET = {
    "fast_dev_run": {},
    "barebones": {"num_sanity_val_steps": 0, "log_every_n_steps": None},
}


def callbacks():
    return EquiSeparation(), NeuralCollapse()


def figures(used):
    """The steps under which figures are logged, by tag: those over all once, at the end."""
    steps = {tag: STEPS for callback in used for tag in nets.drawings(callback)}
    at_end = {tag: STEPS[-1:] for c in used for tag in nets.drawings_at_end(c)}
    return steps | at_end


def assert_files(folder, used):
    """Each figure of some callbacks is a file in a folder, at each of its steps."""
    for tag, steps in figures(used).items():
        files = sorted((folder / "figures" / tag).iterdir())
        assert [file.name for file in files] == [f"step_{step:08d}.png" for step in steps]
        assert imread(files[0]).std() > 0.01


def test_tensorboard_has_every_scalar_at_its_step_and_images_that_decode(tmp_path):
    used = callbacks()
    nets.fit(tmp_path, used, logger=TensorBoardLogger(tmp_path))
    events = records.tensorboard_events(tmp_path)
    for callback in used:
        for key in callback.history[0].values:
            logged = events.Scalars(records.tensorboard_key(key))
            assert [event.step for event in logged] == STEPS, key
            expected = [np.float32(m.values[key]) for m in callback.history]
            np.testing.assert_array_equal([np.float32(e.value) for e in logged], expected)
    assert set(events.Tags()["images"]) == set(figures(used))
    for tag, steps in figures(used).items():
        images = events.Images(tag)
        assert [image.step for image in images] == steps
        pixels = imread(io.BytesIO(images[-1].encoded_image_string), format="png")
        assert pixels.shape == (images[-1].height, images[-1].width, 3)
        assert 0.01 < pixels.std() < 1  # not a blank page


def test_csv_has_every_scalar_with_its_epoch_and_png_files_beside_it(tmp_path):
    used = callbacks()
    nets.fit(tmp_path, used, logger=CSVLogger(tmp_path))
    rows = records.csv_rows(tmp_path)
    assert all(row["epoch"] != "" for row in rows)
    for callback in used:
        key = callback.record.prefix + "epochs_completed"
        ours = [row for row in rows if row[key]]
        assert [int(row["step"]) for row in ours] == STEPS
        assert [int(row["epoch"]) for row in ours] == [0, 0, 1]
        for row, measurement in zip(ours, callback.history, strict=True):
            for name, value in measurement.values.items():
                assert math.isclose(float(row[name]), value, rel_tol=1e-6), name
    (log_dir,) = {path.parent for path in tmp_path.rglob("metrics.csv")}
    assert_files(log_dir, used)
    assert frames(log_dir / "figures/nc/train/collapse.gif") == len(STEPS)
    assert len(list(tmp_path.rglob("*.gif"))) == 1


def frames(path):
    with Image.open(path) as film:
        return film.n_frames


def test_what_is_drawn_at_the_end_is_of_the_last_measurement_also_of_a_run_that_is_stopped(
    tmp_path,
):
    stopping = EarlyStopping("nc/train/nc1", patience=1, min_delta=1e9)
    callback = NeuralCollapse(figures=True)
    nets.fit(tmp_path, [callback, stopping], logger=CSVLogger(tmp_path), max_epochs=10)
    (figure,) = tmp_path.rglob("nc/train/epochs/*.png")
    assert figure.name == f"step_{callback.history[-1].step:08d}.png"
    save_figure(tmp_path, "plotted", callback.plot("epochs")[0], 0)
    (plotted,) = tmp_path.rglob("plotted/*.png")
    np.testing.assert_array_equal(imread(figure), imread(plotted))


@pytest.mark.parametrize(("epochs", "films"), [([0, 1], 0), ([0, 1, 2], 1)])
def test_two_snapshots_make_no_film(epochs, films, tmp_path):
    nets.fit(tmp_path, [NeuralCollapse(epochs=epochs)], logger=CSVLogger(tmp_path))
    assert len(list(tmp_path.rglob("*.gif"))) == films


def test_a_film_of_many_measurements_has_some_of_them_with_the_first_and_the_last(
    tmp_path, monkeypatch
):
    callback = NeuralCollapse(figures=False)
    nets.fit(tmp_path, [callback], max_epochs=40)
    taken = []
    monkeypatch.setattr(
        neural_collapse, "save_snapshots", lambda path, snapshots, **_: taken.extend(snapshots)
    )
    timeline = callback.record.timeline()
    (make,) = callback.measure.films(timeline).values()
    make(tmp_path / "film.gif")
    titles = [title for *_, title in neural_collapse.snapshots_of(timeline)]
    shown = [titles.index(title) for *_, title in taken]
    assert len(shown) == 30
    assert shown == sorted(set(shown))
    assert (shown[0], shown[-1]) == (0, 40)


def test_a_film_that_cannot_be_made_costs_a_warning_and_not_the_run(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no space left")

    monkeypatch.setattr(neural_collapse, "save_snapshots", fail)
    with pytest.warns(RuntimeWarning, match="Could not draw a figure.*no space left"):
        run = nets.fit(tmp_path, [NeuralCollapse()], logger=CSVLogger(tmp_path))
    assert run.state.finished
    assert not list(tmp_path.rglob("*.gif"))


def test_the_steps_are_those_under_which_lightning_logs_epochs(tmp_path):
    used = EquiSeparation(figures=False), NeuralCollapse(when="validation_end", figures=False)
    nets.fit(tmp_path, used, logger=CSVLogger(tmp_path), accumulate_grad_batches=2)
    rows = records.csv_rows(tmp_path)

    def steps(key):
        return [int(row["step"]) for row in rows if row[key]]

    assert steps("separation/train/rho")[1:] == steps("loss_epoch")
    assert steps("nc/train/nc1")[1:] == steps("val_loss")


def test_several_loggers_get_the_same_and_none_is_fine(tmp_path):
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tensorboard")]
    callback = NeuralCollapse()
    nets.fit(tmp_path, [callback], logger=loggers)
    rows = records.csv_rows(tmp_path / "csv")
    events = records.tensorboard_events(tmp_path / "tensorboard")
    of_csv = [float(row["nc/train/nc1"]) for row in rows if row["nc/train/nc1"]]
    assert [event.value for event in events.Scalars("nc/train/nc1")] == pytest.approx(of_csv)
    assert set(events.Tags()["images"]) == set(figures([callback]))
    drawn = sum(len(steps) for steps in figures([callback]).values())
    assert len(list(tmp_path.rglob("*.png"))) == drawn
    assert len(list(tmp_path.rglob("*.gif"))) == len(loggers)
    alone = NeuralCollapse()
    run = nets.fit(tmp_path, [alone], logger=False)
    assert len(alone.history) == 3
    assert float(run.callback_metrics["nc/train/nc1"]) == pytest.approx(of_csv[-1])


def test_without_a_logger_figures_are_files_in_the_folder_of_the_trainer(tmp_path):
    used = [NeuralCollapse()]
    nets.fit(tmp_path, used, logger=False)
    assert_files(tmp_path, used)
    nets.fit(tmp_path, [NeuralCollapse(when="validation_end")], logger=False)
    films = sorted((tmp_path / "figures/nc/train").glob("*.gif"))
    assert [film.name for film in films] == ["collapse-2.gif", "collapse.gif"]
    assert {path.name for path in tmp_path.iterdir()} == {"figures"}


def test_without_a_logger_and_a_folder_of_this_machine_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = NeuralCollapse()
    nets.fit("memory://elsewhere", [callback], logger=False)
    assert len(callback.history) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["fast_dev_run", "barebones"])
@pytest.mark.parametrize("logger", [False, None])
def test_a_run_that_is_to_leave_nothing_has_no_figures(option, logger, tmp_path):
    callback = NeuralCollapse()
    nets.fit(tmp_path, [callback], **{option: True}, **QUIET[option], logger=logger)
    assert callback.history
    assert not list(tmp_path.rglob("*"))


def test_no_file_is_written_and_no_image_drawn_without_figures(tmp_path):
    callback = NeuralCollapse(figures=False)
    callback.draw = None  # would fail if called
    nets.fit(tmp_path, [callback], logger=CSVLogger(tmp_path))
    assert not list(tmp_path.rglob("*.png"))


def test_two_measurements_under_one_step_leave_two_figures(tmp_path):
    used = [NeuralCollapse()]
    nets.fit(tmp_path, used, batch_size=30, logger=CSVLogger(tmp_path))
    for tag, steps in figures(used).items():
        files = sorted(file.name for file in tmp_path.rglob(f"{tag}/*.png"))
        # one batch per epoch: steps 0, 0, 1
        names = ["step_00000000-2.png", "step_00000000.png", "step_00000001.png"]
        assert files == names[-len(steps) :]


def test_the_epoch_of_a_run_that_ends_early_is_its_last(tmp_path):
    callback = NeuralCollapse(every_n_epochs=5, figures=False)
    nets.fit(tmp_path, [callback], logger=CSVLogger(tmp_path), max_epochs=-1, max_steps=6)
    last = [row for row in records.csv_rows(tmp_path) if row["nc/train/nc1"]][-1]
    of_lightning = [row for row in records.csv_rows(tmp_path) if row["loss_epoch"]][-1]
    assert last["step"] == of_lightning["step"]
    assert last["epoch"] == of_lightning["epoch"]


class Bare(Logger):
    """A logger without a folder."""

    name, version = "bare", 0

    def __init__(self):
        super().__init__()
        self.images, self.files = {}, []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        pass


class TakesImages(Bare):
    def log_image(self, key, images, step=None, **options):
        (image,) = images
        self.images.setdefault(key, {})[step] = image


class TakesOtherImages(Bare):
    def log_image(self, name, path):
        raise AssertionError("called with arguments it does not have")


class TakesFiles(Bare):
    def log_file(self, path):
        self.files.append(path)


def said(caplog):
    return [r.getMessage() for r in caplog.records if "has no place for" in r.getMessage()]


def test_a_logger_with_log_image_gets_the_pixels_and_needs_no_folder(tmp_path, caplog):
    used, logger = [NeuralCollapse()], TakesImages()
    with caplog.at_level("INFO"):
        nets.fit(tmp_path, used, logger=logger)
    expected = figures(used)
    assert {tag: [*images] for tag, images in logger.images.items()} == expected
    for images in logger.images.values():
        assert all(image.shape[2] == 3 and image.std() > 1 for image in images.values())
    assert not list(tmp_path.rglob("*.png"))
    (sentence,) = said(caplog)
    assert f"TakesImages has no place for films, which are in {tmp_path}" in sentence
    assert frames(tmp_path / "figures/nc/train/collapse.gif") == len(STEPS)


@pytest.mark.parametrize("kind", [Bare, TakesOtherImages])
def test_a_logger_that_takes_no_figures_leaves_them_in_the_folder_of_the_run(
    kind, tmp_path, caplog
):
    used = [NeuralCollapse()]
    with caplog.at_level("INFO"):
        nets.fit(tmp_path, used, logger=[kind(), kind(), CSVLogger(tmp_path / "csv")])
    for folder in (tmp_path, next(tmp_path.rglob("metrics.csv")).parent):
        assert_files(folder, used)
    (sentence,) = said(caplog)
    assert f"{kind.__name__} has no place for figures, which are in {tmp_path}" in sentence


class Renaming(Bare):
    def log_metrics(self, metrics, step=None):
        for key in [*metrics]:
            metrics[f"mine/{key}"] = metrics.pop(key)


def test_a_logger_that_changes_what_it_gets_changes_nothing_for_the_next(tmp_path):
    callback = NeuralCollapse(figures=False)
    loggers = [Renaming(), CSVLogger(tmp_path), TensorBoardLogger(tmp_path)]
    nets.fit(tmp_path, [callback], logger=loggers)
    of_csv = [float(row[NC1]) for row in records.csv_rows(tmp_path) if row.get(NC1)]
    assert of_csv == [m.values[NC1] for m in callback.history]
    events = records.tensorboard_events(tmp_path).Scalars(NC1)
    assert [event.value for event in events] == pytest.approx(of_csv)


class Refusing(Bare):
    def log_metrics(self, metrics, step=None):
        if any(key.startswith(("nc/", "separation/")) for key in metrics):
            raise OSError("the server is gone")


def test_what_concerns_a_logger_is_said_once_in_a_run_whatever_the_callbacks(tmp_path, caplog):
    other = Probe(nets.vectors(), "other")  # measured in a pass of its own
    used = [NeuralCollapse(), EquiSeparation(), NeuralCollapse(probe=other)]
    for _ in range(2):
        with caplog.at_level("INFO"), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            nets.fit(tmp_path, used, logger=[Refusing(), CSVLogger(tmp_path)])
        (sentence,) = said(caplog)
        assert "Refusing has no place for figures" in sentence
        ours = [str(w.message) for w in told if "Refusing" in str(w.message)]
        assert ours == ["Could not log to Refusing: OSError('the server is gone')"]
        caplog.clear()


def test_a_logger_of_a_run_without_any_folder_on_this_machine_is_told_of(tmp_path, caplog):
    with caplog.at_level("INFO"):
        nets.fit("memory://elsewhere", [NeuralCollapse(epochs=[0])], logger=Bare())
    (sentence,) = said(caplog)
    assert "which are not kept, since memory://elsewhere is no folder of this machine" in sentence


def test_a_logger_with_log_file_gets_files_of_different_names(tmp_path, caplog):
    used, logger = [NeuralCollapse()], TakesFiles()
    with caplog.at_level("INFO"):
        nets.fit(tmp_path, used, logger=logger)
    assert said(caplog) == []
    names = {
        f"{tag.replace('/', '.')}.step_{n:08d}.png" for tag, ns in figures(used).items() for n in ns
    }
    names |= {"nc.train.collapse.gif"}
    assert {Path(file).name for file in logger.files} == names
    assert len(logger.files) == len(names)
    assert all(Path(file).parent == tmp_path / "figures" for file in logger.files)


class Series(list):
    def append(self, value, step=None):
        super().append((value, step))


def test_the_logger_of_lightning_has_every_value_and_figure(tmp_path, monkeypatch):
    litlogger = pytest.importorskip("pytorch_lightning.loggers.litlogger")
    # in place of the connection to its server
    monkeypatch.setitem(sys.modules, "litlogger", SimpleNamespace(File=Path))
    monkeypatch.setattr(litlogger.LitLogger, "finalize", lambda *_: None)
    logger = litlogger.LitLogger(tmp_path / "lit", name="run")
    logger._experiment = kept = collections.defaultdict(Series)
    callback = NeuralCollapse()
    nets.fit(tmp_path, [callback], logger=logger)
    assert [step for _, step in kept["nc/train/nc1"]] == STEPS
    files = {key: value for key, value in kept.items() if not isinstance(value, Series)}
    tags = {key.rpartition("/")[2].partition(".step")[0] for key in files}
    assert tags == {tag.replace("/", ".") for tag in figures([callback])} | {
        "nc.train.collapse.gif"
    }
    assert all(file.stat().st_size for file in files.values())


class Failing(Logger):
    """A logger whose server is gone."""

    name, version = "failing", 0

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        if any(key.startswith("nc/") for key in metrics):
            raise ConnectionError("the server is gone")


def test_a_logger_that_fails_costs_a_warning_and_not_the_run(tmp_path):
    callback = NeuralCollapse(figures=False)
    with pytest.warns(RuntimeWarning, match="Could not log to Failing.*the server is gone"):
        run = nets.fit(tmp_path, [callback], logger=[Failing(), CSVLogger(tmp_path)])
    assert run.state.finished
    assert len(callback.history) == 3
    assert len([row for row in records.csv_rows(tmp_path) if row["nc/train/nc1"]]) == 3


def test_a_figure_that_cannot_be_drawn_costs_a_warning_and_not_the_values(tmp_path):
    def undrawable(_):
        raise ImportError("no matplotlib")

    callback = nets.through(NeuralCollapse(), "draw", undrawable)
    with pytest.warns(RuntimeWarning, match="Could not draw figures.*no matplotlib"):
        nets.fit(tmp_path, [callback], logger=CSVLogger(tmp_path))
    assert [row for row in records.csv_rows(tmp_path) if row["nc/train/nc1"]]


def told_of(folder, used):
    with nets.our_warnings() as told:
        nets.fit(folder, used)
    return told


def test_without_matplotlib_a_run_tells_the_way_out_once(tmp_path, monkeypatch):
    for name in {"matplotlib", *sys.modules}:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    used = [EquiSeparation(), NeuralCollapse(), LocalElasticity()]
    told = told_of(tmp_path, used)
    assert [len(callback.history) for callback in used] == [3] * len(used)
    (text,) = told
    way_out = ("pip install 'lightning-neural-collapse[plot]'", "figures=False")
    assert all(words in text for words in way_out)
    for callback in used:
        with pytest.raises(ModuleNotFoundError, match=re.escape(way_out[0]) + ".*figures=False"):
            callback.plot()
    for draw in (lambda: used[0].plot("epochs"), lambda: used[1].save_animation("film.gif")):
        with pytest.raises(ModuleNotFoundError, match="figures need matplotlib"):
            draw()


def test_a_folder_that_takes_no_figures_is_named_once_per_run(tmp_path):
    folder = tmp_path / "figures"
    folder.write_text("a file")
    used = [EquiSeparation(), NeuralCollapse()]
    for _ in range(2):
        (text,) = told_of(tmp_path, used)
        assert re.match(f"Could not write a figure: .*Error.* at '{folder}", text)


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_others(tmp_path):
    def fail():
        raise MemoryError("too large")

    callback = nets.through(
        NeuralCollapse(epochs=[0]), "draw", lambda drawn: {"mine": fail} | drawn
    )
    with pytest.warns(RuntimeWarning, match="Could not draw a figure.*too large"):
        nets.fit(tmp_path, [callback], logger=CSVLogger(tmp_path))
    drawn = {path.parent.name for path in tmp_path.rglob("*.png")}
    assert drawn >= {"cosines", "snapshot"}


CADENCES = {True: [1, 2, 4, 8, 11], "all": [*range(1, 12)], "last": [11], False: []}


@pytest.mark.parametrize("which", CADENCES)
def test_figures_are_those_of_the_first_second_fourth_eighth_and_last_measurement(which, tmp_path):
    callback = EquiSeparation(figures=which)
    net, data = nets.mlp(), nets.vectors((2, 2), d=6)
    nets.fit(tmp_path, [callback], net=net, data=data, logger=CSVLogger(tmp_path), max_epochs=10)
    steps = {m.step: number for number, m in enumerate(callback.history, 1)}
    written = sorted(tmp_path.rglob("separation/train/law/*.png"))
    # before training and after the first epoch of one batch, Lightning has the same step
    drawn = [steps.get(int(path.stem[5:13]), path.stem) for path in written]
    assert len(drawn) == len(CADENCES[which])
    assert drawn[1:] == CADENCES[which][1:]
    seconds = callback.history.series("separation/train/figure_seconds")
    after = [number + 1 for number in CADENCES[which] if number < 11]
    assert [number for number, each in enumerate(seconds, 1) if each > 0] == after


@pytest.mark.parametrize("deed", ["fail", "interrupt", "terminate"])
def test_a_run_that_ends_by_an_exception_has_the_figures_of_its_last_measurement(deed, tmp_path):
    callback, filmed = (kind(figures="last") for kind in (EquiSeparation, NeuralCollapse))
    fate = {"deed": deed, "where": "batch"}
    with pytest.raises((OSError, SystemExit)):
        train(tmp_path, [callback, filmed], fate, logger=CSVLogger(tmp_path))
    assert [m.epochs_completed for m in callback.history] == [0, 1, 2]
    for name in ("law", "classes"):
        (figure,) = tmp_path.rglob(f"separation/train/{name}/*.png")
        assert figure.name == f"step_{callback.history[-1].step:08d}.png"
    assert list(tmp_path.rglob("*.gif")) == []  # there may be little time


def test_a_signal_to_the_program_does_not_wait_for_figures_of_further_callbacks(tmp_path):
    def drawn():
        return {path.relative_to(tmp_path).parts[2] for path in tmp_path.rglob("*.png")}

    def arrive(drawings):
        signal.raise_signal(signal.SIGUSR1)
        return drawings

    first = nets.through(EquiSeparation(epochs=[0]), "draw", arrive)
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(drawn()))
    try:
        callbacks = [first, NeuralCollapse(epochs=[0])]
        nets.fit(tmp_path, callbacks, logger=CSVLogger(tmp_path, name="", version="run"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [{"separation"}]
    assert drawn() == {"separation", "nc"}  # at the end of training


def test_a_figure_that_cannot_be_drawn_hides_no_exception(tmp_path):
    broken = nets.through(EquiSeparation(figures="last"), "draw", lambda _: 1 / 0)
    other = NeuralCollapse(figures="last")
    fate = {"deed": "fail", "where": "batch"}
    # here warnings are errors
    with pytest.raises(OSError, match="the disk is gone") as raised:
        train(tmp_path, [broken, other], fate, logger=CSVLogger(tmp_path))
    assert raised.value.__context__ is None
    assert list(tmp_path.rglob("nc/train/*/*.png"))


def test_final_figures_are_logged_once_whoever_fails_afterwards(tmp_path):
    class Late(Callback):
        def on_train_end(self, trainer, pl_module):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        nets.fit(tmp_path, [NeuralCollapse(), Late()], logger=CSVLogger(tmp_path))
    figures = [path.name for path in tmp_path.rglob("*.png")]
    assert not [name for name in figures if "-" in name]  # as a second one of a step is called
    assert len(list(tmp_path.rglob("*.gif"))) == 1


@pytest.mark.parametrize(("due", "drawn"), [([0, 1, 2], 0), ([0, 1, 2, 4], 1)])
def test_a_resumed_run_draws_again_only_if_it_measures_again(due, drawn, tmp_path):
    first, again = (NeuralCollapse(epochs=due, figures="last") for _ in range(2))
    run = train(tmp_path, [first], max_epochs=3)
    run.save_checkpoint(tmp_path / "first.ckpt")
    options = {"ckpt_path": tmp_path / "first.ckpt", "logger": CSVLogger(tmp_path / "again")}
    train(tmp_path, [again], **options)
    assert [m.epochs_completed for m in again.history] == due
    assert len(list((tmp_path / "again").rglob("nc/train/epochs/*.png"))) == drawn
    assert len(list((tmp_path / "again").rglob("*.gif"))) == drawn


def test_every_validation_of_its_own_has_its_figures(tmp_path):
    callback = EquiSeparation(probe="val", figures="last")
    run = nets.trainer(tmp_path, [callback], logger=CSVLogger(tmp_path))
    loader = DataLoader(nets.vectors(), 10)
    for _ in range(3):
        run.validate(nets.Classifier(nets.mlp()), loader, verbose=False)
    assert len(list(tmp_path.rglob("separation/val/law/*.png"))) == 3
