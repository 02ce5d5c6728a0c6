"""``python -m lightning_nc check``."""

import argparse
from pathlib import Path

HELP = "say before training what would be measured, where, and what it costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model",
        nargs="?",
        help="import path of the network, or of what makes it: package.file:name",
    )
    parser.add_argument(
        "data",
        nargs="?",
        help="import path of a loader, dataset, datamodule or Probe, or of a function that returns "
        "one; by default the network's own train_dataloader()",
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="instead of paths, a YAML file of LightningCLI with model, data and callbacks",
    )


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Print the table, or what is wrong, and exit with status 2."""
    from lightning_nc.checking.check_network import check
    from lightning_nc.checking.sources import NotFound, from_configuration, from_paths

    if (options.model is None) == (options.config is None):
        parser.error("give either the import path of a network, or --config")
    try:
        if options.config is None:
            subjects = [from_paths(options.model, options.data)]
        else:
            subjects = from_configuration(options.config)
        tables = [check(*each) for each in subjects]
        if len(tables) == 1:
            print(tables[0])
        else:
            print("\n\n".join(f"probe '{each.probe.key}'\n{each}" for each in tables))
    except (NotFound, OSError, TypeError, ValueError) as error:
        parser.exit(2, f"{error}\n")
