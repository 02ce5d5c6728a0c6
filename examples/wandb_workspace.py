r"""A saved view of Weights & Biases that shows what the callbacks log, section by section.

Once per project; every run of the project then has it, whenever it was logged::

    pip install wandb-workspaces
    python examples/wandb_workspace.py ENTITY PROJECT --probe train val

It has a section per callback and probe, each panel over epochs completed, NC1 to NC4 and D on
logarithmic axes, and the figures. With ``--json view.json`` its specification is written to a file
instead, and no server is asked.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces


class Panel(NamedTuple):
    """Lines in one plot.

    Attributes:
        title: Above it.
        names: What follows ``family/probe/`` in the keys; none for D of all layers.
        logarithmic: Whether values are.
    """

    title: str
    names: tuple[str, ...]
    logarithmic: bool = False


class Section(NamedTuple):
    """What one callback logs.

    Attributes:
        title: Above its panels.
        family: Of its keys.
        panels: Of scalars.
        figures: Names of its figures and films.
    """

    title: str
    family: str
    panels: tuple[Panel, ...]
    figures: tuple[str, ...]


_NC2 = tuple(
    f"nc2_{name}_{of}"
    for name in ("equinorm", "equiangularity", "maximal_angle")
    for of in ("means", "weights")
)
SECTIONS = (
    Section(
        "Equi-separation",
        "separation",
        (
            Panel("Decay ratio rho: below 1, smaller separates better", ("rho",)),
            Panel("Fit of the law: -1 where it holds", ("pearson_r",)),
            Panel("D of layers", (), logarithmic=True),
            Panel("Layers in which D halves", ("half_life",)),
        ),
        ("law", "epochs", "classes"),
    ),
    Section(
        "Neural collapse",
        "nc",
        (
            Panel("NC1: samples collapse to class means", ("nc1", "cdnv"), logarithmic=True),
            Panel("NC2: means and rows become a simplex", ("nc2_etf_error", *_NC2), True),
            Panel("NC3: classifier and means align", ("nc3",), logarithmic=True),
            Panel("NC4: not given to the nearest centre", ("nc4",), logarithmic=True),
            Panel("Accuracy on the probe", ("accuracy",)),
        ),
        ("cosines", "snapshot", "epochs", "collapse"),
    ),
    Section(
        "Minority collapse",
        "minority",
        (
            Panel(
                "Cosine of minority rows, and as theory has it",
                ("cos_weights", "cos_majority_weights", "predicted_cos"),
            ),
            Panel("Norm of minority by majority rows", ("norm_ratio",)),
            Panel("Accuracy on minority classes", ("minority_accuracy",)),
            Panel("Imbalance, and where rows coincide", ("imbalance_ratio", "critical_ratio")),
        ),
        ("cosines", "norms", "theory"),
    ),
    Section(
        "Local elasticity",
        "elasticity",
        (
            Panel(
                "Relative ratio: 1/2 without local elasticity",
                ("relative_ratio", "relative_ratio_self_pairs"),
            ),
            Panel("Effect within and between classes", ("intra", "inter")),
        ),
        ("kernel", "ratio"),
    ),
)


def section_of(section: Section, probe: str) -> workspaces.Section:
    """The panels of a callback on one probe, and its figures."""
    start = f"{section.family}/{probe}/"
    plots = [
        reports.LinePlot(
            title=panel.title,
            x=start + "epochs_completed",
            y=[start + name for name in panel.names],
            metric_regex=None if panel.names else f"^{section.family}_layers/{probe}/.*$",
            log_y=panel.logarithmic,
        )
        for panel in section.panels
    ]
    figures = [reports.MediaBrowser(media_keys=[start + name]) for name in section.figures]
    return workspaces.Section(
        name=f"{section.title} ({probe})", panels=[*plots, *figures], is_open=True
    )


def main() -> int:
    """Save the view, or write its specification."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project")
    parser.add_argument("--probe", nargs="+", default=["train"], help="names of probes")
    parser.add_argument("--json", type=Path, help="write the specification here, and save nothing")
    options = parser.parse_args()
    view = workspaces.Workspace(
        entity=options.entity,
        project=options.project,
        name="Geometry of the classifier",
        sections=[section_of(section, probe) for probe in options.probe for section in SECTIONS],
    )
    if options.json is None:
        view.save()
        print(view.url)
    else:
        # private, for want of another way to have it without a server
        options.json.write_text(view._to_model().model_dump_json(by_alias=True, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
