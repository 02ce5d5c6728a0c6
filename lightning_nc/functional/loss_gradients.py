"""Gradients of losses by outputs, one sample at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_nc.tangent.inner_products import exact

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_gradients(outputs: Tensor, targets: Tensor, loss: Loss | None = None) -> Tensor:
    """Gradient of each sample's loss by its outputs, shape ``(m, C)``, float64."""
    if loss is None:
        return _cross_entropy_gradients(exact(outputs.detach()), targets)
    f = outputs.detach().requires_grad_()  # of the precision that the loss is made for
    with torch.enable_grad():
        # one sample at a time, so that it does not matter whether the loss is a sum or a mean
        each = [loss(f[i : i + 1], targets[i : i + 1]) for i in range(len(f))]
        (v,) = torch.autograd.grad(torch.stack(each).sum(), f)
    return exact(v)


def _cross_entropy_gradients(f: Tensor, targets: Tensor) -> Tensor:
    r"""Of logits: :math:`p_c - [c = y]`, with all digits also where :math:`p_y` is all but 1."""
    if f.shape[1] == 1:
        y = targets.reshape(-1, 1).to(f)
        return (1 - y) * f.sigmoid() - y * (-f).sigmoid()
    p = f.softmax(1)
    if targets.is_floating_point():  # probabilities of classes
        y = targets.to(f)
        return p * y.sum(1, keepdim=True) - y
    y = targets.reshape(-1, 1).to(f.device)
    others = p.scatter(1, y, 0)
    return others.scatter(1, y, -others.sum(1, keepdim=True))
