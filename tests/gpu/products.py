"""Float64 matrix products: how slow they are, and their share of a measurement."""

import time

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.gpu.device import device, on_cuda
from tests.gpu.timing import seconds

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.baddbmm, aten.mv, aten.addmv, aten.dot)


class ProductsTimed(TorchDispatchMode):
    """Times each product of float64 matrices inside the block."""

    def __init__(self):
        super().__init__()
        self.count, self._pairs, self._seconds = 0, [], 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        first = next((a for a in args if isinstance(a, torch.Tensor)), None)
        if func.overloadpacket not in PRODUCTS or first is None or first.dtype != torch.float64:
            return func(*args, **(kwargs or {}))
        self.count += 1
        if on_cuda():
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            self._pairs.append(pair)
            pair[0].record()
            result = func(*args, **(kwargs or {}))
            pair[1].record()
            return result
        started = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self._seconds += time.perf_counter() - started
        return result

    def seconds(self):
        """Seconds of all products, once the device has finished."""
        if self._pairs:
            torch.cuda.synchronize()
        return self._seconds + sum(a.elapsed_time(b) for a, b in self._pairs) / 1000


def product(classes, samples, width, repeats=20):
    """Milliseconds of class sums as a matrix product, in float64 and float32."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        members = torch.ones(classes, samples, dtype=dtype, device=device())
        features = torch.ones(samples, width, dtype=dtype, device=device())

        def work(members=members, features=features):
            for _ in range(repeats):
                members @ features

        work()
        found[str(dtype).removeprefix("torch.")] = 1000 * seconds(work) / repeats
    operations = 2 * classes * samples * width
    return {
        "float64, ms": found["float64"],
        "float32, ms": found["float32"],
        "float64 by float32": found["float64"] / found["float32"],
        "TFLOP/s in float64": operations / found["float64"] / 1e9,
    }
