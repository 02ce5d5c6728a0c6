"""What a network that returns several tensors answers: its logits, rather than its features."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_nc.network.nesting import parts_of, plain
from lightning_nc.network.pooling import main_tensor


def answer_of(returned: Any, columns: int) -> Any:
    """Of what a network returns, the tensor with a column for each logit.

    That is the main tensor if it has these columns, or if nothing else has, so that it is the
    logits of ``(features, logits)``.

    Args:
        returned: What the network returned.
        columns: The number of logits.

    Example:
        >>> import torch
        >>> features, logits = torch.zeros(5, 8), torch.ones(5, 3)
        >>> answer_of((features, logits), 3) is logits
        True
    """
    main = main_tensor(returned)
    if not isinstance(main, Tensor) or main.ndim < 2 or has_columns(main.shape, columns):
        return main
    fits = (part for part in beside(returned, main).values() if has_columns(part.shape, columns))
    return next(fits, main)


def has_columns(shape: tuple[int, ...], columns: int) -> bool:
    """Whether an output has these columns or channels, or one in place of two.

    Example:
        >>> has_columns((5, 3), 3), has_columns((5, 3, 7, 7), 3), has_columns((5, 1), 2)
        (True, True, True)
    """
    of_each = len(shape) > 1 and columns in (shape[-1], shape[1])
    return of_each or (columns == 2 and shape[1:] == (1,))


def beside(returned: Any, main: Tensor) -> dict[str, Tensor]:
    """What a network returns beside the main tensor, by the code that takes it.

    That is code such as ``["auxiliary"]`` or ``[1]``; empty where one is called the logits.
    """
    parts = parts_of(returned)
    if "logits" in parts:
        return {}
    items = isinstance(returned, Mapping | tuple | list)
    return {
        (f'["{key}"]' if isinstance(key, str) else f"[{key}]") if items else f".{key}": plain(part)
        for key, part in parts.items()
        if isinstance(part, Tensor)
        and part.is_floating_point()
        and part.data_ptr() != main.data_ptr()
    }
