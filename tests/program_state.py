"""What a program may have set up, and what importing a package must therefore leave alone."""

import importlib
import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings


def program_state():
    """All settings of this process by name, as values that can be compared and shown."""
    import matplotlib
    import numpy as np
    import torch
    from lightning_utilities.core import rank_zero

    loggers = {
        f"logger {name}": (
            logger.level,
            [(type(handler).__name__, id(handler), handler.level) for handler in logger.handlers],
            list(map(str, logger.filters)),
            logger.propagate,
            logger.disabled,
        )
        for name, logger in [("root", logging.root), *logging.Logger.manager.loggerDict.items()]
        if isinstance(logger, logging.Logger)
    }
    states = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
    return loggers | {
        "log shared by all of Lightning": rank_zero.log.name,
        "logging off up to": logging.root.manager.disable,
        "warning filters": str(warnings.filters),
        "how warnings are shown": (warnings.showwarning, warnings.formatwarning),
        "default dtype": torch.get_default_dtype(),
        "generators": [hash(str(state)) for state in states],
        "signal handlers": {s.name: str(signal.getsignal(s)) for s in signal.Signals},
        "environment": dict(os.environ),
        "exception hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "ways to import": (list(sys.path), list(sys.meta_path), list(sys.path_hooks)),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        # not its own `items`, which would choose a backend
        "matplotlib": list(map(str, dict.items(matplotlib.rcParams))),
        "processes": (
            multiprocessing.get_start_method(allow_none=True),
            torch.multiprocessing.get_sharing_strategy(),
        ),
        "NumPy": (np.geterr(), np.get_printoptions()),
        "torch": (
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
        ),
        "place": (os.getcwd(), locale.setlocale(locale.LC_ALL)),
    }


def changes(before, after):
    """What differs, by name."""
    return {
        name: (str(before.get(name)), str(after.get(name)))
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }


def load_everything():
    """Import all public names of the package, and make callbacks."""
    import lightning_nc

    for name in ("functional", "metrics", "theory", "report"):
        importlib.import_module(f"lightning_nc.{name}")
    for name in lightning_nc.__all__:
        getattr(lightning_nc, name)
    return [*lightning_nc.callbacks_for(), lightning_nc.GeometrySummary()]
