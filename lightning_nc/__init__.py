"""The geometry a classifier learns, as drop-in callbacks for PyTorch Lightning.

Callbacks: `EquiSeparation`, `NeuralCollapse`, `MinorityCollapse`, `LocalElasticity`.
Without a Trainer: `measure`.
The formulas are in `lightning_nc.functional`, torchmetrics in `lightning_nc.metrics`.
"""

from importlib.metadata import version

from lightning_nc.callbacks import EquiSeparation as EquiSeparation
from lightning_nc.callbacks import GeometrySummary as GeometrySummary
from lightning_nc.callbacks import LocalElasticity as LocalElasticity
from lightning_nc.callbacks import Measurement as Measurement
from lightning_nc.callbacks import MinorityCollapse as MinorityCollapse
from lightning_nc.callbacks import NeuralCollapse as NeuralCollapse
from lightning_nc.callbacks import measure as measure
from lightning_nc.probe import Probe as Probe
from lightning_nc.probe import find_blocks as find_blocks
from lightning_nc.probe import first_token as first_token
from lightning_nc.probe import last_token as last_token
from lightning_nc.probe import masked_mean as masked_mean

__version__ = version("lightning-neural-collapse")
