"""``python -m lightning_nc report``."""

import argparse
import sys
from pathlib import Path

HELP = "turn what a run logged into one HTML page that needs no server and no network"
_RUN_DIR = "log directory of a TensorBoardLogger or CSVLogger, or a folder that holds several runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help=_RUN_DIR)
    parser.add_argument(
        "--output",
        type=Path,
        dest="page",
        default=Path("report.html"),
        help="the page to write (default: report.html)",
    )


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Write the page, or print what is wrong and exit with status 2."""
    from lightning_nc.report.page import report_page
    from lightning_nc.report.reading import NothingToReport
    from lightning_nc.report.remarks import printable
    from lightning_nc.report.runs import read_runs

    try:
        runs, remarks = read_runs(options.run_dir)
        options.page.write_text(report_page(runs, remarks), encoding="utf-8")
    except (NothingToReport, OSError) as error:
        parser.exit(2, f"{error}\n")
    except ModuleNotFoundError as missing:
        parser.exit(
            2,
            f"The report needs {missing.name}, which cannot be imported. Run pip install "
            "'lightning-neural-collapse[plot]'.\n",
        )
    names = printable(", ".join(run.name for run in runs))
    path, many = printable(str(options.page.resolve())), f"{len(runs)} run{'s' * (len(runs) > 1)}"
    said = f"wrote {path}: {many} ({names})"
    code = sys.stdout.encoding or "utf-8"
    print(said.encode(code, "backslashreplace").decode(code))  # not every terminal has all letters
    if remarks:
        more = f" (and {len(remarks) - 1} more, which the page names)" if len(remarks) > 1 else ""
        print(f"{remarks[0]}{more}", file=sys.stderr)
