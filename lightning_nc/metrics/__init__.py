"""State that survives batches and processes, as torchmetrics."""

from lightning_nc.metrics.pooled import NeuralCollapse as NeuralCollapse
from lightning_nc.metrics.pooled import SeparationFuzziness as SeparationFuzziness
from lightning_nc.metrics.sweep import SweepState as SweepState
