"""A family that is not of this package is in every place in which those of the package are."""

import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_nc import (
    Curve,
    EquiSeparation,
    Measure,
    MeasureCallback,
    Panel,
    Quantity,
    Request,
    measure,
)
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.passes.gradient_pass import GradientPass
from lightning_nc.passes.request import KernelRequest
from lightning_nc.report import read_runs, report_page
from tests import nets, reference
from tests.callbacks import records
from tests.measures.own_family import LayerwiseVariance, LayerwiseVarianceCallback
from tests.programs import run_python

ROOT = Path(__file__).parents[2]
LAYERS = ["input", "net.2", "net.6"]
pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    used = [MeasureCallback(LayerwiseVariance()), EquiSeparation()]
    loggers = [TensorBoardLogger(folder / "events"), CSVLogger(folder / "csv")]
    nets.fit(folder, used, logger=loggers)
    return folder, used


def test_its_values_are_logged_under_its_keys(run):
    folder, (callback, _) = run
    keys = ["cdnv/train/fall", *(f"cdnv_layers/train/{layer}" for layer in LAYERS)]
    keys += [f"cdnv/train/{row.name}" for row in BOOKKEEPING]
    assert list(callback.history[-1].values) == [keys[0], *keys[4:], *keys[1:4]]
    rows = [row for row in records.csv_rows(folder / "csv") if row["cdnv/train/fall"]]
    for key in keys:
        assert [float(row[key]) for row in rows] == [m.values[key] for m in callback.history]


def test_it_has_charts_on_tensorboard(run):
    *_, layout = records.tensorboard_layouts(run[0])
    assert layout["cdnv"] == {"Fall of CDNV": [r"cdnv/[^/]+/fall$"]}


@pytest.mark.parametrize("logger", ["events", "csv"])
def test_it_is_in_the_report_with_all_that_its_rows_say(logger, run):
    (found,) = read_runs(run[0] / logger).runs
    assert [family.name for family in found.families] == ["separation", "cdnv"]
    page = report_page([found])
    for said in (
        *("CDNV by layer", "At which depth do classes become compact?"),
        *("Fall of CDNV", "CDNV of the last layer by that of the first.", "If it is above 1."),
        *("CDNV at net.2", "CDNV at this layer.", "From the first to the last layer."),
    ):
        assert said in page
    assert page.count("<svg") >= 4  # D and CDNV against depth, and a chart of each family


def test_without_its_rows_the_report_shows_its_numbers(run, tmp_path):
    for path in run[0].rglob("lightning_nc.json"):
        path.rename(path.with_suffix(".hidden"))
    try:
        page = report_page(*read_runs(run[0] / "csv"))
    finally:
        for path in run[0].rglob("lightning_nc.hidden"):
            path.rename(path.with_suffix(".json"))
    assert "<code>cdnv/train/fall</code>" in page
    assert "CDNV of the last layer" not in page


def test_it_is_measured_without_a_trainer_and_draws_its_panel():
    net, data = nets.mlp().eval(), nets.vectors()
    found = measure(net, data, measures=[LayerwiseVariance(), EquiSeparation()])
    h = net[:3](data.tensors[0]).detach().double().numpy()
    expected = reference.class_distance_normalized_variance(h, data.tensors[1].numpy())
    assert found.values["cdnv_layers/data/2"] == pytest.approx(expected, rel=1e-9)
    assert "separation/data/rho" in found.values
    assert list(found.drawings()) == [
        *("cdnv/epochs", "separation/law", "separation/epochs", "separation/classes")
    ]
    assert found.plot()[1].get_title() == "Fall of CDNV, data"
    assert found.plot("law")[1].get_title() == "Separation fuzziness, data"
    with pytest.raises(ValueError, match="There is no figure 'cosines'; choose from cdnv/epochs"):
        found.plot("cosines")


@pytest.mark.slow
def test_the_contract_of_all_callbacks_can_be_pointed_at_it():
    path = f"{LayerwiseVarianceCallback.__module__}:{LayerwiseVarianceCallback.__qualname__}"
    done = run_python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="),
        *("-k", "LayerwiseVarianceCallback", "tests/test_drop_in.py"),
        *("tests/callbacks/test_logging.py", "tests/test_docs.py"),
        CALLBACKS_UNDER_TEST=path,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_measures_without_a_hash_are_measured_apart():
    @dataclass  # which compares by fields, and so has no hash
    class Named(LayerwiseVariance):
        label: str = ""

    found = measure(nets.mlp(), nets.vectors(), measures=[Named("one"), EquiSeparation()])
    assert "separation/data/rho" in found.values
    assert "cdnv/data/fall" in found.values


def test_a_request_goes_to_the_pass_that_answers_it():
    class OfGradients(LayerwiseVariance):
        quantities = (Quantity("trace", "", "", "", of=lambda found: found.kernel.kernel.trace()),)
        layer_quantities, passes = (), GradientPass

        def request(self):
            return Request(kernel=KernelRequest())

    class WithoutItsPass(OfGradients):
        passes = Measure.passes

    class WithoutItsRequest(LayerwiseVariance):
        passes = GradientPass

    assert measure(nets.mlp(), nets.vectors(), measures=OfGradients()).values["cdnv/data/trace"] > 0
    for kind, why in (
        (WithoutItsPass, "set passes = GradientPass"),
        (WithoutItsRequest, r"Give Request\(kernel=KernelRequest"),
    ):
        with pytest.raises(ValueError, match=why):
            measure(nets.mlp(), nets.vectors(), measures=kind())


def test_callbacks_of_one_class_are_told_apart_by_a_family_of_their_own():
    class Named(LayerwiseVariance):
        def __init__(self, family):
            self.family = family

    names = [repr(MeasureCallback(Named(family))) for family in ("one", "two")]
    assert [name.partition(" on ")[0] for name in names] == ["<Named 'one'", "<Named 'two'"]


@pytest.mark.parametrize(
    ("of", "why"),
    [(lambda _: torch.ones(3), "one element"), (lambda _: [][1], "IndexError: list index")],
)
def test_a_row_that_cannot_be_computed_is_named(of, why):
    class Wrong(LayerwiseVariance):
        quantities = (Quantity("worst", "", "Worst", "", of=of),)

    with pytest.raises(ValueError, match=f"quantity 'worst' of Wrong cannot .*{why}.*one number"):
        measure(nets.mlp(), nets.vectors(), measures=Wrong())

    class WrongAtLayers(LayerwiseVariance):
        layer_quantities = (Quantity("", "", "Worst", "", of=of),)

    with pytest.raises(ValueError, match=r"'Worst' of WrongAtLayers cannot .* at layer 'input'"):
        measure(nets.mlp(), nets.vectors(), measures=WrongAtLayers())


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("family", None, "family must be a name without a slash, but is missing"),
        ("family", "a/b", "family must be a name without a slash, got 'a/b'"),
        ("title", None, "title must be a text, but is missing"),
        ("question", None, "question must be a text, but is missing"),
        ("quantities", None, "quantities must be a tuple of Quantity, but is missing"),
        ("quantities", Quantity("x", "", "X", ""), "quantities must be a tuple of Quantity, got"),
        ("quantities", (Quantity("x", "", "X", ""),) * 2, "quantities has several rows named 'x'"),
    ],
)
def test_what_a_measure_lacks_is_told_when_it_is_used(attribute, value, sentence):
    attributes = {n: getattr(LayerwiseVariance, n) for n in ("title", "question", "quantities")}
    attributes |= {"family": "own", "request": LayerwiseVariance.request, attribute: value}
    if value is None:
        del attributes[attribute]
    lacking = type("Lacking", (Measure,), attributes)()
    for use in (MeasureCallback, lambda one: measure(nets.mlp(), nets.vectors(), measures=one)):
        with pytest.raises(ValueError, match=f"Lacking.{sentence}"):
            use(lacking)


def of_values(*values, panel=None):
    """A measure of constants, with this panel."""
    panel = panel or Panel("V", "Values.", logarithmic=True)
    rows = [
        Quantity(f"v{i}", "", "V", "V.", of=lambda _, v=v: v, chart=Curve(panel, f"v{i}"))
        for i, v in enumerate(values)
    ]

    class Constants(Measure):
        family, title, question = "constants", "Constants", "Which?"
        quantities = tuple(rows)

        def request(self):
            return Request(layers="blocks")

    return Constants()


def plotted(one, **options):
    return measure(nets.mlp(), nets.vectors(), measures=[one]).plot(**options)


@pytest.mark.parametrize(
    ("values", "scale"), [((1.0, 0.0, -1.0), "log"), ((0.0, -1.0), "linear"), ((0.5,), "log")]
)
def test_its_panel_is_logarithmic_where_it_says_so(values, scale):
    panel = Panel("V", "Values.", logarithmic=True, references=(("one", 1.0), ("zero", 0.0)))
    figure, axes = plotted(of_values(*values, panel=panel))
    figure.canvas.draw()
    assert axes.get_yscale() == scale
    assert plotted(of_values(*values, panel=Panel("V", "Values.")))[1].get_yscale() == "linear"


def test_all_its_curves_and_references_are_drawn():
    references = tuple((f"reference {i}", float(i + 1)) for i in range(3))
    axes = plotted(of_values(*map(float, range(1, 8)), panel=Panel("V", "", False, references)))[1]
    assert len(axes.get_lines()) == 7 + 3


def test_each_of_its_panels_has_axes_of_its_own():
    rows = [
        Quantity(name, "", name, "", of=lambda _: 2.0, chart=Curve(Panel(title, "", log), name))
        for name, title, log in (("a", "A", False), ("b", "B", True), ("c", "A", False))
    ]
    one = of_values()
    one.quantities = tuple(rows)
    _, (left, right) = plotted(one)
    assert [axes.get_title() for axes in (left, right)] == ["A, data", "B, data"]
    assert [axes.get_yscale() for axes in (left, right)] == ["linear", "log"]
    assert [line.get_label() for line in left.get_lines()] == ["a", "c"]
    figure, axes = plt.subplots(1, 2)
    assert plotted(one, ax=axes)[0] is figure
    plt.close(figure)


def drawing(returned):
    """A measure whose drawing pays no attention to what it is given."""
    one = of_values(1.0)
    one.draw = lambda timeline: {"own": lambda on=None: returned()}
    return one


def made_by_pyplot():
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    return figure


def test_a_figure_that_a_drawing_makes_is_what_is_plotted():
    figure, axes = plotted(drawing(made_by_pyplot))
    assert len(axes.get_lines()) == 1
    assert plt.get_fignums() == [figure.number]
    plt.close(figure)
    with pytest.raises(ValueError, match="made a figure of its own, so it cannot be drawn on ax="):
        plotted(drawing(made_by_pyplot), ax=Figure().subplots())
    for nothing, called in ((lambda: None, "None"), (lambda: 3, "3")):
        for options in ({}, {"ax": Figure().subplots()}):
            with pytest.raises(TypeError, match=f"returned {called}, no matplotlib Figure: it mus"):
                plotted(drawing(nothing), **options)
    assert plt.get_fignums() == []


def test_a_figure_that_a_drawing_makes_is_logged_and_not_left_open(tmp_path):
    nets.fit(tmp_path, [MeasureCallback(drawing(made_by_pyplot), figures="all")])
    assert list((tmp_path / "figures").rglob("*.png"))
    assert plt.get_fignums() == []
    with pytest.warns(RuntimeWarning, match="returned None, no matplotlib Figure: it must draw on"):
        nets.fit(tmp_path, [MeasureCallback(drawing(lambda: None), figures="all")])


def of_the_documents():
    """The names of all programs of the page but the first, which has a Trainer."""
    page = (ROOT / "docs" / "own_measures.md").read_text()
    names = {"__name__": "own"}
    for program in re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1:]:
        exec(program, names)
    return names


def test_the_sums_and_gradients_of_the_documents_are_those_of_the_formulas():
    names, net, data = of_the_documents(), nets.mlp().eval(), nets.vectors()

    class OfAllSamples(names["GradientNorm"]):
        def request(self):
            return Request(kernel=KernelRequest(samples_per_class=len(data)))

    values = measure(net, data, measures=[names["Kurtosis"](), OfAllSamples()]).values
    x, labels = (each.numpy() for each in data.tensors)
    squares = ((x - reference.class_means(x, labels)[labels]) ** 2).sum(1)
    expected = (squares**2).mean() / squares.mean() ** 2
    assert values["kurtosis_layers/data/input"] == pytest.approx(expected, rel=1e-9)
    gradients = reference.sample_gradients(net, data.tensors[0])
    expected = (gradients**2).sum((1, 2)).mean()
    assert values["gradients/data/mean_square"] == pytest.approx(expected, rel=1e-6)
    assert (
        "gradients/data/mean_square" in measure(net, data, measures=names["GradientNorm"]()).values
    )


def test_the_figure_of_the_documents_is_drawn_on_all_that_it_is_given():
    names = of_the_documents()
    found = measure(nets.mlp(), nets.vectors(), measures=[names["Bars"]()])
    assert len(found.plot()[1].patches) == 3
    axes = Figure().subplots()
    assert found.plot("bars", ax=axes)[0] is axes.figure
    assert len(axes.patches) == 3
    plt.close("all")
