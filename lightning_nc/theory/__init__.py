"""What the papers predict, and models small enough to work out by hand.

The simplex ETF; the Layer-Peeled Model and Minority Collapse; clustering by local elasticity;
locally elastic stability, its generalisation bound and its differential equations; the neurashed
model; where outputs collapse (Jensen's inequality, the l^p ball, the simplex of bounded norms) and
where they do not (maximum margins of ReLU units, saturating units, convex hulls).
"""

from lightning_nc.theory.convex_hulls import linearly_separable as linearly_separable
from lightning_nc.theory.convex_hulls import share_in_hulls as share_in_hulls
from lightning_nc.theory.elastic_clustering import ElasticSimilarities as ElasticSimilarities
from lightning_nc.theory.elastic_clustering import clustering_accuracy as clustering_accuracy
from lightning_nc.theory.elastic_clustering import elastic_similarities as elastic_similarities
from lightning_nc.theory.elastic_clustering import kernel_clusters as kernel_clusters
from lightning_nc.theory.elastic_clustering import similarity_clusters as similarity_clusters
from lightning_nc.theory.generalization_bound import GeneralizationBounds as GeneralizationBounds
from lightning_nc.theory.generalization_bound import generalization_bounds as generalization_bounds
from lightning_nc.theory.jensen import class_mean_outputs as class_mean_outputs
from lightning_nc.theory.jensen import cross_entropy_risk as cross_entropy_risk
from lightning_nc.theory.layer_peeled import layer_peeled_model as layer_peeled_model
from lightning_nc.theory.locally_elastic_sde import locally_elastic_sde as locally_elastic_sde
from lightning_nc.theory.lp_ball import BallMinimizer as BallMinimizer
from lightning_nc.theory.lp_ball import lp_ball_minimizer as lp_ball_minimizer
from lightning_nc.theory.maximum_margin import (
    maximum_margin_classifier as maximum_margin_classifier,
)
from lightning_nc.theory.maximum_margin import maximum_margin_units as maximum_margin_units
from lightning_nc.theory.minority import critical_imbalance as critical_imbalance
from lightning_nc.theory.neurashed import Neurashed as Neurashed
from lightning_nc.theory.neurashed import expected_amplification as expected_amplification
from lightning_nc.theory.peeled_solution import LayerPeeledSolution as LayerPeeledSolution
from lightning_nc.theory.saturating_flow import output_gap as output_gap
from lightning_nc.theory.saturating_flow import output_gap_limit as output_gap_limit
from lightning_nc.theory.saturating_flow import saturating_flow as saturating_flow
from lightning_nc.theory.simplex import simplex_etf as simplex_etf
from lightning_nc.theory.simplex_minimizer import SimplexMinimizer as SimplexMinimizer
from lightning_nc.theory.simplex_minimizer import simplex_minimizer as simplex_minimizer
from lightning_nc.theory.stability import Stability as Stability
from lightning_nc.theory.stability import influence_stability as influence_stability
from lightning_nc.theory.stability import leave_one_out_stability as leave_one_out_stability
from lightning_nc.theory.stability import locally_elastic_stability as locally_elastic_stability
