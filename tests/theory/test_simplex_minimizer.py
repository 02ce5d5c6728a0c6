import math

import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc.functional import simplex_symmetry
from lightning_nc.theory.lp_ball import lp_ball_minimizer
from lightning_nc.theory.simplex_minimizer import simplex_minimizer


def least_risk(K, R):
    alpha, beta = lp_ball_minimizer(K, 2)
    return math.log1p((K - 1) * math.exp(R * (beta - alpha)))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("K", "m", "R"), [(3, 2, 1.0), (4, 3, 5.0), (4, 6, 2.0)])
def test_projected_gradient_steps_end_at_a_simplex_and_an_isometry(K, m, R, seed):
    values, weight, risk = simplex_minimizer(K, m, R, steps=600, seed=seed)
    symmetry = simplex_symmetry(values, weight)
    assert_allclose(risk, least_risk(K, R), rtol=1e-4)
    assert_allclose(values.norm(dim=1), R, rtol=1e-12)
    assert max(symmetry.distances, symmetry.angles, symmetry.center) < 1e-2
    assert symmetry.isometry < 1e-8
    if m == K - 1:
        assert symmetry.alignment < 1e-4
    # in the span of the values the rows are aligned whatever m
    span = torch.linalg.svd(values)[2][: K - 1]
    assert simplex_symmetry(values, weight @ span.mT @ span).alignment < 1e-4


def test_the_simplex_does_not_depend_on_how_probable_classes_are():
    # its norms are bounded one by one; where their mean is, a minority collapses
    P = torch.tensor([1.0, 1.0, 0.1, 0.1])
    values, weight, risk = simplex_minimizer(4, 3, 2.0, P, steps=2000)
    assert_allclose(risk, least_risk(4, 2.0), rtol=1e-3)
    assert simplex_symmetry(values, weight).distances < 0.02


def test_steps_do_not_stop_where_the_risk_is_far_below_machine_precision():
    values, weight, risk = simplex_minimizer(3, 2, 50.0, steps=300)
    assert risk > 0
    assert max(simplex_symmetry(values, weight)[:4]) < 1e-4


@pytest.mark.parametrize("R", [1e-3, 30.0, 300.0])
def test_steps_do_not_stop_wherever_the_risk_is(R):
    values, weight, risk = simplex_minimizer(4, 3, R, steps=600)
    assert risk > 0
    assert_allclose(values.norm(dim=1), R, rtol=1e-12)
    assert max(simplex_symmetry(values, weight)[:4]) < 1e-2


def test_there_is_no_simplex_without_room_for_it():
    values, weight, risk = simplex_minimizer(4, 2, 5.0, steps=600)
    assert simplex_symmetry(values, weight).distances > 0.1
    assert risk > 2 * least_risk(4, 5.0)


def test_the_start_is_no_simplex():
    values, weight, risk = simplex_minimizer(4, 3, 5.0, steps=1, rate=1e-9)
    symmetry = simplex_symmetry(values, weight)
    assert min(symmetry.distances, symmetry.angles, symmetry.center, symmetry.alignment) > 0.1
    assert risk > 2 * least_risk(4, 5.0)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"num_classes": 1}, {"dimension": 0}, {"steps": 0}, {"radius": 0.0}, {"rate": -1.0}),
        {"radius": 600.0},
        *({"num_classes": 2.5}, {"radius": math.inf}, {"rate": math.inf}),
    ],
)
def test_what_is_no_problem_is_refused(wrong):
    with pytest.raises(ValueError, match=f"got .*{next(iter(wrong.values()))}"):
        simplex_minimizer(**{"num_classes": 3, "dimension": 2} | wrong)
