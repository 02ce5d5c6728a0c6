"""Tell dashboards which quantities to show together, and over which axis."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lightning_nc.loggers.kinds import is_a, key_of

Charts = Mapping[str, Mapping[str, list[str]]]  # regular expressions of keys, by category and title


def bookkeeping_last(
    logger: Any, values: Mapping[str, float], book: Collection[str], group: str
) -> Mapping[str, float]:
    """Return values under the keys that a logger gets.

    TensorBoard groups charts by the first part of their keys, in alphabetical order. There,
    bookkeeping gets a group of its own, so that the quantities come first.

    Args:
        logger: Any of Lightning's loggers.
        values: Values by key.
        book: The keys of bookkeeping.
        group: How they start in TensorBoard.
    """
    if not is_a(logger, "TensorBoardLogger"):
        return values
    return {group + key if key in book else key: value for key, value in values.items()}


def arrange_panels(logger: Any, charts: Charts, values: Mapping[str, float]) -> None:
    """Tell a dashboard how to show the logged values, once for each chart and key.

    TensorBoard gets charts under "Custom Scalars", each with the first values that it shows. W&B
    gets the epochs completed as the horizontal axis of the values. Call it before the values are
    logged.

    Args:
        logger: Any of Lightning's loggers; those without such a dashboard are left alone.
        charts: All charts of the run.
        values: The values to be logged, including ``{family}/{probe}/epochs_completed``.
    """
    if is_a(logger, "TensorBoardLogger") and hasattr(logger.experiment, "add_custom_scalars"):
        every = [
            (category, title, pattern)
            for category, of_category in charts.items()
            for title, patterns in of_category.items()
            for pattern in patterns
        ]
        found = [chart for chart in every if any(re.fullmatch(chart[2], key) for key in values)]
        told, new = _tell(logger, found)
        if new:  # in the order of the run's callbacks, which is not that of their first values
            of_before = [chart for chart in told if chart not in every]
            of_run = [chart for chart in every if chart in told]
            logger.experiment.add_custom_scalars(_layout(logger, [*of_before, *of_run]))
    elif is_a(logger, "WandbLogger") and hasattr(logger.experiment, "define_metric"):
        for axis in [key for key in values if key.endswith("/epochs_completed")]:
            family, probe = axis.removesuffix("/epochs_completed").split("/", 1)
            starts = f"{family}/{probe}/", f"{family}_layers/{probe}/"
            over_it = [key for key in values if key != axis and key.startswith(starts)]
            _, new = _tell(logger, [axis, *over_it])
            _define_axis(logger, axis, new)


def _tell(logger: Any, topics: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Return all topics the logger knows, and the new ones; they are noted on the logger itself."""
    told = vars(logger).setdefault("_lightning_nc_panels", {})
    new = [topic for topic in topics if topic not in told]
    told.update(dict.fromkeys(new))
    return list(told), new


def _layout(logger: Any, charts: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, list[Any]]]:
    """Charts by category and title, in the form that TensorBoard's writers expect."""
    # TensorBoard matches a pattern at the beginning of a key, so the pattern must end with $
    start, layout = re.escape(key_of(logger, "")), dict[str, dict[str, list[Any]]]()
    for category, title, pattern in charts:
        _, keys = layout.setdefault(category, {}).setdefault(title, ["Multiline", []])
        keys.append(f"{start}{pattern}$")
    return layout


def _define_axis(logger: Any, axis: str, keys: Iterable[str]) -> None:
    """Show keys over an axis, by full name, which takes precedence over Lightning's ``"*"``."""
    for key in keys:
        over = {} if key == axis else {"step_metric": key_of(logger, axis), "step_sync": False}
        logger.experiment.define_metric(key_of(logger, key), **over)
