"""The model without relaxation, trained, ends where the relaxation says.

That it does not collapse with other norms is in examples/layer_peeled_norms.py.
"""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_nc.functional import maximal_angle
from lightning_nc.theory import layer_peeled_model

STEPS = 2500


def train(counts, energy_h, seed, p):
    """Adam on W and H, rescaled so that both energies are attained; one feature per class."""
    K, generator = len(counts), torch.Generator().manual_seed(seed)
    start = torch.randn(2, K, p, dtype=torch.float64, generator=generator)
    free = start.requires_grad_()
    n = torch.tensor(counts, dtype=torch.float64)
    optimizer = torch.optim.Adam([free], 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    def bounded():
        W, H = free
        W = W * (K / W.square().sum()).sqrt()
        return W, H * (K * energy_h / H.square().sum()).sqrt()

    def loss():
        W, H = bounded()
        return n @ cross_entropy(H @ W.mT, torch.arange(K), reduction="none") / n.sum()

    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return *bounded(), float(loss())


def misalignment(W, H):
    return float((W / W.norm() - H / H.norm()).norm())


@pytest.mark.parametrize("seed", [0, 1])
def test_balanced_features_collapse(seed):
    W, H, loss = train([1] * 4, 5.0, seed, p=8)
    assert maximal_angle(H) < 1e-3
    assert misalignment(W, H) < 1e-3
    assert loss == pytest.approx(layer_peeled_model([1] * 4, 1, 5).objective, rel=1e-6)


@pytest.mark.parametrize("R", [3, 10, 30])
def test_imbalanced_classes_end_where_the_relaxation_says(R):
    counts = [R] * 2 + [1] * 3
    W, _, loss = train(counts, 4.0, seed=0, p=10)
    solution = layer_peeled_model(counts, 1, 4)
    assert loss == pytest.approx(solution.objective, rel=1e-3)
    assert loss >= solution.objective * (1 - 1e-12)
    rows = W[2:] / W[2:].norm(dim=1, keepdim=True)
    i, j = torch.triu_indices(3, 3, 1)
    cosine = float((rows @ rows.mT)[i, j].mean())
    assert cosine == pytest.approx(solution.mean_cosine_w([2, 3, 4]), abs=0.01)
