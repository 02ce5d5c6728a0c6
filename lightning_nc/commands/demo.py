"""``python -m lightning_nc demo``."""

import argparse
from pathlib import Path

HELP = "train 8-layer networks on scikit-learn's digits and watch them"


def add_arguments(parser: argparse.ArgumentParser, defaults: bool = True) -> None:
    """Add the arguments of the command, or those of none."""
    given = {"epochs": 40, "output": Path("lightning_logs")} if defaults else {}
    parser.add_argument("--epochs", type=int, help="epochs of the demo (default: 40)")
    parser.add_argument(
        "--output", type=Path, help="folder for the demo's logs (default: lightning_logs)"
    )
    parser.set_defaults(**given)


def run(options: argparse.Namespace) -> None:
    """Train, and print where results are and what they say."""
    from lightning_nc.demo import run_demo

    run_demo(options.epochs, options.output)
