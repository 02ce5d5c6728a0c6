import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import linprog

from lightning_nc.theory.maximum_margin import maximum_margin_classifier, maximum_margin_units
from tests.theory.two_layers import saturating, train

POINTS = torch.tensor([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]).double()
CLASSES = POINTS.sign()


def largest_margin(constant_on_classes):
    """The largest margin of ReLU networks of norm 1, by a linear program over a grid of units."""
    b, sign = np.linspace(-4, 4, 65), np.array([1.0, -1.0])
    w, b = (grid.flatten() for grid in np.meshgrid(sign, b))
    units = np.maximum(np.outer(POINTS, w) + b, 0)
    units, norms = np.hstack([units, np.ones((6, 1))]), np.append(1 + np.abs(b), 1)  # and w = 0
    # a = positive - negative part, and the margin is the last variable
    y = CLASSES.numpy()[:, None]
    above = np.hstack([-y * units, y * units, np.ones((6, 1))])
    bounded = np.append(np.tile(norms, 2), 0)
    constant = np.hstack([units, -units, np.zeros((6, 1))])
    equal = (constant[1:] - constant[:-1])[CLASSES[1:] == CLASSES[:-1]]
    found = linprog(
        np.append(np.zeros(len(bounded) - 1), -1),
        A_ub=np.vstack([above, bounded]),
        b_ub=np.append(np.zeros(6), 1),
        A_eq=equal if constant_on_classes else None,
        b_eq=np.zeros(len(equal)) if constant_on_classes else None,
        method="highs",
    )
    assert found.status == 0
    return -found.fun


@pytest.mark.parametrize("b", [0, 0.25, 0.5, 0.75, 1])
def test_all_of_the_continuum_have_the_same_norm_and_the_largest_margin(b):
    f = maximum_margin_classifier(POINTS, b)
    a, w, offset = maximum_margin_units(b).mT
    assert_allclose((a.abs() * (w.abs() + offset.abs())).sum(), 1, rtol=1e-12)
    assert_allclose((CLASSES * f).min(), 1 / 2, rtol=1e-12)
    assert_allclose(largest_margin(constant_on_classes=False), 1 / 2, rtol=1e-9)
    assert (f[3:].diff() > 0.2).all()  # no class is mapped to a point
    expected = torch.where(POINTS.abs() > b, POINTS + b * CLASSES, 2 * POINTS) / (2 + 2 * b)
    assert_allclose(f, expected, rtol=1e-12)


@pytest.mark.parametrize("b", [1.1, 2, 10])
def test_beyond_the_continuum_the_margin_is_lower_at_the_same_norm(b):
    a, w, offset = maximum_margin_units(b).mT
    assert_allclose((a.abs() * (w.abs() + offset.abs())).sum(), 1)
    assert_allclose((CLASSES * maximum_margin_classifier(POINTS, b)).min(), 1 / (1 + b))


def test_a_function_that_is_constant_on_classes_has_half_the_margin():
    assert_allclose(largest_margin(constant_on_classes=True), 1 / 4, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_descent_on_relu_units_ends_at_the_continuum(seed):
    h, margin = train(POINTS[:, None], CLASSES, torch.relu, 0.02, margin=100, seed=seed)
    f = maximum_margin_classifier(POINTS, 1)  # at 1, 2 and 3 times the margin: 1, 3/2 and 2
    assert_allclose(CLASSES * h / margin, f.abs() * 2, rtol=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_units_that_saturate_map_the_same_classes_to_points(seed):
    h, margin = train(POINTS[:, None], CLASSES, saturating, 0.1, margin=20, seed=seed)
    assert_allclose(CLASSES * h / margin, 1, atol=0.1)


@pytest.mark.parametrize("b", [-0.1, math.inf, math.nan])
def test_an_offset_below_zero_or_without_a_value_is_refused(b):
    with pytest.raises(ValueError, match=f"got {b}"):
        maximum_margin_classifier(POINTS, b)
