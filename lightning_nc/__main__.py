"""``python -m lightning_nc``: a demo, a dry run, a report on a run, and a view for W&B."""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import EquiSeparation, NeuralCollapse
from lightning_nc.checking import command
from lightning_nc.integrations import wandb_view
from lightning_nc.report.page import report_page
from lightning_nc.report.reading import NothingToReport
from lightning_nc.report.remarks import shown
from lightning_nc.report.runs import read_runs

_DEMO = "train an 8-layer network on scikit-learn's digits and watch it"
_REPORT = "Turn what a run logged into one HTML page that needs no server and no network."
_RUN_DIR = "log directory of a TensorBoardLogger or CSVLogger, or a folder that holds several runs"
_DESCRIPTION = f"Without a command: {_DEMO}."
_COLUMNS = ("nc1", "nc2_etf_error", "nc3", "nc4")


class DigitsClassifier(LightningModule):
    """Seven blocks of Linear, BatchNorm and ReLU, and a linear classifier: eight layers."""

    def __init__(self, width: int = 100, hidden: int = 7) -> None:
        super().__init__()
        sizes = [64] + [width] * hidden
        blocks = [
            nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())
            for before, after in pairwise(sizes)
        ]
        self.hidden = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images of shape ``(N, 64)``."""
        return self.classifier(self.hidden(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy of a batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return Adam with a learning rate that decays to 0."""
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=5e-4)
        epochs = self.trainer.max_epochs or 1
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


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
        _demo(options.epochs, options.output)


def _add_demo_options(parser: argparse.ArgumentParser, defaults: bool = True) -> None:
    given = {"epochs": 100, "output": Path("lightning_logs")} if defaults else {}
    parser.add_argument("--epochs", type=int, help="epochs of the demo (default: 100)")
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
            2, f"{missing}. The report needs: pip install 'lightning-neural-collapse[plot]'\n"
        )
    names = shown(", ".join(run.name for run in runs))
    said = f"{page}: {len(runs)} run{'s' * (len(runs) > 1)} ({names})"
    code = sys.stdout.encoding or "utf-8"
    print(said.encode(code, "backslashreplace").decode(code))  # not every terminal has all letters
    if remarks:
        more = f" (and {len(remarks) - 1} more, which the page names)" if len(remarks) > 1 else ""
        print(f"{remarks[0]}{more}", file=sys.stderr)


def _demo(epochs: int, output: Path) -> None:
    """Train, measure, and print where the results are."""
    try:
        from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
        from sklearn.datasets import load_digits

        tensorboard = TensorBoardLogger(output, name="digits")
    except ModuleNotFoundError as missing:
        sys.exit(f"{missing}. The demo needs: pip install 'lightning-neural-collapse[demo]'")

    seed_everything(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16).float(), torch.tensor(labels))
    loader = DataLoader(data, batch_size=128, shuffle=True)

    measured = sorted({0, *(min(2**k, epochs) for k in range(12))})
    separation = EquiSeparation(epochs=measured)
    collapse = NeuralCollapse(epochs=measured)
    files = CSVLogger(tensorboard.log_dir, name="", version="csv")  # also keeps the figures
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[separation, collapse],
        logger=[tensorboard, files],
        log_every_n_steps=len(loader),
        enable_model_summary=False,
    )
    trainer.fit(DigitsClassifier(), loader)
    _print_table(separation, collapse)
    print(
        f"\nrho and r: each layer multiplies the fuzziness D by about rho; r = -1 is a perfect fit."
        f"\nNC1 to NC4 fall towards 0 as the classes collapse to a simplex."
        f"\n\nFigures:      {Path(files.log_dir, 'figures')}"
        f"\nEvent files:  {tensorboard.log_dir}"
        f"\nOpen them:    tensorboard --logdir {output}"
        f"\nHTML page:    python -m lightning_nc report {tensorboard.log_dir}"
    )


def _print_table(separation: EquiSeparation, collapse: NeuralCollapse) -> None:
    head = ["epoch", "accuracy", "rho", "r", "NC1", "NC2 (ETF)", "NC3", "NC4"]
    print("\n" + " ".join(f"{name:>10}" for name in head))
    for law, nc in zip(separation.history, collapse.history, strict=True):
        row = [
            f"{law.epochs_completed:g}",
            f"{nc.values['nc/train/accuracy']:.4f}",
            f"{law.values['separation/train/rho']:.4f}",
            f"{law.values['separation/train/pearson_r']:.4f}",
            *(f"{nc.values[f'nc/train/{name}']:.2e}" for name in _COLUMNS),
        ]
        print(" ".join(f"{cell:>10}" for cell in row))


if __name__ == "__main__":
    main()
