r"""Neural collapse on FashionMNIST: a small ResNet trained far past zero training error.

The terminal phase of training starts with the first epoch without a training error. From there on
the features of every class collapse to their mean (NC1), the class means and the classifier rows
approach a simplex ETF (NC2) and each other (NC3), and the classifier comes to choose the nearest
class mean (NC4)::

    python examples/neural_collapse_fashion_mnist.py

The network has 308,000 parameters and trains on 1000 images of 14x14 pixels by SGD with momentum
and weight decay. As in the paper, all quantities are measured on the whole training set, with the
network in evaluation mode. The exit status is 1 unless NC1 falls at least tenfold in the terminal
phase and all other quantities decrease.

Source:
    Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of deep
    learning training", PNAS 117(40).
"""

import argparse
import sys

import numpy as np
import pytorch_lightning as pl
import torch
from example_setup import BLUE, GREEN, ORANGE, options_of, save, train_quietly, use_one_thread
from fashion_mnist import subset, whole_batches
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_nc import Measurement, NeuralCollapse, Probe

COLLAPSE = {
    "nc1": "NC1",
    "nc2_equinorm_means": "NC2 norms M",
    "nc2_equinorm_weights": "NC2 norms W",
    "nc2_equiangularity_means": "NC2 angles M",
    "nc2_equiangularity_weights": "NC2 angles W",
    "nc2_maximal_angle_means": "NC2 widest M",
    "nc2_maximal_angle_weights": "NC2 widest W",
    "nc3": "NC3",
    "nc4": "NC4",
}
FALL = 10  # smallest factor by which NC1 falls in the terminal phase


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to the input."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of shape ``(N, channels, H / stride, W / stride)``."""
        return torch.relu(self.residual(x) + self.shortcut(x))


class ResNet(pl.LightningModule):
    """Three blocks, mean over the image, and a linear classifier."""

    def __init__(self, options: argparse.Namespace, width: int = 32) -> None:
        super().__init__()
        self.options = options
        self.training_error: list[float] = []
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            BasicBlock(width, width, stride=1),
            BasicBlock(width, 2 * width, stride=2),
            BasicBlock(2 * width, 4 * width, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(4 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.classifier(self.features(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the cross-entropy, and log the error on the training batches."""
        images, labels = batch
        logits = self(images)
        error = (logits.argmax(1) != labels).float().mean()
        self.log("train_error", error, on_step=False, on_epoch=True, batch_size=len(labels))
        return nn.functional.cross_entropy(logits, labels)

    def on_train_epoch_end(self) -> None:
        """Record the training error of the epoch."""
        self.training_error.append(float(self.trainer.callback_metrics["train_error"]))

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[CosineAnnealingLR]]:
        """Let the learning rate fall to zero as a cosine.

        If it stays at 0.1 for half of the run, the collapse breaks down on the way: weight decay
        shrinks weights whose scale BatchNorm removes, and the steps grow relative to them.
        """
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        return [optimizer], [CosineAnnealingLR(optimizer, self.options.epochs)]


def measured_epochs(epochs: int) -> list[int]:
    """Every epoch of the first third, in which the error reaches zero; then log-spaced ones."""
    third = epochs // 3
    spaced = np.geomspace(max(third, 1), epochs, 20).round().astype(int).tolist()
    return sorted({*range(third + 1), *spaced})


def train(options: argparse.Namespace) -> tuple[list[Measurement], list[float]]:
    """Train; return the measurements, and the training error of every epoch."""
    pl.seed_everything(options.seed, verbose=False)
    dataset = subset("train", options.per_class, 14, options.seed, options.data)
    collapse = NeuralCollapse(
        probe=Probe(source=dataset, name="train", samples_per_class=None, batch_size=250),
        epochs=measured_epochs(options.epochs),
        on_error="raise",
    )
    model = ResNet(options)
    train_quietly(model, whole_batches(dataset, 50), options.epochs, [collapse], "auto")
    return collapse.history, model.training_error


def value(measurement: Measurement, name: str) -> float:
    """The value of a quantity."""
    return measurement.values[f"nc/train/{name}"]


def print_table(history: list[Measurement], start: int | None) -> None:
    """Print NC1 to NC4 at log-spaced epochs, at the start of the terminal phase and at the end."""
    measured = [measurement.epochs_completed for measurement in history]
    spaced = np.geomspace(1, measured[-1], 16).tolist()
    shown = {0, start, *(min(measured, key=lambda epoch: abs(epoch - at)) for at in spaced)}
    print(f"  epoch{''.join(f'{title:>14}' for title in COLLAPSE.values())}")
    for measurement in history:
        if measurement.epochs_completed in shown:
            cells = "".join(f"{value(measurement, name):14.4f}" for name in COLLAPSE)
            mark = "  terminal phase starts" if measurement.epochs_completed == start else ""
            print(f"{measurement.epochs_completed:7g}{cells}{mark}")


def judge(first: Measurement, last: Measurement) -> bool:
    """Print whether each claim is true between two measurements; return whether all are."""
    fall = value(first, "nc1") / value(last, "nc1")
    found = [(fall >= FALL, f"NC1 falls at least {FALL} times: {fall:.1f} times")]
    for name in list(COLLAPSE)[1:]:
        before, after = value(first, name), value(last, name)
        so = after < before or before == after == 0
        found.append((so, f"{COLLAPSE[name]} decreases: {before:.4f} to {after:.4f}"))
    print("from the start of the terminal phase to the end:")
    for so, sentence in found:
        print(f"{'yes' if so else 'NO '}: {sentence}")
    return all(so for so, _ in found)


def draw(axes: Axes, history: list[Measurement], lines: dict[str, tuple[str, str, str]]) -> None:
    """Draw quantities over epochs, on logarithmic axes.

    Args:
        axes: Matplotlib axes.
        history: Measurements; that before training is left out, since epoch 0 has no logarithm.
        lines: Label, colour and line style of each quantity.
    """
    trained = [measurement for measurement in history if measurement.epochs_completed > 0]
    epochs = [measurement.epochs_completed for measurement in trained]
    for name, (label, color, style) in lines.items():
        values = np.array([value(measurement, name) for measurement in trained])
        values[values == 0] = np.nan  # a gap in the curve
        axes.plot(epochs, values, style, color=color, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", alpha=0.3)


def save_figure(history: list[Measurement], start: int | None, options: argparse.Namespace) -> None:
    """Save a figure of NC1 to NC4 over epochs, with the start of the terminal phase."""
    figure = Figure(figsize=(9.6, 6.4), dpi=110, layout="constrained")
    panels = {
        "NC1: within-class variability": {"nc1": ("", BLUE, "-")},
        "NC2: distance from a simplex ETF": {
            f"nc2_{quantity}_{of}": (f"NC2 {label}, {of}", color, style)
            for quantity, label, color in (
                ("equinorm", "norms", BLUE),
                ("equiangularity", "angles", ORANGE),
                ("maximal_angle", "widest angle", GREEN),
            )
            for of, style in (("means", "-"), ("weights", "--"))
        },
        "NC3: distance from classifier to means": {"nc3": ("", BLUE, "-")},
        "NC4: not the nearest class mean (gap: 0)": {"nc4": ("", BLUE, ".-")},
    }
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=True):
        draw(axes, history, lines)
        axes.set_title(title)
        if start is not None:
            axes.axvline(start, color="black", linestyle=":")
    figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    if start is not None:
        where = grid[0, 0].get_xaxis_transform()
        text = "start of the\nterminal phase"
        grid[0, 0].text(start * 0.94, 0.06, text, transform=where, ha="right")
    for axes in grid[1]:
        axes.set_xlabel("epochs completed")
    figure.suptitle(f"ResNet on FashionMNIST, {options.per_class} images per class")
    save(figure, options.output, "neural_collapse_fashion_mnist")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = options_of(
        __doc__, seed="seed of images, initialisation and batch order", fashion_mnist=True
    )
    add = parser.add_argument
    add("--per-class", type=int, default=100, help="images of each class")
    add("--epochs", type=int, default=300, help="the learning rate schedule scales with it")
    return parser.parse_args()


def main() -> int:
    """Run the example; return 0 if the network collapses as claimed."""
    options = parse()
    use_one_thread()
    history, training_error = train(options)
    start = training_error.index(0) + 1 if 0 in training_error else None
    print_table(history, start)
    save_figure(history, start, options)
    first = next((m for m in history if start is not None and m.epochs_completed >= start), None)
    if first is None:
        print("NO : the training error never reached zero, so there is no terminal phase.")
        return 1
    return 0 if judge(first, history[-1]) else 1


if __name__ == "__main__":
    sys.exit(main())
