"""The gradient of each sample's loss with respect to its outputs."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_nc.tangent.inner_products import exact

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_gradients(outputs: Tensor, targets: Tensor, loss: Loss | None = None) -> Tensor:
    """The gradient of each sample's loss with respect to its outputs, ``(m, C)``, float64."""
    if loss is None:
        return _cross_entropy_gradients(exact(outputs.detach()), targets)
    f = outputs.detach().requires_grad_()  # in the network's precision, which the loss may need
    with torch.enable_grad():
        # one sample at a time, so that it does not matter whether the loss is a sum or a mean
        y = targets.to(f.device)
        each = [loss(f[i : i + 1], y[i : i + 1]) for i in range(len(f))]
        (v,) = torch.autograd.grad(torch.stack(each).sum(), f)
    return exact(v)


def _cross_entropy_gradients(f: Tensor, targets: Tensor) -> Tensor:
    r"""The gradient :math:`p_c - [c = y]` in the logits, accurate even where p_y is nearly 1."""
    targets = targets.to(f.device)
    if f.shape[1] == 1:
        y = targets.reshape(-1, 1).to(f.dtype)
        return (1 - y) * f.sigmoid() - y * (-f).sigmoid()
    p = f.softmax(1)
    if targets.is_floating_point():  # targets are class probabilities
        y = targets.to(f.dtype)
        return p * y.sum(1, keepdim=True) - y
    y = targets.reshape(-1, 1).long()
    others = p.scatter(1, y, 0)
    return others.scatter(1, y, -others.sum(1, keepdim=True))
