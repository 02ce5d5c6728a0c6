"""The prediction residual is that of least squares, also where features are nearly dependent."""

import pytest
import torch

from lightning_nc.functional import prediction_residual
from lightning_nc.functional.next_token_prediction import (
    extended_factor,
    residual_of,
)
from lightning_nc.measures.next_token_law import RegressionFactor
from tests import reference

N, D, VOCABULARY = 2500, 12, 50_257
KINDS = ["layer_norm", "rms_norm", "none"]


def ill_conditioned(noise=0.5, offset=30.0, seed=0):
    """Features of condition 1e4 far from the origin, and the tokens that they predict in part."""
    random = torch.Generator().manual_seed(seed)
    mixed = torch.linalg.qr(torch.randn(D, D, generator=random).double()).Q
    inner = torch.randn(N, D, generator=random).double()
    h = offset + (inner * torch.logspace(0, -4, D).double()) @ mixed
    signal = inner @ torch.randn(D, generator=random).double()
    signal = signal / signal.std() + noise * torch.randn(N, generator=random)
    return h, (25_000 + 4000 * signal).round().long().clamp(0, VOCABULARY - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.5, 100.0])
def test_it_is_that_of_least_squares_also_of_ill_conditioned_features_far_away(noise, kind):
    h, tokens = ill_conditioned(noise)
    expected = reference.prediction_residual(h, tokens, kind)
    assert float(prediction_residual(h, tokens, kind)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_that_of_the_features_in_their_precision(dtype, kind):
    h, tokens = ill_conditioned(offset=1.0)
    h = h.to(dtype)
    expected = reference.prediction_residual(h.double(), tokens, kind)
    assert float(prediction_residual(h, tokens, kind)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "more",
    [
        lambda h: torch.cat([h, h], 1),
        lambda h: torch.cat([h, h.sum(1, keepdim=True)], 1),
        lambda h: torch.cat([torch.zeros_like(h), h, torch.full_like(h, 7.0)], 1),
    ],
    ids=["twice", "a sum", "dead and constant"],
)
def test_features_that_depend_on_others_change_nothing(more):
    h, tokens = ill_conditioned()
    expected = float(prediction_residual(h, tokens, "none"))
    found = float(prediction_residual(more(h), tokens, "none"))
    assert found == pytest.approx(expected, rel=1e-9)


def test_features_of_any_scale_and_tokens_numbered_from_elsewhere_give_the_same():
    h, tokens = ill_conditioned()
    for kind in KINDS:
        expected = float(prediction_residual(h, tokens, kind))
        for changed in (h * 2.0**600, h * 2.0**-600, -3 * h):
            found = float(prediction_residual(changed, tokens, kind))
            assert found == pytest.approx(expected, rel=1e-9)
        assert float(prediction_residual(h, 3 * tokens + 5, kind)) == pytest.approx(expected)


@pytest.mark.parametrize("offset", [2.0**14, 2.0**27])
def test_what_is_common_to_all_features_of_a_position_changes_nothing(offset):
    h, tokens = torch.randint(-999, 999, (60, 7)).double() / 1024, torch.randint(0, 50, (60,))
    expected = reference.prediction_residual(h, tokens, "layer_norm")
    found = prediction_residual(h + offset, tokens)  # exact, as is none of the means of 7 numbers
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_it_is_not_defined_where_any_tokens_would_be_fitted():
    h, tokens = ill_conditioned()
    few = [float(prediction_residual(h[:n], tokens[:n], "none")) for n in (1, 2, D, D + 1, D + 2)]
    assert [value != value for value in few] == [True, True, True, True, False]
    assert 0 < few[-1] < 1
    same = torch.full_like(tokens, 3)
    assert bool(prediction_residual(h, same).isnan())
    for d in range(1, 40):  # of some, the squared root of N = d + 2 is not quite N
        h, tokens = torch.randn(d + 2, d), torch.arange(d + 2) ** 2 % 7
        both = [prediction_residual(h[:n], tokens[:n], "none") for n in (d + 1, d + 2)]
        assert [bool(value.isnan()) for value in both] == [True, False]


def test_it_is_zero_for_a_linear_map_and_one_without_a_signal():
    h = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    for tokens in ([0, 2, 4, 6], [3, 10, 17, 24], [9, 6, 3, 0]):  # not a rounding error
        assert float(prediction_residual(7 * h.double() / 3, torch.tensor(tokens), "none")) == 0
    assert float(prediction_residual(h, torch.tensor([1, 0, 0, 1]), "none")) == pytest.approx(1)
    assert float(prediction_residual(0 * h, torch.tensor([1, 0, 0, 1]))) == 1


def test_vectors_of_equal_features_have_no_direction_that_rounding_errors_could_give_them():
    tokens = torch.arange(40) % 5
    equal = (0.1 + 0.01 * torch.arange(40).double())[:, None].expand(40, 7)
    assert float(prediction_residual(equal, tokens)) == 1
    assert float(prediction_residual(0 * equal, tokens, "rms_norm")) == 1


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_factors_of_batches_and_of_processes_are_joined(size):
    h, tokens = ill_conditioned()
    whole = prediction_residual(h, tokens, "none")
    states = torch.zeros(3, D + 2, D + 2).double()
    for number, (x, y) in enumerate(zip(h.split(size), tokens.split(size), strict=True)):
        states[number % 2] = extended_factor(states[number % 2], x, y, "none")
    joined = extended_factor(states[0], h[:0], tokens[:0], "none")
    assert joined.shape == states[0].shape
    found = residual_of(RegressionFactor("none").combine(states))
    torch.testing.assert_close(found, whole, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("h", "tokens", "error"),
    [
        (torch.zeros(3, 2).long(), torch.tensor([0, 1, 2]), TypeError),
        (torch.zeros(3, 2), torch.tensor([0.0, 1, 2]), TypeError),
        (torch.full((3, 2), torch.inf), torch.tensor([0, 1, 2]), ValueError),
        (torch.zeros(3, 2), torch.tensor([0, 1]), ValueError),
        (torch.zeros(3, 2), torch.tensor([-100, 0, 1]), ValueError),
    ],
)
def test_what_is_no_feature_or_token_is_refused(h, tokens, error):
    with pytest.raises(error):
        prediction_residual(h, tokens)


def test_a_normalisation_that_is_none_of_ours_is_refused():
    with pytest.raises(ValueError, match=r"\"none\", got 'layernorm'"):
        prediction_residual(torch.randn(5, 2), torch.arange(5), "layernorm")
