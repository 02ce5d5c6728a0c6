"""Three classes in the plane of their means."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nc.functional import simplex_plane
from lightning_nc.theory import simplex_etf

CORNERS = [(math.cos(phi), math.sin(phi)) for phi in (math.pi / 2, 7 * math.pi / 6, -math.pi / 6)]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 9))
def test_at_collapse_means_and_rows_are_at_the_corners_wherever_the_simplex_is(seed, d):
    random = torch.Generator().manual_seed(seed)
    simplex = simplex_etf(3, d)
    turn = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=random)).Q
    means = 4 * simplex @ turn + torch.randn(d, dtype=torch.float64, generator=random)
    plane = simplex_plane(means, 0.1 * simplex @ turn)
    assert torch.allclose(plane.means, torch.tensor(CORNERS, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(plane.rows, plane.means, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_distances_of_means_are_kept_and_neither_scale_nor_turn_matters(seed, scale):
    random = torch.Generator().manual_seed(seed)
    M, W = (torch.randn(3, 5, dtype=torch.float64, generator=random) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=random)).Q
    plane, other = simplex_plane(M, W), simplex_plane(scale * M @ turn + 7, W @ turn)
    assert torch.allclose(plane.means, other.means, atol=1e-8)
    assert torch.allclose(plane.rows, other.rows, atol=1e-8)
    distances = torch.cdist(plane.means, plane.means) / torch.cdist(M, M).fill_diagonal_(1)
    off = distances[~torch.eye(3, dtype=torch.bool)]
    assert torch.allclose(off, off[0].expand(6))


def test_rows_that_point_out_of_the_plane_are_seen_as_points():
    means = torch.tensor([[0.0, 1.0, 0.0], [-1.0, -1.0, 0.0], [1.0, -1.0, 0.0]])
    rows = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, -5.0]])
    assert torch.allclose(simplex_plane(means, rows).rows, torch.zeros(3, 2, dtype=torch.float64))


def test_means_that_coincide_have_no_plane():
    assert bool(simplex_plane(torch.ones(3, 4), torch.eye(3, 4)).means.isnan().all())


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (3, 1)])
def test_other_than_three_classes_in_a_plane_are_refused(shape):
    with pytest.raises(ValueError, match="three classes in two dimensions or more"):
        simplex_plane(torch.ones(shape), torch.ones(shape))
