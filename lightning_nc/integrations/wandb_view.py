"""A saved view on Weights & Biases that shows what the callbacks log, section by section."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_nc.measures import MEASURES
from lightning_nc.measures.family import Family

HELP = "save a view on Weights & Biases with a section per family and probe"
_DESCRIPTION = (
    "Save a view on Weights & Biases, once per project; it then applies to every run of the "
    "project. It has a section per family and probe, with panels over epochs completed (NC1 to NC4 "
    "and D on logarithmic axes) and the figures."
)


def wandb_view(entity: str, project: str, probes: Iterable[str] = ("train",)) -> Any:
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
        for panel, curves in family.charts().items()
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


def add_command(commands: Any) -> None:
    """Add the command ``wandb-view`` to those of a command line."""
    parser = commands.add_parser("wandb-view", help=HELP, description=_DESCRIPTION)
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project")
    parser.add_argument("--probe", nargs="+", default=["train"], help="names of probes")
    parser.add_argument("--json", type=Path, help="write the specification here instead of saving")


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Save the view and print its address, or write its specification."""
    try:
        view = wandb_view(options.entity, options.project, options.probe)
    except ModuleNotFoundError as missing:
        parser.exit(
            2, f"{missing}. The view needs: pip install 'lightning-neural-collapse[wandb]'\n"
        )
    if options.json is None:
        view.save()
        print(view.url)
    else:
        # private: there is no public way to get it without a server
        text = view._to_model().model_dump_json(by_alias=True, indent=1)
        options.json.write_text(text, encoding="utf-8")
        print(options.json)
