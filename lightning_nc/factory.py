"""The entry point that Lightning asks for callbacks whenever any program creates a Trainer.

Programs that do not use our callbacks must not pay for them: nothing else of the package is
imported unless the environment variable is set.
"""

import os
import warnings
from typing import Any

VARIABLE = "LIGHTNING_NC_CALLBACKS"


def callbacks() -> list[Any]:
    """Return a callback that adds those of the YAML file the variable names; none if it is unset.

    It never raises: an error here would stop every Trainer in the environment.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return []
    try:
        from lightning_nc.callbacks.from_file import CallbacksOfFile

        return [CallbacksOfFile(path, VARIABLE)]
    except Exception as error:
        warnings.warn(
            f"{VARIABLE} names {path!r}, but lightning_nc cannot be imported, so nothing is "
            f"measured: {error!r}. Reinstall it, or unset the variable.",
            RuntimeWarning,
            stacklevel=2,
        )
        return []
