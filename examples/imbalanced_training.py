"""Training on imbalanced classes, as the example of minority collapse needs it."""

import argparse
import math
from collections.abc import Sequence
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from collapsing_networks import LinearOnFeatures, features, features_of_paper
from example_setup import thirds_of, train_quietly
from fashion_mnist import whole_batches
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import TensorDataset

from lightning_nc import MinorityCollapse, Probe

K = 10
RATE, MOMENTUM, BATCH = 0.1, 0.9, 128
THIRDS = (1 + 0.1 + 0.01) / 3  # mean of the schedule


class Run(NamedTuple):
    """The training set of a network, and the values measured after training."""

    majority: int
    ratio: float
    oversampled: bool
    values: dict[str, float]


class Classifier(LinearOnFeatures):
    """A classifier trained by SGD with a falling learning rate."""

    def __init__(self, network: nn.Sequential, width: int, epochs: int, decay: float) -> None:
        super().__init__(network, width)
        self.epochs, self.decay = epochs, decay

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[MultiStepLR]]:
        """Divide the learning rate by 10 after one third and after two thirds of the epochs."""
        optimizer = torch.optim.SGD(
            self.parameters(), RATE, momentum=MOMENTUM, weight_decay=self.decay
        )
        return [optimizer], [MultiStepLR(optimizer, thirds_of(self.epochs), gamma=0.1)]


def imbalanced(
    images: Tensor, labels: Tensor, majority: int, ratio: float, oversampled: bool
) -> TensorDataset:
    """Keep n_A / R images of each minority class; if oversampled, each of them n_A / n_B times."""
    n_A = int(labels.bincount()[0])
    n_B = 0 if math.isinf(ratio) else max(1, int(n_A / ratio))
    chosen = []
    for k in range(K):
        of_class = (labels == k).nonzero().flatten()
        if k >= majority:
            of_class = of_class[:n_B].repeat(n_A // n_B if oversampled else 1)
        chosen.append(of_class)
    indices = torch.cat(chosen)
    return TensorDataset(images[indices], labels[indices])


def train(
    data: tuple[Tensor, Tensor],
    options: argparse.Namespace,
    kind: str,
    seed: int,
    majorities: Sequence[int],
    ratio: float,
    oversampled: bool = False,
) -> list[Run]:
    """Train a network and measure it at the end on a balanced probe, for each K_A.

    Several values of K_A can share a network where classes are balanced.
    """
    pl.seed_everything(seed, verbose=False)
    images, labels = data
    trainset = imbalanced(images, labels, majorities[0], ratio, oversampled)
    balanced = TensorDataset(images, labels)
    epochs = options.epochs or round(options.steps / math.ceil(len(trainset) / BATCH))
    collapses = [
        MinorityCollapse(
            minority=range(majority, K),
            theory=math.isfinite(ratio),  # the model needs samples of every class
            # the probe has all classes, including those without training samples
            probe=Probe(balanced, f"K_A{majority}", samples_per_class=100, batch_size=250),
            epochs=[epochs],
            figures=False,
            merged_above=1,
            on_error="raise",
        )
        for majority in majorities
    ]
    network = features_of_paper(kind) if options.full else features(kind, options.size, width=8)
    width = network.eval()(images[:1]).shape[1]
    model = Classifier(network.train(), width, epochs, options.decay)
    train_quietly(model, whole_batches(trainset, BATCH), epochs, collapses, "auto")
    runs = []
    for majority, collapse in zip(majorities, collapses, strict=True):
        values = {key.split("/")[-1]: v for key, v in collapse.history[-1].values.items()}
        runs.append(Run(majority, ratio, oversampled, values))
        print(f"{kind:7}  {seed:4}  {row(runs[-1])}", flush=True)
    return runs


HEADER = (
    "network  seed  K_A      R  oversampled  cos rows  predicted  R_0        cos means  norm ratio"
    "  accuracy"
)


def row(run: Run) -> str:
    """Format a line of the table."""
    v = {"predicted_cos": math.nan, "critical_ratio": math.nan} | run.values
    return (
        f"{run.majority:3}  {run.ratio:5g}  {'yes' if run.oversampled else 'no':11}  "
        f"{v['cos_weights']:8.3f}  {v['predicted_cos']:9.3f}  {v['critical_ratio']:9.4g}  "
        f"{v['cos_means']:9.3f}  {v['norm_ratio']:10.3f}  {v['minority_accuracy']:8.3f}"
    )
