"""Formulas for many classes, and for more classes than dimensions, against slow and plain ones."""

import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc import functional
from lightning_nc.functional import classifier
from lightning_nc.functional.classifier import LinearDecision, NearestCenter
from lightning_nc.functional.norms_and_angles import spread_without_pairs
from tests import reference

OF_MANY = [
    functional.equiangularity,
    functional.maximal_angle,
    functional.simplex_etf_error,
    functional.hyperspherical_uniformity,
]
MANY = {
    "anywhere": lambda: torch.randn(60, 5),
    "evenly spread": lambda: torch.linalg.qr(torch.randn(60, 5))[0],
    "almost parallel": lambda: 1 + 1e-2 * torch.randn(60, 5),
    "almost parallel, twice the dimensions": lambda: 1 + 1e-2 * torch.randn(11, 5),
}


@pytest.mark.parametrize("of", MANY)
@pytest.mark.parametrize("function", OF_MANY)
def test_more_classes_than_dimensions_measure_as_the_formulas_say(function, of):
    vectors = MANY[of]().double()
    expected = getattr(reference, function.__name__)(vectors.numpy())
    assert_allclose(function(vectors), expected, rtol=1e-9)


def test_the_spread_of_angles_takes_no_pairs_where_products_of_columns_keep_its_digits():
    for of in ("anywhere", "evenly spread"):
        vectors = MANY[of]().double()
        expected = reference.equiangularity(vectors.numpy())
        assert_allclose(spread_without_pairs(vectors), expected, rtol=1e-9)
    assert spread_without_pairs(MANY["almost parallel"]().double()) is None


def almost_tied(K, d):
    """Rows in pairs that differ in the eighth digit, which float32 does not tell apart."""
    rows = torch.randn(K // 2, d).double().repeat(2, 1)
    return rows * (1 + 1e-9 * torch.randn(K, d).double())


ROWS = {
    "anywhere": lambda: torch.randn(40, 6).double(),
    "almost tied": lambda: almost_tied(40, 6),
    "far from the origin": lambda: 1e4 + torch.randn(40, 6).double(),
    "of many sizes": lambda: torch.logspace(-30, 30, 40).double()[:, None] * torch.randn(40, 6),
    "too small for float32": lambda: 1e-44 * torch.randn(40, 6).double(),
    "too large for float32": lambda: 1e39 * torch.randn(40, 6).double(),
    "with products too large for float32": lambda: 1e25 * torch.randn(40, 6).double(),
}


@pytest.mark.parametrize("of", ROWS)
def test_decisions_in_float32_are_those_in_float64(of, monkeypatch):
    rows = ROWS[of]()
    bias = rows.abs().amax(1) * torch.randn(40)
    features = torch.cat([rows + 1e-3 * rows.flip(0), rows.roll(1, 0), torch.zeros(2, 6)])
    exact = torch.stack([rows @ h + bias for h in features]).argmax(1)
    nearest = NearestCenter(rows).of(features)  # of small rows, in float64
    monkeypatch.setattr(classifier, "_LARGE", 0)
    decide = LinearDecision(rows, bias)
    assert decide.single is not None
    chosen, numbers = decide.of(features)
    assert torch.equal(chosen, exact)
    assert numbers.dtype == torch.float32
    if of == "anywhere":
        torch.testing.assert_close(numbers, (features @ rows.mT + bias).float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decide.of(features)[0], exact)
        assert torch.equal(NearestCenter(rows).of(features), nearest)


def test_few_samples_are_left_to_float64(monkeypatch):
    decide = LinearDecision(torch.randn(1000, 512).double(), None)
    features = torch.randn(500, 512).double()
    exact = (features @ decide.weight.mT).argmax(1)
    asked = []
    monkeypatch.setattr(classifier, "_affine", spy(classifier._affine, asked))
    assert torch.equal(decide.of(features)[0], exact)
    assert [h.dtype for h in asked] == [
        torch.float32,
        torch.float64,
        torch.float64,
    ]  # rows in parts
    assert len(asked[1]) < 25


def spy(function, asked):
    def spied(h, *rows):
        asked.append(h)
        return function(h, *rows)

    return spied


def test_float32_is_not_used_where_torch_is_asked_to_reduce_it(monkeypatch):
    monkeypatch.setattr(classifier, "_LARGE", 0)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert LinearDecision(torch.ones(3, 2).double(), None).single is None
    finally:
        torch.set_float32_matmul_precision(before)
    assert LinearDecision(torch.ones(3, 2).double(), None).single is not None
