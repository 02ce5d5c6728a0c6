"""What the papers predict, and models small enough to work out by hand.

The simplex ETF; the Layer-Peeled Model and Minority Collapse; clustering by local elasticity;
locally elastic stability; the neurashed model.
"""

from lightning_nc.theory.elastic_clustering import ElasticSimilarities as ElasticSimilarities
from lightning_nc.theory.elastic_clustering import clustering_accuracy as clustering_accuracy
from lightning_nc.theory.elastic_clustering import elastic_similarities as elastic_similarities
from lightning_nc.theory.elastic_clustering import kernel_clusters as kernel_clusters
from lightning_nc.theory.elastic_clustering import similarity_clusters as similarity_clusters
from lightning_nc.theory.layer_peeled import layer_peeled_model as layer_peeled_model
from lightning_nc.theory.minority import critical_imbalance as critical_imbalance
from lightning_nc.theory.neurashed import Neurashed as Neurashed
from lightning_nc.theory.neurashed import expected_amplification as expected_amplification
from lightning_nc.theory.peeled_solution import LayerPeeledSolution as LayerPeeledSolution
from lightning_nc.theory.simplex import simplex_etf as simplex_etf
from lightning_nc.theory.stability import Stability as Stability
from lightning_nc.theory.stability import influence_stability as influence_stability
from lightning_nc.theory.stability import leave_one_out_stability as leave_one_out_stability
from lightning_nc.theory.stability import locally_elastic_stability as locally_elastic_stability
