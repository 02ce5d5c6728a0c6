"""Modules and batches of many forms: measured alike, or one sentence says what to give."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_nc import (
    EquiSeparation,
    LocalElasticity,
    NeuralCollapse,
    Probe,
    find_blocks,
    measure,
)
from tests import nets
from tests.callbacks.runs import mixed

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

Y_LOSS = nn.functional.cross_entropy


class Steps:
    """A module with a ``training_step`` and a network, and no ``forward``."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nets.mlp()

    def training_step(self, batch, batch_idx):
        return Y_LOSS(self.net(self.x_of(batch)), batch[1])

    @staticmethod
    def x_of(batch):
        return batch[0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class NoForward(Steps, pytorch_lightning.LightningModule):
    pass


class NoForwardUnified(Steps, lightning.pytorch.LightningModule):
    pass


class Plain(NoForward):
    def forward(self, x):
        return self.net(x)


class TakesBatch(NoForward):
    def forward(self, batch):
        return self.net(self.x_of(batch))


class TakesBatchAndNumber(NoForward):
    def forward(self, batch, batch_idx):
        return self.net(batch[0] + batch_idx)


class CallsItsFirstParameterBatch(NoForward):
    def forward(self, batch):
        return self.net(batch)


class ReturnsTuple(Plain):
    def forward(self, x):
        return self.net(x), x


class ReturnsDict(Plain):
    def forward(self, x):
        return {"hidden": x, "logits": self.net(x)}


@dataclass
class Output:
    hidden: Any
    logits: Any


class ReturnsDataclass(Plain):
    def forward(self, x):
        return Output(x, self.net(x))


Item = namedtuple("Item", ["image", "label"])


@dataclass
class Record:
    image: Any
    label: Any


class Graphs:
    """A batch of an own class, as torch_geometric's."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def to(self, *args, **kwargs):
        return Graphs(self.x.to(*args, **kwargs), self.y.to(*args, **kwargs))


class TakesGraphs(Plain):
    def forward(self, data):
        return self.net(data.x)


class TakesRecord(Plain):
    def forward(self, batch):
        return self.net(batch.image)


class TakesImage(Plain):
    def forward(self, image):
        return self.net(image)


class Collated:
    """Makes a pair another kind of batch."""

    def __init__(self, form):
        self.form = form

    def __call__(self, samples):
        return self.form(*torch.utils.data.default_collate(samples))


FORMS = {
    "weights": lambda x, y: (x, y, torch.ones(len(y))),
    "file names": lambda x, y: [x, y, ["a.png"] * len(y)],
    "a dict at the end": lambda x, y: (x, y, {"weight": torch.ones(len(y))}),
    "labels in a list": lambda x, y: (x, y.tolist()),
    "labels in an array": lambda x, y: (x, y.numpy()),
    "one view in a tuple": lambda x, y: ((x,), y),
    "a named tuple": Item,
    "a dataclass": Record,
    "a dict": lambda x, y: {"image": x, "label": y},
    "a dict with more": lambda x, y: {"image": x, "label": y, "file": ["a.png"] * len(y)},
    "graphs": Graphs,
    "a dict with images": lambda x, y: {"x": x, "y": y},
}
MEASURED = {
    "a forward that takes the batch": (TakesBatch, {}, None),
    "a forward that takes the batch and its number": (TakesBatchAndNumber, {}, None),
    "no forward, but the name of a submodule": (NoForward, {"forward": "net"}, None),
    "no forward, but a function": (NoForward, {"forward": lambda m, x: m.net(x)}, None),
    "a forward that returns a tuple": (ReturnsTuple, {}, None),
    "a forward that returns a dict": (ReturnsDict, {}, None),
    "a forward that returns a dataclass": (ReturnsDataclass, {}, None),
    "inputs called batch": (
        CallsItsFirstParameterBatch,
        {"unpack": lambda batch: (batch[0], batch[1])},
        None,
    ),
    **{
        f"batches with {form}": (
            {"graphs": TakesGraphs, "a dict with more": TakesImage}.get(form, Plain),
            {},
            FORMS[form],
        )
        for form in FORMS
    },
}


def values_of(module, options, form=None):
    data = mixed()
    source = DataLoader(data, 10, collate_fn=Collated(form)) if form else DataLoader(data, 10)
    measures = [EquiSeparation(), NeuralCollapse()]
    measures += [] if form is Graphs else [LocalElasticity()]
    probe = Probe(source, "data", samples_per_class=None, **options)
    return measure(module, probe, measures=measures).values


@pytest.mark.parametrize("case", MEASURED)
def test_modules_and_batches_of_many_forms_are_measured_like_the_plain_one(case):
    kind, options, form = MEASURED[case]
    expected = values_of(Plain(), {})
    found = values_of(kind(), options, form)
    assert len(found) > 15
    expected = {key: expected[key] for key in expected if form is not Graphs or key in found}
    assert found == pytest.approx(expected, nan_ok=True, rel=1e-6)


@pytest.mark.parametrize(("kind", "form"), [(TakesGraphs, Graphs), (TakesRecord, Record)])
def test_single_samples_are_not_taken_from_objects(kind, form):
    source = DataLoader(mixed(), 10, collate_fn=Collated(form))
    with pytest.raises(ValueError, match=rf"taken from a {form.__name__}.*forward=.*LocalElas"):
        measure(kind(), source, measures=[LocalElasticity()])


class Positions(nn.Module):
    """Adds an embedding of positions, as networks do whose inputs are no tokens."""

    def __init__(self):
        super().__init__()
        self.of = nn.Embedding(6, 1)

    def forward(self, x):
        return x + self.of(torch.arange(6))[:, 0]


@pytest.mark.parametrize("kind", [Plain, TakesBatch])
def test_labels_within_a_batch_are_not_taken_for_tokens(kind):
    module = kind()
    module.net.insert(0, Positions())
    points = find_blocks(module, mixed()[:])
    assert points[0] == "input"
    assert len(points) > 2


class Fits(Dataset):
    """Triples (x, y, index), with labels that the dataset declares or not."""

    def __init__(self, declares):
        self.inputs, self.classes = mixed()[:]
        if declares:
            self.targets = self.classes

    def __len__(self):
        return len(self.classes)

    def __getitem__(self, index):
        return self.inputs[index], self.classes[index], index


def fitted(tmp_path, module, data, probe, **options):
    callback = NeuralCollapse(probe=probe, figures=False)
    namespace = "lightning" if isinstance(module, lightning.pytorch.LightningModule) else None
    trainer = nets.trainer(tmp_path, [callback], namespace or "pytorch_lightning", **options)
    trainer.fit(module, DataLoader(data, 10))
    return callback


@pytest.mark.parametrize(
    ("kind", "data", "options"),
    [
        (NoForward, mixed, {"forward": "net"}),
        (NoForwardUnified, mixed, {"forward": "net"}),
        (TakesBatch, mixed, {}),
        (TakesBatchAndNumber, mixed, {}),
        (Plain, lambda: Fits(True), {}),
    ],
    ids=["no forward", "of the other namespace", "batch", "batch_idx", "triples"],
)
def test_callbacks_measure_them_in_training(tmp_path, kind, data, options):
    callback = fitted(tmp_path, kind(), data(), Probe("train", **options))
    plain = fitted(tmp_path, Plain(), mixed(), Probe("train"))
    assert len(callback.history) == 3
    for found, expected in zip(callback.history, plain.history, strict=True):
        values = {k: v for k, v in expected.values.items() if not k.endswith("seconds")}
        assert {k: found.values[k] for k in values} == pytest.approx(values, nan_ok=True, rel=1e-6)


TOLD = {
    "no forward": (
        NoForward,
        mixed,
        ["NoForward has no forward()", 'Probe(..., forward="net")', "'net'"],
    ),
    "no forward in the other namespace": (
        NoForwardUnified,
        mixed,
        ["no forward()", 'Probe(..., forward="net")'],
    ),
    "inputs called batch": (
        CallsItsFirstParameterBatch,
        mixed,
        ["whole batch", "called batch", "unpack=lambda batch: (inputs, labels)"],
    ),
    "triples without declared labels": (
        Plain,
        lambda: Fits(False),
        ["list of 3 items", "unpack=lambda batch: (batch[0], batch[2])"],
    ),
    "two views": (
        Plain,
        lambda: [((x, x), int(y)) for x, y in mixed()],
        ["forward(x)", "list of 2 items", "first of two views", "(batch[0][0], batch[1])"],
    ),
}


class StepsAnyhow:
    """Trains on whatever the batches hold."""

    @staticmethod
    def x_of(batch):
        return batch[0][0] if isinstance(batch[0], tuple | list) else batch[0]


@pytest.mark.parametrize("case", TOLD)
def test_where_it_cannot_be_told_one_sentence_says_what_to_give(tmp_path, case):
    kind, data, words = TOLD[case]
    module = type(kind.__name__, (StepsAnyhow, kind), {})()
    with pytest.warns(RuntimeWarning, match="skipped") as told:
        callback = fitted(tmp_path, module, data(), Probe("train"))
    text = str(next(each.message for each in told if "skipped" in str(each.message)))
    assert [word for word in words if word not in text] == [], text
    assert callback.history == []
    assert callback.record.failures == 3


def test_weights_are_those_of_a_training_that_is_not_measured(tmp_path):
    states = []
    for callbacks in ([], [NeuralCollapse(probe=Probe("train", forward="net"), figures=False)]):
        module = NoForward()
        trainer = nets.trainer(tmp_path, callbacks)
        trainer.fit(module, DataLoader(mixed(), 10))
        states.append(module.state_dict())
    assert nets.same(*states)


def test_probes_that_call_another_part_are_not_equal():
    data = TensorDataset(torch.zeros(1, 1))
    assert Probe(data, "a", forward="net") == Probe(data, "a", forward="net")
    assert Probe(data, "a", forward="net") != Probe(data, "a", forward="encoder")
    assert Probe(data, "a", forward="net") != Probe(data, "a")
