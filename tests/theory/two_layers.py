"""A shallow network on given features, trained to tell two classes apart."""

from typing import NamedTuple

import torch
from torch.nn.functional import softplus


def saturating(z):
    """0 for z <= 0 and 1 for z >= 1, as in the second counterexample."""
    return z.clamp(0, 1)


class Trained(NamedTuple):
    outputs: torch.Tensor
    margin: float


def train(features, classes, activation, rate, margin, seed=0, probabilities=None, width=200):
    """Gradient descent on the logistic loss until the smallest y h(x) exceeds a margin.

    Steps are divided by the loss, which else vanishes as the margin grows.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    w, b, a = normal(width, features.shape[1]), normal(width), normal(width)
    a.data *= 0.1
    p = torch.ones(len(classes)) if probabilities is None else probabilities
    p = p.double() / p.sum()
    for _ in range(5000):
        h = activation(features.double() @ w.mT + b) @ a / width**0.5
        reached = (classes * h.detach()).min().item()
        if reached > margin:
            return Trained(h.detach(), reached)
        loss = p @ softplus(-2 * classes * h)
        for each, gradient in zip((w, b, a), torch.autograd.grad(loss, (w, b, a)), strict=True):
            each.data -= rate * gradient / loss.item()
    raise AssertionError(f"The margin {margin} was not reached.")
