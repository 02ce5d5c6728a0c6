import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from lightning_nc import Probe, masked_mean, measure
from lightning_nc.measures.minority_collapse import MinorityMeasure
from tests import architectures, nets

X = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 4


def data(labels=Y, inputs=X):
    return TensorDataset(inputs, labels)


class Net(nn.Module):
    """Four classes; its encoder has eight features and never runs ``spare``."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.spare = nn.ReLU()
        self.holder = nn.ModuleList([nn.Identity()])
        self.codes = Codes()
        self.pairs = Pairs()
        self.classifier = nn.Linear(8, 4)

    def forward(self, x):
        h = self.encoder(x)
        self.codes(self.holder[0](h))
        self.pairs(h)
        return self.classifier(h)


class Codes(nn.Module):
    def forward(self, h):
        return (h > 0).long()


class Pairs(nn.Module):
    def forward(self, h):
        return torch.cat([h, h])


class ThreeParts(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        return X[index], Y[index], index


class OtherKeys(ThreeParts):
    def __getitem__(self, index):
        return {"pixels": X[index], "kind": Y[index]}


SOFT = torch.full((30, 4), 0.25)
MULTI_LABEL = (torch.arange(120).reshape(30, 4) % 3 == 0).long()
BROKEN = torch.where(torch.arange(30)[:, None] == 7, float("nan"), X)

CASES = {
    "a label beyond the rows of the named head": (
        {"loader": data(torch.where(Y == 3, 9, Y)), "head": "classifier"},
        ValueError,
        ["Label 9 is out of range", "4 rows of the head 'classifier'", "unpack="],
    ),
    "an identifier for a label": (
        {"loader": list(zip(X, torch.where(Y == 3, 3_000_000_000, Y), strict=True))},
        ValueError,
        ["Label 3000000000 is out of range", "0 to 1048575 at most", "unpack="],
    ),
    "a layer without components": (
        {"layers": {"encoder.1": lambda h: h[:, :0]}, "head": False},
        ValueError,
        ["'encoder.1'", "(30, 0)", "nothing to measure", "Name other layers"],
    ),
    "a negative label": (
        {"loader": data(Y - 1)},
        ValueError,
        ["Label -1 is out of range", "unpack="],
    ),
    "one class only": (
        {"loader": data(torch.full((30,), 2))},
        ValueError,
        ["one class only (2)", "source="],
    ),
    "labels that are no tensor": (
        {"loader": Probe(data(), "data", unpack=lambda batch: (batch[0], ["cat"] * 30))},
        TypeError,
        ["class index for each sample", "list of 30 str", "unpack="],
    ),
    "more labels than samples": (
        {"loader": Probe(data(), "data", unpack=lambda b: (b[0], torch.cat([b[1], b[1]])))},
        ValueError,
        ["30 samples", "60 labels", "one label per sample"],
    ),
    "soft targets": (
        {"loader": data(SOFT)},
        ValueError,
        ["soft", "(30, 4)", "torch.float32", "unpack=", "argmax"],
    ),
    "fractional targets": (
        {"loader": data(Y / 2)},
        ValueError,
        ["no classes", "(30,)", "torch.float32", "unpack="],
    ),
    "multi-label targets": (
        {"loader": data(MULTI_LABEL)},
        ValueError,
        ["multi-label", "(30, 4)", "torch.int64", "unpack="],
    ),
    "a batch of three": (
        {"loader": ThreeParts()},
        TypeError,
        ["list of 3", "Probe(..., unpack=lambda batch: (batch[0], batch[2]))"],
    ),
    "a dict without a key for labels": (
        {"loader": OtherKeys()},
        TypeError,
        ["'pixels'", "'kind'", "Probe(..., unpack=lambda batch: (batch['pixels'], batch['kind']))"],
    ),
    "a stream": (
        {"loader": nets.Stream([(X[0], 0)])},
        TypeError,
        ["Stream", "map-style", "list(batches)"],
    ),
    "a Trainer's loader without a Trainer": (
        {"loader": Probe("train")},
        ValueError,
        ['"train"', "no Trainer", "Probe(source=loader"],
    ),
    "nothing to measure": ({"layers": None, "head": False}, ValueError, ["head=False"]),
    "a misspelt layer": (
        {"layers": ["encodr.1"]},
        ValueError,
        ["'encodr.1'", "'encoder.1'", "named_modules()"],
    ),
    "a layer far from any name": (
        {"layers": ["zzz"]},
        ValueError,
        ["'zzz'", "'encoder'", "named_modules()"],
    ),
    "a glob that matches nothing": (
        {"layers": "classifer.*"},
        ValueError,
        ["'classifer.*'", "'classifier'", "named_modules()"],
    ),
    "a star that would have to pass a dot": (
        {"layers": "e*0"},
        ValueError,
        ["'e*0': no module", "stops at a dot", "'e**0' matches 'encoder.0'"],
    ),
    "a star whose modules only hold others": (
        {"layers": "hold*"},
        ValueError,
        ["'holder' never runs", "'hold**' matches 'holder.0'"],
    ),
    "a layer that never runs": (
        {"layers": ["spare"]},
        ValueError,
        ["'spare' never runs", "Name a module that is called"],
    ),
    "a layer of integers": (
        {"layers": ["codes"]},
        TypeError,
        ["'codes'", "torch.int64", "layers={'codes': lambda output: ...}"],
    ),
    "a layer with more rows than samples": (
        {"layers": ["pairs"]},
        ValueError,
        ["'pairs'", "(60, 8)", "30 samples", "(N, d)"],
    ),
    "an unknown head": ({"head": "fc"}, ValueError, ["'fc'", "'classifier'"]),
    "a head without a weight matrix": (
        {"head": "encoder.1"},
        ValueError,
        ["'encoder.1'", "no weight matrix", "'classifier'"],
    ),
    "too little memory": (
        {"loader": Probe(data(), "data", memory_mb=1e-4)},
        ValueError,
        ["'input'", "5 features", "4 classes", "memory_mb", "pool="],
    ),
    "features that are not finite": (
        {"loader": data(inputs=BROKEN)},
        ValueError,
        ["not finite", "'input'", "'encoder.1'", "diverged"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named_together_with_the_way_out(case):
    arguments, error, parts = CASES[case]
    model = Net()
    with pytest.raises(error) as raised:
        measure(model, **({"loader": data()} | arguments))
    for part in parts:
        assert part in str(raised.value)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_that_cannot_be_found_is_asked_for():
    model = nn.Sequential(nn.Linear(5, 3), nn.ReLU())
    said = r"(?i)found no head.*4 classes.*head=\"classifier\""
    with pytest.warns(RuntimeWarning, match=said):
        values = measure(model, data(), layers=None).values
    assert "nc/data/nc1" in values  # of the output, as that of an encoder
    assert "nc/data/nc3" not in values
    with pytest.raises(ValueError, match=said):
        measure(model, data(), measures=[MinorityMeasure(minority=[1])])


def test_a_sequence_is_pooled_as_suits_it():
    class Reviews(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            tokens = architectures.tokens(1, seed=index)
            return {key: value[0] for key, value in tokens.items()} | {"labels": index % 4}

    model, layer = architectures.published("Bert"), "bert.encoder.layer.0"
    found = measure(model, Reviews())
    asked = measure(model, Reviews(), pool=masked_mean)
    assert found.pooling[layer] == "mean over tokens"
    key = f"separation_layers/data/{layer}"
    assert found.values[key] == asked.values[key] > 0


def test_a_label_beyond_the_rows_of_the_last_layer_is_named():
    with pytest.warns(RuntimeWarning, match=r"has 4 rows\. Either label 6 is out of range"):
        measure(Net(), data(torch.where(Y == 3, 6, Y)), layers=None)


def test_an_empty_source_is_named():
    with pytest.raises(ValueError, match="no samples"):
        measure(Net(), data(Y[:0], X[:0]))


def test_the_memory_that_is_missing_is_told_exactly():
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - what it must not say is checked
        measure(Net(), Probe(data(), "data", memory_mb=1e-4))
    assert " 0 MB" not in str(raised.value)


def test_a_convolutional_head_is_measured_on_the_mean_over_positions():
    images = TensorDataset(torch.randn(8, 3, 16, 16), torch.arange(8) % 4)
    model = architectures.squeezenet().eval()
    values = measure(model, images, layers=None).values
    with torch.no_grad():
        decided = model(images.tensors[0]).argmax(1)
    right = (decided == images.tensors[1]).double().mean()
    assert values["nc/data/accuracy"] == pytest.approx(float(right))
