"""The last layer, as the rows of neural collapse see it."""

from functools import cached_property

from torch import Tensor

from lightning_nc.functional.cosines import centred
from lightning_nc.functional.pair_quantities import PairQuantities, pair_quantities
from lightning_nc.measures.many_classes import BINS, FEW
from lightning_nc.passes.request import ClassifierGeometry


class LastLayer:
    """The last-layer features and the classifier. All pairs of classes are compared once.

    Args:
        classifier: What a pass has found.

    Attributes:
        classifier: The same.
        features: The geometry of the features.
        weight: Rows of the classifier, shape ``(K, d)``; None without a head.
    """

    def __init__(self, classifier: ClassifierGeometry) -> None:
        self.classifier, self.features = classifier, classifier.features
        self.weight = classifier.weight
        # figures show the cosines of each pair of a few classes
        self._bins = BINS if len(classifier.features.means) > FEW else None

    @cached_property
    def centred_means(self) -> Tensor:
        """The rows ``mu_k - mu_G``, shape ``(K, d)``."""
        return centred(self.features.means)

    @cached_property
    def of_means(self) -> PairQuantities:
        """What pairs of centred class means have in common."""
        return pair_quantities(self.centred_means, self.features, self._bins)

    @cached_property
    def of_rows(self) -> PairQuantities:
        """What pairs of classifier rows have in common, if there is a head."""
        assert self.weight is not None
        return pair_quantities(self.weight, bins=self._bins)
