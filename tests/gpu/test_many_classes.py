"""Many classes on the device: by squares of pairs, by sorting, and in float32 first."""

import pytest
import torch

from lightning_nc import functional
from lightning_nc.functional.class_sums import ClassMembers
from lightning_nc.functional.classifier import LinearDecision, NearestCenter
from tests.gpu.device import device, on_cuda, only_our_warnings, tensor_float_32

pytestmark = only_our_warnings

SIZES = [(1000, 512), (50_257, 64)] if on_cuda() else [(1000, 8), (2100, 4)]


def vectors(K, d):
    return torch.randn(K, d, dtype=torch.float64, device=device())


@pytest.mark.parametrize(("K", "d"), SIZES)
@pytest.mark.parametrize("width", [1, 5])
def test_sums_of_many_classes_have_the_same_bits_twice(K, d, width):
    labels = torch.randint(K, (2 * K,), device=device())
    values = torch.randn(2 * K, width, device=device())
    found = [ClassMembers(labels, K).sums_of(values) for _ in range(2)]
    assert torch.equal(*found)
    on_cpu = ClassMembers(labels.cpu(), K).sums_of(values.cpu())
    torch.testing.assert_close(found[0].cpu(), on_cpu, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("K", "d"), SIZES)
def test_pairs_of_some_classes_are_those_of_all_by_squares(K, d):
    """Copies of vectors: the distances and cosines of all pairs are known from those of the few."""
    few = vectors(10, d)
    many = few.repeat(K // 10, 1)
    n = len(many)
    units = few / few.norm(dim=1, keepdim=True)
    of_copies = K // 10
    cosines = (units @ units.mT).fill_diagonal_(0)
    same = 10 * of_copies * (of_copies - 1) / 2
    mean = (cosines.sum() / 2 * of_copies**2 + same) / (n * (n - 1) / 2)
    torch.testing.assert_close(functional.group_cosine(many, range(n)), mean)
    widest = 1 / (n - 1)
    deviations = (units @ units.mT + widest).abs().fill_diagonal_(0)
    mean = (deviations.sum() / 2 * of_copies**2 + same * (1 + widest)) / (n * (n - 1) / 2)
    torch.testing.assert_close(functional.maximal_angle(many), mean)


@pytest.mark.parametrize(("K", "d"), SIZES)
@pytest.mark.parametrize("allowed", [True, False])
def test_decisions_are_those_in_float64(K, d, allowed, monkeypatch):
    monkeypatch.setattr("lightning_nc.functional.classifier._LARGE", 0)
    rows, features = vectors(K, d), vectors(300, d)
    features[:100] = rows[:100] / 2 + rows[100:200] / 2  # as far from one centre as from another
    bias = rows[:, 0]
    with tensor_float_32(allowed):
        decide = LinearDecision(rows, bias)
        assert (decide.single is None) == allowed
        chosen, nearest = decide.of(features)[0], NearestCenter(rows).of(features)
    exact = (features @ rows.mT + bias).argmax(1)
    assert torch.equal(chosen, exact)
    own = (features - rows[nearest]).norm(dim=1)
    least = torch.cdist(features, rows).amin(1)
    torch.testing.assert_close(own, least)
