"""A network as a function of aliases of its parameters, differentiated without side effects."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nc.globs import deeper_advice, matching
from lightning_nc.guards.functional_call import functional_call
from lightning_nc.guards.generators import generators_kept
from lightning_nc.guards.gradient_checkpoints import gradient_checkpoints_off
from lightning_nc.guards.kernels import cudnn_off_if_recurrent, fast_path_off
from lightning_nc.guards.parameters import is_rescaled
from lightning_nc.guards.precision import full_precision
from lightning_nc.guards.shards import is_in_parts
from lightning_nc.guards.torch_internals import is_batch_norm, tree_leaves, tree_map
from lightning_nc.tangent.inner_products import widened
from lightning_nc.tangent.parameter_owners import look

INNER = "network."  # prefix of the parameters' names in `_Outputs`
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")
_DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)


class Network:
    """A network on m samples, with a row of C outputs for each sample.

    Half-precision parameters, buffers and inputs are converted to float32, with their rounded
    values.

    Args:
        model: The network, in evaluation mode.
        call: Calls the network with inputs and returns outputs of shape ``(m, C)`` or ``(m,)``.
        inputs: Inputs of m samples: a tensor, or any nesting of tensors.
        samples: The number of samples m.
        parameters: Names or `globs` of the parameters that count; None for those that are trained.

    Attributes:
        aliases: Separate leaf tensors with the parameters' values, so that no hook on the
            parameters runs.
        selected: Names of the parameters that count.
        looks: A look at one sample and a look at two.
        num_outputs: The number of outputs C.
        eps: Relative rounding error of the network's arithmetic.

    Raises:
        ValueError: If outputs are not one row per sample or depend on the rest of the batch, or if
            parameters cannot be found or are in parts.
    """

    def __init__(
        self,
        model: nn.Module,
        call: Callable[[Any], Any],
        inputs: Any,
        samples: int,
        parameters: Iterable[str] | None = None,
    ) -> None:
        self.m = samples
        self.whole = _Outputs(model, call)
        _require_evaluation(model)
        _require_whole(model)
        self.buffers = {INNER + name: widened(b) for name, b in model.named_buffers()}
        with self.undisturbed():
            self.aliases = _aliases(model, parameters)
            self.selected = [name for name, p in self.aliases.items() if p.requires_grad]
            self.inputs = tree_map(_differentiable, inputs)
            self.looks = (
                look(self.whole, lambda: self.run([0])),
                look(self.whole, lambda: self.run([0, samples - 1])),
            )
        one, two = (each.output for each in self.looks)
        self.num_outputs = one.shape[1]
        # of the least precise arithmetic that may be involved
        floats = [x.dtype for x in (one, *self.aliases.values()) if x.is_floating_point()]
        self.eps = max(torch.finfo(dtype).eps for dtype in floats)
        _require_independent(one, two, self.eps**0.5)

    def run(
        self, samples: Sequence[int] | None = None, parameters: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the network's outputs.

        Args:
            samples: Indices of n samples; None for all.
            parameters: Parameters by name; None for the network's own.

        Returns:
            Shape ``(n, C)``.
        """
        # copies, because the network may write to its inputs
        inputs = _take(self.inputs, self.m, range(self.m) if samples is None else samples)
        w = self.aliases if parameters is None else parameters
        buffers = {name: b.clone() for name, b in self.buffers.items()}
        return functional_call(self.whole, {**w, **buffers}, (inputs,))

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Enable gradients and full precision; disable compilation and the user's backward hooks.

        The fast path of torch's transformers, which parts without gradients would take, is off, as
        are reentrant gradient checkpoints and cuDNN for recurrent layers.
        Random generators, default dtype and attributes of modules are restored.
        """
        device = next(self.whole.parameters(), torch.empty(0)).device
        # restored, because what modules store in a forward pass must be from their own last one
        modules = [(vars(module), dict(vars(module))) for module in self.whole.modules()]
        with ExitStack() as settings:
            settings.enter_context(generators_kept())
            settings.enter_context(torch.inference_mode(False))
            settings.enter_context(torch.enable_grad())
            settings.enter_context(torch.autocast(device.type, enabled=False))
            settings.enter_context(full_precision())
            settings.enter_context(fast_path_off())
            settings.enter_context(gradient_checkpoints_off())
            settings.enter_context(cudnn_off_if_recurrent(self.whole))
            settings.enter_context(_new_tensors_of(widened(torch.empty(0)).dtype))
            if "torch._dynamo" in sys.modules:  # hooks do not run in compiled code
                settings.enter_context(torch.compiler.set_stance("force_eager"))
            try:
                for attributes, _ in modules:
                    attributes.update({name: OrderedDict() for name in _BACKWARD})
                yield
            finally:
                for attributes, before in modules:
                    for name in attributes.keys() - before.keys():
                        del attributes[name]
                    attributes.update(before)


class _Outputs(nn.Module):
    """A module that returns a network's outputs as rows, shape ``(m, C)``."""

    def __init__(self, network: nn.Module, call: Callable[[Any], Any]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, inputs: Any) -> Tensor:
        f = self.call(inputs)
        if not isinstance(f, Tensor) or not f.is_floating_point() or f.ndim not in (1, 2):
            what = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
            raise ValueError(
                f"The network returns {what}, but a tangent kernel needs a row of outputs per "
                "sample, shape (m, C). Set outputs= to a function that returns one number per "
                "sample."
            )
        return f[:, None] if f.ndim == 1 else f


def _aliases(model: nn.Module, parameters: Iterable[str] | None) -> dict[str, Tensor]:
    """Return the parameters as separate leaves; the selected ones require gradients."""
    named = dict(model.named_parameters())
    selected = {id(p) for p in named.values() if p.requires_grad}
    if parameters is not None:
        patterns = [parameters] if isinstance(parameters, str) else list(parameters)
        # a shared parameter can be given by any of its names
        by_all_names = dict(model.named_parameters(remove_duplicate=False))
        names = {name for pattern in patterns for name in _matching(pattern, by_all_names)}
        selected = {id(by_all_names[name]) for name in names}
    if not selected and parameters is not None:
        raise ValueError("parameters= is empty. Leave it out to use all trained parameters.")
    if not selected:
        raise ValueError(
            "No parameter of the network is trained (requires_grad is False for all). Name those "
            'to use, for example parameters=["head.**"].'
        )
    leaves = {INNER + name: _differentiable(p.detach()) for name, p in named.items()}
    for module in model.modules():
        if is_rescaled(module):
            name = next(n for n, p in named.items() if p is module.weight)  # it may be shared
            leaves[INNER + name] = leaves[INNER + name].clone()
    for name, p in named.items():
        leaves[INNER + name].requires_grad_(id(p) in selected)
    return leaves


def _matching(pattern: str, named: Mapping[str, Any]) -> list[str]:
    found = matching(pattern, named)
    if not found:
        raise ValueError(
            f"No parameter matches '{pattern}'.{deeper_advice(pattern, named)} The last parameters "
            f"of the network are {', '.join(list(named)[-5:])}; model.named_parameters() lists all."
        )
    return found


def number_of_samples(inputs: Any) -> int:
    """Return the number of rows of the first tensor in a nesting.

    Raises:
        ValueError: If there is no tensor or the first one has no rows.
    """
    first = next((x for x in tree_leaves(inputs) if isinstance(x, Tensor)), None)
    if first is None or first.ndim == 0 or len(first) == 0:
        raise ValueError(
            f"Inputs must contain a tensor with a row per sample, got {type(inputs).__name__}."
        )
    return len(first)


def _take(inputs: Any, samples: int, indices: Sequence[int]) -> Any:
    """Take some of the samples from each tensor with a row per sample, and clone other tensors."""

    def take(x: Any) -> Any:
        rows = isinstance(x, Tensor) and x.ndim > 0 and len(x) == samples
        if isinstance(x, Tensor):
            return x[list(indices)] if rows else x.clone()
        return x

    return tree_map(take, inputs)


def _require_evaluation(model: nn.Module) -> None:
    """Raise if a module that uses randomness or batch statistics is in training mode."""
    for name, module in model.named_modules():
        random = isinstance(module, _DROPOUTS) and module.p > 0
        if (random or is_batch_norm(module)) and module.training:
            raise ValueError(
                f"'{name}' ({type(module).__name__}) is in training mode, so the outputs of a "
                "sample are random or depend on the rest of its batch. Call model.eval()."
            )


def _require_whole(model: nn.Module) -> None:
    """Raise if parameters are sharded: their gradients would be those of parts."""
    if is_in_parts(model):
        raise ValueError(
            "Gradients cannot be compared where each process has only a part of the parameters "
            '(FSDP, tensor parallelism). Use LocalElasticity(parameters="last_layer"), or measure '
            "a checkpoint in one process."
        )


def _differentiable(x: Any) -> Any:
    """Return a widened tensor that autograd can save, which it cannot do with inference tensors."""
    if not isinstance(x, Tensor):
        return x
    return widened(x.clone() if x.is_inference() else x)


@contextmanager
def _new_tensors_of(dtype: torch.dtype) -> Iterator[None]:
    """Set the dtype of new tensors, which Lightning sets to half for half-precision networks."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        yield
    finally:
        torch.set_default_dtype(before)


def _require_independent(one: Tensor, two: Tensor, precision: float) -> None:
    """Raise unless a sample's outputs are the same alone, (1, C), and in a batch of two, (2, C)."""
    if not bool(two.isfinite().all()):
        raise ValueError(
            "The network's outputs are not finite (NaN or infinity). The network has diverged or "
            "overflows in its precision."
        )
    if len(one) != 1 or len(two) != 2:
        raise ValueError(
            f"The network returns {len(one)} rows of outputs for one sample and {len(two)} for "
            "two, but a sample has one row. Give inputs with a row for each sample, unlike texts "
            "in one row with their offsets, and of an ensemble whose members are stacked return "
            "one or their mean: Probe(..., forward=lambda module, inputs: ...)."
        )
    if not bool(((one - two[:1]).abs() <= precision * one.abs().max()).all()):
        raise ValueError(
            "The outputs of a sample depend on the rest of its batch or change from call to call, "
            "so it has no gradient of its own. Call model.eval(), and do not use batch statistics."
        )
