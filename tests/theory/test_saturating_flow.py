import math

import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc.theory.saturating_flow import output_gap, output_gap_limit, saturating_flow
from tests.theory.two_layers import saturating

STARTS = [[0, 0, 0], [3, -1, 2], [-2, 1, -3]]
PROBABILITIES = [[1 / 3, 1 / 3, 1 / 3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.25, 0.25, 0.5]]


def loss(a, p):
    """The exponential loss of the network itself, not of its outputs by hand."""
    x, y = torch.tensor([-1.0, 0.0, 1.0]).double(), torch.tensor([1, -1, 1])
    h = a[0] * saturating(-x) - a[1] * saturating(x + 1) + a[2] * saturating(x)
    return torch.tensor(p, dtype=torch.float64) @ torch.exp(-y * h), h


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_gap_within_the_class_tends_to_the_limit_wherever_it_starts(start, p):
    gap = float(output_gap(saturating_flow(start, p, log_time=25)))
    assert_allclose(gap, output_gap_limit(p), atol=1e-6)
    assert_allclose(output_gap_limit(p), math.log(p[2] / (2 * p[0])), atol=1e-15)


def test_it_is_not_the_limit_that_probabilities_alone_would_give():
    for p in PROBABILITIES:
        gap = float(output_gap(saturating_flow([0, 0, 0], p, log_time=25)))
        assert abs(gap - math.log(p[2] / p[0])) > 0.69
    assert output_gap_limit(PROBABILITIES[-1]) == 0  # and with p_3 = 2 p_1 it collapses


def test_early_the_gap_still_depends_on_the_start():
    gaps = [float(output_gap(saturating_flow(start, [1, 1, 1], 1))) for start in STARTS]
    assert max(gaps) - min(gaps) > 1


@pytest.mark.parametrize("start", STARTS)
def test_the_flow_is_gradient_descent_on_the_network(start):
    p, rate, end = [0.2, 0.3, 0.5], 2e-3, 1.0
    a = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    for _ in range(round(end / rate)):
        value, _ = loss(a, p)
        (gradient,) = torch.autograd.grad(value, a)
        a.data -= rate * gradient
    flow = saturating_flow(start, p, math.log1p(end))
    assert_allclose(flow, a.detach(), atol=1e-2)
    _, h = loss(flow, p)
    assert_allclose(output_gap(flow), h[2] - h[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("start", "p", "log_time"),
    [
        ([0, 0], [1, 1, 1], 1),
        ([0, 0, math.nan], [1, 1, 1], 1),
        ([-1000, 0, 0], [1, 1, 1], 1),
        ([0, 0, 0], [1, 1], 1),
        ([0, 0, 0], [1, 0, 1], 1),
        ([0, 0, 0], [1, 1, 1], -1),
    ],
)
def test_what_does_not_flow_is_refused(start, p, log_time):
    with pytest.raises(ValueError, match="got"):
        saturating_flow(start, p, log_time)
