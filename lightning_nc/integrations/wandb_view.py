"""A saved view on Weights & Biases that shows what the callbacks log, section by section."""

from collections.abc import Iterable
from typing import Any

from lightning_nc.measures import MEASURES
from lightning_nc.measures.family import Family
from lightning_nc.measures.quantity import charts_of_rows


def wandb_view(entity: str, project: str, probes: Iterable[str]) -> Any:
    """Return a view with a section per family and probe; ``save()`` saves it in the project.

    Args:
        entity: User or team.
        project: The project.
        probes: Names of probes.

    Returns:
        A ``wandb_workspaces.workspaces.Workspace``.

    Raises:
        ModuleNotFoundError: If wandb-workspaces is not installed.
    """
    import wandb_workspaces.workspaces as workspaces

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="Geometry of the classifier",
        sections=[
            _section(Family.of(measure), measure.figures, probe)
            for probe in probes
            for measure in MEASURES
        ],
    )


def _section(family: Family, figures: tuple[str, ...], probe: str) -> Any:
    """The section of a family on one probe: its panels and its figures."""
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces

    start = f"{family.name}/{probe}/"
    axis = start + "epochs_completed"
    plots = [
        reports.LinePlot(
            title=panel.title,
            x=axis,
            y=[start + name for name in curves],
            log_y=panel.logarithmic,
        )
        for panel, curves in charts_of_rows(family.quantities).items()
    ]
    plots += [
        reports.LinePlot(
            title=row.chart.panel.title,
            x=axis,
            metric_regex=f"^{family.name}_layers/{probe}/.*{row.name}$",
            log_y=row.chart.panel.logarithmic,
        )
        for row in family.layer_quantities
        if row.chart is not None
    ]
    shown = [reports.MediaBrowser(media_keys=[start + name]) for name in figures]
    return workspaces.Section(
        name=f"{family.title} ({probe})", panels=[*plots, *shown], is_open=True
    )
