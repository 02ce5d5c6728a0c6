"""What the papers predict: the simplex ETF, the Layer-Peeled Model and Minority Collapse."""

from lightning_nc.theory.layer_peeled import layer_peeled_model as layer_peeled_model
from lightning_nc.theory.minority import critical_imbalance as critical_imbalance
from lightning_nc.theory.peeled_solution import LayerPeeledSolution as LayerPeeledSolution
from lightning_nc.theory.simplex import simplex_etf as simplex_etf
