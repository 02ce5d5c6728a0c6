"""Drop-in callbacks for PyTorch Lightning that measure the geometry a classifier learns.

Callbacks: `EquiSeparation`, `NeuralCollapse`, `MinorityCollapse`, `LocalElasticity`; `NextTokenLaw`
for language models. All but the last in one line: `callbacks_for`. Before training: `check`.
Without a Trainer: `measure`, and `measure_checkpoints` of a finished run.
For measures of your own: `Measure`, `Quantity`, `MeasureCallback`.
The formulas are in `lightning_nc.functional`, metrics for torchmetrics in `lightning_nc.metrics`.

Names are imported on first use, so that `lightning_nc.functional` can be imported without
Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_nc.callbacks import EquiSeparation as EquiSeparation
    from lightning_nc.callbacks import GeometrySummary as GeometrySummary
    from lightning_nc.callbacks import LocalElasticity as LocalElasticity
    from lightning_nc.callbacks import MeasureCallback as MeasureCallback
    from lightning_nc.callbacks import MinorityCollapse as MinorityCollapse
    from lightning_nc.callbacks import NeuralCollapse as NeuralCollapse
    from lightning_nc.callbacks import NextTokenLaw as NextTokenLaw
    from lightning_nc.callbacks import callbacks_for as callbacks_for
    from lightning_nc.callbacks import measure_checkpoints as measure_checkpoints
    from lightning_nc.checking import check as check
    from lightning_nc.measures import Curve as Curve
    from lightning_nc.measures import Evaluation as Evaluation
    from lightning_nc.measures import Measure as Measure
    from lightning_nc.measures import Measurement as Measurement
    from lightning_nc.measures import Panel as Panel
    from lightning_nc.measures import Quantity as Quantity
    from lightning_nc.measures import measure as measure
    from lightning_nc.network.blocks import find_blocks as find_blocks
    from lightning_nc.network.pooling import first_token as first_token
    from lightning_nc.network.pooling import last_token as last_token
    from lightning_nc.network.pooling import masked_mean as masked_mean
    from lightning_nc.network.pooling import spatial_mean as spatial_mean
    from lightning_nc.network.positions import next_token as next_token
    from lightning_nc.passes.gradient_pass import GradientPass as GradientPass
    from lightning_nc.passes.probe import Probe as Probe
    from lightning_nc.passes.request import Answer as Answer
    from lightning_nc.passes.request import KernelRequest as KernelRequest
    from lightning_nc.passes.request import Request as Request
    from lightning_nc.passes.statistics import Statistic as Statistic

    __version__: str

_HOMES = {
    "callbacks": (
        "EquiSeparation",
        "GeometrySummary",
        "LocalElasticity",
        "MeasureCallback",
        "MinorityCollapse",
        "NeuralCollapse",
        "NextTokenLaw",
        "callbacks_for",
        "measure_checkpoints",
    ),
    "checking": ("check",),
    "measures": (
        "Curve",
        "Evaluation",
        "Measure",
        "Measurement",
        "Panel",
        "Quantity",
        "measure",
    ),
    "network.blocks": ("find_blocks",),
    "network.pooling": ("first_token", "last_token", "masked_mean", "spatial_mean"),
    "network.positions": ("next_token",),
    "passes.gradient_pass": ("GradientPass",),
    "passes.probe": ("Probe",),
    "passes.request": ("Answer", "KernelRequest", "Request"),
    "passes.statistics": ("Statistic",),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import a public name on first use."""
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                return version("lightning-neural-collapse")
            except PackageNotFoundError:  # a checkout that is not installed
                return "0+unknown"
        for home, names in _HOMES.items():
            if name in names:
                found = getattr(import_module(f"lightning_nc.{home}"), name)
                if home == "callbacks":
                    from lightning_nc.callbacks.lightning_base import follow_imports

                    follow_imports()
                return found
        raise AttributeError(f"module 'lightning_nc' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__, "__version__"})
