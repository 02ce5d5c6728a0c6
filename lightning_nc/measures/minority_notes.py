"""Notes on quantities of minority collapse that are undefined, or not logged at all."""

import math
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from lightning_nc.functional.input_checks import all_finite
from lightning_nc.functional.minority_collapse import minority_classes
from lightning_nc.measures.minority_collapse_quantities import QUANTITIES, Minority
from lightning_nc.measures.notes import OUTPUTS_NAN, ROWS_NOT_FINITE, are, undefined_notes

_PREDICTED = ("predicted_cos", "critical_ratio")
NO_MINORITY = (
    "the largest class has less than 1.5 times as many training samples as the smallest, so there "
    "are no minority classes"
)
_BY_CHANCE = (
    "training draws its samples at random, and no class falls behind the largest by more than "
    "chance explains, so there are no minority classes"
)
_OF_COUNTS = ("imbalance_ratio", *_PREDICTED)
_OF_FEATURES = ("energy_features", "energy_features_centered")


def minority_notes(
    values: Mapping[str, float],
    found: Minority,
    labels: Tensor,
    why_unknown: str,
    theory: bool,
) -> dict[str, str]:
    """Why values are NaN or missing, by topic.

    Args:
        values: Values by name of the quantity.
        found: What they were computed from.
        labels: Labels of the K classes, shape ``(K,)``.
        why_unknown: Why class counts stay unknown; empty if they are known, or may become known.
        theory: Whether the prediction of the layer-peeled model was requested.
    """
    notes = {}
    if why_unknown:
        notes["counts"] = counts_note(values, why_unknown)
    elif found.n is not None and len(found.B) == 0:
        logged = (*values, *(() if theory else _PREDICTED))
        absent = [row.name for row in QUANTITIES if row.name not in logged]
        why = _BY_CHANCE if bool(minority_classes(found.n).any()) else NO_MINORITY
        notes["no minority"] = (
            f"{are(absent, 'not logged')}: {why}; to compare classes all the same, name "
            "them with minority=[...]."
        )
    # R may be infinite, without minority samples, and energies, as squares of large numbers
    others = {
        name: value
        for name, value in values.items()
        if name not in _OF_COUNTS and not ("energy" in name and math.isinf(value))
    }
    return notes | undefined_notes(others, _causes(values, found, labels))


def counts_note(values: Mapping[str, float], why: str) -> str:
    """Say which values are NaN or missing since class counts are unknown, and why these are."""
    undefined = [name for name in _OF_COUNTS if math.isnan(values.get(name, 0))]
    missing = (
        are(undefined, "undefined (NaN)")
        if undefined
        else "imbalance_ratio and all that needs minority classes are not logged"
    )
    return f"{missing}: {why}; give class_counts=[...]."


def _causes(
    values: Mapping[str, float], found: Minority, labels: Tensor
) -> Iterator[tuple[str, Callable[[str], bool]]]:
    """Why cosines, norms and accuracies are undefined, and which."""
    if math.isnan(values.get("minority_accuracy", 1)):  # a share of samples that there are
        yield OUTPUTS_NAN, lambda name: name == "minority_accuracy"
    if not all_finite(found.W):
        yield ROWS_NOT_FINITE, lambda name: name not in ("cos_means", *_OF_FEATURES)
    alone = [
        (f"class {int(labels[int(group)])} alone is the {kind}", cosines)
        for kind, group, cosines in (
            ("minority", found.B, {"cos_weights", "cos_means"}),
            ("majority", found.A, {"cos_majority_weights"}),
        )
        if len(group) == 1 and len(found.B)
    ]
    if alone:
        words, cosines = zip(*alone, strict=True)
        why = f"{' and '.join(words)}, so there is no pair of such classes"
        yield why, set().union(*cosines).__contains__
    yield "a classifier row or a centred class mean is zero", lambda name: True
