"""One base class for both import styles of Lightning, which are two class trees."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Callback as CallbackBase
else:

    def _callback_classes() -> tuple[type[Any], ...]:
        """`Callback` of every installed Lightning."""
        found = []
        for package, module in (
            ("lightning", "lightning.pytorch"),
            ("pytorch_lightning", "pytorch_lightning"),
        ):
            if importlib.util.find_spec(package) is not None:
                found.append(importlib.import_module(module).Callback)
        return tuple(dict.fromkeys(found))

    CallbackBase = type("CallbackBase", _callback_classes(), {})

__all__ = ["CallbackBase"]
