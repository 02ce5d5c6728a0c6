r"""The law of next-token prediction in a small GPT, trained on the source code of Python itself.

He & Su (2025) predict the number of the next token from the features of each layer of a trained
language model by least squares: from the first block to the last, the logarithm of what remains
unexplained, PR, falls along a line. Here a GPT of a few blocks reads the modules of Python's
standard library, which come with every Python, in a byte-pair vocabulary made of them::

    python examples/next_token_law.py

On text that it is not trained on, the example follows PR of each block and the collapse of features
to the means of the next token (Wu & Papyan, 2024). The exit status is 1 unless in every seed ln PR
falls closer to a line after training than before (r below -0.9) and further, also if tokens are
numbered at random, and token classes become more compact. So small a network lowers PR by a few per
cent only, where the paper has large pre-trained networks, with r close to -1.

Sources:
    He & Su (2025), "A law of next-token prediction in large language models", Physical Review E
    112, 035317; Wu & Papyan (2024), "Linguistic collapse: neural collapse in (large) language
    models", NeurIPS.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from example_setup import (
    BLUE,
    GREEN,
    ORANGE,
    options_of,
    parsed,
    results_folder,
    save,
    train_quietly,
)
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc import Measurement, NeuralCollapse, NextTokenLaw, Probe, measure, next_token
from lightning_nc.functional import separation_law

NAME = "next_token_law"
CONTEXT, WIDTH = 64, 64  # positions of a piece of text, features of a position
LINE = -0.9  # r of the law after training is below
Pairs = list[list[float]]  # values before and after training, by seed


def source_code(characters: int) -> str:
    """The modules of Python's standard library one after another, in ASCII."""
    files = sorted(Path(argparse.__file__).parent.glob("*.py"))
    text = "".join(file.read_text(errors="replace") for file in files)
    return text.encode("ascii", "ignore").decode()[:characters]


def byte_pairs(text: str, merges: int) -> np.ndarray:
    """Tokens of a text: characters, and pairs of tokens from the most frequent one on.

    Args:
        text: ASCII text.
        merges: How many pairs become tokens of their own.

    Returns:
        Numbers of tokens from 0, first the characters in their order, then the pairs in theirs.
    """
    tokens = np.unique(np.frombuffer(text.encode(), np.uint8), return_inverse=True)[1]
    for new in itertools.islice(itertools.count(int(tokens.max()) + 1), merges):
        pairs = tokens[:-1] * (new + 1) + tokens[1:]
        found = np.flatnonzero(pairs == np.bincount(pairs).argmax())
        # of pairs that overlap, as in "aaa", every other one
        runs = np.split(found, np.flatnonzero(np.diff(found) != 1) + 1)
        firsts = np.concatenate([run[::2] for run in runs])
        tokens[firsts] = new
        tokens = np.delete(tokens, firsts + 1)
    return tokens


class Block(nn.Module):
    """Causal self-attention and two layers at each position, each added to its input."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, h: Tensor) -> Tensor:
        """Return features of shape ``(B, T, d)``."""
        split = self.qkv(self.norms[0](h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(*split, is_causal=True)
        h = h + self.out(seen.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norms[1](h))


class GPT(pl.LightningModule):
    """A causal language model of a few blocks."""

    def __init__(self, vocabulary: int, blocks: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.tokens, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at each position, shape ``(B, T, V)``."""
        h = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(h)))

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        """Return the cross-entropy of the next tokens."""
        logits = self(batch[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW, whose learning rate rises for a tenth of the steps and falls to zero."""
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, self.steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def renumbered(seed: int, vocabulary: int) -> object:
    """Unpack tokens as `next_token` does, with next tokens numbered at random."""
    numbers = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))

    def unpack(batch: Tensor) -> tuple[Tensor, Tensor]:
        inputs, labels = next_token(batch)
        return inputs, torch.where(labels < 0, labels, numbers[labels])

    return unpack


def train(options: argparse.Namespace, seed: int) -> tuple[NextTokenLaw, NeuralCollapse, float]:
    """Train; return the callbacks, and PR_L/PR_1 with tokens numbered at random."""
    pl.seed_everything(seed, verbose=False)
    tokens = torch.from_numpy(byte_pairs(source_code(options.characters), options.merges))
    pieces = tokens[: len(tokens) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    pieces = pieces[torch.randperm(len(pieces))]
    held_out, training = list(pieces[: options.probe]), list(pieces[options.probe :])
    vocabulary, loader = int(tokens.max()) + 1, DataLoader(training, 32, shuffle=True)
    print(f"{len(tokens)} tokens of {vocabulary} kinds; {len(loader)} batches an epoch")
    probe = Probe(held_out, "text", unpack=next_token, samples_per_class=None, batch_size=32)
    epochs = sorted({0, *(options.epochs * n // 4 for n in range(1, 5))})
    law, collapse = (
        kind(probe=probe, epochs=epochs, figures=False, on_error="raise")
        for kind in (NextTokenLaw, NeuralCollapse)
    )
    model = GPT(vocabulary, options.blocks, options.epochs * len(loader))
    train_quietly(model, loader, options.epochs, [law, collapse])
    unpack = renumbered(seed, vocabulary)
    again = Probe(held_out, "text", unpack=unpack, samples_per_class=None, batch_size=32)
    control = measure(model, again, measures=[NextTokenLaw()])
    return law, collapse, control.values["next_token/text/total"]


def print_table(law: NextTokenLaw, collapse: NeuralCollapse) -> None:
    """Print the values of all measurements."""
    print("epochs     PR of each block, from the first on" + " " * 24 + "rho        r    total")
    for each in law.history:
        PR = " ".join(f"{value:.4f}" for value in each.arrays["residual"].tolist())
        rest = [each.values[f"next_token/text/{name}"] for name in ("rho", "pearson_r", "total")]
        print(f"{each.epochs_completed:6g}     {PR:<58} " + " ".join(f"{v:8.4f}" for v in rest))
    names = "nc1", "cdnv", "gnc2", "nc4", "accuracy"
    print("epochs " + "".join(f"{name:>12}" for name in names))
    for each in collapse.history:
        values = (each.values[f"nc/text/{name}"] for name in names)
        print(f"{each.epochs_completed:6g} " + "".join(f"{value:12.4f}" for value in values))


def before_and_after(
    law: NextTokenLaw, collapse: NeuralCollapse, renumbered_total: float
) -> dict[str, dict[str, Any]]:
    """The values that `judge` reads, before and after training."""
    before, after = (
        {"PR": one.arrays["residual"].tolist(), "cdnv": other.values["nc/text/cdnv"]}
        | {key: one.values[f"next_token/text/{key}"] for key in ("pearson_r", "total")}
        for one, other in ((law.history[n], collapse.history[n]) for n in (0, -1))
    )
    return {"before": before, "after": after | {"renumbered total": renumbered_total}}


def judge(values: Values) -> list[Verdict]:
    """Judge the first and the last measurement of every seed."""
    r, total, cdnv = (
        [[number(run[when][key]) for run in values.values()] for when in ("before", "after")]
        for key in ("pearson_r", "total", "cdnv")
    )
    renumbered_total = [number(run["after"]["renumbered total"]) for run in values.values()]

    def verdict(letter: str, talk: str, statement: str, falls: Pairs) -> Verdict:
        numbers = f"{span(falls[0])} before, {span(falls[1])} after"
        holds = all(after < before for before, after in zip(*falls, strict=True))
        return Verdict(f"55{letter}", talk, statement, numbers, holds)

    line = verdict(
        "a", "ln PR falls along a line from block to block", f"r falls, to below {LINE}", r
    )
    return [
        line._replace(holds=line.holds and max(r[1]) < LINE),
        verdict("b", "depth helps more as training goes on", "PR_L / PR_1 falls", total),
        verdict(
            "c",
            "the law depends little on how tokens are numbered",
            "PR_L / PR_1 with tokens numbered at random is below that before training",
            [total[0], renumbered_total],
        ),
        verdict("d", "classes of tokens become compact (linguistic collapse)", "CDNV falls", cdnv),
    ]


def over_epochs(history: list[Measurement], name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a quantity of neural collapse, relative to the first."""
    values = [each.values[f"nc/text/{name}"] for each in history]
    return [each.epochs_completed for each in history], [value / values[0] for value in values]


def draw_line(axes: Axes, depth: range, last: Measurement) -> None:
    """Draw the line through ln PR of the last measurement, with its r."""
    fit = separation_law(last.arrays["residual"])
    line = [float((fit.intercept + (block - 1) * fit.rho.log()).exp()) for block in depth]
    axes.plot(depth, line, "k--", linewidth=1, label=f"$r$ = {float(fit.pearson_r):.3f}")


def save_figure(law: NextTokenLaw, collapse: NeuralCollapse, options: argparse.Namespace) -> None:
    """Save a figure of PR against depth by epoch, and of token classes over epochs."""
    figure = Figure(figsize=(9.6, 4.0), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    depth = range(1, options.blocks + 1)
    for place, each in enumerate(law.history):
        colour = colormaps["viridis"](0.9 * place / max(len(law.history) - 1, 1))
        label = f"{each.epochs_completed:g} epochs"
        left.plot(depth, each.arrays["residual"], "o-", color=colour, label=label)
    draw_line(left, depth, law.history[-1])
    left.set(
        yscale="log", xlabel="block", ylabel="PR", title="Prediction residual of the next token"
    )
    left.yaxis.set_minor_formatter("{x:.2f}")
    left.legend(fontsize="small")
    for name, label, colour in (
        ("nc1", "NC1", BLUE),
        ("cdnv", "CDNV", ORANGE),
        ("nc4", "NC4", GREEN),
    ):
        right.plot(*over_epochs(collapse.history, name), "o-", color=colour, label=label)
    right.set(xlabel="epochs completed", title="Collapse to the means of the next token")
    right.set(yscale="log", ylabel="relative to before training")
    right.legend()
    save(figure, options.output, NAME)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = options_of(__doc__, seeds=(0, 1, 2))
    add = parser.add_argument
    add("--characters", type=int, default=1_000_000, help="length of the text")
    add("--merges", type=int, default=400, help="pairs of tokens that become tokens")
    add("--blocks", type=int, default=6, help="blocks of the network")
    add("--probe", type=int, default=400, help="pieces of text that are measured, not trained on")
    add("--epochs", type=int, default=4, help="the learning rate schedule scales with it")
    return parsed(parser)


def run_of(values: dict[str, Any], options: argparse.Namespace) -> Run:
    """All that is kept of the networks trained with some seeds."""
    settings = {
        "data": f"{options.characters} characters of Python's standard library, "
        f"{options.merges} byte pairs",
        "network": f"GPT of {options.blocks} blocks of width {WIDTH}, context {CONTEXT}",
        "optimizer": "AdamW, learning rate 0.003 after a warm-up, falling to 0",
        "epochs": options.epochs,
        "probe": f"{options.probe} pieces of text that are not trained on",
    }
    same = {"renumbered total": 1.0}
    untrained = {seed: run | {"after": run["before"] | same} for seed, run in values.items()}
    differs = (
        "The papers have large pre-trained networks, whose r is close to -1 and whose PR falls by "
        "much; so small a network lowers PR by a few per cent."
    )
    controls = {"before training": untrained}
    return Run(values, controls, settings, options.seeds, differs, [f"{NAME}.png"])


def main() -> int:
    """Train with each seed; return 0 if the claims are true."""
    options = parse()
    values: dict[str, Any] = {}
    for seed in options.seeds:
        law, collapse, renumbered_total = train(options, seed)
        print_table(law, collapse)
        if not values:
            save_figure(law, collapse, options)
        values[str(seed)] = before_and_after(law, collapse, renumbered_total)
    found = conclude(NAME, judge, run_of(values, options), results_folder(options))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
