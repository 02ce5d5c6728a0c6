"""One run of a module within a forward pass, and what it tells of the module."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_nc.guards.parameters import attribute
from lightning_nc.network.head import own_matrix
from lightning_nc.network.nesting import tensors_in
from lightning_nc.network.pooling import main_tensor


class ModuleRun(NamedTuple):
    """One run of one module within a forward pass.

    What its weights tell is noted as it runs: FSDP1 has them whole at no other time.

    Attributes:
        name: Clean name of the module.
        number: Which run of its module it is within the pass, counted from 0.
        module: The module itself.
        nodes: Autograd nodes of its output tensors.
        main: Autograd node of the main one; None without one.
        source: Autograd node of its first input tensor; None without one.
        features: Size of the last axis of its first input tensor; None without one.
        rows: Rows of its weight matrix; None without one.
        shape: Shape of its main output tensor; None without one.
        input_shape: Shape of its first input tensor; None without one.
        matrices: Number of matrices among its own parameters.
        several_positions: Whether its weight is a kernel over several positions, such as 3 x 3, but
            not over all: then it is a linear layer on the flattened map.
        whole_map: Whether its weight is a kernel over all positions.
        channels: Channels of the last weighted layer that ran, and whether they are on its last
            axis; None before the first one.
    """

    name: str
    number: int
    module: nn.Module
    nodes: list[Any]
    main: Any
    source: Any
    features: int | None
    rows: int | None
    shape: tuple[int, ...] | None
    input_shape: tuple[int, ...] | None
    matrices: int
    several_positions: bool
    whole_map: bool
    channels: tuple[int, bool] | None

    @property
    def key(self) -> tuple[str, int]:
        """Name of the module and number of the run, which no other run of the pass has."""
        return self.name, self.number


def run_of(
    name: str,
    number: int,
    module: nn.Module,
    inputs: Any,
    output: Any,
    channels: tuple[int, bool] | None,
) -> ModuleRun:
    """Return a run as it has ended; the channels are those of the run before."""
    first, main = next(tensors_in(inputs), None), main_tensor(output)
    shape = tuple(main.shape) if isinstance(main, Tensor) else None
    features = first.shape[-1] if first is not None and first.ndim else None
    input_shape = None if first is None else tuple(first.shape)
    several = _is_of_several_positions(module, input_shape)
    whole = several and _is_of_all_positions(module, input_shape, shape)
    return ModuleRun(
        name,
        number,
        module,
        nodes=[tensor.grad_fn for tensor in tensors_in(output) if tensor.grad_fn is not None],
        main=getattr(main, "grad_fn", None),
        source=None if first is None else first.grad_fn,
        features=features,
        rows=_weight_rows(module, features, shape),
        shape=shape,
        input_shape=input_shape,
        matrices=sum(p.ndim > 1 for p in module.parameters(recurse=False)),
        several_positions=several and not whole,
        whole_map=whole,
        channels=_channels(module) or channels,
    )


def _weight_rows(
    module: nn.Module, features: int | None, shape: tuple[int, ...] | None
) -> int | None:
    """Rows of a module's weight matrix, also of one that is packed, such as a quantised one."""
    if isinstance(module, nn.Embedding):
        return None
    weight, declared = attribute(module, "weight"), attribute(module, "out_features")
    own: int | None = None
    if isinstance(weight, Tensor) and weight.ndim >= 2:
        # a matrix for the loss, for example, may be of features that come later
        of_input = weight.ndim > 2 or features is None or features in weight.shape
        own = weight.shape[0] if of_input else None
        if shape and weight.shape == (features, shape[-1]):
            own = shape[-1]  # of a module that computes h W
    if isinstance(declared, int) and own != declared and shape and shape[-1] == declared:
        return declared
    if own is None and shape and own_matrix(module, features, shape[-1]) is not None:
        return shape[-1]
    return own


def _is_of_several_positions(module: nn.Module, input_shape: tuple[int, ...] | None) -> bool:
    weight = attribute(module, "weight")
    if not isinstance(weight, Tensor) or weight.ndim < 3 or input_shape is None:
        return False
    return weight.shape[1:].numel() != input_shape[1]


def _is_of_all_positions(
    module: nn.Module, input_shape: tuple[int, ...] | None, shape: tuple[int, ...] | None
) -> bool:
    """Whether a kernel is as large as the map that it is of, and gives one position."""
    weight = attribute(module, "weight")
    covers = input_shape is not None and weight.shape[1:] == input_shape[1:]
    return covers and shape is not None and all(size == 1 for size in shape[2:])


def _channels(module: nn.Module) -> tuple[int, bool] | None:
    """Channels of a weighted layer, and whether they are on the last axis of its output."""
    if isinstance(module, nn.RNNBase):
        return module.hidden_size * (2 if module.bidirectional else 1), True
    for name in ("out_channels", "num_features", "num_channels"):  # convolutions and their norms
        if isinstance(number := attribute(module, name), int):
            return number, False
    for name in ("out_features", "embedding_dim", "embed_dim"):
        if isinstance(number := attribute(module, name), int):
            return number, True
    size = attribute(module, "normalized_shape")
    return (size[-1], True) if isinstance(size, tuple) else None
