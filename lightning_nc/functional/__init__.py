"""Pure functions of features, class means, classifiers and networks; results are in float64.

Features, means and classifiers on a device without float64, as Apple's MPS, have to be moved to the
CPU before; results for networks on such a device are on the CPU.
"""

from lightning_nc.functional.class_distance import (
    class_distance_normalized_variance as class_distance_normalized_variance,
)
from lightning_nc.functional.class_geometry import ClassGeometry as ClassGeometry
from lightning_nc.functional.class_geometry import class_geometry as class_geometry
from lightning_nc.functional.class_moments import ClassMoments as ClassMoments
from lightning_nc.functional.class_moments import class_moments as class_moments
from lightning_nc.functional.class_moments import pool_moments as pool_moments
from lightning_nc.functional.cosines import group_cosine as group_cosine
from lightning_nc.functional.gradient_kernel import gradient_kernel as gradient_kernel
from lightning_nc.functional.gradient_kernel import last_layer_kernel as last_layer_kernel
from lightning_nc.functional.hyperspherical_uniformity import (
    hyperspherical_uniformity as hyperspherical_uniformity,
)
from lightning_nc.functional.hyperspherical_uniformity import uniform_duality as uniform_duality
from lightning_nc.functional.label_aware_kernel import fit_pair_features as fit_pair_features
from lightning_nc.functional.label_aware_kernel import label_aware_kernel as label_aware_kernel
from lightning_nc.functional.local_elasticity import ClassEffects as ClassEffects
from lightning_nc.functional.local_elasticity import class_effects as class_effects
from lightning_nc.functional.local_elasticity import (
    rectangular_relative_ratio as rectangular_relative_ratio,
)
from lightning_nc.functional.local_elasticity import relative_ratio as relative_ratio
from lightning_nc.functional.minority_collapse import classifier_energy as classifier_energy
from lightning_nc.functional.minority_collapse import imbalance_ratio as imbalance_ratio
from lightning_nc.functional.minority_collapse import minority_classes as minority_classes
from lightning_nc.functional.neural_collapse import (
    nearest_class_center_mismatch as nearest_class_center_mismatch,
)
from lightning_nc.functional.neural_collapse import self_duality as self_duality
from lightning_nc.functional.neural_collapse import variability_collapse as variability_collapse
from lightning_nc.functional.next_token_prediction import (
    prediction_residual as prediction_residual,
)
from lightning_nc.functional.norms_and_angles import equiangularity as equiangularity
from lightning_nc.functional.norms_and_angles import equinorm as equinorm
from lightning_nc.functional.norms_and_angles import maximal_angle as maximal_angle
from lightning_nc.functional.random_features import fit_random_features as fit_random_features
from lightning_nc.functional.separation import SeparationLaw as SeparationLaw
from lightning_nc.functional.separation import (
    class_separation_fuzziness as class_separation_fuzziness,
)
from lightning_nc.functional.separation import separation_ability as separation_ability
from lightning_nc.functional.separation import separation_fuzziness as separation_fuzziness
from lightning_nc.functional.separation import separation_law as separation_law
from lightning_nc.functional.separation import separation_sensitivity as separation_sensitivity
from lightning_nc.functional.simplex_etf import simplex_etf_error as simplex_etf_error
from lightning_nc.functional.simplex_plane import SimplexPlane as SimplexPlane
from lightning_nc.functional.simplex_plane import simplex_plane as simplex_plane
from lightning_nc.functional.simplex_symmetry import SimplexSymmetry as SimplexSymmetry
from lightning_nc.functional.simplex_symmetry import simplex_symmetry as simplex_symmetry
from lightning_nc.functional.step_similarity import kernelized_similarity as kernelized_similarity
from lightning_nc.functional.step_similarity import relative_similarity as relative_similarity
