"""Read features from a network with hooks that exist only inside one ``with`` block."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from lightning_nc.network.calling import calling
from lightning_nc.network.head import Head, read_head
from lightning_nc.network.nesting import dense, floating_tensor_in
from lightning_nc.network.points import Point, named_modules
from lightning_nc.network.pooling import call_pool, features_of, main_tensor
from lightning_nc.network.positions import AtEveryPosition, Positions, at_positions

TakeFeatures = Callable[[Point, Tensor], None]


class Capture:
    """Forward passes that hand over the features of each point; created by `capture`.

    What fails at one point or head costs that one: the network runs to its end, as a network with
    sharded parameters must, since other processes wait for it, and all other points are taken.

    Attributes:
        heads: The heads that have run, by name, as they were.
        outputs: The output of each head in the last forward pass, by name.
        failures: What went wrong, by point or by name of the head; it is not tried again.
    """

    def __init__(self, call: Callable[[Any], Any], points: Sequence[Point]) -> None:
        self.call = call
        self.heads: dict[str, Head] = {}
        self.outputs: dict[str, Any] = {}
        self.failures: dict[Point | str, Exception] = {}
        self._points: dict[str | None, list[Point]] = {}
        for point in points:
            self._points.setdefault(point.module, []).append(point)
        self._runs: Counter[str] = Counter()
        self._runs_of_heads: Counter[str] = Counter()
        self._silent: set[Point] = set()
        self._inputs: Any = None
        self._samples = 0
        self._consume: TakeFeatures | None = None
        self._positions: Positions | None = None

    def forward(
        self,
        inputs: Any,
        samples: int,
        consume: TakeFeatures,
        positions: Positions | None = None,
    ) -> Any:
        """Call the network once, and call ``consume(point, features)`` for each point as it runs.

        Features are views of what the network computed, valid until ``consume`` returns.

        Args:
            inputs: The inputs of one batch.
            samples: The number of samples N in the batch.
            consume: Receives each point and its features, shape ``(N, d)``.
            positions: Which positions are samples, if labels are of positions.

        Returns:
            The output of the network.
        """
        self._runs.clear()
        self._runs_of_heads.clear()
        self.outputs.clear()
        self._silent = {point for points in self._points.values() for point in points}
        self._inputs, self._samples, self._consume = inputs, samples, consume
        self._positions = positions
        try:
            for point in self._points.get(None, []):
                self._hand_over(point, raw_input(inputs))
            output = self.call(inputs)
            for point in self._points.get("", []):
                if point.side == "returned":
                    self._hand_over(point, output)
        finally:
            self._inputs = self._consume = None
        if self._silent:
            names = ", ".join(sorted(repr(point.name) for point in self._silent))
            error = ValueError(
                f"The layers {names} did not run on this batch. Name layers that run on every "
                "batch, and equally often."
            )
            self.failures = {**dict.fromkeys(self._silent, error), **self.failures}
        return output

    def require_all(self) -> None:
        """Raise the first failure, if there is any."""
        if self.failures:
            raise next(iter(self.failures.values()))

    def on_run(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Hand over the features of a module's points (a forward hook)."""
        if self._consume is None:
            return  # not called by `forward`
        run = self._runs[name]
        self._runs[name] += 1
        for point in self._points[name]:
            if point.run == run and point.side != "returned":
                taken = (*args, *kwargs.values())[0] if point.side == "input" else output
                self._hand_over(point, taken)

    def on_head(
        self, name: str, run: int, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> None:
        """Read the head (a forward hook); under sharding its weight exists only now."""
        if self._consume is None:
            return  # not called by `forward`
        self._runs_of_heads[name] += 1
        if self._runs_of_heads[name] != run + 1 or name in self.failures:
            return
        consume, self._consume = self._consume, None  # hooks ignore the runs that reading takes
        try:
            self.outputs[name] = main_tensor(output)
            if name not in self.heads:
                h = next(iter((*args, *kwargs.values())), None)
                self.heads[name] = read_head(name, module, h, output)
        except Exception as error:
            self.failures[name] = error
        finally:
            self._consume = consume

    def _hand_over(self, point: Point, value: Any) -> None:
        self._silent.discard(point)
        if point in self.failures:
            return
        try:
            assert self._consume is not None
            self._consume(point, self._features(value, point))
        except Exception as error:
            self.failures[point] = error

    def _features(self, value: Any, point: Point) -> Tensor:
        if self._positions is None:
            return features_of(value, point, self._inputs, self._samples)
        pool = point.pool
        h = call_pool(pool, value, self._inputs) if callable(pool) else main_tensor(value)
        try:
            return at_positions(dense(h.detach()), self._positions)
        except ValueError as error:
            who, advice = "Layer", "Name other layers, or use a callable that returns"
            if callable(pool) and not isinstance(pool, AtEveryPosition):
                who, advice = "The pool of layer", "Leave pool= out, or let it return"
            shapes = "shape (N, T, d) or (N, H, W, d)"
            raise ValueError(f"{who} '{point.name}' {error} {advice} {shapes}.") from None


@contextmanager
def capture(
    model: nn.Module,
    points: Sequence[Point],
    heads: Mapping[str, int] = MappingProxyType({}),
    call: Callable[[Any], Any] | None = None,
) -> Iterator[Capture]:
    """Watch a network at some points inside the block; hooks are removed at its end.

    Args:
        model: The network.
        points: Where to take features.
        heads: Names of the heads, which are read when they run, and the number of that run.
        call: Calls the network with inputs; by default as `calling` says.

    Yields:
        The `Capture`, whose ``forward`` calls the network.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> with capture(model, [Point("relu", "1")]) as watched:
        ...     _ = watched.forward(torch.zeros(5, 4), 5, lambda p, h: print(p.name, h.shape))
        relu torch.Size([5, 3])
    """
    watched = Capture(call or calling(model).function, points)
    modules = named_modules(model)
    with ExitStack() as hooks:
        for name in {point.module for point in points} - {None}:
            assert name is not None
            hook = partial(watched.on_run, name)
            hooks.enter_context(modules[name].register_forward_hook(hook, with_kwargs=True))
        for name, run in heads.items():
            # before all other hooks: that of FSDP shards the weight again
            read = partial(watched.on_head, name, run)
            at_head = modules[name].register_forward_hook(read, prepend=True, with_kwargs=True)
            hooks.enter_context(at_head)
        yield watched


def raw_input(inputs: Any) -> Any:
    """Return the first floating-point tensor in the inputs."""
    raw = floating_tensor_in(inputs)
    return main_tensor(inputs) if raw is None else raw
