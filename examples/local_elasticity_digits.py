r"""Local elasticity grows while a network learns digits, and never changes in softmax regression.

`LocalElasticity` watches two classifiers of scikit-learn's digits while they train. The relative
ratio is 1/2 if a gradient step on an image moves images of all classes alike, and 1 if it moves
only those of its own class. It rises in a multilayer perceptron. In softmax regression a step on x
moves x' in proportion to x.x' + 1, whatever has been learned: from the first epoch to the last, the
ratio equals a closed form of the pixels::

    python examples/local_elasticity_digits.py
    python examples/local_elasticity_digits.py --seeds 3 4 5 --epochs 100

Each run holds out its own 20 images per class, on which the networks are measured. The exit status
is 1 unless, in all runs, every ratio of softmax regression equals the closed form, the ratio of the
perceptron rises clearly, from below the closed form to above it, and most of the rise comes late.
(The mean effects within and between classes, alpha and beta, are no evidence: alpha is the larger
one before training, too.)

Source:
    He & Su (2020), "The local elasticity of neural networks", ICLR; Chen, He & Su (2020),
    "Label-aware neural tangent kernel: toward better generalization and local elasticity", NeurIPS.
"""

import math
import sys
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from example_setup import (
    BLUE,
    ORANGE,
    CrossEntropyModule,
    options_of,
    parsed,
    results_folder,
    save,
    train_quietly,
)
from fashion_mnist import choose, whole_batches
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc import LocalElasticity, Measurement, Probe
from lightning_nc.functional.local_elasticity import relative_ratio

NAME = "local_elasticity_digits"
PER_CLASS, WIDTH = 20, 256
LATE = 0.99  # accuracy on training images at which the late phase begins
RISE = 0.04  # smallest rise of the ratio; with seeds 0 to 11 it is 0.064 or more
PRECISION = 1e-6  # of a float32 network; pixels are sixteenths, so their products are exact
STYLES = {"softmax regression": (ORANGE, 4), "perceptron": (BLUE, 1.5)}  # colour, width


class Measured(NamedTuple):
    """Measurements of both networks on the same images, and accuracies on training images."""

    seed: int
    closed_form: float
    history: dict[str, list[Measurement]]
    accuracy: dict[str, float]
    in_training: dict[str, list[float]]


class AccuracyOverEpochs(pl.Callback):
    """The accuracy on the training images, before training and after every epoch."""

    def __init__(self, trainset: TensorDataset) -> None:
        self.images, self.labels = trainset.tensors
        self.values: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        """Measure before training."""
        self.on_train_epoch_end(trainer, model)

    def on_train_epoch_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        """Measure after an epoch."""
        with torch.no_grad():
            right = model(self.images).argmax(1) == self.labels
        self.values.append(float(right.double().mean()))


class Classifier(CrossEntropyModule):
    """A network trained with cross-entropy."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.network(x)

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


def train(
    model: Classifier, trainset: TensorDataset, probe: Probe, epochs: int
) -> tuple[list[Measurement], list[float]]:
    """Train; return what was measured before training and after every epoch."""
    elasticity = LocalElasticity(PER_CLASS, probe=probe, figures=False, on_error="raise")
    accuracy = AccuracyOverEpochs(trainset)
    train_quietly(model, whole_batches(trainset, 64), epochs, [elasticity, accuracy])
    return elasticity.history, accuracy.values


def run(seed: int, epochs: int) -> Measured:
    """Train and measure both networks."""
    torch.manual_seed(seed)
    measured, trainset = split(seed)
    x, y = measured.tensors
    pixels = x.double()
    found = Measured(seed, float(relative_ratio(pixels @ pixels.mT + 1, y)), {}, {}, {})
    probe = Probe(source=measured, name="digits", samples_per_class=None)
    for name, network in networks().items():
        model = Classifier(network)
        found.history[name], found.in_training[name] = train(model, trainset, probe, epochs)
        found.accuracy[name] = float((model(x).argmax(1) == y).double().mean())
    return found


def values(history: list[Measurement], key: str) -> list[float]:
    """The values of a quantity, before training and after every epoch."""
    return [measurement.values[f"elasticity/digits/{key}"] for measurement in history]


def print_table(runs: list[Measured]) -> None:
    """Print ratios before and after training, and effects after training."""
    columns = ("accuracy", "closed form", "before", "after", "alpha", "beta")
    print(f"{'seed':6}{'network':20}" + "".join(f"{column:>13}" for column in columns))
    for each in runs:
        for name, history in each.history.items():
            ratio = values(history, "relative_ratio")
            effects = f"{values(history, 'intra')[-1]:13.2f}{values(history, 'inter')[-1]:13.2f}"
            ratios = f"{each.closed_form:13.6f}{ratio[0]:13.6f}{ratio[-1]:13.6f}"
            print(f"{each.seed:<6}{name:20}{each.accuracy[name]:13.1%}{ratios}{effects}")


def judge(kept: Values) -> list[Verdict]:
    """Judge the ratios of both networks over epochs, and the closed form, by seed."""
    errors, rises, early, starts, crosses = [], [], [], [], True
    for each in kept.values():
        closed_form, perceptron = number(each["closed form"]), each["perceptron"]
        linear = map(number, each["softmax regression"])
        errors += [abs(ratio - closed_form) for ratio in linear]
        rises.append(number(perceptron[-1]) - number(perceptron[0]))
        late = next((n for n, a in enumerate(each["training accuracy"]) if a >= LATE), None)
        if late is not None:
            starts.append(late)
            rise = rises[-1] or math.nan  # in softmax regression there is none
            early.append((number(perceptron[late]) - number(perceptron[0])) / rise)
        crosses &= number(perceptron[0]) < closed_form < number(perceptron[-1])
    return [
        Verdict(
            "36a",
            "linear classifiers are not locally elastic; neural networks are, and become so in "
            "training",
            f"every ratio of softmax regression is the closed form of its inputs within {PRECISION}"
            f"; the perceptron's rises by more than {RISE}, from below the closed form to above",
            f"largest error {max(errors):.0e}; rise {span(rises)}",
            max(errors) <= PRECISION and min(rises) > RISE and crosses,
        ),
        Verdict(
            "36b",
            "local elasticity kicks in in the late phase of training",
            f"when the perceptron's accuracy in training first reaches {LATE:.0%}, its ratio has "
            "made less than half of its rise, in every run",
            f"by then, at epoch {span(starts)}, {span(early)} of the rise",
            len(early) == len(kept) and max(early) < 0.5,
        ),
    ]


def ratios(runs: list[Measured]) -> dict[str, dict[str, float | list[float]]]:
    """The values to judge."""
    return {
        str(each.seed): {
            "closed form": each.closed_form,
            "training accuracy": each.in_training["perceptron"],
        }
        | {name: values(history, "relative_ratio") for name, history in each.history.items()}
        for each in runs
    }


def controls(kept: Values) -> dict[str, Values]:
    """Values without the phenomenon: one network in place of the other."""
    one, other = STYLES
    return {
        f"a {other} in place of {one}": {s: run | {one: run[other]} for s, run in kept.items()},
        f"{one} in place of the {other}": {s: run | {other: run[one]} for s, run in kept.items()},
    }


def draw_ratios(axes: Axes, runs: list[Measured]) -> None:
    """Draw the relative ratio over epochs, a line for each run."""
    for name, (color, width) in STYLES.items():
        for run_number, each in enumerate(runs):
            ratio = values(each.history[name], "relative_ratio")
            label = name if run_number == 0 else None
            axes.plot(ratio, color=color, linewidth=width, label=label)
    for run_number, each in enumerate(runs):
        label = r"closed form, from $x \cdot x' + 1$" if run_number == 0 else None
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


def draw(runs: list[Measured]) -> Figure:
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


def main() -> int:
    """Run the example; return 0 if the claim is true."""
    parser = options_of(__doc__, seeds=(0, 1, 2), short="one seed, 10 epochs")
    parser.add_argument("--epochs", type=int, default=30)
    options = parsed(parser)
    if options.epochs < 1:
        parser.error("--epochs must be 1 or more.")
    if options.short:
        options.seeds, options.epochs = options.seeds[:1], 10
    runs = [run(seed, options.epochs) for seed in options.seeds]
    print_table(runs)
    save(draw(runs), options.output, NAME)
    kept = ratios(runs)
    settings = {
        "data": f"digits, {PER_CLASS} per class held out and measured, the others trained on",
        "perceptron": f"two hidden layers of {WIDTH}",
        "optimizer": "Adam, rate 0.003, batches of 64",
        "epochs": options.epochs,
    }
    differs = (
        "The talk draws the hypothesis; data, networks and the relative ratio are ours. 36b was "
        "stated when the ratio over epochs had been seen."
    )
    measured = Run(kept, controls(kept), settings, options.seeds, differs, [f"{NAME}.png"])
    return 0 if conclude(NAME, judge, measured, results_folder(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
