"""Classes of the head without samples are left out, and every value is that of the others."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from lightning_nc import Probe, measure
from lightning_nc.measures.equi_separation import SeparationMeasure
from lightning_nc.measures.local_elasticity import ElasticityMeasure
from lightning_nc.measures.minority_collapse import MinorityMeasure
from lightning_nc.measures.neural_collapse import CollapseMeasure
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.gradient_pass import GradientPass
from lightning_nc.passes.request import Request
from tests import reference
from tests.processes import run_processes

D, ROWS = 8, 7
# how many samples each label has
COUNTS = {
    "all": (6, 5, 9, 7, 5, 6, 8),
    "none in the middle": (6, 5, 0, 7, 0, 6, 8),
    "none at the end": (6, 5, 9, 7, 0, 0, 0),
    "none at the beginning": (0, 0, 9, 7, 5, 6, 8),
    "few": (6, 1, 9, 2, 5, 6, 0),
}
# the counts, how they are read, and the labels that are measured
CASES = {
    "all": ("all", {}, range(7)),
    "none in the middle": ("none in the middle", {}, (0, 1, 3, 5, 6)),
    "none at the end": ("none at the end", {}, (0, 1, 2, 3)),
    "none at the beginning": ("none at the beginning", {}, (2, 3, 4, 5, 6)),
    "named": ("all", {"classes": [5, 2, 3]}, (2, 3, 5)),
    "named, of those present": ("none in the middle", {"classes": (6, 1)}, (1, 6)),
    "with enough samples": ("few", {"min_samples_per_class": 3}, (0, 2, 4, 5)),
    "named, with enough samples": (
        "few",
        {"classes": [0, 1, 2, 3], "min_samples_per_class": 2},
        (0, 2, 3),
    ),
}


class Undeclared(Dataset):
    """Samples whose labels are only known when they are read."""

    def __init__(self, *tensors):
        self.x, self.y = tensors

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def data(counts, declared=True):
    random = torch.Generator().manual_seed(2)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = 2 * torch.randn(len(counts), 5, generator=random)
    inputs = centres[labels] + 1.5 * torch.randn(len(labels), 5, generator=random)
    return (TensorDataset if declared else Undeclared)(inputs, labels)


def network(rows=ROWS):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, D), nn.Tanh(), nn.Linear(D, rows)).double().eval()


def probe_of(name, declared=True, **options):
    which, how, present = CASES[name]
    source = data(COUNTS[which], declared)
    defaults = {"batch_size": 6, "samples_per_class": None, "unpack": as_doubles}
    options = defaults | how | options
    return Probe(source, "own", **options), source, present


def as_doubles(batch):
    return batch[0].double(), batch[1]


def answers(probe, source, requests, net=None, rank=0, world=1, kind=GeometryPass):
    runner = plain_runner(network() if net is None else net)
    found = kind(runner, lambda: source, probe, requests, Processes(rank, world)).run()
    for answer in found:
        if isinstance(answer, Exception):
            raise answer
    return found


def expected(source, present, net=None):
    """The features of the classes present, their labels numbered anew, and the head's rows."""
    net = network() if net is None else net
    inputs, labels = source.tensors if isinstance(source, TensorDataset) else (source.x, source.y)
    kept = torch.isin(labels, torch.tensor(list(present)))
    with torch.no_grad():
        features = net[:2](inputs[kept].double())
        chosen = net(inputs[kept].double()).argmax(1).numpy()
    new = np.searchsorted(list(present), labels[kept].numpy())
    W, b = (p.detach().numpy() for p in (net[2].weight, net[2].bias))
    return features.numpy(), new, W, b, chosen


def assert_close(found, wanted, keys=None):
    for key in wanted if keys is None else keys:
        value, other = found[key], float(wanted[key])
        both = math.isnan(value) and math.isnan(other)
        assert both or math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-12), (key, value, other)


def decided(features, labels, present, chosen):
    """NC4 and accuracy by decisions over all rows."""
    means = reference.class_means(features, labels)
    nearest = ((features[:, None] - means) ** 2).sum(2).argmin(1)
    right = np.asarray(list(present))
    return {"nc4": (chosen != right[nearest]).mean(), "accuracy": (chosen == right[labels]).mean()}


def assert_is_that_of_the_others(found, source, present):
    """The values of neural collapse and of the law are those of the problem of these classes."""
    features, labels, W, b, chosen = expected(source, present)
    rows = list(present)
    wanted = reference.collapse_values(features, labels, W[rows], b[rows])
    wanted |= decided(features, labels, present, chosen)
    if len(rows) > 2:
        assert_close(found, wanted)
    else:
        assert_close(found, wanted, ["nc1", "nc3", "nc4", "cdnv", "accuracy"])


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_classes_present(name, declared):
    probe, source, present = probe_of(name, declared)
    measure_of = CollapseMeasure()
    separation = Request(layers=["1"])
    answer, other = answers(probe, source, [measure_of.request(), separation])
    found = measure_of.evaluate(answer).values
    assert_is_that_of_the_others(found, source, present)
    features, labels, *_ = expected(source, present)
    fuzziness = other.layers["1"]
    D_found = float(fuzziness.fuzziness.sum() / fuzziness.counts.sum())
    assert D_found == pytest.approx(reference.separation_fuzziness(features, labels), rel=1e-9)
    assert answer.labels.tolist() == list(present)
    assert answer.counts.tolist() == np.bincount(labels).tolist()


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_out_is_told_once_with_the_numbers(name):
    probe, source, present = probe_of(name)
    first, second = answers(probe, source, [CollapseMeasure().request(), Request(layers=["1"])])
    n = first.counts.int().tolist()
    missing = [str(k) for k in range(7) if k not in present]
    named = f"class{'es' if len(missing) > 1 else ''} {', '.join(missing[:3])}"
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    said = (
        f"the head '2' has 7 rows, and the probe has samples of {len(present)} of these classes "
        f"({min(n)} to {max(n)} each), none of {named}{more}. Values are over the "
        f"{len(present)} classes and their rows; decisions are over all rows. If the network has "
        "no classifier: head=False."
    )
    assert first.notes.get("classes") == (None if len(present) == 7 else said)
    assert "classes" not in second.notes  # it does not concern the law


def test_measuring_without_a_trainer_tells_it_too():
    probe, _, _ = probe_of("none in the middle")
    with pytest.warns(RuntimeWarning, match="has 7 rows, and the probe has samples of 5") as told:
        measure(network(), probe, layers=None)
    assert sum("has 7 rows" in str(one.message) for one in told) == 1


@pytest.mark.parametrize("name", ["named", "none in the middle", "with enough samples"])
def test_a_few_samples_of_each_are_drawn(name):
    probe, source, present = probe_of(name, declared=False, samples_per_class=4)
    (answer,) = answers(probe, source, [CollapseMeasure().request()])
    assert answer.counts.tolist() == [4] * len(present)
    assert answer.labels.tolist() == list(present)


def test_minority_collapse_keeps_original_labels():
    probe, source, present = probe_of("none in the middle")  # 0, 1, 3, 5, 6
    training = (50, 40, 7, 5, 3, 60, 4)
    one = MinorityMeasure(minority=[3, 6], class_counts=training)
    (answer,) = answers(probe, source, [one.request()])
    found = one.evaluate(answer)
    features, labels, W, b, chosen = expected(source, present)
    rows = list(present)
    counts = np.asarray(training)[rows]
    minority = [rows.index(3), rows.index(6)]
    wanted = reference.minority_values(features, labels, W[rows], b[rows], counts, minority)
    right = chosen == np.asarray(rows)[labels]
    wanted["minority_accuracy"] = np.mean([right[labels == k].mean() for k in minority])
    assert_close(found.values, wanted, [key for key in wanted if key in found.values])
    assert len(set(wanted) & set(found.values)) > 6
    assert found.arrays["class_counts"].tolist() == [50, 40, 5, 60, 4]


def test_tallies_are_by_label_also_of_classes_without_samples():
    probe, source, _ = probe_of("none in the middle")
    request = CollapseMeasure().request()._replace(tally=lambda n: torch.arange(n) + 1.0)
    (answer,) = answers(probe, source, [request])
    assert answer.tally.tolist() == [1, 2, 3, 4, 5, 6, 7]


def gradients_of(net, x):
    """The gradients of all outputs of each sample, shape (m, C, P)."""
    rows = len(net(x[:1])[0])
    parameters = list(net.parameters())
    return np.stack(
        [
            [
                torch.cat(
                    [g.flatten() for g in torch.autograd.grad(net(one[None])[0, c], parameters)]
                ).numpy()
                for c in range(rows)
            ]
            for one in x
        ]
    )


@pytest.mark.parametrize("name", CASES)
def test_local_elasticity_is_that_of_the_classes_present(name):
    probe, source, present = probe_of(name)
    one = ElasticityMeasure(samples_per_class=2, max_classes=10)
    one_pass = GradientPass(
        plain_runner(network()), lambda: source, probe, [one.request()], Processes()
    )
    (answer,) = one_pass.run()
    inputs, labels = source.tensors
    # the first two samples of each class in the order of the probe
    order = torch.tensor([i for batch in one_pass.plan.batches for i in batch.indices])
    chosen = torch.cat([order[labels[order] == k][:2] for k in present])
    assert torch.equal(answer.kernel.labels, labels[chosen])
    assert answer.labels.tolist() == list(present)
    assert answer.counts.tolist() == [min(2, COUNTS[CASES[name][0]][k]) for k in present]
    K = reference.tangent_kernel(gradients_of(network(), inputs[chosen].double()))
    np.testing.assert_allclose(answer.kernel.kernel.numpy(), K, rtol=1e-9, atol=1e-9)
    ratio = one.evaluate(answer).values["relative_ratio"]
    wanted = reference.relative_ratio(K, labels[chosen].numpy())
    if 0 < wanted < 1:
        assert ratio == pytest.approx(wanted, rel=1e-9)
    else:
        assert math.isnan(ratio)


def test_a_named_class_without_samples_is_refused():
    probe, source, _ = probe_of("none in the middle", classes=[0, 2, 4, 6])
    with pytest.raises(ValueError, match="names class 2, 4, of which the source 'own' has no"):
        answers(probe, source, [CollapseMeasure().request()])


def test_fewer_than_two_classes_are_refused():
    probe, source, _ = probe_of("with enough samples", min_samples_per_class=9)
    with pytest.raises(ValueError, match="the largest of 6 has 9"):
        answers(probe, source, [CollapseMeasure().request()])


def test_a_label_beyond_the_rows_is_refused():
    probe, source, _ = probe_of("all")
    with pytest.raises(ValueError, match="Label 6 is out of range for the 5 rows of the head '2'"):
        answers(probe, source, [Request(classifier=True, head="2")], network(rows=5))


def values_in(rank, world):
    """The values of all cases in one of several processes."""
    found = {}
    for name in CASES:
        for declared in (True, False):
            probe, source, _ = probe_of(name, declared)
            one = CollapseMeasure()
            (answer,) = answers(probe, source, [one.request()], rank=rank, world=world)
            found[name, declared] = one.evaluate(answer).values, dict(answer.notes)
    return found


@pytest.mark.slow
def test_two_processes_measure_the_same():
    for found in run_processes(values_in, 2):
        for (name, declared), (values, notes) in found.items():
            _, source, present = probe_of(name, declared)
            assert_is_that_of_the_others(values, source, present)
            assert ("classes" in notes) == (len(present) < 7)


def test_the_law_is_of_the_classes_present():
    probe, source, present = probe_of("none in the middle")
    one = SeparationMeasure(layers=["0", "1"])
    (answer,) = answers(probe, source, [one.request()])
    inputs, labels = source.tensors
    net = network()
    with torch.no_grad():
        first = net[0](inputs.double()).numpy()
    new = np.searchsorted(list(present), labels.numpy())
    wanted = reference.separation_values(
        [reference.separation_fuzziness(h, new) for h in (first, np.tanh(first))]
    )
    assert_close(one.evaluate(answer).values, wanted, ["rho", "total"])
