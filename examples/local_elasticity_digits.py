r"""Local elasticity grows while a network learns digits, and never changes in softmax regression.

`LocalElasticity` watches two classifiers of scikit-learn's digits while they train. The relative
ratio is 1/2 if a gradient step on an image moves images of all classes alike, and 1 if it moves
only those of its own class. It rises in a multilayer perceptron. In softmax regression a step on x
moves x' in proportion to x.x' + 1, whatever has been learned: from the first epoch to the last, the
ratio equals a closed form of the pixels::

    python examples/local_elasticity_digits.py
    python examples/local_elasticity_digits.py --seed 3 --epochs 100

There are three runs, with the given seed and the next two. Each holds out its own 20 images per
class, on which the networks are measured. The exit status is 1 unless, in all runs, every ratio of
softmax regression equals the closed form, the ratio of the perceptron rises clearly, from below the
closed form to above it, and after training the mean effect of a step within classes (alpha) is
larger than that between classes (beta) in both networks.

Source:
    He & Su (2020), "The local elasticity of neural networks", ICLR; Chen, He & Su (2020),
    "Label-aware neural tangent kernel: toward better generalization and local elasticity", NeurIPS.
"""

import argparse
import sys
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from example_setup import BLUE, ORANGE, options_of, save, train_quietly, use_one_thread
from fashion_mnist import choose, whole_batches
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_nc import LocalElasticity, Measurement, Probe
from lightning_nc.functional.local_elasticity import relative_ratio

PER_CLASS, WIDTH, RUNS = 20, 256, 3
RISE = 0.04  # smallest rise of the ratio; with seeds 0 to 11 it is 0.064 or more
PRECISION = 1e-6  # of a float32 network; pixels are sixteenths, so their products are exact
STYLES = {"softmax regression": (ORANGE, 4), "perceptron": (BLUE, 1.5)}  # colour, width


class Run(NamedTuple):
    """Measurements of both networks on the same images."""

    seed: int
    closed_form: float
    history: dict[str, list[Measurement]]
    accuracy: dict[str, float]


class Classifier(pl.LightningModule):
    """A network trained with cross-entropy."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the cross-entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an Adam optimizer."""
        return torch.optim.Adam(self.parameters(), 3e-3)


def networks() -> dict[str, nn.Module]:
    """The networks by their names in `STYLES`."""
    perceptron = nn.Sequential(
        nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)
    )
    return {"softmax regression": nn.Linear(64, 10), "perceptron": perceptron}


def split(seed: int) -> tuple[TensorDataset, TensorDataset]:
    """Split the digits into `PER_CLASS` per class to measure on, and the others to train on."""
    images, digits = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
    x = (images / 16).float()  # pixels are 0 to 16
    measured = choose(digits, PER_CLASS, seed)
    others = torch.ones(len(x), dtype=torch.bool).index_fill(0, measured, False)
    return TensorDataset(x[measured], digits[measured]), TensorDataset(x[others], digits[others])


def train(model: Classifier, trainset: TensorDataset, probe: Probe, epochs: int) -> LocalElasticity:
    """Train; return the callback, which measured before training and after every epoch."""
    elasticity = LocalElasticity(PER_CLASS, probe=probe, figures=False, on_error="raise")
    train_quietly(model, whole_batches(trainset, 64), epochs, [elasticity])
    return elasticity


def run(seed: int, epochs: int) -> Run:
    """Train and measure both networks."""
    torch.manual_seed(seed)
    measured, trainset = split(seed)
    x, y = measured.tensors
    pixels = x.double()
    found = Run(seed, float(relative_ratio(pixels @ pixels.mT + 1, y)), {}, {})
    probe = Probe(source=measured, name="digits", samples_per_class=None)
    for name, network in networks().items():
        model = Classifier(network)
        found.history[name] = train(model, trainset, probe, epochs).history
        found.accuracy[name] = float((model(x).argmax(1) == y).double().mean())
    return found


def values(history: list[Measurement], key: str) -> list[float]:
    """The values of a quantity, before training and after every epoch."""
    return [measurement.values[f"elasticity/digits/{key}"] for measurement in history]


def print_table(runs: list[Run]) -> None:
    """Print ratios before and after training, and effects after training."""
    columns = ("accuracy", "closed form", "before", "after", "alpha", "beta")
    print(f"{'seed':6}{'network':20}" + "".join(f"{column:>13}" for column in columns))
    for each in runs:
        for name, history in each.history.items():
            ratio = values(history, "relative_ratio")
            effects = f"{values(history, 'intra')[-1]:13.2f}{values(history, 'inter')[-1]:13.2f}"
            ratios = f"{each.closed_form:13.6f}{ratio[0]:13.6f}{ratio[-1]:13.6f}"
            print(f"{each.seed:<6}{name:20}{each.accuracy[name]:13.1%}{ratios}{effects}")


def judge(runs: list[Run]) -> bool:
    """Print whether each claim is true in every run; return whether all are."""
    errors, rises, crosses = [], [], True
    for each in runs:
        linear, perceptron = (
            values(each.history[name], "relative_ratio")
            for name in ("softmax regression", "perceptron")
        )
        errors += [abs(ratio - each.closed_form) for ratio in linear]
        rises.append(perceptron[-1] - perceptron[0])
        crosses &= perceptron[0] < each.closed_form < perceptron[-1]
    error, rise = max(errors), min(rises)
    histories = [history for each in runs for history in each.history.values()]
    excess = min(values(each, "intra")[-1] / values(each, "inter")[-1] for each in histories)
    found = [
        (error < PRECISION, f"softmax regression keeps the closed form: largest error {error:.1e}"),
        (rise > RISE, f"the perceptron's ratio rises by more than {RISE}: at least {rise:.3f}"),
        (crosses, "it rises from below the closed form to above it"),
        (excess > 1, f"alpha exceeds beta after training: alpha / beta at least {excess:.2f}"),
    ]
    for so, sentence in found:
        print(f"{'yes' if so else 'NO '}: {sentence}")
    return all(so for so, _ in found)


def draw_ratios(axes: Axes, runs: list[Run]) -> None:
    """Draw the relative ratio over epochs, a line for each run."""
    for name, (color, width) in STYLES.items():
        for number, each in enumerate(runs):
            ratio = values(each.history[name], "relative_ratio")
            label = name if number == 0 else None
            axes.plot(ratio, color=color, linewidth=width, label=label)
    for number, each in enumerate(runs):
        label = r"closed form, from $x \cdot x' + 1$" if number == 0 else None
        axes.axhline(each.closed_form, color="black", linewidth=1, linestyle=":", label=label)
    axes.axhline(0.5, color="0.5", linestyle="--", label="no local elasticity")
    axes.set_xlabel("epochs completed")
    axes.set_ylabel("relative ratio")
    axes.set_xlim(0, len(ratio) - 1)
    axes.set_title(f"held-out images, {len(runs)} runs")
    axes.legend(fontsize="small", loc="center right")
    axes.grid(True, alpha=0.3)


def draw_kernel(axes: Axes, measurement: Measurement, title: str) -> AxesImage:
    """Draw the normalised kernel after training, class by class."""
    K = measurement.arrays["kernel"]
    norms = K.diagonal().sqrt()
    # no pixel is negative, which makes the kernel positive: the scale starts at 0
    image = axes.imshow(K / norms[:, None] / norms, vmin=0, vmax=1, interpolation="nearest")
    for end in range(PER_CLASS, len(K), PER_CLASS):
        axes.axhline(end - 0.5, color="white", linewidth=0.5)
        axes.axvline(end - 0.5, color="white", linewidth=0.5)
    middles = [PER_CLASS * (k + 0.5) - 0.5 for k in range(10)]
    axes.set_xticks(middles, range(10))
    axes.set_yticks(middles, range(10))
    axes.set_xlabel("digit")
    axes.set_title(title)
    return image


def draw(runs: list[Run]) -> Figure:
    """Draw the ratios of all runs and the kernels of the first."""
    figure = Figure(figsize=(14, 4.4), dpi=110, layout="constrained")
    of_ratios, *of_kernels = figure.subplots(1, 3)
    draw_ratios(of_ratios, runs)
    for axes, (name, history) in zip(of_kernels, runs[0].history.items(), strict=True):
        ratio = values(history, "relative_ratio")[-1]
        image = draw_kernel(axes, history[-1], f"{name} after training: ratio {ratio:.3f}")
    of_kernels[0].set_ylabel("digit")
    label = r"$K(x, x')\,/\,\sqrt{K(x, x)\,K(x', x')}$"
    figure.colorbar(image, ax=of_kernels, label=label, shrink=0.85)
    return figure


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = options_of(__doc__, seed="seed of the first run: images, initialisation, batches")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    if options.epochs < 1:
        parser.error("--epochs must be 1 or more.")
    return options


def main() -> int:
    """Run the example; return 0 if all claims are true."""
    options = parse()
    use_one_thread()
    runs = [run(options.seed + number, options.epochs) for number in range(RUNS)]
    print_table(runs)
    right = judge(runs)
    save(draw(runs), options.output, "local_elasticity_digits")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
