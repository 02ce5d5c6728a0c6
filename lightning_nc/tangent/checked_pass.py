"""One forward pass, and the check that gradients of single samples add up to that of the batch."""

import math
from collections.abc import Mapping, Sequence
from time import perf_counter

import torch
from torch import Tensor

from lightning_nc.tangent.differentiable_network import INNER, Network
from lightning_nc.tangent.inner_products import exact
from lightning_nc.tangent.parameter_owners import find_owners
from lightning_nc.tangent.recomputed_modules import Recomputed
from lightning_nc.tangent.recorded_pass import RecordedPass
from lightning_nc.tangent.used_parameters import leaves_of, require_aliases
from lightning_nc.wording import listed


class CheckedPass:
    """A forward pass under hooks; the whole network is the owner of the parameters in ``whole``.

    After `broken`, ``seconds`` estimates how long the gradients of a direction and their inner
    products take: in closed form about as long as an ordinary backward pass, otherwise longer.
    """

    def __init__(self, network: Network, directions: int, whole: Sequence[str] = ()) -> None:
        self.network, self.seconds = network, 0.0
        owners = find_owners(network.whole, network.selected, *network.looks, whole)
        self.recorded = RecordedPass(owners)
        self.f = self.recorded.forward(network.run)
        # unused parameters have no gradient; the network need not run for them
        leaves = leaves_of(self.f)
        require_aliases(network, leaves)
        used = {name for name in network.selected if id(network.aliases[name]) in leaves}
        if not used:
            raise ValueError(
                "The outputs depend on none of the selected parameters. Select parameters that the "
                "network uses with parameters=[...]."
            )
        self.recorded.keep(used)
        self.grams = {
            path: self.recorded.gram_of(path, network.aliases, network.m, directions)
            for path in self.recorded.owners
        }

    def gradients(self, direction: Tensor) -> dict[str, list[Tensor]]:
        """Return the gradients of each owner's outputs, for a direction of the network's outputs.

        The direction has shape ``(C,)`` or, with one per sample, ``(m, C)``.
        """
        return self.recorded.gradients(self.f, direction.expand_as(self.f))

    def gram(self, left: Mapping[str, list[Tensor]], right: Mapping[str, list[Tensor]]) -> Tensor:
        """Return the inner products of all samples' gradients over all parameters.

        Args:
            left: Gradients of each owner's outputs, by run.
            right: Other gradients of the outputs, or the same.

        Returns:
            Shape ``(m, m)``, float64.
        """
        with torch.no_grad():
            products = [each.gram(left[path], right[path]) for path, each in self.grams.items()]
        return self._stacked(products).sum(0)

    def broken(self, v: Tensor) -> list[str]:
        r"""Return the parameters whose per-sample gradients do not add up to that of the sum.

        For any weights s, :math:`s^T K s = \lVert \sum_i s_i \partial f(x_i) \rVert^2`, which an
        ordinary backward pass computes. This fails if a parameter is used outside its owner or if
        samples affect each other. The weights differ, since equal ones miss a changed order of
        samples; are positive, since similar gradients would cancel with random signs; and are
        powers of 2, which do not round differently.
        """
        order = torch.randperm(self.network.m, generator=torch.Generator().manual_seed(0))
        s = (0.25 * 2 ** (order % 4)).to(self.f)
        started = perf_counter()
        squares = self._squares(s[:, None] * v)
        self.seconds = perf_counter() - started
        _require_finite(squares)
        g, kernels, scale = self.gradients(v), dict[str, Tensor | None](), 0.0
        for path, each in self.grams.items():
            started = perf_counter()
            K = kernels[path] = self._kernel_of(path, g[path])
            scale += 0.0 if K is None else float(K.abs().sum())
            if isinstance(each, Recomputed):
                self.seconds += perf_counter() - started
        broken = []
        for path, owner in self.recorded.owners.items():
            K = kernels[path]
            of_sum = sum(squares[name] for name in owner.parameters)
            if K is None or not self._adds_up(K, exact(s).to(K), of_sum, scale):
                broken += list(owner.parameters)
        return broken

    def _squares(self, direction: Tensor) -> dict[str, float]:
        """Return the squared gradient norm of each parameter, from an ordinary backward pass."""
        names = [name for owner in self.recorded.owners.values() for name in owner.parameters]
        leaves = [self.network.aliases[name] for name in names]
        found = torch.autograd.grad(
            self.f, leaves, direction, retain_graph=True, materialize_grads=True
        )
        squares = self._stacked([exact(g).square().sum() for g in found])
        return dict(zip(names, squares.tolist(), strict=True))

    def _stacked(self, found: Sequence[Tensor]) -> Tensor:
        """Stack what was found on the devices of parameters, where the output is."""
        return torch.stack([each.to(exact(self.f[:0]).device) for each in found])

    def _kernel_of(self, path: str, g: list[Tensor]) -> Tensor | None:
        """Return an owner's inner products; None if the samples' gradients cannot be separated."""
        if not all(run.unchanged() for run in self.recorded.runs[path]):
            return None
        try:
            with torch.no_grad():
                return self.grams[path].gram(g, g)
        except (RuntimeError, ValueError, IndexError):  # shapes are not as assumed
            return None

    def _adds_up(self, K: Tensor, s: Tensor, expected: float, scale: float) -> bool:
        """Whether s^T K s is the expected number up to rounding; shapes ``(m, m)`` and ``(m,)``."""
        # rounding may cost half of the digits, or all digits of a negligible K
        eps = self.network.eps
        tolerance = eps**0.5 * K.abs().sum() + eps**1.5 * scale
        return bool((s @ K @ s - expected).abs() <= tolerance)

    def one_by_one(self) -> dict[str, str]:
        """Return the modules whose gradients need one backward pass per sample, and the reasons."""
        return {
            _name(path): each.one_by_one
            for path, each in self.grams.items()
            if isinstance(each, Recomputed) and each.one_by_one is not None
        }

    def by_network(self) -> list[str]:
        """Return the parameters for which the whole network is run for each sample."""
        return [
            name.removeprefix(INNER)
            for path, each in self.grams.items()
            if isinstance(each, Recomputed) and _name(path) == "the network"
            for name in self.recorded.owners[path].parameters
        ]


def checked_pass(
    network: Network, directions: Tensor, chosen: Sequence[int]
) -> tuple[CheckedPass, Tensor]:
    """Return a forward pass that has passed the check, and the directions in its dtype."""
    seen = CheckedPass(network, max(len(chosen), 1))
    v = directions.to(seen.f)
    # an error in any direction is almost surely also one in a random direction
    weights = torch.randn(len(v), generator=torch.Generator().manual_seed(0))
    mixed = weights.to(v) @ v
    if broken := seen.broken(mixed):
        # for these parameters, differentiate the network as a whole
        seen = CheckedPass(network, max(len(chosen), 1), broken)
        if broken := seen.broken(mixed):
            names = listed((name.removeprefix(INNER) for name in broken), 3)
            raise ValueError(
                f"The gradients of single samples with respect to {names} do not add up to that of "
                "the batch: the network is random, or samples in a batch affect each other. Call "
                "model.eval(), or leave out these parameters with parameters=[...]."
            )
    return seen, v


def _require_finite(squares: Mapping[str, float]) -> None:
    """Raise unless the squared gradient norms of parameters are finite."""
    infinite = [name.removeprefix(INNER) for name, x in squares.items() if not math.isfinite(x)]
    if infinite:
        raise ValueError(
            f"Gradients of outputs with respect to {listed(infinite, 3)} are not finite, or "
            "too large to be squared, though the outputs are finite. Something in between has no "
            "derivative, such as a norm or square root at zero, or inputs are infinite."
        )


def _name(path: str) -> str:
    return path.removeprefix(INNER).removeprefix("network") or "the network"
