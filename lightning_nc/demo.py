"""The demo: all four families on scikit-learn's digits, and a table of what was measured."""

import math
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc.callbacks import (
    EquiSeparation,
    LocalElasticity,
    MeasureCallback,
    MinorityCollapse,
    NeuralCollapse,
)

if TYPE_CHECKING:
    from pytorch_lightning.loggers import TensorBoardLogger

_KEPT_OF_RARE = 9  # images of each of the digits 5 to 9 in the imbalanced set; there are about 180
_COLUMNS = {
    "accuracy": "nc/train/accuracy",
    "rho": "separation/train/rho",
    "r": "separation/train/pearson_r",
    "NC1": "nc/train/nc1",
    "NC2": "nc/train/nc2_etf_error",
    "NC3": "nc/train/nc3",
    "NC4": "nc/train/nc4",
    "elastic": "elasticity/train/relative_ratio",
    "minority": "minority/train/cos_weights",
}


class DigitsClassifier(LightningModule):
    """Seven blocks of Linear, BatchNorm and ReLU, and a linear classifier: eight layers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [64] + [100] * 7
        blocks = [
            nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())
            for before, after in pairwise(sizes)
        ]
        self.hidden = nn.Sequential(*blocks)
        self.classifier = nn.Linear(100, 10)

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


def run_demo(epochs: int, output: Path) -> None:
    """Train on digits and on imbalanced digits, and print where results are and what they say.

    Args:
        epochs: Epochs of each training.
        output: Folder for the logs.
    """
    try:
        from pytorch_lightning.loggers import TensorBoardLogger
        from sklearn.datasets import load_digits

        loggers = [TensorBoardLogger(output, name) for name in ("digits", "imbalanced_digits")]
    except ModuleNotFoundError as missing:
        sys.exit(f"{missing}. The demo needs: pip install 'lightning-neural-collapse[demo]'")

    torch.set_num_threads(1)  # faster than several on matrices as small as these
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels / 16).float(), torch.tensor(digits)
    at = sorted({0, *(min(4**k, epochs) for k in range(6))})
    balanced: list[MeasureCallback] = [
        EquiSeparation(epochs=at),
        NeuralCollapse(epochs=at),
        LocalElasticity(epochs=at, samples_per_class=2),
    ]
    _train(images, labels, balanced, loggers[0], epochs)
    kept = _imbalanced(labels)
    minority = MinorityCollapse(epochs=at, class_counts=labels[kept].bincount().tolist())
    _train(images[kept], labels[kept], [minority], loggers[1], epochs)
    folders = [logger.log_dir for logger in loggers]
    # `make demo` activates no environment, and without one `python` may be another
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    print(
        f"\nFigures:      {', '.join(str(Path(each, 'csv', 'figures')) for each in folders)}"
        f"\nEvent files:  {python} -m tensorboard.main --logdir {output}"
        f"\nHTML page:    {python} -m lightning_nc report {output}"
        "\n\nrho, r      each layer multiplies the fuzziness D by about rho, exactly so if r = -1"
        "\nNC1 to NC4  fall towards 0 as the classes collapse to a simplex"
        "\nelastic     share of a step's effect that stays in its class: above 1/2"
        "\nminority    cosine of the classifier's rows of rare digits, in a second network that"
        "\n            is trained on few of these: at 1 they have merged"
    )
    _print_table([*balanced, minority])


def _imbalanced(labels: Tensor) -> Tensor:
    """Indices of all images of 0 to 4, and of a few of each of 5 to 9."""
    of_each = [(labels == digit).nonzero().flatten() for digit in range(10)]
    return torch.cat([*of_each[:5], *(each[:_KEPT_OF_RARE] for each in of_each[5:])])


def _train(
    images: Tensor,
    labels: Tensor,
    callbacks: list[MeasureCallback],
    logger: "TensorBoardLogger",
    epochs: int,
) -> None:
    """Train a network from the same seed."""
    seed_everything(0, verbose=False)
    loader = DataLoader(TensorDataset(images, labels), batch_size=128, shuffle=True)
    files = CSVLogger(logger.log_dir, name="", version="csv")  # also keeps the figures
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[*callbacks],
        logger=[logger, files],
        log_every_n_steps=len(loader),
        enable_model_summary=False,
    )
    trainer.fit(DigitsClassifier(), loader)


def _print_table(callbacks: list[MeasureCallback]) -> None:
    """A row for each epoch that was measured."""
    print("\n" + "".join(f"{name:>10}" for name in ("epoch", *_COLUMNS)))
    for measured in zip(*(callback.history for callback in callbacks), strict=True):
        values = {key: value for each in measured for key, value in each.values.items()}
        cells = [f"{measured[0].epochs_completed:g}"]
        cells += [f"{values.get(key, math.nan):.4f}" for key in _COLUMNS.values()]
        print("".join(f"{cell:>10}" for cell in cells))
