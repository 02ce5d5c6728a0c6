"""Measures: what is measured and what it means, without a Trainer or a logger."""

from lightning_nc.measures.equi_separation import SeparationMeasure as SeparationMeasure
from lightning_nc.measures.local_elasticity import ElasticityMeasure as ElasticityMeasure
from lightning_nc.measures.measure import Evaluation as Evaluation
from lightning_nc.measures.measure import Measure as Measure
from lightning_nc.measures.measure_network import measure as measure
from lightning_nc.measures.measurement import Measurement as Measurement
from lightning_nc.measures.minority_collapse import MinorityMeasure as MinorityMeasure
from lightning_nc.measures.neural_collapse import CollapseMeasure as CollapseMeasure
from lightning_nc.measures.next_token_law import NextTokenMeasure as NextTokenMeasure
from lightning_nc.measures.quantity import Curve as Curve
from lightning_nc.measures.quantity import Panel as Panel
from lightning_nc.measures.quantity import Quantity as Quantity
from lightning_nc.measures.timeline import Timeline as Timeline

MEASURES = (
    SeparationMeasure,
    CollapseMeasure,
    MinorityMeasure,
    ElasticityMeasure,
    NextTokenMeasure,
)
