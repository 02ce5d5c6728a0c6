r"""The law of equi-separation on FashionMNIST: the "8-layer" network of the paper's Figure 1.

A feedforward network of seven Linear-BatchNorm-ReLU blocks and a linear classifier learns 1000
images. In the trained network, every block reduces the separation fuzziness D by about the same
ratio rho, so that ln D against depth is a straight line::

    python examples/equi_separation_fashion_mnist.py

The paper reports correlation -0.997, rho = 0.53, half-life 1.1. As in the paper, D is measured on
the training set with BatchNorm using the statistics of each batch; a second callback measures with
BatchNorm in evaluation mode. These commands train all nine combinations of depth and optimizer, and
two networks in which the law does not hold::

    python examples/equi_separation_fashion_mnist.py --panels
    python examples/equi_separation_fashion_mnist.py --linear
    python examples/equi_separation_fashion_mnist.py --layers 20 --no-batch-norm

The exit status is 1 if a network does not behave as claimed here.

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
HOLDS, ABSENT = -0.99, -0.95  # the law holds up to the first r, and fails above the second
LEARNING_RATES = {
    "sgd": {4: 0.3, 8: 0.03, 20: 0.01},
    "momentum": {4: 0.3, 8: 0.01, 20: 0.001},
    "adam": {4: 3e-3, 8: 1e-3, 20: 3e-4},
}
TITLES = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam"}


class HiddenLayer(nn.Sequential):
    """Linear, BatchNorm, ReLU: the module that the law counts as one layer.

    It has a class of its own, so that `EquiSeparation` finds its instances as blocks.
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
        """Return the logits."""
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the cross-entropy."""
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[MultiStepLR]]:
        """Divide the learning rate by 10 after one third and after two thirds of the epochs."""
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
    """Scale an epoch of the paper's 600 to the length of this run."""
    return round(epoch * epochs / EPOCHS)


def train(options: argparse.Namespace) -> tuple[list[Measurement], list[Measurement]]:
    """Train one network; return the measurements with batch and with running statistics."""
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
    """The values that `EquiSeparation` logs, by key without family and probe."""
    return {key.rsplit("/", 1)[1]: value for key, value in measurement.values.items()}


def claims(options: argparse.Namespace, batch: list[Measurement]) -> list[tuple[bool, str]]:
    """The claims about a run with batch statistics: whether each is true, and a sentence."""
    before, after = law(batch[0]), law(batch[-1])
    found = [(absent(before), f"before training the law does not hold: {judged_by(before)}")]
    control = options.linear or options.no_batch_norm
    if control and options.layers >= 8:  # with 4 layers, the law can hold without BatchNorm
        found.append((absent(after), f"nor does it after, {without(options)}: {judged_by(after)}"))
    elif not control and (options.layers, options.optimizer) == (8, "adam"):
        holds = after["pearson_r"] <= HOLDS
        found.append((holds, f"after training it holds, r <= {HOLDS}: {judged_by(after)}"))
    return found


def absent(fit: dict[str, float]) -> bool:
    """Whether the law clearly fails: ln D is not a line, D is not halved, or D is undefined (NaN).

    D must be halved because the ln D of four layers may form a line by chance.
    """
    r, total = fit["pearson_r"], fit["total"]
    return math.isnan(r) or r > ABSENT or total > 0.5


def judged_by(fit: dict[str, float]) -> str:
    """The numbers that decide whether a claim is true."""
    return f"r = {fit['pearson_r']:.4f}, D_last / D_first = {fit['total']:.3g}"


def judge(options: argparse.Namespace, batch: list[Measurement]) -> bool:
    """Print the claims about a run and whether they are true; return whether all are."""
    found = claims(options, batch)
    for so, sentence in found:
        print(f"{'yes' if so else 'NO '}: {sentence}")
    return all(so for so, _ in found)


def print_table(batch: list[Measurement], running: list[Measurement]) -> None:
    """Print the law at every measured epoch."""
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
    """Draw D against depth, one line per measured epoch, from dark to light."""
    shades = colormaps["viridis"](torch.linspace(0, 0.9, len(history)).numpy())
    for shade, measurement in zip(shades, history, strict=True):
        D = measurement.arrays["fuzziness"]
        label = f"{measurement.epochs_completed:g}"
        axes.plot(range(len(D)), D, "o-", color=shade, markersize=4, label=label)
    axes.set_yscale("log")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(title="epochs completed", ncols=3, fontsize="small", loc="best")


def save_run(options: argparse.Namespace, batch: list[Measurement]) -> None:
    """Save a figure of D against depth at every measured epoch, and of the law at the last."""
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
    """Name what is left out of the network."""
    left_out = ["nonlinearity"] * options.linear + ["BatchNorm"] * options.no_batch_norm
    return f"without {' and '.join(left_out)}" if left_out else ""


def save_panels(options: argparse.Namespace, laws: dict[tuple[str, int], Measurement]) -> None:
    """Save a figure of the law for every optimizer (rows) and depth (columns)."""
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
    """Train one network, show its measurements, and return whether all claims are true."""
    print(f"{describe(options)}, seed {options.seed}")
    batch, running = train(options)
    print_table(batch, running)
    save_run(options, batch)
    return judge(options, batch)


def panels(options: argparse.Namespace) -> bool:
    """Train with every optimizer at every depth; return whether all claims are true."""
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
    """Parse the command line."""
    parser = options_of(
        __doc__, seed="seed of images, initialisation and batch order", fashion_mnist=True
    )
    add = parser.add_argument
    add("--layers", type=int, choices=LAYERS, default=8, help="hidden layers plus the classifier")
    add("--optimizer", choices=list(LEARNING_RATES), default="adam")
    add("--linear", action="store_true", help="leave out the nonlinearities")
    add("--no-batch-norm", action="store_true", help="leave out BatchNorm")
    add("--panels", action="store_true", help="all nine combinations of optimizer and depth")
    add("--epochs", type=int, default=EPOCHS, help="the learning rate schedule scales with it")
    return parser.parse_args()


def main() -> int:
    """Run the example; return 0 if all claims are true."""
    options = parse()
    use_one_thread()
    return 0 if (panels if options.panels else one)(options) else 1


if __name__ == "__main__":
    sys.exit(main())
