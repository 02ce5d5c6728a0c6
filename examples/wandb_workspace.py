r"""Save a view on Weights & Biases that shows what the callbacks log, section by section.

Save it once per project; it then applies to every run of the project, past or future::

    pip install wandb-workspaces
    python examples/wandb_workspace.py ENTITY PROJECT --probe train val

The view has a section per callback and probe, with panels over epochs completed (NC1 to NC4 and D
on logarithmic axes) and the figures. With ``--json view.json`` its specification is written to a
file instead, without a server.
"""

import argparse
import sys
from pathlib import Path

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces

from lightning_nc.measures import MEASURES
from lightning_nc.measures.family import Family


def section_of(family: Family, figures: tuple[str, ...], probe: str) -> workspaces.Section:
    """The section of a family on one probe: its panels and its figures."""
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


def main() -> int:
    """Save the view, or write its specification."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project")
    parser.add_argument("--probe", nargs="+", default=["train"], help="names of probes")
    parser.add_argument("--json", type=Path, help="write the specification here instead of saving")
    options = parser.parse_args()
    view = workspaces.Workspace(
        entity=options.entity,
        project=options.project,
        name="Geometry of the classifier",
        sections=[
            section_of(Family.of(measure), measure.figures, probe)
            for probe in options.probe
            for measure in MEASURES
        ],
    )
    if options.json is None:
        view.save()
        print(view.url)
    else:
        # private: there is no public way to get it without a server
        options.json.write_text(view._to_model().model_dump_json(by_alias=True, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
