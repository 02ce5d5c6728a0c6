"""``python -m lightning_nc wandb-view``."""

import argparse
from pathlib import Path

HELP = "save a view of a project on Weights & Biases, with a section per family and probe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project", help="name of the project")
    probes = "names of probes (default: train)"
    parser.add_argument("--probe", nargs="+", default=["train"], help=probes)
    parser.add_argument("--json", type=Path, help="write the specification here instead of saving")


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Save the view and print its address, or write its specification."""
    from lightning_nc.integrations.wandb_view import wandb_view

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
