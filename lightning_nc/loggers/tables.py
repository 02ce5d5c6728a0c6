"""Log tables and lines to the loggers that support them, those of W&B."""

from typing import Any

from lightning_nc.figures.tables import Lines, Table
from lightning_nc.loggers.kinds import is_a, key_of

_SMALL = 100  # rows of a table that needs no file of its own


def takes_tables(logger: Any) -> bool:
    """Whether a logger supports tables."""
    return is_a(logger, "WandbLogger") and hasattr(logger, "log_table")


def log_table(logger: Any, tag: str, table: Table | Lines, step: int) -> None:
    """Log a table, or lines as a chart and its table, if the logger supports tables.

    A table of up to 100 rows is part of the summary of the run, as a list of values by column.
    """
    if not takes_tables(logger):
        return
    if isinstance(table, Table):
        columns, rows = list(table.columns), [list(row) for row in table.rows]
        if len(rows) <= _SMALL:
            of_columns = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
            logger.experiment.summary[key_of(logger, tag)] = of_columns
            return
        logger.log_table(key=tag, columns=columns, data=rows, step=step)
        return
    import wandb

    xs, ys = zip(*table.lines.values(), strict=True)
    chart = wandb.plot.line_series(
        xs, ys, keys=list(table.lines), title=table.title, xname=table.x_name
    )
    logger.log_metrics({tag: chart}, step=step)
