"""What a notebook shows: figures in a fresh kernel, one line, tables and frames."""

import math
import os
import sys
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import matplotlib.pyplot as plt
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, MinorityCollapse, NeuralCollapse, measure
from lightning_nc import measure_checkpoints as measured
from lightning_nc.measures import progress
from lightning_nc.measures.history import History
from lightning_nc.measures.rows import Rows
from lightning_nc.metrics import NeuralCollapse as CollapseMetric
from lightning_nc.metrics import SeparationFuzziness
from tests import nets
from tests.browser import needs_chromium, picture
from tests.functional import cases

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def executed(notebook):
    """Run a notebook in a kernel of its own; return the kinds of data that each cell shows."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    # threads that wait for a core cost more than they do, as in `tests.programs`
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [{kind for out in cell.outputs for kind in out.get("data", {})} for cell in cells]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with callbacks, which are returned, and the folder of its checkpoints."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    used = [EquiSeparation(figures=False), NeuralCollapse(epochs=[0, 2], figures=False)]
    keep = ModelCheckpoint(folder / "kept", save_top_k=-1, save_on_train_epoch_end=True)
    nets.fit(folder, [*used, keep], enable_checkpointing=True)
    return used, folder / "kept"


def test_figures_are_drawn_on_axes_that_are_given(run):
    (law, nc), _ = run
    figure, (left, right) = plt.subplots(1, 2)
    assert law.plot(ax=left) == (figure, left)
    assert nc.plot("snapshot", ax=right) == (figure, right)
    assert left.get_title() == law.plot()[1].get_title()
    assert figure.get_suptitle() == ""
    figure, both = plt.subplots(1, 2)
    assert nc.plot("cosines", ax=both)[1] is both
    assert figure.get_suptitle() == ""  # the title of a figure is its owner's
    with pytest.raises(ValueError, match=r"has 2 axes, got 1. Give as many: ax=plt.subplots\(1, 2"):
        nc.plot("cosines", ax=left)
    for whole in (figure, plt.figure().subfigures()):
        with pytest.raises(ValueError, match=r"axes, got a (Sub)?Figure. Give its axes: ax=figure"):
            law.plot(ax=whole)


def test_axes_are_those_of_values_and_not_of_colour_bars(run):
    (law, nc), _ = run
    assert law.plot("epochs")[1].get_ylabel() == "separation fuzziness D"
    figure, both = nc.plot("cosines")
    assert [each.get_title() for each in both] == ["centred class means", "classifier rows"]
    assert figure is both[0].figure


def test_a_figure_that_cannot_be_drawn_stays_not_open(run):
    (law, _), _ = run
    with pytest.raises(ValueError, match="no figure 'typo'"):
        law.plot("typo")
    assert plt.get_fignums() == []


def test_metrics_are_plotted_as_those_of_torchmetrics():
    features, labels = cases.PLAIN["balanced"]()
    metric = SeparationFuzziness(int(labels.max()) + 1)
    metric.update(features, labels)
    figure, axes = metric.plot()
    assert axes.figure is figure
    assert metric.plot(ax=axes) == (figure, axes)
    collapse = CollapseMetric(int(labels.max()) + 1)
    over_time = [collapse(features, labels) for _ in range(3)]
    _, axes = collapse.plot(over_time)
    assert set(over_time[0]) == {line.get_label() for line in axes.get_lines()}


def test_callbacks_and_measurements_are_one_readable_line(run):
    (law, nc), _ = run
    assert (
        repr(law)
        == "<EquiSeparation on 'train', every epoch: 3 measurements, the last after 2 epochs>"
    )
    assert repr(MinorityCollapse(every_n_epochs=5)) == (
        "<MinorityCollapse on 'train', every 5 epochs: nothing measured yet in this process>"
    )
    assert repr(nc).startswith("<NeuralCollapse on 'train', at epochs 0, 2: 2 measurements")
    last = law.history[-1]
    rho = f"separation/train/rho={last.values['separation/train/rho']:.4g}, "
    assert repr(last).startswith(
        f"<Measurement after 2 epochs, of {int(last.counts.sum())} samples: {rho}"
    )
    assert (
        repr(law.history)
        == f"<History of 3 measurements, the last {repr(last)[len('<Measurement ') :]}"
    )
    assert repr(History(Rows())) == "<History of 0 measurements>"
    one = Rows()
    one.append(last)
    assert repr(History(one)).startswith("<History of 1 measurement, the last after 2 epochs, ")
    found = measure(nets.mlp(), nets.vectors())
    assert repr(found).startswith(f"<NetworkMeasurement of {int(found.counts.sum())} samples: ")
    for each in (law, nc, last, law.history, found):
        assert "\n" not in repr(each)
        assert len(repr(each)) < 200


def test_tables_have_all_values_of_a_measurement_and_all_measurements(run):
    (law, _), _ = run
    html = law.history[-1]._repr_html_()
    assert all(f">{key}<" in html for key in law.history[-1].values)
    assert law.history._repr_html_().count("<tr>") == 1 + len(law.history)
    assert "separation_layers" not in law.history._repr_html_()
    assert History(Rows())._repr_html_().count("<tr>") == 1
    rows = Rows()
    for _ in range(100):
        rows.append(law.history[0])
    assert History(rows)._repr_html_().count("<tr>") == 18  # 8 of each end


def test_a_frame_has_a_row_per_measurement_or_per_value(run):
    (law, _), _ = run
    frame = law.history_frame()
    assert frame["epochs_completed"].tolist() == [0, 1, 2]
    keys = list(law.history[-1].values)
    assert list(frame.columns) == ["epochs_completed", "step", "stage", "seconds", *keys]
    assert frame["separation/train/rho"].tolist() == law.history.series("separation/train/rho")
    tidy = law.history_frame(tidy=True)
    assert len(tidy) == 3 * len(keys)
    of_rho = tidy[tidy["key"] == "separation/train/rho"]
    assert of_rho["value"].tolist() == law.history.series("separation/train/rho")
    assert History(Rows()).to_frame().empty


def test_without_pandas_the_way_out_is_told(run, monkeypatch):
    (law, _), folder = run
    monkeypatch.setitem(sys.modules, "pandas", None)
    for ask in (law.history_frame, lambda: measured(folder, nets.vectors(), nets.mlp())):
        with pytest.raises(ModuleNotFoundError, match=r"lightning-neural-collapse\[notebook\]"):
            ask()


def bits(net):
    return {name: each.clone() for name, each in net.state_dict().items()}


def test_checkpoints_are_measured_in_order_and_the_network_is_as_before(run, capsys):
    _, folder = run
    model = nets.Classifier(nets.mlp())
    before = bits(model)
    frame = measured(folder, nets.vectors(), model)
    assert frame["epochs_completed"].tolist() == [1, 2]
    assert frame["checkpoint"].tolist() == sorted(p.name for p in folder.glob("*.ckpt"))
    assert all(torch.equal(each, before[name]) for name, each in bits(model).items())
    assert "2/2" in capsys.readouterr().err
    path = folder / frame["checkpoint"][1]
    model.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    expected = measure(model, nets.vectors()).values
    assert frame.iloc[1][list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)
    assert frame["step"].tolist() == [3, 6]


def test_checkpoints_are_measured_without_a_word_where_no_progress_is_wanted(
    run, monkeypatch, capsys
):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    _, folder = run
    model = nets.Classifier(nets.mlp())
    measured(folder, nets.vectors(), model, progress=False)
    assert capsys.readouterr().err == ""


class Sized(nets.Classifier):
    """Makes its network from a width that its checkpoints have."""

    def __init__(self, width):
        net = nets.mlp()
        net[0], net[1] = torch.nn.Linear(6, width), torch.nn.Linear(width, 12)
        super().__init__(net, freeze=0)
        self.save_hyperparameters()


def test_of_a_class_each_checkpoint_makes_the_network_that_saved_it(tmp_path):
    data = nets.vectors()
    for width in (7, 8):
        trainer = nets.trainer(tmp_path)
        trainer.fit(Sized(width), DataLoader(data, 10))
        trainer.save_checkpoint(tmp_path / f"{width}.ckpt")
    frame = measured(tmp_path, data, Sized, progress=False)
    expected = measure(trainer.lightning_module, data).values
    assert frame["checkpoint"].tolist() == ["7.ckpt", "8.ckpt"]
    assert frame.iloc[1][list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)


def test_checkpoints_of_other_kinds_are_measured_or_told(run, tmp_path):
    net = nets.mlp()
    torch.save(net.state_dict(), tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_text("no checkpoint")
    with pytest.warns(RuntimeWarning, match=r"measure_checkpoints\(\) leaves out b.ckpt: "):
        frame = measured(tmp_path, nets.vectors(), net, head=False, progress=False)
    assert frame["checkpoint"].tolist() == ["a.ckpt"]
    assert math.isnan(frame["epochs_completed"][0])

    def load(path):
        net.load_state_dict(torch.load(path, weights_only=True))
        return net

    loaded = measured(tmp_path, nets.vectors(), load, head=False, pattern="a*", progress=False)
    assert loaded.equals(frame)
    torch.save(nets.Classifier(net), tmp_path / "whole.ckpt")  # an nn.Module is no mapping
    whole = partial(torch.load, weights_only=False)
    options = {"head": False, "pattern": "whole*", "weights_only": False, "progress": False}
    of_module = measured(tmp_path, nets.vectors(), whole, **options)
    assert math.isnan(of_module["step"][0])
    assert of_module["separation/data/total"][0] == frame["separation/data/total"][0]
    with pytest.raises(FileNotFoundError, match=r"no files '\*\.pt' in"):
        measured(tmp_path, nets.vectors(), net, pattern="*.pt")
    with pytest.warns(RuntimeWarning, match="leaves out b"), pytest.raises(UnpicklingError):
        measured(tmp_path, nets.vectors(), net, pattern="b*", progress=False)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def run_notebook(request):
    """A notebook that has run, and the kinds of data that each cell of code shows."""
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(request.param, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "it is stored without outputs"
    return request.param.stem, book, executed(book)


@pytest.mark.slow
def test_notebooks_run_and_show_their_figures(run_notebook):
    _, book, shown = run_notebook
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    for cell, kinds in zip(cells, shown, strict=True):
        assert ("image/png" in kinds) == (".plot(" in cell.source), cell.source
        said = "".join(out.get("text", "") for out in cell.outputs)
        assert "lightning_nc" not in said, said
        if find_spec("ipywidgets"):  # otherwise libraries that Lightning imports warn
            assert "TqdmWarning" not in said, said
    assert "text/html" in shown[-1] | shown[-2]


def html_of(book):
    """What a notebook shows, without the program that shows notebooks."""
    for cell in book.cells:
        yield f"<pre style='background: #eee'>{escape(cell.source)}</pre>"
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            if "image/png" in data:
                yield f'<img src="data:image/png;base64,{data["image/png"]}">'
            elif "text/html" in data:
                yield data["text/html"]
            else:
                yield f"<pre>{escape(out.get('text', data.get('text/plain', '')))}</pre>"


@pytest.mark.slow
@needs_chromium
def test_a_browser_shows_the_cells_of_a_notebook(run_notebook, tmp_path):
    name, book, _ = run_notebook
    page = tmp_path / "notebook.html"
    page.write_text("\n".join(["<meta charset=utf-8>", *html_of(book)]), encoding="utf-8")
    pixels = picture(page.as_uri(), f"notebook_{name}", "900,4000")
    assert (pixels.max(axis=2) - pixels.min(axis=2) > 0.2).mean() > 0.001  # colour
