import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn
from torchmetrics import MetricCollection

from lightning_nc.functional import class_geometry, separation_fuzziness, variability_collapse
from lightning_nc.measures import CollapseMeasure
from lightning_nc.measures.last_layer import LastLayer
from lightning_nc.metrics import NeuralCollapse, SeparationFuzziness
from lightning_nc.passes.request import ClassifierGeometry
from tests import precise, reference
from tests.fashion_mnist import needs_fashion_mnist
from tests.functional import cases

METRICS = [SeparationFuzziness, NeuralCollapse]


def measured(metric, features, labels, sizes=None):
    """The metric's values, as a flat dictionary, after batches of the given sizes."""
    batches = [len(labels)] if sizes is None else sizes
    for h, y in zip(features.split(batches), labels.split(batches), strict=True):
        metric.update(h, y)
    return named(metric.compute())


def named(value):
    return value if isinstance(value, dict) else {"D": value}


def assert_same(ours, theirs, rtol=1e-12):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert_allclose(ours[name], theirs[name], rtol=rtol, atol=1e-14, err_msg=name)


def expected_values(features, labels):
    arrays = cases.numpy(features, labels)
    M = reference.centred_means(reference.class_means(*arrays))
    simplex = {
        "nc2_equinorm_means": reference.equinorm(M),
        "nc2_equiangularity_means": reference.equiangularity(M),
        "nc2_maximal_angle_means": reference.maximal_angle(M),
        "nc2_etf_error": reference.simplex_etf_error(M),
        "gnc2": reference.hyperspherical_uniformity(M),
    }
    return {
        "nc1": reference.variability_collapse(*arrays),
        **(simplex if len(M) > 2 else dict.fromkeys(simplex, math.nan)),
        "cdnv": reference.class_distance_normalized_variance(*arrays),
        "D": reference.separation_fuzziness(*arrays),
    }


def test_values_of_four_points_on_a_line():
    features, labels = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]]), torch.tensor([0, 0, 1, 1])
    assert_allclose(measured(SeparationFuzziness(2), features, labels, [1] * 4)["D"], 0.25)
    values = measured(NeuralCollapse(2), features, labels, [1] * 4)
    assert_allclose([values.pop("nc1"), values.pop("cdnv")], [0.125, 0.0625], rtol=1e-14)
    assert len(values) == 5  # NC2 and GNC2, which two classes do not have
    assert all(value.isnan() for value in values.values())


@pytest.mark.parametrize("case", cases.PLAIN)
def test_values_are_those_of_the_formulas(case):
    features, labels = cases.PLAIN[case]()
    K, sizes = int(labels.max()) + 1, [len(labels) - 5, 1, 4]
    values = measured(NeuralCollapse(K), features, labels, sizes)
    values |= measured(SeparationFuzziness(K), features, labels, sizes)
    assert_same(values, expected_values(features, labels), rtol=1e-9)


@needs_fashion_mnist
@pytest.mark.parametrize("case", ["balanced features", "imbalanced features"])
def test_values_of_fashion_mnist_are_those_of_the_formulas(case):
    features, labels = cases.FASHION[case]()
    sizes = [40, 40, len(labels) - 80]
    values = measured(NeuralCollapse(10), features, labels, sizes)
    values |= measured(SeparationFuzziness(10), features, labels, sizes)
    assert_same(values, expected_values(features, labels), rtol=1e-9)


@pytest.mark.parametrize("case", cases.HARD)
@pytest.mark.parametrize("size", [1, 7])
def test_values_of_ill_conditioned_features_are_exact(case, size):
    features, labels = cases.HARD[case]()
    K = int(labels.max()) + 1
    sizes = [size] * (len(labels) // size) + [len(labels) % size] * (len(labels) % size > 0)
    arrays = cases.numpy(features, labels)
    D = measured(SeparationFuzziness(K), features, labels, sizes)["D"]
    assert_allclose(D, precise.separation_fuzziness(*arrays), rtol=1e-9)
    nc1 = measured(NeuralCollapse(K), features, labels, sizes)["nc1"]
    assert_allclose(nc1, precise.variability_collapse(*arrays), rtol=1e-9)


def test_fuzziness_is_never_negative():
    # noise of 1e3 at right angles to the means, and none along them: both are exactly zero
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randint(-1000, 1000, (100, 2), generator=generator).double()
        noise = noise @ torch.tensor([[1.0, -1, 0], [1, 1, -2]]).double()
        features = torch.cat([1 + noise, 1 - noise, -1 + noise, -1 - noise])
        labels = torch.tensor([0, 1]).repeat_interleave(200)
        values = measured(SeparationFuzziness(2), features, labels, [50] * 8)
        values |= measured(NeuralCollapse(2), features, labels, [50] * 8)
        assert 0 <= values["D"] < 1e-9
        assert 0 <= values["nc1"] < 1e-9


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 999), cuts=st.lists(st.integers(1, 59), max_size=6, unique=True))
def test_any_split_into_batches_is_no_split(metric, seed, cuts):
    features, labels = cases.clusters((30, 20, 10), 5, 0.3, offset=2.0, seed=seed)
    edges = torch.tensor([0, *sorted(cuts), 60])
    split = measured(metric(3), features, labels, edges.diff().tolist())
    assert_same(split, measured(metric(3), features, labels), rtol=1e-11)


@pytest.mark.parametrize("metric", METRICS)
def test_forward_gives_each_batch_and_compute_all(metric, clusters):
    features, labels = clusters
    ours = metric(3)
    for h, y in zip(features.split(20), labels.split(20), strict=True):
        assert_same(named(ours(h, y)), measured(metric(3), h, y))
    assert_same(named(ours.compute()), measured(metric(3), features, labels))


@pytest.mark.parametrize("metric", METRICS)
def test_copies_go_on_by_themselves(metric, clusters):
    features, labels = clusters
    ours = metric(3)
    ours.update(features[:30], labels[:30])
    for copy in (pickle.loads(pickle.dumps(ours)), ours.clone()):
        copy.update(features[30:], labels[30:])
        assert_same(named(copy.compute()), measured(metric(3), features, labels))
    assert_same(named(ours.compute()), measured(metric(3), features[:30], labels[:30]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "cast",
    [
        lambda module: module.half(),
        lambda module: module.to(dtype=torch.float32),  # as FSDP does by default
        lambda module: module.to(torch.bfloat16),
        lambda module: module["metric"].set_dtype(torch.float32),
    ],
)
def test_a_metric_stays_exact_in_a_module_that_is_cast(metric, cast, clusters):
    features, labels = clusters
    ours = metric(3)
    module = nn.ModuleDict({"net": nn.Linear(2, 2), "metric": ours})
    for _ in range(2):
        cast(module)
        ours.update(features[:30], labels[:30])
        cast(module)
        ours.update(features[30:], labels[30:])
        assert_same(named(ours.compute()), measured(metric(3), features, labels))
        ours.reset()


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_of_a_module_without_data_is_used_once_it_has_some(metric, clusters):
    with torch.device("meta"):
        module = nn.ModuleDict({"net": nn.Linear(2, 2), "metric": metric(3)})
    module.half().to_empty(device="cpu")["metric"].reset()
    assert_same(measured(module["metric"], *clusters), measured(metric(3), *clusters))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("first", [0, 7, 50])
@pytest.mark.parametrize("given", [lambda other: other, lambda other: {"moments": other.moments}])
def test_samples_of_another_metric_are_added_to_its_own(metric, first, given, clusters):
    features, labels = clusters
    ours, other = metric(3), metric(3)
    for each, part in ((ours, slice(0, first)), (other, slice(first, None))):
        if len(labels[part]):
            each.update(features[part], labels[part])
    if first == 50:  # with a value that is remembered
        ours.compute()
    ours.merge_state(given(other))
    assert_same(named(ours.compute()), measured(metric(3), features, labels))


@pytest.mark.parametrize("compute_groups", [True, False])
@pytest.mark.parametrize("step", ["update", "forward"])
def test_a_collection_gives_what_each_gives_alone(compute_groups, step, clusters):
    features, labels = clusters
    together = MetricCollection(
        [SeparationFuzziness(3), NeuralCollapse(3)], compute_groups=compute_groups
    )
    for _ in range(2):
        for h, y in zip(features.split(20), labels.split(20), strict=True):
            together(h, y) if step == "forward" else together.update(h, y)
        values = together.compute()
        values["D"] = values.pop("SeparationFuzziness")
        alone = [measured(metric(3), features, labels) for metric in METRICS]
        assert_same(values, alone[0] | alone[1])
        if compute_groups and step == "update":
            assert len(together.compute_groups) == 1
        together.reset()


@pytest.mark.parametrize("metric", METRICS)
def test_a_checkpoint_holds_nothing_of_a_metric(metric, clusters):
    ours = metric(3)
    ours.update(*clusters)
    assert ours.state_dict() == {}


@pytest.mark.parametrize("metric", METRICS)
def test_reset_forgets_all_even_the_dimension(metric, clusters):
    features, labels = clusters
    ours = metric(3)
    ours.update(features[:, :2], labels)
    ours.reset()
    assert_same(measured(ours, features, labels), measured(metric(3), features, labels))


@pytest.mark.parametrize("metric", METRICS)
def test_features_and_gradients_are_left_alone(metric, clusters):
    features, labels = clusters
    given = features.clone().requires_grad_()
    values = measured(metric(3), given, labels, [30, 30])
    assert torch.equal(given, features)
    assert not any(value.requires_grad for value in values.values())


def test_one_pass_gives_what_two_passes_give(clusters):
    D = measured(SeparationFuzziness(3), *clusters, [25, 35])["D"]
    assert_allclose(D, separation_fuzziness(clusters[0].clone(), clusters[1]), rtol=1e-12)
    nc1 = measured(NeuralCollapse(3), *clusters, [25, 35])["nc1"]
    assert_allclose(nc1, variability_collapse(clusters[0].clone(), clusters[1]), rtol=1e-12)


def test_every_logged_quantity_of_features_alone_is_a_value_of_the_metric():
    features = class_geometry(*cases.PLAIN["balanced"]())
    last = LastLayer(ClassifierGeometry(features))  # nothing else is known
    of_features = {row.name for row in CollapseMeasure.quantities if row.of(last) is not None}
    assert of_features == set(metric_values())


def metric_values():
    features, labels = cases.PLAIN["balanced"]()
    return measured(NeuralCollapse(int(labels.max()) + 1), features, labels)
