r"""The label-aware kernel on FashionMNIST: knowing labels makes a kernel more locally elastic.

The tangent kernel of a network at initialisation does not depend on labels: images of two similar
classes are almost as close to each other as images of one class. The label-aware kernel (LANTK)
adds an estimate Z(x, x') of the product of the labels, learned from training images. On held-out
images this raises the relative ratio, the share of the same class in the mean kernel, as training
the network does::

    python examples/label_aware_kernel.py
    python examples/label_aware_kernel.py --pairs 0:6 --seed 1

There are two estimates: one uses three features of a pair (inner product, distance, tangent
kernel), the other coordinatewise products of random features. They are fitted to 200 training
images of 14x14 pixels per class, with 100 held out; the network has one hidden layer of 512 units,
and Z has weight 1. For classes that are easy to tell apart, the sum of kernel and Z is negative
between classes and the ratio is undefined, so the pairs here are hard ones. The exit status is 1
unless both estimates raise the ratio on held-out images for every pair.

Source:
    Chen, He & Su (2020), "Label-aware neural tangent kernel: toward better generalization and local
    elasticity", NeurIPS.
"""

import argparse
import sys

import torch
from example_setup import BLUE, GREEN, ORANGE, PINK, options_of, save
from fashion_mnist import normalize, read, resize
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_nc.functional.gradient_kernel import gradient_kernel
from lightning_nc.functional.label_aware_kernel import (
    fit_pair_features,
    fit_random_features,
    label_aware_kernel,
)
from lightning_nc.functional.local_elasticity import relative_ratio

Pair = tuple[int, int]

NAMES = "T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot"
CLASSES = NAMES.split(", ")
PAIRS: list[Pair] = [(2, 4), (2, 6), (0, 6), (4, 6)]
BARS = {
    "NTK at initialisation": BLUE,
    "LANTK, pair features": ORANGE,
    "LANTK, random features": GREEN,
    "NTK after training": PINK,
}


def images_of(
    pair: Pair, data: tuple[Tensor, Tensor], per_class: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw ``per_class`` images of each class, one per row, and their labels, -1 and 1."""
    images, labels = data
    order = torch.randperm(len(labels), generator=generator)
    chosen = torch.cat([order[labels[order] == k][:per_class] for k in pair])
    y = torch.tensor([-1, 1]).repeat_interleave(per_class)
    return normalize(resize(images[chosen], 14)).flatten(1), y


def train(network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
    """Train on the two classes for 50 epochs of SGD with the logistic loss."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(50):
        for batch in torch.randperm(len(x), generator=generator).split(50):
            optimizer.zero_grad()
            nn.functional.soft_margin_loss(network(x[batch])[:, 0], y[batch].float()).backward()
            optimizer.step()


def ratios(
    pair: Pair,
    trainset: tuple[Tensor, Tensor],
    testset: tuple[Tensor, Tensor],
    options: argparse.Namespace,
) -> list[float]:
    """Relative ratio of each kernel on held-out images, in the order of `BARS`."""
    generator = torch.Generator().manual_seed(options.seed)
    x, y = images_of(pair, trainset, 200, generator)
    x_, y_ = images_of(pair, testset, 100, generator)
    torch.manual_seed(options.seed)
    network = nn.Sequential(nn.Linear(x.shape[1], 512), nn.ReLU(), nn.Linear(512, 1)).eval()
    ntk, ntk_ = gradient_kernel(network, x), gradient_kernel(network, x_)
    by_pairs = fit_pair_features(x, y, ntk)(x_, x_, ntk_)
    by_features = fit_random_features(x, y, seed=options.seed)(x_, x_)
    kernels = [ntk_, label_aware_kernel(ntk_, by_pairs), label_aware_kernel(ntk_, by_features)]
    train(network, x, y, generator)
    kernels.append(gradient_kernel(network, x_))
    return [float(relative_ratio(kernel, y_)) for kernel in kernels]


def draw(rows: dict[Pair, list[float]]) -> Figure:
    """Draw bars for each pair, in a colour for each kernel."""
    figure = Figure((7.5, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(BARS)
    for bar, (name, colour) in enumerate(BARS.items()):
        places = [place + (bar - (len(BARS) - 1) / 2) * width for place in range(len(rows))]
        heights = [values[bar] - 0.5 for values in rows.values()]  # no local elasticity: 0.5
        axes.bar(places, heights, width, bottom=0.5, color=colour, label=name)
    names = [f"{CLASSES[a]} / {CLASSES[b]}" for a, b in rows]
    axes.set_xticks(range(len(rows)), names)
    axes.set_ylabel("held-out relative ratio (not elastic: 0.5)")
    axes.set_title("Label-aware kernels on FashionMNIST")
    axes.grid(True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize="small", loc="upper left")
    return figure


def verdict(rows: dict[Pair, list[float]]) -> list[str]:
    """The results that contradict the paper, as sentences."""
    wrong = []
    for (a, b), (ntk, by_pairs, by_features, _) in rows.items():
        for name, lantk in (("pair", by_pairs), ("random", by_features)):
            if not lantk > ntk:
                wrong.append(
                    f"{CLASSES[a]} / {CLASSES[b]}: {name} features do not raise the ratio: "
                    f"{ntk:.4f} to {lantk:.4f}"
                )
    return wrong


def main() -> int:
    """Measure all pairs and draw them; return 0 if no result contradicts the paper."""
    options = parse()
    trainset, testset = read("train", options.data), read("test", options.data)
    print(f"{'pair':20}  " + "  ".join(BARS))
    rows = {}
    for pair in options.pairs:
        rows[pair] = ratios(pair, trainset, testset, options)
        columns = zip(BARS, rows[pair], strict=True)
        values = "  ".join(f"{value:{len(bar)}.4f}" for bar, value in columns)
        print(f"{CLASSES[pair[0]] + ' / ' + CLASSES[pair[1]]:20}  {values}", flush=True)
    save(draw(rows), options.output, "label_aware_kernel")
    wrong = verdict(rows)
    for sentence in wrong:
        print(f"NOT REPRODUCED: {sentence}")
    return 1 if wrong else 0


def pair_of(text: str) -> Pair:
    """Parse two different classes, such as ``0:6``."""
    a, b = map(int, text.split(":"))
    if a == b or not {a, b} <= set(range(len(CLASSES))):
        raise argparse.ArgumentTypeError(
            f"{text} is not two different classes from 0 to 9, such as 0:6."
        )
    return a, b


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = options_of(
        __doc__, seed="seed of images, initialisation and features", fashion_mnist=True
    )
    parser.add_argument(
        "--pairs", type=pair_of, nargs="+", default=PAIRS, help="pairs of classes, such as 0:6"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
