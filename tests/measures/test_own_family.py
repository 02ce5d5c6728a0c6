"""A family that is not of this package is in every place in which those of the package are."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_nc import EquiSeparation, Measure, MeasureCallback, Quantity, measure
from lightning_nc.measures.bookkeeping import BOOKKEEPING
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
    (layout,) = records.tensorboard_layouts(run[0])
    assert layout["cdnv"] == {"Fall of CDNV": [r"cdnv/train/fall$"]}


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
