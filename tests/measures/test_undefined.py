"""A value that is undefined is NaN, and one note names it together with its own cause."""

import math
import re
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import LocalElasticity, MinorityCollapse, NeuralCollapse, measure
from lightning_nc.measures.laws import fitted_law
from lightning_nc.measures.notes import law_note
from tests import nets

NC2 = {"nc2_equinorm_means", "nc2_equiangularity_means", "nc2_maximal_angle_means"}
NC2_OF_TWO = NC2 | {"nc2_equiangularity_weights", "nc2_etf_error", "gnc2"}
OF_ROWS = {"nc2_equinorm_weights", "nc2_equiangularity_weights", "nc2_maximal_angle_weights"}
PAIRED = {"nc3", "unc3"}
DECIDED = {"nc4", "accuracy"}
UNDECIDED = "the network outputs NaN: it has diverged"
NOT_FINITE = "the weight of the classifier is not finite"
TWO_MEANS = "two centred class means are always opposite"


class Root(nn.Module):
    """Logits whose square root is NaN for some samples."""

    def forward(self, x):
        return x.sqrt()


def network(K, head=None, after=(), **numbers):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), head or nn.Linear(6, K), *after)
    for name, (place, number) in numbers.items():
        getattr(net[2], name).data[place] = number
    return net


def told(net, labels, *measures):
    """The values, and which of them each sentence calls undefined, by its cause."""
    inputs = torch.randn(len(labels), 4) + nn.functional.one_hot(labels % 4, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = measure(net, TensorDataset(inputs, labels), measures=measures).values
    values = {key.split("/", 2)[2]: value for key, value in found.items()}
    pattern = r"measure\(\): (.*) (?:is|are) undefined \(NaN(?: or infinite)?\): (.*)\."
    matches = [re.fullmatch(pattern, str(each.message)) for each in caught]
    return values, {m[2]: {*m[1].split(", ")} for m in matches if m}


def labels_of(*counts):
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


CAUSES = {
    "cosine head, two classes": (
        network(2, nets.CosineHead(6, 2)),
        {"the head does not compute W h + b": PAIRED, TWO_MEANS: NC2_OF_TWO},
    ),
    "a row that is zero": (
        network(3, weight=(1, 0.0)),
        {"a classifier row is zero": OF_ROWS - {"nc2_equinorm_weights"} | {"unc3"}},
    ),
    "a weight that is NaN": (
        network(3, weight=(1, math.nan)),
        {UNDECIDED: DECIDED, NOT_FINITE: OF_ROWS | PAIRED},
    ),
    "a bias that is NaN": (network(3, bias=(1, math.nan)), {UNDECIDED: DECIDED}),
    "one logit that is NaN": (
        network(1, bias=(0, math.nan)),
        {UNDECIDED: DECIDED, TWO_MEANS: NC2_OF_TWO | OF_ROWS},
    ),
    "outputs that are NaN for some samples": (network(3, after=[Root()]), {UNDECIDED: DECIDED}),
}


def assert_told(undefined, found, expected):
    """All that is undefined, and nothing else, is told with its cause."""
    assert undefined == {name for names in expected.values() for name in names}
    assert len(found) == len(expected)
    for why, names in expected.items():
        (of_cause,) = [found[cause] for cause in found if why in cause]
        assert of_cause == names


@pytest.mark.parametrize("case", CAUSES)
def test_neural_collapse_names_the_cause_of_each_value(case):
    net, expected = CAUSES[case]
    labels = labels_of(*[8] * max(net[2].out_features, 2))
    values, found = told(net, labels, NeuralCollapse(layers=["1"]))
    undefined = {name for name, value in values.items() if value != value}
    if UNDECIDED in expected:
        assert "1/nc4" in undefined
        undefined -= {"1/nc4"}
    assert_told(undefined, found, expected)


def test_logits_that_are_infinite_decide():
    net = network(3, bias=(1, -math.inf))
    values, found = told(net, labels_of(8, 8, 8), NeuralCollapse())
    assert found == {}
    assert 0 <= values["accuracy"] <= 2 / 3


COSINES = {"cos_weights", "cos_means"}
MINORITIES = {
    "a minority of one, by its label": (
        [8, 0, 0, 8, 0, 8],
        [50, 0, 0, 50, 0, 5],
        {},
        {"class 5 alone is the minority, so": COSINES},
    ),
    "a majority of one": (
        [8, 8, 8],
        [50, 5, 5],
        {},
        {"class 0 alone is the majority, so": {"cos_majority_weights"}},
    ),
    "two classes": (
        [8, 8],
        [50, 5],
        {},
        {"class 1 alone is the minority and class 0": COSINES | {"cos_majority_weights"}},
    ),
    "a minority row that is zero": (
        [8, 8, 8, 8],
        [50, 50, 5, 5],
        {"weight": (2, 0.0)},
        {"a classifier row or a centred class mean is zero": {"cos_weights"}},
    ),
    "majority rows that are zero": (
        [8, 8, 8, 8],
        [50, 50, 5, 5],
        {"weight": (slice(2), 0.0)},
        {"a classifier row": {"cos_majority_weights", "norm_ratio"}},
    ),
    "a weight that is NaN": (
        [8, 8, 8, 8],
        [50, 50, 5, 5],
        {"weight": (0, math.nan)},
        {
            UNDECIDED: {"minority_accuracy"},
            NOT_FINITE: {"cos_majority_weights", "norm_ratio", "energy_weights"},
        },
    ),
}


@pytest.mark.parametrize("case", MINORITIES)
def test_minority_collapse_names_the_cause_of_each_value(case):
    samples, counts, numbers, expected = MINORITIES[case]
    net = network(len(samples), **numbers)
    values, found = told(net, labels_of(*samples), MinorityCollapse(class_counts=counts))
    undefined = {name for name, value in values.items() if not math.isfinite(value)}
    assert_told(undefined, found, expected)


def test_local_elasticity_refuses_features_that_are_not_finite():
    net, elasticity = network(2), LocalElasticity(parameters="last_layer")
    net[0].bias.data[0] = math.nan
    with pytest.raises(ValueError, match=r"Features are not finite .* at 'input of 2'"):
        told(net, labels_of(3, 3), elasticity)


@pytest.mark.parametrize(
    ("D", "cause"),
    [
        ([3.0], "a line needs two layers or more"),
        ([3.0, 2.0], "a line fits any two points"),
        ([2.0, 2.0, 2.0], "D is the same at all 3 layers"),
        ([2.0, 0.0, 1.0, math.inf], "D is zero or not finite at 'layer1', 'layer3'"),
    ],
)
def test_a_note_on_the_law_names_what_of_it_is_undefined(D, cause):
    law = fitted_law(torch.tensor(D, dtype=torch.float64)).law
    note = law_note({f"layer{t}": value for t, value in enumerate(D)})["law"]
    assert law.pearson_r.isnan()
    assert note.startswith("the law is" if law.rho.isnan() else "r is")
    assert cause in note
