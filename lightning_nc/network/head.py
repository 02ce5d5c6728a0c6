"""The head: the weight W and bias b that act, whatever module computes W h + b."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_nc.guards.functional_call import functional_call
from lightning_nc.guards.parameters import attribute
from lightning_nc.guards.precision import with_float64
from lightning_nc.guards.torch_internals import convolves_like, hooks_off
from lightning_nc.network.pooling import main_tensor

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AT_ONCE = 2**24  # elements of the unit vectors that the head is run on at a time


class Head(NamedTuple):
    """The classifier at the time it ran.

    Attributes:
        weight: W, in the precision that the network has it in, shape ``(R, d)``.
        bias: b, float64, shape ``(R,)``; None without one.
        is_plain: Whether the module is a linear layer or a convolution with these parameters.
        is_affine: Whether its output is W h + b; that of a cosine classifier, for example, is not,
            and W is its weight.
    """

    weight: Tensor
    bias: Tensor | None
    is_plain: bool
    is_affine: bool

    def on(self, device: torch.device) -> "Head":
        """The same on a device."""
        bias = None if self.bias is None else self.bias.to(device)
        return self._replace(weight=self.weight.to(device), bias=bias)


def read_head(name: str, module: nn.Module, h: Any, output: Any) -> Head:
    """Read W and b of a module that has just run.

    An affine map is known by its values at zero and at the unit vectors: ``b = f(0)`` and
    ``W e_j = f(e_j) - b``. So any kind of module can be read, such as one with low-rank adapters or
    quantised weights. They are computed in float64 if the module can be.

    Args:
        name: The module's name, for messages.
        module: The module.
        h: Its input.
        output: Its output.

    Raises:
        ValueError: If it is not affine and has no weight matrix.

    Example:
        >>> from lightning_nc.network.head import read_head
        >>> layer = nn.Linear(1, 1)
        >>> _ = nn.init.constant_(layer.weight, 2), nn.init.constant_(layer.bias, 5)
        >>> doubled = nn.Sequential(layer, layer)  # 2 (2 h + 5) + 5
        >>> h = torch.ones(1, 1)
        >>> head = read_head("doubled", doubled, h, doubled(h))
        >>> head.weight, head.bias
        (tensor([[4.]], dtype=torch.float64), tensor([15.], dtype=torch.float64))
    """
    # an instance may have a forward of its own
    is_linear = getattr(module.forward, "__func__", None) is nn.Linear.forward
    plain = is_linear or any(convolves_like(module, kind) for kind in _CONVOLUTIONS)
    weight, bias = attribute(module, "weight"), attribute(module, "bias")
    if not plain:
        read = _read_outputs(module, h, main_tensor(output))
        if read is not None:
            return Head(*read, is_plain=False, is_affine=True)
    d, rows = (getattr(each, "shape", (0,))[-1] for each in (h, main_tensor(output)))
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        # of a square one it is not known which axis is which
        weight, bias = own_matrix(module, d, rows) if d != rows else None, None
    if weight is not None and weight.shape == (d, rows) != (rows, d):
        weight = weight.mT  # as of heads that compute h W
    if weight is None:
        raise ValueError(
            f"The head '{name}' is a {type(module).__name__}: it is not an affine map of its "
            "input, and has no weight matrix. Measure without a head: head=False."
        )
    exact_bias = None if bias is None else _copy(bias).double()
    return Head(_copy(weight).flatten(1), exact_bias, plain, plain)


def own_matrix(module: nn.Module, features: int | None, rows: int) -> Tensor | None:
    """The matrix from features to rows that a module holds itself, however it is called.

    It is a parameter, or a buffer such as the fixed simplex of a classifier that does not learn.

    Args:
        module: The module.
        features: Size of the last axis of its input.
        rows: Size of the last axis of its output.

    Returns:
        Shape ``(rows, features)`` or ``(features, rows)``; None if there is none.
    """
    sizes = {(rows, features), (features, rows)}
    return next((t for t in _held(module) if tuple(t.shape) in sizes), None)


def shapes_held(module: nn.Module) -> set[tuple[int, ...]]:
    """Shapes of the floating-point tensors that a module holds itself."""
    return {tuple(t.shape) for t in _held(module)}


def _held(module: nn.Module) -> Iterator[Tensor]:
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return (t for t in tensors if t.is_floating_point())


def _read_outputs(module: nn.Module, h: Any, output: Any) -> tuple[Tensor, Tensor] | None:
    """W and b from outputs at zero and at the unit vectors; None unless they give the output."""
    if not isinstance(h, Tensor) or not isinstance(output, Tensor) or h.ndim < 2:
        return None
    d = h.shape[-1]
    try:
        with torch.autocast(h.device.type, enabled=False), hooks_off(module):
            rows = [_run(module, x) for x in _units(d, h)]
    except Exception:
        return None  # a module that does not accept vectors of its own input's size
    values = torch.cat(rows)
    bias, weight = values[0], (values[1:] - values[0]).mT
    if output.shape != (*h.shape[:-1], len(weight)):
        return None
    # a constant added to all outputs of a sample, as by log_softmax, would be part of W
    h, output = (x.to(weight.device).double() for x in (h, output))
    off = _differ(h @ weight.mT + bias, output)
    return None if bool(off.any()) else (weight, bias)


def _units(d: int, like: Tensor) -> Iterator[Tensor]:
    """The zero vector and the unit vectors, some at a time."""
    step = max(_AT_ONCE // d, 1)
    for start in range(0, d + 1, step):
        rows = torch.arange(start, min(start + step, d + 1), device=like.device)
        columns = torch.arange(1, d + 1, device=like.device)
        yield (rows[:, None] == columns).to(like.dtype)


def _run(module: nn.Module, x: Tensor) -> Tensor:
    """Outputs in float64, computed in float64 if the module can be."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    try:
        exact = {name: t.detach().double() for name, t in tensors if t.is_floating_point()}
        found = main_tensor(functional_call(module, exact, (x.double(),)))
    except Exception:  # such as quantised weights, or a device without float64
        found = main_tensor(module(x))
    assert isinstance(found, Tensor)
    return _copy(found).double()


def far_from(expected: Tensor, output: Tensor) -> Tensor:
    """Whether outputs differ from expected ones by more than half precision explains.

    A constant that is added to all outputs of a sample decides nothing, and is left out.

    Args:
        expected: W h + b, shape ``(..., R)``.
        output: The same shape.

    Returns:
        Shape ``(...)``.
    """
    if expected.shape[-1] > 1:
        expected, output = (x - x.mean(-1, keepdim=True) for x in (expected, output))
    return _differ(expected, output)


def _differ(expected: Tensor, output: Tensor) -> Tensor:
    return ~((expected - output).abs() <= 0.05 * expected.abs().max()).all(-1)


def _copy(tensor: Any) -> Tensor:
    """Return a copy of a tensor, gathered if it is sharded, on a device that has float64."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    whole = whole.detach()
    return whole.to(with_float64(whole.device), copy=True)
