"""Read features from a network with hooks that exist only inside one ``with`` block."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_nc.network.calling import calling
from lightning_nc.network.nesting import floating_tensor_in
from lightning_nc.network.points import Point, named_modules
from lightning_nc.network.pooling import features_of, main_tensor

TakeFeatures = Callable[[Point, Tensor], None]


class Head(NamedTuple):
    """The weight and bias of the head at the time it ran.

    Attributes:
        weight: W, shape ``(K, d)``.
        bias: b, shape ``(K,)``; None without one.
        is_affine: Whether the output was W h + b; that of a cosine classifier, for example, is not.
    """

    weight: Tensor
    bias: Tensor | None
    is_affine: bool


class Capture:
    """Forward passes that hand over the features of each point; created by `capture`."""

    def __init__(self, call: Callable[[Any], Any], points: Sequence[Point]) -> None:
        self.call = call
        self.head: Head | None = None
        self._points: dict[str | None, list[Point]] = {}
        for point in points:
            self._points.setdefault(point.module, []).append(point)
        self._runs: Counter[str] = Counter()
        self._silent: set[Point] = set()
        self._inputs: Any = None
        self._samples = 0
        self._consume: TakeFeatures | None = None
        self._failure: Exception | None = None

    def forward(self, inputs: Any, samples: int, consume: TakeFeatures) -> None:
        """Call the network once, and call ``consume(point, features)`` for each point as it runs.

        Features are views of what the network computed, valid until ``consume`` returns.

        Args:
            inputs: The inputs of one batch.
            samples: The number of samples N in the batch.
            consume: Receives each point and its features, shape ``(N, d)``.

        Raises:
            Exception: The first exception in a hook, once the network has run to its end. A network
                with sharded parameters cannot stop halfway, because other processes wait for it.
            ValueError: If a layer did not run.
        """
        self._failure = None
        self._runs.clear()
        self._silent = {point for points in self._points.values() for point in points}
        self._inputs, self._samples, self._consume = inputs, samples, consume
        try:
            for point in self._points.get(None, []):
                raw = floating_tensor_in(inputs)
                self._hand_over(point, main_tensor(inputs) if raw is None else raw)
            self.call(inputs)
            if self._failure is not None:
                raise self._failure
        finally:
            self._inputs = self._consume = self._failure = None
        if self._silent:
            names = ", ".join(sorted(repr(point.name) for point in self._silent))
            raise ValueError(
                f"The layers {names} did not run on this batch. Name layers that run on every "
                "batch, and equally often."
            )

    def on_run(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Hand over the features of a module's points (a forward hook)."""
        run = self._runs[name]
        self._runs[name] += 1
        if self._consume is None:
            return  # not called by `forward`
        for point in self._points[name]:
            if point.run == run:
                taken = (*args, *kwargs.values())[0] if point.side == "input" else output
                self._hand_over(point, taken)

    def on_head(self, module: nn.Module, args: Any, output: Any) -> None:
        """Copy the head's weight and bias (a forward hook); under sharding they exist only now."""
        with self._failure_kept():
            weight, bias = module.weight, getattr(module, "bias", None)
            is_affine = _is_affine(output, args[0], weight, bias) if args else True
            rows = _exact(weight).flatten(1)
            self.head = Head(rows, None if bias is None else _exact(bias), is_affine)

    def _hand_over(self, point: Point, value: Any) -> None:
        self._silent.discard(point)
        with self._failure_kept():
            assert self._consume is not None
            self._consume(point, features_of(value, point, self._inputs, self._samples))

    @contextmanager
    def _failure_kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failure = self._failure or error


@contextmanager
def capture(
    model: nn.Module,
    points: Sequence[Point],
    head: str | None = None,
    call: Callable[[Any], Any] | None = None,
) -> Iterator[Capture]:
    """Watch a network at some points inside the block; hooks are removed at its end.

    Args:
        model: The network.
        points: Where to take features.
        head: Name of the head, whose weight and bias are copied when it runs.
        call: Calls the network with inputs; by default as `calling` says.

    Yields:
        The `Capture`, whose ``forward`` calls the network.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> with capture(model, [Point("relu", "1")]) as watched:
        ...     watched.forward(torch.zeros(5, 4), 5, lambda point, h: print(point.name, h.shape))
        relu torch.Size([5, 3])
    """
    watched = Capture(call or calling(model).function, points)
    modules = named_modules(model)
    with ExitStack() as hooks:
        for name in {point.module for point in points} - {None}:
            assert name is not None
            hook = partial(watched.on_run, name)
            hooks.enter_context(modules[name].register_forward_hook(hook, with_kwargs=True))
        if head is not None:
            # before all other hooks: that of FSDP shards the weight again
            at_head = modules[head].register_forward_hook(watched.on_head, prepend=True)
            hooks.enter_context(at_head)
        yield watched


def _is_affine(output: Any, h: Any, weight: Any, bias: Any) -> bool:
    """Whether an output (N, K) is W h + b up to half precision; shapes (N, d), (K, d), (K,)."""
    if weight.ndim != 2 or not isinstance(output, Tensor) or not isinstance(h, Tensor):
        return True  # such as a convolution
    expected = nn.functional.linear(h.to(weight.dtype), weight, bias)
    tolerance = 0.05 * expected.abs().max()
    return expected.shape == output.shape and bool(((expected - output).abs() <= tolerance).all())


def _exact(parameter: Any) -> Tensor:
    """Return a float64 copy of a parameter, gathered if it is sharded."""
    whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    whole = whole.detach()
    return (whole.cpu() if whole.device.type == "mps" else whole).double().clone()
