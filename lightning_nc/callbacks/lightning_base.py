"""One base class for both import names of Lightning, whose class trees are separate."""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Callback as CallbackBase
else:
    from lightning_utilities.core import rank_zero

    def _callback_classes() -> tuple[type[Any], ...]:
        """Return the `Callback` class of every installed Lightning."""
        # the package imported last takes over the log that both share; restore it
        imported_before = {"lightning.pytorch", "pytorch_lightning"} & set(sys.modules)
        shared_log = rank_zero.log
        found = []
        for package, module in (
            ("lightning", "lightning.pytorch"),
            ("pytorch_lightning", "pytorch_lightning"),
        ):
            if importlib.util.find_spec(package) is not None:
                found.append(importlib.import_module(module).Callback)
        if imported_before:
            rank_zero.log = shared_log
        return tuple(dict.fromkeys(found))

    CallbackBase = type("CallbackBase", _callback_classes(), {})

__all__ = ["CallbackBase"]
