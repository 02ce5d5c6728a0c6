"""Figures from the history, what is told at the end of training and while it takes long."""

import io
import math

import pytest
import torch
from lightning_utilities.core import rank_zero
from pytorch_lightning.callbacks import RichProgressBar, TQDMProgressBar
from torch.utils.data import DataLoader

from lightning_nc import (
    EquiSeparation,
    GeometrySummary,
    LocalElasticity,
    MinorityCollapse,
    NeuralCollapse,
    Probe,
)
from lightning_nc.callbacks import progress
from lightning_nc.measures import measurement
from lightning_nc.measures import progress as plain_progress
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.timeline import Timeline
from tests import nets
from tests.programs import run_python

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


NAMES = {
    "EquiSeparation": ["law", "epochs", "classes"],
    "NeuralCollapse": ["cosines", "snapshot", "epochs", "layers"],
    "MinorityCollapse": ["cosines", "norms"],
    "LocalElasticity": ["kernel", "ratio"],
    "NextTokenLaw": ["law", "epochs"],
}


def pixels(figure):
    figure.canvas.draw()
    return torch.frombuffer(bytearray(figure.canvas.buffer_rgba()), dtype=torch.uint8)


@pytest.mark.parametrize("callback_class", nets.CALLBACKS)
def test_every_figure_that_is_logged_can_be_plotted_from_the_history(callback_class, tmp_path):
    callback = callback_class(figures=False)
    with pytest.raises(ValueError, match=r"nothing yet in this process.*After ddp_notebook"):
        callback.plot()
    nets.fit(tmp_path, [callback])
    names = NAMES[callback_class.__name__]
    for name in names:
        assert pixels(callback.plot(name)[0]).float().std() > 1
    assert torch.equal(pixels(callback.plot()[0]), pixels(callback.plot(names[0])[0]))
    with pytest.raises(ValueError, match=f"no figure 'typo'; choose from {', '.join(names)}"):
        callback.plot("typo")


def test_an_earlier_measurement_can_be_plotted_as_long_as_its_arrays_are_kept(
    tmp_path, monkeypatch
):
    callback = EquiSeparation(figures=False)
    nets.fit(tmp_path, [callback])
    before, after = callback.plot("law", 0)[0], callback.plot("law")[0]
    assert not torch.equal(pixels(before), pixels(after))
    monkeypatch.setattr(measurement, "LARGE", 1)
    callback = EquiSeparation(figures=False)
    nets.fit(tmp_path, [callback])
    with pytest.raises(ValueError, match="Measurement 0 no longer has 'fuzziness'"):
        callback.plot("law", 0)


@pytest.mark.parametrize("callback_class", nets.CALLBACKS)
def test_figures_of_arrays_that_are_kept_can_be_plotted_whatever_became_of_others(
    callback_class, tmp_path
):
    data, K = nets.vectors((2,) * 33, d=6), 33  # more than 1,000 cosines, or entries of the kernel
    many = {"max_classes": K, "samples_per_class": 2} if callback_class is LocalElasticity else {}
    callback = callback_class(figures=False, **many)
    nets.fit(tmp_path, [callback], data=data, net=nets.mlp(K=K), max_epochs=1)
    gone = {"NeuralCollapse": ["cosines"], "MinorityCollapse": ["cosines"]}
    gone["LocalElasticity"] = ["kernel"]
    for name in NAMES[callback_class.__name__]:
        if name in gone.get(callback_class.__name__, []):
            with pytest.raises(ValueError, match=r"Measurement 0 no longer has '\w+'"):
                callback.plot(name, 0)
        else:
            assert pixels(callback.plot(name, 0)[0]).float().std() > 1
        assert pixels(callback.plot(name, 1)[0]).float().std() > 1


@pytest.mark.parametrize("callback_class", nets.GEOMETRY)
def test_of_many_classes_little_is_kept_and_all_can_be_plotted(callback_class, tmp_path):
    K = 60
    callback = callback_class(figures=False)
    data = nets.vectors((2,) * K, d=6)
    nets.fit(tmp_path, [callback], data=data, net=nets.mlp(K=K), max_epochs=1)
    first, last = callback.history
    assert first.arrays.keys() == last.arrays.keys()
    for name in NAMES[callback_class.__name__]:
        assert pixels(callback.plot(name, 0)[0]).float().std() > 1


def test_the_figure_over_epochs_has_a_line_per_measured_epoch(tmp_path):
    callback = EquiSeparation(figures=False)
    nets.fit(tmp_path, [callback], max_epochs=3)
    _, axes = callback.plot("epochs")
    shown = [line.vertices[:, 1].tolist() for line in axes.collections[0].get_paths()]
    layers = [key for key in callback.history[0].values if key.startswith("separation_layers")]
    assert shown == [[m.values[key] for key in layers] for m in callback.history]
    first_two = nets.drawings(callback, 1)["separation/train/epochs"]().axes[0]
    assert len(first_two.collections[0].get_paths()) == 2  # those of later epochs are not in it
    assert axes.get_yscale() == "log"


def separable():
    return torch.utils.data.TensorDataset(
        torch.eye(3).repeat_interleave(10, 0) + 0.01 * torch.randn(30, 3),
        torch.arange(3).repeat_interleave(10),
    )


class Fast(nets.Classifier):
    """All wrong at first, and soon right."""

    def __init__(self):
        super().__init__(torch.nn.Linear(3, 3), freeze=0)
        with torch.no_grad():
            self.net.weight.copy_(-torch.eye(3))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit_fast(folder, callbacks, **options):
    run = nets.trainer(folder, callbacks, max_epochs=6, **options)
    run.fit(Fast(), DataLoader(separable(), 30), DataLoader(separable(), 30))


def messages_of_lightning(folder, caplog, callbacks, **options):
    """What comes to the log that shows Lightning's own messages, and is ours."""
    rank_zero.log.addHandler(caplog.handler)
    try:
        fit_fast(folder, callbacks, **options)
    finally:
        rank_zero.log.removeHandler(caplog.handler)
    messages = {(id(r), r.getMessage()) for r in caplog.records}
    return [text for _, text in messages if text.startswith("NeuralCollapse")]


def test_the_terminal_phase_begins_once_and_is_told_without_a_warning(tmp_path, caplog):
    callback = NeuralCollapse(figures=False)
    (told,) = messages_of_lightning(tmp_path, caplog, [callback])
    accuracy = {m.epochs_completed: m.values["nc/train/accuracy"] for m in callback.history}
    first = min(epoch for epoch, value in accuracy.items() if value == 1)
    assert accuracy[0] < 1
    assert callback.terminal_epoch == first
    assert f"after {first:g} epochs the classifier makes no error on the 30 samples" in told
    shaded = callback.plot("epochs")[1].patches
    assert len(shaded) == 1
    assert shaded[0].get_xy()[0] == first
    assert not callback.plot("epochs", 0)[1].patches  # nothing of what came later


def test_the_terminal_phase_is_told_once_within_a_first_epoch_of_unknown_length():
    accuracies = ((0, 0.5), (4, 1.0), (9, 1.0))  # by step
    counts = torch.tensor([5, 5])
    taken = [Measurement(0, at, {"nc/train/accuracy": a}, {}, counts, 0.1) for at, a in accuracies]
    first, told, again = (
        NeuralCollapse().measure.events(Timeline("nc", "train", taken[:number], True))
        for number in (1, 2, 3)
    )
    assert first == again == {}
    assert "after step 4 of the first epoch the classifier" in told["terminal phase"]


TITLES = {
    "separation/train/law": "Separation fuzziness, train, 1 epoch",
    "separation/train/epochs": "Separation fuzziness by epoch, train",
    "separation/train/classes": "Separation fuzziness by class, train, 1 epoch",
    "nc/train/cosines": "Cosines between classes, train, 1 epoch; "
    "ideal off the diagonal: -1/(K-1) = -0.500",
    "nc/train/snapshot": "Neural collapse, train, 1 epoch\nthree of 3 classes",
    "nc/train/epochs": "Neural collapse over epochs, train",
    "nc/train/layers": "NC1 at each layer by epoch, train",
    "minority/train/cosines": "Cosines by class size, train, 1 epoch; "
    "ideal off the diagonal: -1/(K-1) = -0.500",
    "minority/train/norms": "Norms by class size, train, 1 epoch",
    "elasticity/train/kernel": "Tangent kernel, train, 1 epoch",
    "elasticity/train/ratio": "Local elasticity over epochs, train",
    "next_token/train/law": "Prediction residual, train, 1 epoch",
    "next_token/train/epochs": "Prediction residual by epoch, train",
}


def test_titles_say_what_is_shown_and_fit_on_the_figure(tmp_path):
    used = [callback_class(figures=False) for callback_class in nets.CALLBACKS]
    nets.fit(tmp_path, used)
    titles = {}
    for callback in used:
        drawings = nets.drawings(callback, 1) | nets.drawings_at_end(callback, 1)
        for tag, drawing in drawings.items():
            figure = drawing()
            above = figure._suptitle or figure.axes[0].title
            titles[tag] = above.get_text()
            figure.canvas.draw()
            box = above.get_window_extent()
            assert box.x0 >= 0, tag
            assert box.x1 <= figure.bbox.x1, tag
    assert titles == TITLES


def test_of_other_data_than_those_of_training_no_terminal_phase_is_told(tmp_path, caplog):
    used = [
        NeuralCollapse(probe="val", figures=False),
        NeuralCollapse(probe=Probe(separable(), name="mine"), figures=False),
    ]
    assert messages_of_lightning(tmp_path, caplog, used) == []
    for callback in used:
        assert callback.terminal_epoch is not None
        _, axes = callback.plot("epochs")
        assert len(axes.patches) == 1  # of which no more is said than was seen
        labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
        assert labels[-1] == "probe fitted without error"


FIRST_USE = """
import sys
import {package}
import torch
from torch.utils.data import DataLoader, TensorDataset
from lightning_nc import NeuralCollapse

class Module({package}.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 3, bias=False)
        torch.nn.init.eye_(self.net.weight)
    def forward(self, x):
        return self.net(x)
    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

data = TensorDataset(torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4))
{package}.Trainer(
    max_epochs=1, accelerator="cpu", logger=False, default_root_dir=sys.argv[1],
    enable_checkpointing=False, callbacks=[NeuralCollapse(figures=False)],
).fit(Module(), DataLoader(data, 12))
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", nets.NAMESPACES)
def test_the_terminal_phase_is_shown_once_where_nothing_is_set_up(package, tmp_path):
    script = FIRST_USE.format(package=package)
    done = run_python("-c", script, tmp_path, timeout=300)
    done.check_returncode()
    assert (done.stdout + done.stderr).count("terminal phase of training begins") == 1


def test_with_errors_on_the_probe_there_is_no_terminal_phase(tmp_path):
    callback = NeuralCollapse(epochs=[0], figures=False)
    net = torch.nn.Linear(3, 3)
    with torch.no_grad():
        net.weight.copy_(-torch.eye(3))
    run = nets.trainer(tmp_path, [callback], max_epochs=1)
    run.fit(nets.Classifier(net, freeze=0), DataLoader(separable(), 30))
    assert callback.history[0].values["nc/train/accuracy"] < 1
    assert callback.terminal_epoch is None
    assert len(callback.plot("epochs")[1].patches) == 0


def test_a_summary_has_the_first_and_the_last_value_of_every_quantity(tmp_path, capsys):
    law, nc = EquiSeparation(), NeuralCollapse(probe=Probe(name="mine"))
    rare = MinorityCollapse(minority=[0, 1], epochs=[0], figures=False)
    nets.fit(tmp_path, [GeometrySummary(), law, nc, rare])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) == 3}
    for callback, name in ((law, "rho"), (nc, "nc1"), (nc, "accuracy")):
        values = [callback.history[i].values[callback.record.prefix + name] for i in (0, -1)]
        assert [float(cell) for cell in rows[name]] == pytest.approx(values, rel=5e-4)
    assert rows["imbalance_ratio"] == ["undefined"] * 2 or all(
        math.isfinite(float(cell)) for cell in rows["imbalance_ratio"]
    )
    heads = [" ".join(line) for line in lines if "on" in line]
    assert "NeuralCollapse on 'mine' epoch 0 epoch 2" in heads
    assert not any("seconds" in line or "net.2" in line for line in lines)


def test_a_summary_says_what_is_undefined_and_counts_steps_where_epochs_have_no_length(
    tmp_path, capsys
):
    callback = NeuralCollapse(probe="val", when="validation_end", epochs=[1], figures=False)
    run = nets.trainer(tmp_path, [callback, GeometrySummary()], max_epochs=1, val_check_interval=2)
    data = nets.vectors((15, 15))
    with nets.our_warnings() as told:
        run.fit(
            nets.Classifier(nets.mlp(K=2), freeze=0),
            DataLoader(nets.Stream(data), 10),
            DataLoader(data, 10),
        )
    assert ["undefined (NaN)" in text for text in told] == [True]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"NeuralCollapse on 'val' step {callback.history[0].step} epoch 1" in lines
    assert "nc2_equinorm_means undefined undefined" in lines
    assert "2 measurements, 0 skipped" in lines


def test_a_summary_counts_the_time_of_a_shared_pass_once(tmp_path, capsys):
    law, nc = EquiSeparation(figures=False), NeuralCollapse(figures=False)
    alone = NeuralCollapse(probe=Probe(name="mine"), figures=False)
    nets.fit(tmp_path, [law, nc, alone, GeometrySummary()])
    assert law.history.series("seconds") == nc.history.series("seconds")
    took = sum(sum(each.history.series("seconds")) for each in (law, alone))
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "together" in each]
    assert line == f"All measurements together took {took:.3g} s."


@pytest.fixture
def slow_display(monkeypatch):
    for module in (progress, plain_progress):
        monkeypatch.setattr(module, "SECONDS", 0.0)


def test_progress_is_shown_where_the_trainer_shows_it(tmp_path, slow_display, capsys):
    callback = NeuralCollapse(epochs=[0], figures=False)
    nets.fit(tmp_path, [callback, TQDMProgressBar()], enable_progress_bar=True)
    shown = capsys.readouterr()
    assert "NeuralCollapse on 'train'" in shown.err + shown.out
    nets.fit(tmp_path, [NeuralCollapse(epochs=[0], figures=False)])
    shown = capsys.readouterr()
    assert "NeuralCollapse on 'train'" not in shown.err + shown.out


def test_progress_is_a_task_of_the_rich_bar_and_hidden_afterwards(tmp_path, slow_display):
    shown, bars = [], []

    class Bar(RichProgressBar):
        def on_train_start(self, trainer, pl_module):
            super().on_train_start(trainer, pl_module)
            bars.append(self.progress)
            update = self.progress.update

            def noting(task, **options):
                shown.append((self.progress.tasks[task].description, options.get("visible")))
                return update(task, **options)

            self.progress.update = noting

    bar = Bar(console_kwargs={"file": io.StringIO()})
    callback = NeuralCollapse(figures=False)
    nets.fit(tmp_path, [bar, callback], enable_progress_bar=True, max_epochs=2)
    ours = [visible for text, visible in shown if "NeuralCollapse on 'train'" in text]
    assert ours.count(False) == 3  # hidden after each measurement, of which the first is before it
    assert ours.count(None) > 3
    (tasks,) = {id(each): each.tasks for each in bars}.values()
    assert len([task for task in tasks if "NeuralCollapse" in task.description]) == 1
    assert not any(task.visible for task in tasks if "NeuralCollapse" in task.description)
    # Lightning finds its tasks by their places
    assert [task.id for task in tasks] == list(range(len(tasks)))


def test_before_the_rich_bar_has_started_a_plain_line_is_shown(tmp_path, slow_display, capsys):
    bar = RichProgressBar(console_kwargs={"file": io.StringIO()})
    options = {"enable_progress_bar": True, "num_sanity_val_steps": 0, "max_epochs": 1}
    for _ in range(2):  # in the second run the bar has what it showed in the first, and stopped
        callback = NeuralCollapse(epochs=[0], figures=False)
        nets.fit(tmp_path, [callback, bar], **options)
        assert "NeuralCollapse on 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("kernels", [1, 2])
def test_progress_goes_on_with_every_direction_of_gradients(kernels, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(progress.PassesLine, "advance", lambda line: lines.append(line))

    def passes(directions):
        lines.clear()
        callback = LocalElasticity(
            outputs=directions, relative_similarity=kernels == 2, epochs=[0], figures=False
        )
        nets.fit(tmp_path, [callback, TQDMProgressBar()], enable_progress_bar=True, max_epochs=1)
        return len(lines)

    assert passes(directions=30) - passes(directions=3) == 27 * kernels


def test_snapshots_of_all_measurements_make_a_film(tmp_path):
    from PIL import Image

    callback = NeuralCollapse(figures=False)
    with pytest.raises(ValueError, match="no snapshots: nothing has been measured yet"):
        callback.save_animation(tmp_path / "none.gif")
    nets.fit(tmp_path, [callback])
    callback.save_animation(tmp_path / "collapse.gif", frames_per_second=2)
    with Image.open(tmp_path / "collapse.gif") as film:
        assert film.n_frames >= len(callback.history)
        frames = []
        for number in range(3):
            film.seek(number)
            frames.append(film.convert("RGB").tobytes())
    assert len(set(frames)) == 3


def test_a_comparison_of_other_numbers_of_samples_is_warned_of(tmp_path):
    train = EquiSeparation(probe=Probe(samples_per_class=5), epochs=[1], figures=False)
    validation = EquiSeparation(probe=Probe("val", samples_per_class=4), figures=False)
    nets.fit(tmp_path, [train, validation])
    labels = ["train, 5 per class, 1 epoch", "val, 4 per class, 2 epochs"]
    with pytest.warns(RuntimeWarning, match=f"is not comparable here: {'; '.join(labels)}. Give"):
        axes = train.plot_against(validation)[1]
    assert [line.get_label() for line in axes.get_lines()] == labels


def test_runs_on_the_same_data_are_all_drawn(tmp_path):
    laws = [EquiSeparation(figures=False) for _ in range(3)]
    for seed, law in enumerate(laws):
        torch.manual_seed(seed)
        nets.fit(tmp_path / str(seed), [law], net=nets.mlp())
    validation = EquiSeparation(probe="val", figures=False)
    nets.fit(tmp_path, [validation])
    lines = laws[0].plot_against(*laws[1:], validation)[1].get_lines()
    drawn = [line.get_ydata().tolist() for line in lines]
    assert drawn == [law.history[-1].arrays["fuzziness"].tolist() for law in (*laws, validation)]
    same = "train, 9 to 12 per class, 2 epochs"
    labels = [f"{same} ({number})" for number in (1, 2, 3)]
    assert [line.get_label() for line in lines] == [*labels, same.replace("train", "val")]


def test_training_and_validation_data_can_be_drawn_against_each_other(tmp_path):
    train = EquiSeparation(figures=False)
    validation = EquiSeparation(probe="val", figures=False)
    with pytest.raises(ValueError, match="on 'train' has measured nothing yet"):
        train.plot_against(validation)
    nets.fit(tmp_path, [train, validation])
    lines = train.plot_against(validation)[1].get_lines()
    shown = {line.get_label(): line.get_ydata().tolist() for line in lines}
    assert shown == {
        f"{callback.probe.key}, 9 to 12 per class, 2 epochs": callback.history[-1]
        .arrays["fuzziness"]
        .tolist()
        for callback in (train, validation)
    }
    other = EquiSeparation(["net.0", "net.2", "net.6"], probe=Probe(name="one"), figures=False)
    nets.fit(tmp_path, [other])
    with pytest.raises(ValueError, match="or has other layers than the one on 'train'"):
        train.plot_against(other)
