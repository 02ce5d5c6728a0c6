"""The decisions of a linear classifier and of the nearest class centre."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_nc.functional.powers_of_two import in_units_of, scale_of

_LARGE = 2**18  # numbers in the rows from which their products take more time than all else
_ROWS = 2**18  # numbers in the rows that are there in float64 at a time
_WIDE = 2**13  # from here on, many samples would be left to float64
_SMALLEST_UNIT = 2.0**-400  # in two of which, of rows and of features, biases do not overflow


def two_row_head(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Read a one-logit classifier as two rows, -w/2 and +w/2, with biases -b/2 and +b/2.

    The logit is that of class 1, so row 1 is +w/2. The two resulting logits differ by the original
    one.

    Args:
        weight: Weight w, shape ``(1, d)``.
        bias: Bias b, shape ``(1,)``, if there is one.

    Returns:
        Classifier rows, shape ``(2, d)``, and biases, shape ``(2,)`` or None.

    Example:
        >>> two_row_head(torch.tensor([[4.0]]), torch.tensor([2.0]))
        (tensor([[-2.],
                [ 2.]]), tensor([-1.,  1.]))
    """
    if bias is not None:
        bias = torch.cat([-bias / 2, bias / 2])
    return torch.cat([-weight / 2, weight / 2]), bias


class LinearDecision:
    """Decides for the row with the largest ``w_k . h + b_k``, as products in float64 do.

    Many and large rows are multiplied in float32 first, which takes half the time on a CPU, and a
    thirtieth on some cards. A sample is decided if the largest number leads by more than all
    rounding errors together; the products of the few others are repeated in float64, of which no
    copy of many rows is kept.

    A sum of d products in float32 is off by at most ``(d + 1) u sum_j |w_kj h_j|``, whatever the
    order, with ``u = 2^-24``. To round both factors to float32, and to add the bias, costs a few u
    more, and numbers too small for float32 count as zero.

    Args:
        weight: Rows w_k, any floating dtype, shape ``(K, d)``.
        bias: Biases b_k, float64, shape ``(K,)``; None without one.
        origin: What is subtracted from each row, float64, shape ``(d,)``; None for nothing.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, origin: Tensor | None = None) -> None:
        self.weight, self.bias, self.origin = weight.detach(), bias, origin
        self.single: Tensor | None = None
        if weight.numel() < _LARGE or weight.shape[1] > _WIDE or not _full_float32(weight.device):
            return
        as_they_are = weight.dtype == torch.float32 and origin is None
        self.single = self.weight if as_they_are else torch.empty_like(weight, dtype=torch.float32)
        longest = []
        for part, rows in _rows_of(weight, origin):
            self.single[part] = rows
            longest.append(torch.linalg.vector_norm(rows, dim=1).max())
        self._longest = torch.stack(longest).max()
        self._bias = self._longest.new_zeros(()) if bias is None else bias.abs().max()

    def of(self, h: Tensor, unit: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """The row of each sample, shape ``(n,)``, and the numbers, float32 or 64, ``(n, K)``.

        Args:
            h: Samples in units of ``unit``, float64, shape ``(n, d)``.
            unit: The unit, a power of two, by which biases are divided.
        """
        bias = None if self.bias is None else self.bias / unit
        if self.single is None:
            numbers = self._exact(h, bias)
            return numbers.argmax(1), numbers
        with torch.autocast(h.device.type, enabled=False):
            numbers = _affine(h.float(), self.single, None if bias is None else bias.float())
        largest, chosen = numbers.max(1)
        numbers.scatter_(1, chosen[:, None], -torch.inf)
        second = numbers.amax(1)
        numbers.scatter_(1, chosen[:, None], largest[:, None])
        # a comparison with NaN is false
        unclear = ~(largest.double() - second.double() > self._window(h, self._bias / unit))
        if bool(unclear.any()):
            chosen[unclear] = self._exact(h[unclear], bias).argmax(1)
        return chosen, numbers

    def _exact(self, h: Tensor, bias: Tensor | None) -> Tensor:
        """All numbers in float64, shape ``(n, K)``."""
        found = [
            _affine(h, rows, None if bias is None else bias[part])
            for part, rows in _rows_of(self.weight, self.origin)
        ]
        return torch.cat(found, 1)

    def _window(self, h: Tensor, bias: Tensor) -> Tensor:
        """Twice the error of a number in float32, ``(n,)``; infinite where it may overflow."""
        d = h.shape[1]
        lengths = torch.linalg.vector_norm(h, dim=1)
        largest = lengths * self._longest + bias
        tiny = 2.0**-126 * (d + 1) * (1 + lengths + self._longest)
        error = (d + 8) * 2.0**-24 * largest + tiny
        return torch.where(largest < 2.0**120, 2.1 * error, torch.inf)


class NearestCenter:
    """Decides for the class ``argmin_k ||h - mu_k||``.

    Args:
        means: Class means, float64, shape ``(K, d)``.
    """

    def __init__(self, means: Tensor) -> None:
        self.origin = means.mean(0)  # a large common offset would cost digits by cancellation
        # h.m - ||m||^2 / 2 is largest for the class whose distance is smallest
        squares = [m.square().sum(1) for _, m in _rows_of(means, self.origin)]
        self._decide = LinearDecision(means, torch.cat(squares) / -2, self.origin)

    def of(self, features: Tensor) -> Tensor:
        """The class of each sample, shape ``(n,)``."""
        parts = _in_float64(features, len(self._decide.weight))
        return torch.cat([self._decide.of(h - self.origin)[0] for h in parts])


def decision_unit(vectors: Tensor) -> Tensor:
    """The unit of features or of rows, by which logits are divided; a factor decides nothing."""
    return scale_of(vectors).clamp(min=_SMALLEST_UNIT)


def classifier_decisions(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The class ``argmax_k (w_k . h + b_k)`` of each sample, shape ``(N,)``.

    Args:
        features: Features h, shape ``(N, d)``.
        weight: Classifier rows w_k, shape ``(K, d)``.
        bias: Classifier bias b, shape ``(K,)``; None without one.
    """
    unit, of_h = decision_unit(weight), float(decision_unit(features))
    W, b = weight.double() / unit, None if bias is None else bias.double() / unit
    decide, parts = LinearDecision(W, b), _in_float64(features, len(W))
    return torch.cat([decide.of(in_units_of(of_h, h), of_h)[0] for h in parts])


def _rows_of(weight: Tensor, origin: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows in float64, less the origin if there is one, some at a time."""
    step = max(_ROWS // weight.shape[1], 1)
    for start in range(0, len(weight), step):
        part = slice(start, start + step)
        rows = weight[part].detach().double()
        yield part, rows if origin is None else rows - origin


def _affine(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return h @ weight.mT if bias is None else torch.addmm(bias, h, weight.mT)


def _full_float32(device: torch.device) -> bool:
    """Whether products of float32 matrices are computed in float32, as far as torch is asked to."""
    if device.type not in ("cpu", "cuda"):
        return False
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch >= 2.9
        backend: Any = torch.backends.mkldnn if device.type == "cpu" else torch.backends.cuda
        return backend.matmul.fp32_precision in ("none", "ieee")
    return torch.get_float32_matmul_precision() == "highest"


def _in_float64(features: Tensor, num_classes: int) -> Iterator[Tensor]:
    """Yield a few samples at a time: neither features nor logits are ever there as a whole."""
    rows = max(1, 2**22 // max(features.shape[1], num_classes))
    return (part.detach().double() for part in torch.split(features, rows))
