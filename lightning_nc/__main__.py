"""``python -m lightning_nc``: a demo, a dry run, a report on a run, and a view for W&B."""

import argparse
import sys
from pathlib import Path

from lightning_nc.checking import command
from lightning_nc.demo import run_demo
from lightning_nc.integrations import wandb_view
from lightning_nc.report.page import report_page
from lightning_nc.report.reading import NothingToReport
from lightning_nc.report.remarks import shown
from lightning_nc.report.runs import read_runs

_DEMO = "train 8-layer networks on scikit-learn's digits and watch them"
_REPORT = "Turn what a run logged into one HTML page that needs no server and no network."
_RUN_DIR = "log directory of a TensorBoardLogger or CSVLogger, or a folder that holds several runs"
_DESCRIPTION = f"Without a command: {_DEMO}."


def main(arguments: list[str] | None = None) -> None:
    """Run the command of the command line; without one, the demo."""
    parser = argparse.ArgumentParser(prog="python -m lightning_nc", description=_DESCRIPTION)
    _add_demo_options(parser)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="")
    # otherwise its defaults would overwrite options given before the command
    demo = commands.add_parser("demo", help=_DEMO, argument_default=argparse.SUPPRESS)
    _add_demo_options(demo, defaults=False)
    check = commands.add_parser("check", help=command.HELP, description=command.HELP)
    command.add_arguments(check)
    report = commands.add_parser("report", help=_REPORT, description=_REPORT)
    report.add_argument("run_dir", type=Path, metavar="RUN_DIR", help=_RUN_DIR)
    report.add_argument(
        "--output", type=Path, dest="page", default=Path("report.html"), help="the page to write"
    )
    wandb_view.add_command(commands)
    options = parser.parse_args(arguments)
    if options.command == "check":
        command.run(check, options)
    elif options.command == "report":
        _report(report, options.run_dir, options.page)
    elif options.command == "wandb-view":
        wandb_view.run(parser, options)
    else:
        run_demo(options.epochs, options.output)


def _add_demo_options(parser: argparse.ArgumentParser, defaults: bool = True) -> None:
    given = {"epochs": 40, "output": Path("lightning_logs")} if defaults else {}
    parser.add_argument("--epochs", type=int, help="epochs of the demo (default: 40)")
    parser.add_argument(
        "--output", type=Path, help="folder for the demo's logs (default: lightning_logs)"
    )
    parser.set_defaults(**given)


def _report(parser: argparse.ArgumentParser, run_dir: Path, page: Path) -> None:
    """Write the page, or print what is wrong and exit with status 2."""
    try:
        runs, remarks = read_runs(run_dir)
        page.write_text(report_page(runs, remarks), encoding="utf-8")
    except (NothingToReport, OSError) as error:
        parser.exit(2, f"{error}\n")
    except ModuleNotFoundError as missing:
        parser.exit(
            2,
            f"The report needs {missing.name}, which cannot be imported. Run pip install "
            "'lightning-neural-collapse[plot]'.\n",
        )
    names = shown(", ".join(run.name for run in runs))
    said = f"{page}: {len(runs)} run{'s' * (len(runs) > 1)} ({names})"
    code = sys.stdout.encoding or "utf-8"
    print(said.encode(code, "backslashreplace").decode(code))  # not every terminal has all letters
    if remarks:
        more = f" (and {len(remarks) - 1} more, which the page names)" if len(remarks) > 1 else ""
        print(f"{remarks[0]}{more}", file=sys.stderr)


if __name__ == "__main__":
    main()
