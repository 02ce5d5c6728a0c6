r"""The law of equi-separation in convolutional networks: what counts as one module?

Networks like AlexNet and VGG13, a DenseNet and three ResNets learn 1000 images of FashionMNIST. In
the first two each layer is a module, in a DenseNet each dense block, and in a ResNet each residual
block: in the talk ln D falls along a line from block to block, and less so from layer to layer::

    python examples/equi_separation_architectures.py             # about 12 minutes
    python examples/equi_separation_architectures.py --seeds 0   # a third of it
    python examples/equi_separation_architectures.py --epochs 600   # as many as in the paper

`EquiSeparation` finds these modules by itself. The law holds if r is at most -0.98, which leaves
4 % of the variance of ln D unexplained, and at most half of D is left. In a ResNet, 1 - r^2 must
moreover be three times as large over layers, of which there are more: points of both, scattered
equally about the same line, would make it 1.6 to 1.8 times as large. The exit status is 1 unless
all of this is so for every seed. It is not: after as few epochs as here, ln D is near a line over
the layers of AlexNet and VGG13, but no preference for the blocks of ResNets is found, nor a line
over those of the DenseNet.

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
"""

import sys
from itertools import product
from typing import Any

from convolutional_networks import (
    BATCH,
    COPIES,
    EPOCHS,
    OTHERS,
    RATE,
    RESIDUAL,
    SIZE,
    WEIGHT_DECAY,
    train,
)
from example_setup import draw_laws, options_of, parsed, results_folder, save
from matplotlib.figure import Figure
from verdicts import Run, Values, Verdict, conclude, number, span

NAME = "equi_separation_architectures"
LINE, LEFT = -0.98, 0.5  # r at most, and what is left of D at most
FACTOR = 3  # how much more of the variance of ln D is unexplained over layers, at least
CLAIMS = {
    "AlexNet": ("20a", "AlexNet: each layer separates as much as the others"),
    "VGG13": ("20b", "VGG13: each layer separates as much as the others"),
    "ResNet, blocks of 2 layers": ("25a", "2-layer blocks: the right module is the block"),
    "ResNet, blocks of 3 layers": ("25b", "3-layer blocks: the right module is the block"),
    "ResNet, mixed blocks": ("25c", "blocks of 3 and 2 layers: the right module is the block"),
    "DenseNet": ("26", "DenseNet161: the same story, the module is the dense block"),
}


def judge(values: Values) -> list[Verdict]:
    """Judge the trained networks, by name and seed."""
    return [of_network(name, list(seeds.values())) for name, seeds in values.items()]


def of_network(name: str, runs: list[Any]) -> Verdict:
    """Whether the law holds over the modules of a network, and not over its layers."""
    claim, talk = CLAIMS[name]
    r, left = ([number(run["blocks"][key]) for run in runs] for key in ("pearson_r", "total"))
    holds = max(r) <= LINE and max(left) <= LEFT
    statement = f"r is at most {LINE}, and at most {LEFT} of D is left"
    numbers = f"r {span(r, bound=LINE)}, left of D {span(left, 2)}"
    if name in RESIDUAL:
        over_layers = [number(run["layers"]["pearson_r"]) for run in runs]
        ratios = [(1 - b**2) / (1 - a**2) for a, b in zip(r, over_layers, strict=True)]
        holds &= min(ratios) >= FACTOR
        statement += f"; over layers 1 - r^2 is at least {FACTOR} times that over blocks"
        numbers += f"; over layers r {span(over_layers)}, 1 - r^2 {span(ratios, 2)} times"
    return Verdict(claim, talk, statement, numbers, holds)


def draw(values: Values) -> Figure:
    """Draw the law in every network of the first seed; in ResNets over layers and over blocks."""
    first = {name: next(iter(seeds.values())) for name, seeds in values.items()}
    figure = Figure(figsize=(10.4, 8.6), dpi=100, layout="constrained")
    grid = figure.subplots(3, 3)
    laws = {name: first[name]["blocks"]["D"] for name in OTHERS}
    for modules in ("layers", "blocks"):
        laws |= {f"{name}: {modules}": first[name][modules]["D"] for name in RESIDUAL}
    draw_laws(grid.flat, laws)
    for axes in grid[:, 0]:
        axes.set_ylabel("$D$")
    figure.supxlabel("module (0: raw input)", fontsize="medium")
    figure.suptitle("Separation fuzziness $D$ of FashionMNIST after training")
    return figure


def exchanged(values: Values) -> Values:
    """Values with blocks and layers of residual networks exchanged."""
    return {
        name: {
            seed: run
            | ({"blocks": run["layers"], "layers": run["blocks"]} if "layers" in run else {})
            for seed, run in seeds.items()
        }
        for name, seeds in values.items()
    }


def run_of(values: dict[str, Any], untrained: dict[str, Any], epochs: int) -> Run:
    """All that is kept of the networks trained so far."""
    seeds = sorted({int(seed) for runs in values.values() for seed in runs})
    fewest = min(len(runs) for runs in values.values())
    settings = {
        "data": f"FashionMNIST, 100 images per class, {SIZE} x {SIZE}, in {COPIES} copies",
        "BatchNorm": "batch statistics",
        "epochs": epochs,
        "batch size": BATCH,
        "optimizer": f"Adam, learning rate {RATE}, a tenth of it after each third of the epochs",
        "weight decay": WEIGHT_DECAY,
    }
    if fewest < len(seeds):
        further = [name for name, runs in values.items() if len(runs) > fewest]
        settings["the last seed"] = f"of {', '.join(further)} alone"
    controls = {
        "the networks before training": untrained,
        "blocks and layers exchanged": exchanged(values),
    }
    differs = (
        "The paper's images are 32 x 32, its AlexNet and VGG13 have eight times the channels, and "
        "it trains for 600 epochs at the best of five learning rates; the DenseNet is a small one. "
        "D is that of all features, where the authors' code keeps 100 principal components of "
        "those of ResNets."
    )
    return Run(values, controls, settings, seeds, differs, [f"{NAME}.png"])


def main() -> int:
    """Train every network; return 0 if all claims are true."""
    parser = options_of(__doc__, seeds=(0, 1, 2), fashion_mnist=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="length of each training")
    options = parsed(parser)
    values: dict[str, Any] = {}
    untrained: dict[str, Any] = {}
    found = False
    for seed, name in product(options.seeds, CLAIMS):
        before, after = train(name, seed, options.epochs, options.data)
        untrained.setdefault(name, {})[str(seed)] = before
        values.setdefault(name, {})[str(seed)] = after
        print(f"{name}, seed {seed}: {after}", flush=True)
        if len(values) == len(CLAIMS):  # kept after each training, for the next one takes long
            run = run_of(values, untrained, options.epochs)
            found = conclude(NAME, judge, run, results_folder(options))
    save(draw(values), options.output, NAME)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
