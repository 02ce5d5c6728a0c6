"""What `measure` takes as data and as networks: the same numbers from each, or one sentence."""

import sys
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from lightning_nc import (
    LocalElasticity,
    MinorityCollapse,
    NeuralCollapse,
    Probe,
    callbacks_for,
    check,
    measure,
)
from lightning_nc.measures import progress
from lightning_nc.network.in_memory import source_of
from tests import nets

Y = torch.arange(60) % 3
X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(6)[Y]
LOADER = DataLoader(TensorDataset(X, Y), 16)
CUT = [slice(0, 25), slice(25, 60)]


def network():
    torch.manual_seed(0)
    return nets.mlp()


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, features):
        return self.inner(features)


SOURCES = {
    "a loader": LOADER,
    "a dataset": TensorDataset(X, Y),
    "tensors": (X, Y),
    "arrays of other types": (X.double().numpy(), Y.int().numpy()),
    "an array that cannot be written to": (np.broadcast_to(X.numpy(), X.shape), Y.tolist()),
    "arrays stored backwards": (X.numpy()[::-1].astype(">f4")[::-1], Y.flip(0).numpy()[::-1]),
    "one batch": [(X, Y)],
    "an empty batch, and others": [(X[:0], Y[:0]), (X, Y)],
    "batches of different length": [(X[part], Y[part]) for part in CUT],
    "a tuple of batches": tuple([X[part].numpy(), Y[part].numpy()] for part in CUT),
    "samples": [(x, int(y)) for x, y in zip(X, Y, strict=True)],
    "a loader's batches": list(LOADER),
    "Fabric's loader": Fabric(accelerator="cpu", devices=1).setup_dataloaders(LOADER),
}


@pytest.mark.parametrize("source", SOURCES)
def test_data_in_every_form_give_the_same_numbers_for_all_families(source):
    net, families = network(), callbacks_for(without=["minority"])
    expected = measure(net, Probe(LOADER, "data", None), measures=families)
    found = measure(net, SOURCES[source], measures=families)
    assert found.counts.tolist() == [20, 20, 20]
    assert found.values == pytest.approx(expected.values, rel=1e-5)
    assert found.values.keys() == expected.values.keys()
    drawn = {tag.partition("/")[0] for tag in found.drawings()}
    assert drawn == {each.family for each in families}


@pytest.mark.parametrize(
    "source",
    [
        {"features": X, "labels": Y},
        ({"features": X}, Y),
        [{"features": X[part], "labels": Y[part]} for part in CUT],
        [{"features": x, "labels": y} for x, y in zip(X, Y, strict=True)],
    ],
    ids=["a dict", "a dict and labels", "dicts", "samples"],
)
def test_inputs_by_name_give_the_same_numbers(source):
    expected = measure(network(), LOADER, layers=None).values
    assert measure(Named(), source, layers=None).values == pytest.approx(expected, rel=1e-6)


def test_a_network_in_float64_reads_arrays_in_float64():
    exact = measure(network().double(), (X.double().numpy(), Y.numpy())).values
    of_tensors = measure(network().double(), (X.double(), Y)).values
    assert exact == of_tensors


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((X, Y[:50]), r"must have an entry for each sample, got .*\(60, 6\).*\(50,\)"),
        ([(X, Y), (X[:, :4], Y)], r"samples differ: the first .*\(60, 6\).*number 2.*\(60, 4\)"),
        ([(X, Y), {"x": X, "y": Y}], "samples differ: the first batch is a tuple"),
        ([], "has no samples"),
        (iter(LOADER), r"may not return the same samples again.*list\(batches\)"),
        (
            DataLoader(nets.Stream(TensorDataset(X, Y)), 16),
            r"may not return the same samples again.*list\(batches\)",
        ),
        ((X.numpy().tolist, Y), r"cannot be read from .*Give a DataLoader or Dataset, a list"),
        ((X.numpy(), np.array(["a", "b", "c"])[Y]), r"must be numbers, got .*U1.*return_inverse"),
        ([X], "Cannot tell inputs from labels"),
    ],
)
def test_data_that_cannot_be_read_are_told_in_one_sentence_and_the_way_out(source, message):
    with pytest.raises((TypeError, ValueError), match=message):
        measure(network(), source)


def test_arrays_of_tokens_stay_whole_numbers():
    tokens, label = source_of((np.array([[1, 2], [3, 4]]), [0, 1]), torch.nn.Linear(5, 2))[1]
    assert tokens.dtype == label.dtype == torch.int64
    assert (tokens.tolist(), int(label)) == ([3, 4], 1)


def test_a_list_of_sequences_with_a_label_for_each_token_is_of_samples():
    samples = [(torch.arange(5) + i, torch.arange(5) % 2) for i in range(6)]
    assert source_of(samples, torch.nn.Linear(5, 2)) is samples


def test_a_dry_run_takes_the_same_data():
    assert check(network(), [(X, Y)]).counts == {0: 20, 1: 20, 2: 20}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_network_of_fabric_has_the_keys_of_its_own_and_the_precision_of_fabric(precision):
    expected = measure(network(), LOADER).values
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    values = measure(fabric.setup(network()), fabric.setup_dataloaders(LOADER)).values
    assert values.keys() == expected.keys()
    full = precision == "32-true"
    # half precision keeps 8 bits
    assert values == pytest.approx(expected, rel=1e-6 if full else 0.2, nan_ok=True)
    assert (values["nc/data/nc1"] == expected["nc/data/nc1"]) is full


def test_without_the_name_of_its_precision_a_network_of_fabric_is_not_measured_in_another():
    model = Fabric(accelerator="cpu", devices=1).setup(network())
    del vars(model)["_strategy"]
    with pytest.raises(ValueError, match=r"Give the network itself: model\.module"):
        measure(model, LOADER)


def test_networks_of_data_parallel_training_are_measured_without_their_wrapper():
    expected = measure(network(), LOADER).values
    assert measure(nn.DataParallel(network()), LOADER).values == expected


def test_what_accelerate_has_prepared_gives_the_same_numbers():
    accelerate = pytest.importorskip("accelerate")
    expected = measure(network(), LOADER).values
    prepared = accelerate.Accelerator(cpu=True).prepare(network(), LOADER)
    assert measure(*prepared).values == expected


def test_loaders_of_a_subset_are_read_as_such_whoever_prepared_them():
    accelerate = pytest.importorskip("accelerate")
    part = DataLoader(TensorDataset(X, Y), 16, sampler=SubsetRandomSampler(range(30)))
    fabric = Fabric(accelerator="cpu", devices=1)
    for loader in (
        part,
        fabric.setup_dataloaders(part),
        accelerate.Accelerator(cpu=True).prepare(part),
    ):
        assert measure(network(), loader).counts.tolist() == [10, 10, 10]


def test_passes_are_counted_where_asked_for_or_where_there_is_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    slow = network()
    slow.register_forward_pre_hook(lambda *_: time.sleep(0.12))  # more than tqdm's interval

    def told(**options):
        measure(slow, LOADER, layers=None, **options)
        return capsys.readouterr().err

    assert told() == ""  # no terminal
    assert "measure: 4 passes" in told(progress=True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert "measure: 4 passes" in told()
    assert told(progress=False) == ""


def test_bars_are_text_where_there_are_no_widgets(monkeypatch):
    # in notebooks, the import of tqdm.auto warns that it finds none
    for module in ("ipywidgets", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, module, None)  # which makes its import fail
    progress.PassesLine("measure", shown=True).close()


def test_warnings_name_the_line_that_measures():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        measure(network(), LOADER, measures=callbacks_for())
    assert {each.filename for each in told} == {__file__}


@pytest.mark.filterwarnings("ignore:.*class 0 alone is the majority")
def test_each_figure_is_of_its_own_measure_and_counts_are_those_of_most_samples():
    net = nn.Sequential(network(), nn.Linear(3, 3))
    collapse = NeuralCollapse(head="0.8")
    expected, _ = measure(net, LOADER, measures=[collapse]).plot("cosines")
    others = [
        LocalElasticity(max_classes=2),
        collapse,
        MinorityCollapse([1, 2], head="1", class_counts=[20, 5, 5]),
    ]
    found = measure(net, LOADER, measures=others)
    shown, _ = found.plot("nc/cosines")
    for one, other in zip(shown.axes, expected.axes, strict=True):
        assert (one.images[0].get_array() == other.images[0].get_array()).all()
    plt.close("all")
    assert found.counts.tolist() == [20, 20, 20]


@pytest.mark.filterwarnings("ignore:.*class 0 alone is the majority")
def test_of_arrays_with_one_name_none_hides_another():
    net, families = network(), callbacks_for(without=["minority"])
    families.append(MinorityCollapse([1, 2], class_counts=[20, 5, 5]))
    together = measure(net, LOADER, measures=families).arrays
    alone = [measure(net, LOADER, measures=[one]).arrays for one in families]
    assert len(together) == sum(map(len, alone))
    assert nets.same(together, {key: each[key] for each in alone for key in each})
    assert {"nc/data/cosines_of_means", "minority/data/cosines_of_means"} <= together.keys()


def test_measures_with_the_same_keys_are_refused():
    with pytest.raises(ValueError, match=r"^2 of the measures would have the keys nc/\.\.\.: "):
        measure(network(), LOADER, measures=[NeuralCollapse(), NeuralCollapse(layers=["0"])])


def test_one_measure_needs_no_list():
    alone = measure(network(), LOADER, measures=NeuralCollapse()).values
    assert nets.same(alone, measure(network(), LOADER, measures=[NeuralCollapse()]).values)


@pytest.mark.parametrize(
    ("model", "measures", "kind", "sentence"),
    [
        (network(), ["nc"], ValueError, "got 'nc'. Give a list of them"),
        (network(), [NeuralCollapse], ValueError, r"measures=\[NeuralCollapse\(\)\]"),
        (network(), [], ValueError, "Nothing to measure: measures is empty"),
        (None, None, TypeError, "must be an nn.Module, got None: give the network"),
        (len, None, TypeError, "must be an nn.Module, got <built-in function len>"),
    ],
)
def test_what_is_no_measure_or_network_is_told(model, measures, kind, sentence):
    with pytest.raises(kind, match=sentence):
        measure(model, LOADER, measures=measures)
