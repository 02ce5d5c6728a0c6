"""What Lightning asks for callbacks whenever a Trainer is made, in any program.

Programs that do not want our callbacks are not to pay for them: nothing of the package is loaded
before the environment variable says so.
"""

import os
import warnings
from typing import Any

VARIABLE = "LIGHTNING_NC_CALLBACKS"


def callbacks() -> list[Any]:
    """Callbacks of the YAML file that the environment variable names; none without it.

    It never raises: what it raised would stop every Trainer of the environment.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return []
    try:
        from lightning_nc.callbacks.from_file import CallbacksOfFile

        return [CallbacksOfFile(path, VARIABLE)]
    except Exception as error:
        warnings.warn(
            f"{VARIABLE} names {path!r}, but lightning_nc cannot be imported, and nothing is "
            f"measured: {error!r}. Install it again, or unset the variable.",
            RuntimeWarning,
            stacklevel=2,
        )
        return []
