import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from numpy.testing import assert_allclose
from torch import nn
from torch.func import functional_call, grad, vmap

from lightning_nc.theory.elastic_clustering import (
    clustering_accuracy,
    elastic_similarities,
    kernel_clusters,
    similarity_clusters,
)

mse = nn.functional.mse_loss
logistic = nn.functional.binary_cross_entropy_with_logits


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def filled(model, seed=0):
    """The same parameters each time, without the global generator."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in model.parameters():
            w.copy_(torch.randn(w.shape, generator=generator) / w.shape[-1] ** 0.5)
    return model


def perceptron(d=3, width=16):
    return filled(nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, 1)))


def tangent_kernel(model, x):
    """Inner products of the gradients of the output, from automatic differentiation."""
    weights = {name: w.detach().double() for name, w in model.named_parameters()}
    of_one = grad(lambda w, each: functional_call(model, w, (each,)).squeeze())
    gradients = vmap(of_one, (None, 0))(weights, x)
    J = torch.cat([g.reshape(len(x), -1) for g in gradients.values()], 1)
    return J @ J.mT


def groups(clusters):
    """What a clustering says, whatever the clusters are called."""
    return {frozenset((clusters == k).nonzero().flatten().tolist()) for k in clusters.unique()}


@pytest.mark.parametrize(("loss", "auxiliary_label"), [(mse, -1.0), (logistic, 0.0)])
@pytest.mark.parametrize("rate", [1e-3, 0.1])
def test_a_linear_network_has_inner_products_at_any_rate_and_loss(loss, auxiliary_label, rate):
    x, auxiliary = normal(6, 3), normal(5, 3, seed=1)
    model = filled(nn.Linear(3, 1))
    found = elastic_similarities(model, x, auxiliary, loss, rate, 0, auxiliary_label)
    K = x @ x.mT + 1  # the bias
    ratios = K.abs() / K.diagonal()[:, None]
    assert_allclose(found.kernelized, K, atol=1e-8)
    assert_allclose(found.relative, (ratios + ratios.mT) / 2, atol=1e-8)


def test_at_small_rates_the_kernelized_similarity_is_the_tangent_kernel():
    x, model = normal(5, 3), perceptron().double()
    K = tangent_kernel(model, x)
    errors = []
    for rate in (1e-3, 1e-5):
        found = elastic_similarities(model, x, normal(4, 3, seed=1), mse, rate).kernelized
        errors.append(float((found - K).abs().max()))
    assert errors[1] < 1e-3
    assert 50 < errors[0] / errors[1] < 200  # of first order in the rate


def test_a_step_on_one_sample_is_a_step_of_sgd():
    model, x = perceptron().double(), normal(1, 3)
    found = elastic_similarities(model, x, x[:0], mse, rate=0.2).kernelized
    before = model(x).squeeze()
    stepped = perceptron().double()
    optimizer = torch.optim.SGD(stepped.parameters(), 0.2)
    mse(stepped(x).squeeze(), torch.ones((), dtype=torch.float64)).backward()
    optimizer.step()
    expected = (stepped(x).squeeze() - before) / (-0.2 * 2 * (before - 1))
    assert_allclose(found.item(), expected.item(), rtol=1e-12)


def test_auxiliary_steps_change_the_network_and_what_they_are_labelled_does_too():
    model, x, auxiliary = perceptron(), normal(4, 3), normal(4, 3, seed=1)
    found = [
        elastic_similarities(model, x, a, mse, 0.1, auxiliary_label=label).kernelized
        for a, label in ((auxiliary, -1.0), (auxiliary, 0.0), (auxiliary[:0], -1.0))
    ]
    for one, other in itertools.combinations(found, 2):
        assert float((one - other).abs().max()) > 1e-4


def test_similarities_are_symmetric_and_one_with_oneself():
    found = elastic_similarities(perceptron(), normal(5, 3), normal(5, 3, seed=1), mse, 0.01)
    assert torch.equal(found.relative, found.relative.mT)
    assert torch.equal(found.kernelized, found.kernelized.mT)
    assert torch.equal(found.relative.diagonal(), torch.ones(5, dtype=torch.float64))
    assert bool((found.kernelized.diagonal() > 0).all())


def test_the_model_and_the_global_generators_are_as_they_were():
    model = nn.Sequential(perceptron(), nn.Dropout(0.5)).train()
    before = {name: w.clone() for name, w in model.state_dict().items()}
    state = torch.random.get_rng_state()
    elastic_similarities(model, normal(5, 3).float(), normal(5, 3), mse, 0.1)
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())
    assert all(w.grad is None and w.dtype == torch.float32 for w in model.parameters())
    assert model.training
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_order_is_that_of_the_seed():
    arguments = perceptron(), normal(6, 3), normal(6, 3, seed=1), mse, 0.1
    one, again, other = (elastic_similarities(*arguments, seed).relative for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_outputs_may_have_a_last_dimension_of_one_or_none():
    model, x = perceptron(), normal(4, 3)
    flat = elastic_similarities(nn.Sequential(model, nn.Flatten(0)), x, x[:0], mse, 0.1)
    assert torch.equal(flat.relative, elastic_similarities(model, x, x[:0], mse, 0.1).relative)


def test_frozen_parameters_are_not_moved():
    model, x = perceptron(), normal(5, 3)
    model[0].requires_grad_(False)
    hidden = torch.tanh(model[0].double()(x)).detach()
    found = elastic_similarities(model, x, x[:0], mse, 0.1).kernelized
    assert_allclose(found, hidden @ hidden.mT + 1, atol=1e-8)


def test_without_a_residual_nothing_moves_and_the_clustering_says_which_sample():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.tensor([[1.0], [0.0]])  # f = 1 is the label; at 0 the gradient is 0
    found = elastic_similarities(model, x, x[:0], mse, 0.0625)
    assert bool(found.relative.diagonal().isnan().all())
    assert bool(found.kernelized[0].isnan().all())
    assert found.kernelized[1, 1] == 0
    for cluster, similarity in zip((similarity_clusters, kernel_clusters), found, strict=True):
        with pytest.raises(ValueError, match=r"those of samples \[0.*moves nothing"):
            cluster(similarity, 2)


@pytest.mark.parametrize(
    ("model", "n", "rate", "sentence"),
    [
        (nn.Linear(2, 1), 3, 0.0, "above 0, got 0.0"),
        (nn.Linear(2, 1), 3, float("nan"), "above 0, got nan"),
        (nn.Linear(2, 1), 0, 0.1, "at least one primary"),
        (nn.Linear(2, 3), 4, 0.1, r"one output, .* got \(4, 3\)"),
        (nn.Linear(2, 1).requires_grad_(False), 3, 0.1, "All parameters are frozen"),
    ],
)
def test_what_cannot_be_compared_is_refused(model, n, rate, sentence):
    with pytest.raises(ValueError, match=sentence):
        elastic_similarities(model, torch.zeros(n, 2), torch.zeros(2, 2), mse, rate)


def test_samples_that_move_each_other_are_one_cluster():
    S = torch.block_diag(*[torch.full((k, k), 0.9) for k in (4, 3, 2)]) + 0.1
    for cluster in (similarity_clusters, kernel_clusters):
        found = cluster(S, 3)
        assert groups(found) == {frozenset(range(4)), frozenset((4, 5, 6)), frozenset((7, 8))}
        assert found.dtype == torch.int64


def test_kernel_k_means_is_k_means_on_the_points_of_a_kernel():
    generator = torch.Generator().manual_seed(0)
    x = normal(40, 3) + 3 * torch.randint(2, (40, 1), generator=generator)
    from sklearn.cluster import KMeans

    direct = torch.from_numpy(KMeans(2, n_init=10, random_state=0).fit_predict(x.numpy()))
    assert groups(kernel_clusters(x @ x.mT, 2)) == groups(direct)


def test_clusters_of_a_kernel_are_the_best_of_all_partitions():
    x = normal(9, 2, seed=5)
    K = x @ x.mT

    def spread(labels):
        """Squared distances to the means of clusters, from the kernel alone."""
        members = torch.nn.functional.one_hot(labels, 2).double()
        return float(K.trace() - ((members.mT @ K @ members).diagonal() / members.sum(0)).sum())

    partitions = [
        torch.tensor((0, *rest)) for rest in itertools.product((0, 1), repeat=8) if any(rest)
    ]
    assert_allclose(spread(kernel_clusters(K, 2)), min(map(spread, partitions)), rtol=1e-9)


@pytest.mark.parametrize("cluster", [similarity_clusters, kernel_clusters])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_clusters_do_not_depend_on_the_order_of_samples(cluster, seed):
    x = torch.cat([normal(6, 2, seed=seed) * 0.1, normal(8, 2, seed=seed + 1) * 0.1 + 2])
    order = torch.randperm(14, generator=torch.Generator().manual_seed(seed))
    S = x @ x.mT
    found, reordered = cluster(S, 2), cluster(S[order][:, order], 2)
    assert groups(reordered) == groups(found[order])


@pytest.mark.parametrize("cluster", [similarity_clusters, kernel_clusters])
@pytest.mark.parametrize(
    ("similarity", "number", "sentence"),
    [
        (torch.zeros(2, 3), 2, r"square matrix, got \(2, 3\)"),
        (torch.zeros(4), 2, r"square matrix, got \(4,\)"),
        (torch.eye(2), 3, "2 samples cannot form 3 clusters"),
        (torch.eye(2), 0, "2 samples cannot form 0 clusters"),
        (torch.diag(torch.tensor([1.0, float("inf")])), 2, r"samples \[1\]"),
    ],
)
def test_what_cannot_be_clustered_is_refused(cluster, similarity, number, sentence):
    with pytest.raises(ValueError, match=sentence):
        cluster(similarity, number)


@pytest.mark.parametrize(
    ("found", "labels", "accuracy"),
    [
        ([0, 0, 1, 1], [1, 1, 0, 0], 1),
        ([0, 0, 0, 0], [3, 3, 3, 9], 0.75),
        ([0, 1, 2, 2], [5, 5, 8, 8], 0.75),  # of three clusters two have a class
        ([0, 0, 1, 1, 1], [0, 1, 0, 1, 2], 0.4),
        ([7], [2], 1),
    ],
)
def test_accuracy_is_that_of_the_best_matching(found, labels, accuracy):
    assert clustering_accuracy(torch.tensor(found), torch.tensor(labels)).item() == accuracy


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_no_renaming_of_clusters_does_better(pairs):
    found, labels = torch.tensor(pairs).unbind(1)
    best = max(
        (torch.tensor(names)[found] == labels).double().mean().item()
        for names in itertools.permutations(range(4))
    )
    assert clustering_accuracy(found, labels).item() == pytest.approx(best)


@pytest.mark.parametrize(("c", "y"), [((3,), (4,)), ((2, 2), (2, 2)), ((0,), (0,))])
def test_clusters_and_labels_that_do_not_match_are_refused(c, y):
    with pytest.raises(ValueError, match="a cluster and a label for each"):
        clustering_accuracy(torch.zeros(c, dtype=torch.long), torch.zeros(y, dtype=torch.long))
