"""Separation fuzziness and neural collapse as torchmetrics."""

from lightning_nc.metrics.pooled import NeuralCollapse as NeuralCollapse
from lightning_nc.metrics.pooled import SeparationFuzziness as SeparationFuzziness
