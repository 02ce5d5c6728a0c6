r"""The law of equi-separation on FashionMNIST: the "8-layer" network of the paper's Figure 1.

A feedforward network of seven Linear-BatchNorm-ReLU modules and a linear classifier learns 1000
images. Once it is trained, every module reduces the separation fuzziness D by about the same
ratio rho, so that ln D falls on a straight line in depth::

    python examples/equi_separation_fashion_mnist.py

The paper reports correlation -0.997, rho = 0.53, half-life 1.1. As in the paper, D is measured on
the training set with BatchNorm using the statistics of each batch; a second callback measures with
BatchNorm in evaluation mode. All nine panels of depth and optimizer, and two networks for which
the law does not hold::

    python examples/equi_separation_fashion_mnist.py --panels
    python examples/equi_separation_fashion_mnist.py --linear
    python examples/equi_separation_fashion_mnist.py --layers 20 --no-batch-norm

The exit status is 1 if a network does not do what is claimed here.

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
"""

import argparse
import math
import sys
from itertools import pairwise

import pytorch_lightning as pl
import torch
from example_setup import options_of, save, train_quietly, use_one_thread
from fashion_mnist import subset, whole_batches
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from lightning_nc import EquiSeparation, Measurement, Probe
from lightning_nc.figures import draw_law

EPOCHS, MILESTONES, MEASURED = 600, (200, 400), (0, 10, 20, 30, 50, 100, 200, 300, 600)
LAYERS = (4, 8, 20)
HOLDS, ABSENT = -0.99, -0.95  # r up to which the law holds, and above which it does not
LEARNING_RATES = {
    "sgd": {4: 0.3, 8: 0.03, 20: 0.01},
    "momentum": {4: 0.3, 8: 0.01, 20: 0.001},
    "adam": {4: 3e-3, 8: 1e-3, 20: 3e-4},
}
TITLES = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam"}


class HiddenLayer(nn.Sequential):
    """Linear, BatchNorm, ReLU: the module that the law counts as one layer.

    A class of its own, so that `EquiSeparation` finds its instances as the blocks.
    """

    def __init__(self, width_in: int, width: int, batch_norm: bool, nonlinear: bool) -> None:
        super().__init__(
            nn.Linear(width_in, width),
            nn.BatchNorm1d(width) if batch_norm else nn.Identity(),
            nn.ReLU() if nonlinear else nn.Identity(),
        )


class FeedForward(pl.LightningModule):
    """Hidden layers and a linear classifier, trained as in the paper."""

    def __init__(self, options: argparse.Namespace, pixels: int = 100, width: int = 100) -> None:
        super().__init__()
        self.options = options
        widths = [pixels] + [width] * (options.layers - 1)
        hidden = [
            HiddenLayer(before, after, not options.no_batch_norm, not options.linear)
            for before, after in pairwise(widths)
        ]
        self.net = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Cross-entropy."""
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[MultiStepLR]]:
        """The learning rate falls to a tenth after a third of the epochs, and again after two."""
        lr = LEARNING_RATES[self.options.optimizer][self.options.layers]
        optimizer: torch.optim.Optimizer
        if self.options.optimizer == "adam":
            optimizer = torch.optim.Adam(self.parameters(), lr, weight_decay=5e-4)
        else:
            momentum = 0.9 if self.options.optimizer == "momentum" else 0.0
            optimizer = torch.optim.SGD(self.parameters(), lr, momentum, weight_decay=5e-4)
        milestones = [scaled(epoch, self.options.epochs) for epoch in MILESTONES]
        return [optimizer], [MultiStepLR(optimizer, milestones, gamma=0.1)]


def scaled(epoch: int, epochs: int) -> int:
    """An epoch of the paper's 600 in a run of fewer."""
    return round(epoch * epochs / EPOCHS)


def train(options: argparse.Namespace) -> tuple[list[Measurement], list[Measurement]]:
    """Train one network; return what was measured with batch and with running statistics."""
    pl.seed_everything(options.seed, verbose=False)
    dataset = subset("train", per_class=100, size=10, seed=options.seed, folder=options.data)
    epochs = sorted({scaled(epoch, options.epochs) for epoch in MEASURED})
    batch, running = (
        EquiSeparation(
            probe=Probe(
                source=dataset,
                name=statistics,
                samples_per_class=None,
                batch_norm=statistics,
                batch_size=100,
            ),
            epochs=epochs,
            on_error="raise",
        )
        for statistics in ("batch", "eval")
    )
    loader = whole_batches(dataset, 128)
    train_quietly(FeedForward(options), loader, options.epochs, [batch, running])
    return batch.history, running.history


def law(measurement: Measurement) -> dict[str, float]:
    """What `EquiSeparation` logs, without family and probe in the keys."""
    return {key.rsplit("/", 1)[1]: value for key, value in measurement.values.items()}


def claims(options: argparse.Namespace, batch: list[Measurement]) -> list[tuple[bool, str]]:
    """What is claimed of a run with batch statistics: whether it is so, and a sentence."""
    before, after = law(batch[0]), law(batch[-1])
    found = [(absent(before), f"before training the law does not hold: {judged_by(before)}")]
    control = options.linear or options.no_batch_norm
    if control and options.layers >= 8:  # 4 layers do without BatchNorm
        found.append((absent(after), f"nor after it, {without(options)}: {judged_by(after)}"))
    elif not control and (options.layers, options.optimizer) == (8, "adam"):
        holds = after["pearson_r"] <= HOLDS
        found.append((holds, f"after it the law holds, r <= {HOLDS}: {judged_by(after)}"))
    return found


def absent(fit: dict[str, float]) -> bool:
    """Whether the law clearly does not hold: ln D is no line, or D is not reduced to a half.

    Four points may form a line by chance; NaN if D itself is undefined.
    """
    r, total = fit["pearson_r"], fit["total"]
    return math.isnan(r) or r > ABSENT or total > 0.5


def judged_by(fit: dict[str, float]) -> str:
    """The numbers by which a claim is judged."""
    return f"r = {fit['pearson_r']:.4f}, D_last / D_first = {fit['total']:.3g}"


def judge(options: argparse.Namespace, batch: list[Measurement]) -> bool:
    """Print what is claimed of a run, and whether it is so."""
    found = claims(options, batch)
    for so, sentence in found:
        print(f"{'yes' if so else 'NO '}: {sentence}")
    return all(so for so, _ in found)


def print_table(batch: list[Measurement], running: list[Measurement]) -> None:
    """The law at every measured epoch."""
    print("         batch statistics                       running statistics")
    columns = f"{'rho':>7}{'r':>9}{'half-life':>11}{'total':>11}"
    print(f"  epoch{columns}{columns}")
    for of_batch, of_running in zip(batch, running, strict=True):
        cells = ""
        for measurement in (of_batch, of_running):
            fit = law(measurement)
            half_life = f"{fit['half_life']:.2f}" if fit["rho"] < 1 else "-"
            cells += f"{fit['rho']:7.3f}{fit['pearson_r']:9.4f}{half_life:>11}{fit['total']:11.2e}"
        print(f"{of_batch.epochs_completed:7g}{cells}")


def draw_epochs(axes: Axes, history: list[Measurement]) -> None:
    """D against depth, one line per measured epoch, dark to light."""
    shades = colormaps["viridis"](torch.linspace(0, 0.9, len(history)).numpy())
    for shade, measurement in zip(shades, history, strict=True):
        D = measurement.arrays["fuzziness"]
        label = f"{measurement.epochs_completed:g}"
        axes.plot(range(len(D)), D, "o-", color=shade, markersize=4, label=label)
    axes.set_yscale("log")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(title="epochs completed", ncols=3, fontsize="small", loc="best")


def save_run(options: argparse.Namespace, batch: list[Measurement]) -> None:
    """D against depth at every measured epoch, and the law at the last."""
    figure = Figure(figsize=(9.6, 4.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    draw_epochs(left, batch)
    draw_law(right, batch[-1].arrays["fuzziness"])
    left.set_title("during training")
    right.set_title(f"after {batch[-1].epochs_completed:g} epochs")
    left.set_ylabel("separation fuzziness $D$")
    for axes in (left, right):
        axes.set_xlabel("layer (0: raw input)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"FashionMNIST, {describe(options)}")
    save(figure, options.output, "equi_separation_fashion_mnist")


def describe(options: argparse.Namespace) -> str:
    """The network and its optimizer in words."""
    network = f"{options.layers} layers, {TITLES[options.optimizer]}"
    return ", ".join(part for part in (network, without(options)) if part)


def without(options: argparse.Namespace) -> str:
    """What is left out of the network."""
    left_out = ["nonlinearity"] * options.linear + ["BatchNorm"] * options.no_batch_norm
    return f"without {' and '.join(left_out)}" if left_out else ""


def save_panels(options: argparse.Namespace, laws: dict[tuple[str, int], Measurement]) -> None:
    """The law for every optimizer (rows) and depth (columns)."""
    figure = Figure(figsize=(9.6, 8.4), dpi=100, layout="constrained")
    grid = figure.subplots(3, 3, sharex="col", sharey=True)
    for axes, measurement in zip(grid.flat, laws.values(), strict=True):
        draw_law(axes, measurement.arrays["fuzziness"])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, layers in zip(grid[0], LAYERS, strict=True):
        axes.set_title(f"{layers} layers")
    for axes, title in zip(grid[:, 0], TITLES.values(), strict=True):
        axes.set_ylabel(f"{title}\n$D$")
    figure.supxlabel("layer (0: raw input)", fontsize="medium")
    figure.suptitle("Separation fuzziness $D$ of FashionMNIST after training")
    save(figure, options.output, "equi_separation_panels")


def one(options: argparse.Namespace) -> bool:
    """Train one network and show what was measured."""
    print(f"{describe(options)}, seed {options.seed}")
    batch, running = train(options)
    print_table(batch, running)
    save_run(options, batch)
    return judge(options, batch)


def panels(options: argparse.Namespace) -> bool:
    """Train with every optimizer at every depth."""
    laws: dict[tuple[str, int], Measurement] = {}
    judged = []
    for optimizer in LEARNING_RATES:
        for layers in LAYERS:
            options.optimizer, options.layers = optimizer, layers
            print(f"\n{describe(options)}, seed {options.seed}")
            batch, running = train(options)
            print_table(batch, running)
            judged.append(judge(options, batch))
            laws[optimizer, layers] = batch[-1]
    save_panels(options, laws)
    return all(judged)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = options_of(
        __doc__, seed="of images, initialisation and order of batches", fashion_mnist=True
    )
    add = parser.add_argument
    add("--layers", type=int, choices=LAYERS, default=8, help="hidden layers and classifier")
    add("--optimizer", choices=list(LEARNING_RATES), default="adam")
    add("--linear", action="store_true", help="without nonlinearity")
    add("--no-batch-norm", action="store_true", help="without BatchNorm")
    add("--panels", action="store_true", help="all nine of optimizer and depth")
    add("--epochs", type=int, default=EPOCHS, help="the learning rate's schedule scales with it")
    return parser.parse_args()


def main() -> int:
    """Run; 0 if everything claimed is so."""
    options = parse()
    use_one_thread()
    return 0 if (panels if options.panels else one)(options) else 1


if __name__ == "__main__":
    sys.exit(main())
