"""The quantities of neural collapse, NC1 to NC4, one row each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import undefined_without_signal
from lightning_nc.functional.hyperspherical_uniformity import uniform_duality_of
from lightning_nc.functional.neural_collapse import self_duality_of, variability_collapse_of
from lightning_nc.functional.norms_and_angles import equinorm, undefined_without_angles
from lightning_nc.functional.simplex_etf import simplex_etf_error_of
from lightning_nc.measures.last_layer import LastLayer
from lightning_nc.measures.layer_collapse_quantities import mismatch_of
from lightning_nc.measures.quantity import Curve, Panel, Quantity

_NC1 = Panel(
    "NC1: samples collapse to class means",
    "Within-class variability relative to the distances between classes.",
    logarithmic=True,
    terminal=True,
)
_NC2 = Panel(
    "NC2: means and rows form a simplex",
    "Norms become equal, and angles equal and as wide as possible, for class means (solid) and "
    "classifier rows (dashed).",
    logarithmic=True,
    terminal=True,
)
_NC3 = Panel(
    "NC3: classifier and means agree",
    "Squared distance between classifier and class means, each a matrix scaled to norm 1.",
    logarithmic=True,
    terminal=True,
)
_NC4 = Panel(
    "NC4: the nearest class mean decides",
    "Share of samples that the classifier does not assign to the nearest class mean.",
    logarithmic=True,
    terminal=True,
)


def _of_means(value: Callable[[LastLayer], Any]) -> Callable[[LastLayer], Tensor]:
    """An NC2 quantity of the class means."""
    return lambda last: undefined_without_angles(value(last), last.features)


def _of_weights(value: Callable[[LastLayer, Tensor], Any]) -> Callable[[LastLayer], Any]:
    """An NC2 quantity of the classifier rows; NaN for one logit, whose two rows are opposite."""

    def of(last: LastLayer) -> Tensor | None:
        W = last.weight
        if W is None:
            return None
        one_logit = len(W) == 2 and torch.equal(W[0], -W[1])
        return W.new_tensor(torch.nan) if one_logit else value(last, W)

    return of


def _of_means_and_weights(
    formula: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[LastLayer], Any]:
    """A quantity of class means and rows; NaN if the head is not W h + b: rows differ in kind."""

    def of(last: LastLayer) -> Tensor | None:
        W = last.weight
        if W is None or not last.classifier.is_affine:
            return None if W is None else W.new_tensor(torch.nan)
        return undefined_without_signal(formula(last.centred_means, W), last.features.rank)

    return of


QUANTITIES = (
    Quantity(
        "nc1",
        "NC1",
        "NC1 variability",
        "Within-class variability, Tr(Sigma_W Sigma_B^+)/K: how far samples scatter about "
        "their class mean, relative to the distances between classes.",
        ideal="0",
        worry="If it stops falling, or rises, once the probe is fitted without error: "
        "labels may be noisy, or augmentation strong.",
        best="low",
        chart=Curve(_NC1, "NC1"),
        headline=True,
        function="functional.variability_collapse",
        of=lambda last: variability_collapse_of(last.features),
    ),
    Quantity(
        "nc2_equinorm_means",
        "NC2",
        "NC2 norms of means",
        "Standard deviation (divisor K-1) of the norms of the class means, divided by their mean: "
        "0 if all are equally far from their centre.",
        ideal="0",
        worry="If it stays high: some classes, often majority classes, take more room.",
        best="low",
        chart=Curve(_NC2, "norms: means", compared=False),
        function="functional.equinorm",
        of=_of_means(lambda last: equinorm(last.centred_means)),
    ),
    Quantity(
        "nc2_equinorm_weights",
        "NC2",
        "NC2 norms of rows",
        "Standard deviation (divisor K-1) of the norms of the classifier rows, divided by their "
        "mean.",
        ideal="0",
        worry="If it rises: the classifier increasingly favours some classes.",
        best="low",
        chart=Curve(_NC2, "norms: rows", dashed=True, compared=False),
        function="functional.equinorm",
        of=_of_weights(lambda last, W: equinorm(W)),
    ),
    Quantity(
        "nc2_equiangularity_means",
        "NC2",
        "NC2 angles of means",
        "Population standard deviation, over all pairs, of the cosines between class means: 0 if "
        "all pairs are equally far apart.",
        ideal="0",
        worry="If it stays high: some pairs of classes are closer to each other than the rest.",
        best="low",
        chart=Curve(_NC2, "angles: means", compared=False),
        function="functional.equiangularity",
        of=_of_means(lambda last: last.of_means.equiangularity),
    ),
    Quantity(
        "nc2_equiangularity_weights",
        "NC2",
        "NC2 angles of rows",
        "Population standard deviation, over all pairs, of the cosines between classifier rows.",
        ideal="0",
        worry="If it rises while the same quantity for class means falls.",
        best="low",
        chart=Curve(_NC2, "angles: rows", dashed=True, compared=False),
        function="functional.equiangularity",
        of=_of_weights(lambda last, W: last.of_rows.equiangularity),
    ),
    Quantity(
        "nc2_maximal_angle_means",
        "NC2",
        "NC2 widest angles of means",
        "Mean distance of the cosines between class means from -1/(K-1), the widest possible "
        "angle.",
        ideal="0",
        worry="If it stays high: the classes do not spread as far as they could.",
        best="low",
        chart=Curve(_NC2, "widest: means", compared=False),
        function="functional.maximal_angle",
        of=_of_means(lambda last: last.of_means.maximal_angle),
    ),
    Quantity(
        "nc2_maximal_angle_weights",
        "NC2",
        "NC2 widest angles of rows",
        "Mean distance of the cosines between classifier rows from -1/(K-1).",
        ideal="0",
        worry="If it stays high while the same quantity for class means falls.",
        best="low",
        chart=Curve(_NC2, "widest: rows", dashed=True, compared=False),
        function="functional.maximal_angle",
        of=_of_weights(lambda last, W: last.of_rows.maximal_angle),
    ),
    Quantity(
        "nc2_etf_error",
        "NC2",
        "NC2 simplex error",
        "Distance of the class means from a simplex, in norms and angles together.",
        ideal="0",
        worry="If it stops falling, or rises, once the probe is fitted without error: "
        "classes are imbalanced, or there are more of them than dimensions + 1.",
        caveat="At most sqrt(2 - 2/sqrt(K-1)), 1.15 for ten classes.",
        best="low",
        chart=Curve(_NC2, "simplex error"),
        headline=True,
        function="functional.simplex_etf_error",
        of=_of_means(lambda last: simplex_etf_error_of(last.centred_means)),
    ),
    Quantity(
        "nc3",
        "NC3",
        "NC3 self-duality",
        "Squared distance between classifier and class means, each a matrix scaled to norm 1.",
        ideal="0",
        worry="If it stays high or grows: classifier and features disagree on where the "
        "classes are; the head may have a different weight decay.",
        best="low",
        chart=Curve(_NC3, "NC3"),
        headline=True,
        function="functional.self_duality",
        of=_of_means_and_weights(self_duality_of),
    ),
    Quantity(
        "nc4",
        "NC4",
        "NC4 nearest centre",
        "Share of samples that the classifier does not assign to the nearest class mean.",
        ideal="0",
        worry="If it stays above 0 although the classifier makes no error.",
        best="low",
        chart=Curve(_NC4, "NC4"),
        headline=True,
        function="functional.nearest_class_center_mismatch",
        of=lambda last: mismatch_of(last.classifier.mismatch, last.features),
    ),
    Quantity(
        "gnc2",
        "GNC2",
        "GNC2 uniformity",
        "Population standard deviation, over all pairs, of the logarithms of the distances between "
        "class means, scaled to norm 1: 0 for a simplex, small if the means are spread evenly, "
        "even if classes outnumber dimensions.",
        ideal="0",
        worry="If it stays high: some classes are much closer in direction than others.",
        best="low",
        chart=Curve(_NC2, "uniformity", compared=False),
        function="functional.hyperspherical_uniformity",
        of=_of_means(lambda last: last.of_means.uniformity),
    ),
    Quantity(
        "unc3",
        "UNC3",
        "UNC3 uniform duality",
        "Population standard deviation, over classes, of the cosine between classifier row and "
        "class mean.",
        ideal="0",
        worry="If it stays high: rows and means agree for some classes, often frequent ones, and "
        "not for others.",
        best="low",
        chart=Curve(_NC3, "UNC3", compared=False),
        function="functional.uniform_duality",
        of=_of_means_and_weights(uniform_duality_of),
    ),
    Quantity(
        "accuracy",
        "",
        "Accuracy on the probe",
        "Share of the probe's samples that the classifier gets right.",
        ideal="1",
        worry="If it never reaches 1 on training data: the terminal phase, in which collapse is "
        "expected, has not begun.",
        best="high",
        chart=Curve(
            Panel("Accuracy on the probe", "Accuracy of the classifier.", terminal=True), "accuracy"
        ),
        headline=True,
        of=lambda last: last.classifier.accuracy,
    ),
    Quantity(
        "cdnv",
        "CDNV",
        "CDNV",
        "Class-distance normalised variance: variance within two classes divided by the squared "
        "distance between their means, averaged over all pairs.",
        ideal="0",
        worry="If it is large on new data while it falls on training data: only the training "
        "set collapses.",
        best="low",
        chart=Curve(_NC1, "CDNV", compared=False),
        function="functional.class_distance_normalized_variance",
        of=lambda last: undefined_without_signal(last.of_means.cdnv, last.features.rank),
    ),
)
