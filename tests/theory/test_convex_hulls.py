import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.spatial import ConvexHull

from lightning_nc.theory.convex_hulls import linearly_separable, share_in_hulls
from tests.theory.two_layers import saturating, train


def normal(n, d, at=0.0, seed=0):
    return at + torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("d", [2, 3])
def test_shares_are_those_of_the_facets_of_the_hull(d):
    x = torch.cat([normal(60, d), normal(25, d, 1.0, seed=1)])
    labels = torch.tensor([0] * 60 + [1] * 25)
    shares = share_in_hulls(x, labels)
    for i, j in ((0, 1), (1, 0)):
        facets = ConvexHull(x[labels == j].numpy()).equations
        inside = (facets[:, :-1] @ x[labels == i].numpy().T + facets[:, -1:] <= 0).all(0)
        assert 0 < inside.mean() < 1
        assert_allclose(shares[i, j], inside.mean())
    assert shares.diagonal().isnan().all()


@pytest.mark.parametrize(("scale", "shift"), [(1e-8, 0.0), (1e6, 0.0), (1.0, 1e4)])
def test_neither_the_unit_nor_the_origin_makes_a_difference(scale, shift):
    x = torch.cat([normal(20, 2), normal(20, 2, 1.0, seed=1), normal(20, 2, 9.0, seed=2)])
    labels = torch.arange(3).repeat_interleave(20)
    moved = scale * x + shift
    assert torch.equal(linearly_separable(moved, labels), linearly_separable(x, labels))
    np.testing.assert_array_equal(share_in_hulls(moved, labels), share_in_hulls(x, labels))


def test_classes_are_separable_if_a_hyperplane_is_between_their_hulls():
    # corners of a square, of which opposite ones are a class, and a class far away
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [5.0, 5.0]])
    separable = linearly_separable(x, torch.tensor([0, 0, 1, 1, 2]))
    assert separable.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    assert share_in_hulls(x, torch.tensor([0, 0, 1, 1, 2]))[:2, :2].nan_to_num().sum() == 0


def test_where_dimensions_outnumber_samples_all_are_separable_whatever_their_labels():
    x, labels = normal(30, 40), torch.arange(30) % 3
    assert linearly_separable(x, labels).sum() == 6
    assert share_in_hulls(x, labels).nan_to_num().sum() == 0


CLASSES = torch.tensor([1.0] * 24 + [-1.0] * 12).double()
LABELS = (CLASSES < 0).long()
MARGIN = 5.0


def blobs(*places):
    """Two blobs of the first class and one of the second, 12 samples each."""
    parts = [0.1 * normal(12, 2, seed=seed) for seed in range(3)]
    return torch.cat([x + torch.tensor([at, 0.0]) for x, at in zip(parts, places, strict=True)])


BETWEEN, BESIDE = blobs(-1.5, 1.5, 0), blobs(-1.5, 0, 1.5)  # where the second class lies


def gap(features, activation, rate, seed, ratio=64.0):
    """How far apart the mean outputs of the two blobs of the first class are at the margin 5.

    Samples of the second blob are ``ratio`` times as probable as the others.
    """
    P = torch.ones(36)
    P[12:24] = ratio
    h, _ = train(features, CLASSES, activation, rate, MARGIN, seed, P)
    return float(h[12:24].mean() - h[:12].mean())


@pytest.mark.parametrize("seed", range(3))
def test_hulls_two_layers_before_the_output_tell_which_network_collapses(seed):
    # in the hull: the blobs stay apart by what their probabilities say, for the loss
    # ln(1 + exp(-2 y h)) and units that act on both sides alike by ln(64) / 2
    assert share_in_hulls(BETWEEN, LABELS)[1, 0] > 0.8
    apart = gap(BETWEEN, saturating, 0.1, seed)
    assert_allclose(apart, math.log(64) / 2, rtol=0.12)
    assert apart > 0.35 * MARGIN
    # outside of it the outputs of the same network collapse
    assert share_in_hulls(BESIDE, LABELS)[1, 0] == 0
    assert abs(gap(BESIDE, saturating, 0.1, seed)) < 0.05 * MARGIN
    # but not with ReLU, since the classes are separable
    assert linearly_separable(BESIDE, LABELS)[0, 1]
    assert not linearly_separable(BETWEEN, LABELS)[0, 1]
    assert abs(gap(BESIDE, torch.relu, 0.02, seed)) > MARGIN


def test_in_the_hull_too_outputs_may_collapse_if_probabilities_say_so():
    assert abs(gap(BETWEEN, saturating, 0.1, seed=0, ratio=1.0)) < 0.01 * MARGIN


@pytest.mark.parametrize("function", [share_in_hulls, linearly_separable])
@pytest.mark.parametrize(
    ("x", "labels", "said"),
    [
        ([[1.0], [2.0]], [0], "got"),
        ([1.0, 2.0], [0, 1], "got"),
        ([[1.0], [math.nan]], [0, 1], "1 feature"),
        ([[1.0], [2.0]], [0, 2], r"Classes \[1\] have no samples"),
        ([[1.0], [2.0], [3.0]], [-1, 0, 1], "integers from 0, got -1"),
        ([[1.0], [2.0], [3.0]], [0.0, 0.5, 1.0], "integers from 0, got 0.5"),
        ([[], []], [0, 1], r"got \(2, 0\)"),
    ],
)
def test_what_has_no_hulls_is_refused(function, x, labels, said):
    with pytest.raises(ValueError, match=said):
        function(torch.tensor(x), torch.tensor(labels))
