"""Callbacks that measure the geometry of a network while it trains."""

from lightning_nc.callbacks.all_families import callbacks_for as callbacks_for
from lightning_nc.callbacks.checkpoints import measure_checkpoints as measure_checkpoints
from lightning_nc.callbacks.equi_separation import EquiSeparation as EquiSeparation
from lightning_nc.callbacks.local_elasticity import LocalElasticity as LocalElasticity
from lightning_nc.callbacks.measure_callback import MeasureCallback as MeasureCallback
from lightning_nc.callbacks.minority_collapse import MinorityCollapse as MinorityCollapse
from lightning_nc.callbacks.neural_collapse import NeuralCollapse as NeuralCollapse
from lightning_nc.callbacks.next_token_law import NextTokenLaw as NextTokenLaw
from lightning_nc.callbacks.summary import GeometrySummary as GeometrySummary
