"""What dashboards show together, and against what."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lightning_nc.loggers.kinds import is_a, key_of

# charts of a family of keys, by title: each a list of regular expressions, {p} being the probe
_CHARTS = {
    "separation": {
        "law of equi-separation: rho, pearson_r": ["separation/{p}/(rho|pearson_r)"],
        "D of layers": ["separation_layers/{p}/.*"],
    },
    "nc": {
        "NC1": ["nc/{p}/nc1"],
        "NC2": ["nc/{p}/nc2_.*"],
        "NC3": ["nc/{p}/nc3"],
        "NC4": ["nc/{p}/nc4"],
    },
    "minority": {
        "minority cosine, predicted": ["minority/{p}/cos_weights", "minority/{p}/predicted_cos"],
    },
    "elasticity": {
        "elasticity within and between classes": ["elasticity/{p}/intra", "elasticity/{p}/inter"],
        "relative ratio": ["elasticity/{p}/relative_ratio"],
    },
}


def arrange_panels(
    logger: Any, probes: Iterable[tuple[str, str]], values: Mapping[str, float]
) -> None:
    """Tell a dashboard how to show what is logged; what a logger was told it is not told again.

    TensorBoard gets charts under "Custom Scalars" for all that the run measures, W&B the epochs
    completed as horizontal axis of the values; call it before they are logged.

    Args:
        logger: Any of Lightning's; those without such a dashboard get nothing.
        probes: The families of keys and the probes of the run.
        values: What is about to be logged, with ``{family}/{probe}/epochs_completed``.
    """
    if is_a(logger, "TensorBoardLogger") and hasattr(logger.experiment, "add_custom_scalars"):
        told, new = _tell(logger, [each for each in probes if each[0] in _CHARTS])
        if new:
            logger.experiment.add_custom_scalars(_layout(logger, told))
    elif is_a(logger, "WandbLogger") and hasattr(logger.experiment, "define_metric"):
        for axis in [key for key in values if key.endswith("/epochs_completed")]:
            family, probe = axis.removesuffix("/epochs_completed").split("/", 1)
            starts = f"{family}/{probe}/", f"{family}_layers/{probe}/"
            over_it = [key for key in values if key != axis and key.startswith(starts)]
            _, new = _tell(logger, [axis, *over_it])
            _define_axis(logger, axis, new)


def _tell(logger: Any, topics: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """All that this logger was told, and what of it is new; it lives as long as its run."""
    told = vars(logger).setdefault("_lightning_nc_panels", [])
    new = [topic for topic in topics if topic not in told]
    told.extend(new)
    return told, new


def _layout(logger: Any, probes: Iterable[tuple[str, str]]) -> dict[str, dict[str, list[Any]]]:
    """Charts by family and title, as TensorBoard's writers take them."""
    layout: dict[str, dict[str, list[Any]]] = {}
    for family, probe in probes:
        for title, patterns in _CHARTS[family].items():
            # TensorBoard looks for a pattern at the beginning of a key, whatever follows
            start, name = re.escape(key_of(logger, "")), re.escape(probe)
            keys = [start + pattern.replace("{p}", name) + "$" for pattern in patterns]
            layout.setdefault(family, {})[f"{title} ({probe})"] = ["Multiline", keys]
    return layout


def _define_axis(logger: Any, axis: str, keys: Iterable[str]) -> None:
    """Show keys over another; by their full names, which go before the "*" of Lightning's."""
    for key in keys:
        over = {} if key == axis else {"step_metric": key_of(logger, axis), "step_sync": False}
        logger.experiment.define_metric(key_of(logger, key), **over)
