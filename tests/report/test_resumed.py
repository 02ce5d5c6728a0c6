"""Runs that went on from a checkpoint, and others that only look as if."""

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, NeuralCollapse
from lightning_nc.report.page import report_page
from lightning_nc.report.runs import read_runs
from tests import nets
from tests.report import logs
from tests.report.pages import Page

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

LOGGERS = [TensorBoardLogger, CSVLogger]
NC = ("nc", "train")


def train(root, logger, max_epochs, resume_after=None, keep=False, **schedule):
    """Train from the start or from a checkpoint after so many epochs, in a folder of its own."""
    callbacks = [
        EquiSeparation(figures=False, **schedule),
        NeuralCollapse(figures=False, **schedule),
    ]
    if keep:
        callbacks.append(ModelCheckpoint(root / "kept", "{epoch}", save_top_k=-1))
    resumed = root / "kept" / f"epoch={(resume_after or 0) - 1}.ckpt"
    options = {"ckpt_path": resumed} if resume_after else {}
    loggers = [kind(root, "logs") for kind in ([logger] if isinstance(logger, type) else logger)]
    nets.fit(
        root,
        callbacks,
        data=nets.vectors(spread=0.1),
        logger=loggers,
        enable_checkpointing=keep,
        max_epochs=max_epochs,
        fit_options=options,
    )
    return callbacks


class Silent(nets.Classifier):
    def log(self, *_, **__):
        """Nothing, so that the log has our values alone."""


def epochs(run):
    return [series.epochs for series in run.series.values()]


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_run_that_was_resumed_twice_is_one(logger, tmp_path):
    train(tmp_path, logger, 2, keep=True)
    train(tmp_path, logger, 4, resume_after=2, keep=True)
    callbacks = train(tmp_path, logger, 5, resume_after=4)
    (run,) = read_runs(tmp_path).runs
    assert run.name.endswith("logs/version_0 + version_1 + version_2")
    assert epochs(run) == [[0, 1, 2, 3, 4, 5]] * 2
    nc1 = [m.values["nc/train/nc1"] for m in callbacks[1].history]
    assert run.series[NC].values["nc1"] == pytest.approx(nc1, rel=1e-6)
    assert list(run.series["separation", "train"].layers) == ["input", "net.2", "net.6"]
    # from two epochs before the end: these are trained anew
    last = train(tmp_path, logger, 6, resume_after=4)
    (run,) = read_runs(tmp_path).runs
    assert run.name.endswith("version_0 + version_1 + version_2 + version_3")
    assert epochs(run) == [[0, 1, 2, 3, 4, 5, 6]] * 2
    nc1 = [m.values["nc/train/nc1"] for m in last[1].history]
    assert run.series[NC].values["nc1"] == pytest.approx(nc1, rel=1e-6)


def test_with_two_loggers_it_is_one_too(tmp_path):
    train(tmp_path, LOGGERS, 2, keep=True)
    train(tmp_path, LOGGERS, 4, resume_after=2)
    (run,) = read_runs(tmp_path).runs
    assert epochs(run) == [[0, 1, 2, 3, 4]] * 2


def test_a_csv_file_that_was_begun_anew_belongs_to_the_events_of_all_epochs(tmp_path):
    for part in ({}, {"ckpt_path": tmp_path / "last.ckpt"}):
        loggers = [TensorBoardLogger(tmp_path, "events", ""), CSVLogger(tmp_path, "csv", "")]
        options = {"max_epochs": 4 if part else 2, "fit_options": part}
        run = nets.fit(tmp_path, [NeuralCollapse(figures=False)], logger=loggers, **options)
        run.save_checkpoint(tmp_path / "last.ckpt")
    assert epochs(*read_runs(tmp_path / "csv").runs) == [[3, 4]]
    (run,) = read_runs(tmp_path).runs
    assert epochs(run) == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("first", "second", "expected"), [(1, 3, 3), (1, 0, 1), (0, 2, 2)])
def test_failures_of_a_run_that_was_resumed_are_those_of_the_higher_count(
    first, second, expected, tmp_path
):
    for number, rows in enumerate(
        ([[0, 1, first, 4.0, 2], [1, 2, first, 2.0, 5]], [[1, 2, second, 1.5, 5]])
    ):
        logs.write(tmp_path / f"version_{number}", logs.text_of(rows=rows))
    ((series,),) = (run.series.values() for run in read_runs(tmp_path).runs)
    assert (series.values["nc1"], series.failures) == ([4.0, 1.5], expected)


def both_at_the_same_epochs(root, logger):
    train(root, logger, 4, epochs=[1, 3])
    train(root, logger, 4, epochs=[1, 3])


def the_second_at_later_epochs(root, logger):
    train(root, logger, 2)
    train(root, logger, 4, epochs=[3, 4])


def the_second_at_later_epochs_and_nothing_else_logged(root, logger):
    for max_epochs, schedule in ((2, [0, 1]), (5, [5])):
        callback = NeuralCollapse(epochs=schedule, figures=False)
        log = logger(root, "logs")
        run = nets.trainer(root, [callback], logger=log, max_epochs=max_epochs)
        run.fit(Silent(), DataLoader(nets.vectors(), 10))


def a_shorter_branch(root, logger):
    train(root, logger, 4, keep=True)
    train(root, logger, 3, resume_after=2)


def of_other_callbacks(root, logger):
    train(root, logger, 2, keep=True)
    options = {"max_epochs": 4, "fit_options": {"ckpt_path": root / "kept" / "epoch=1.ckpt"}}
    nets.fit(root, [NeuralCollapse(figures=False)], logger=logger(root, "logs"), **options)


@pytest.mark.parametrize("logger", LOGGERS)
@pytest.mark.parametrize(
    "two",
    [
        both_at_the_same_epochs,
        the_second_at_later_epochs,
        the_second_at_later_epochs_and_nothing_else_logged,
        a_shorter_branch,
        of_other_callbacks,
    ],
)
def test_two_runs_stay_two(two, logger, tmp_path):
    two(tmp_path, logger)
    assert [run.name for run in read_runs(tmp_path).runs] == ["logs/version_0", "logs/version_1"]


def test_what_could_go_on_from_two_runs_stays_on_its_own(tmp_path):
    train(tmp_path, CSVLogger, 2, keep=True)
    train(tmp_path, CSVLogger, 2)
    train(tmp_path, CSVLogger, 3, resume_after=2)
    names = [run.name for run in read_runs(tmp_path).runs]
    assert names == ["logs/version_0", "logs/version_1", "logs/version_2"]


@pytest.mark.usefixtures("without_pictures")
def test_the_beginning_of_the_terminal_phase_is_that_of_the_whole_run(tmp_path):
    train(tmp_path, CSVLogger, 6, keep=True)
    train(tmp_path, CSVLogger, 7, resume_after=6)
    reading = read_runs(tmp_path)
    series = reading.runs[0].series[NC]
    measured = zip(series.epochs, series.values["accuracy"], strict=True)
    begins = next(epoch for epoch, accuracy in measured if accuracy == 1)
    assert begins < 6
    page = Page(report_page(*reading)).text
    assert (
        f"Shaded: since the first measurement without an error on the probe, epoch {begins:g}."
        in page
    )
    # what was before is not known of the second part alone
    page = Page(report_page(*read_runs(tmp_path / "logs" / "version_1"))).text
    assert "the probe, epoch 7 or earlier (first measured at epoch 7)." in page
