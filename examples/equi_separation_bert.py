r"""The law of equi-separation in a small BERT, trained from scratch; in the talk, BERT has none.

A small BERT learns which module of Python's standard library a piece of source code is from: the
ten longest modules, which come with every Python, and 100 pieces of each. Its classifier reads the
first token, as BERT's does, or the average of all tokens, and D is measured of the same::

    python examples/equi_separation_bert.py             # about 10 minutes
    python examples/equi_separation_bert.py --seeds 0   # a third of it

The talk shows ln D against depth without a line, and supposes that layers learn representations of
tokens and not of sentences. Here r must be above -0.95, so that at least a tenth of the variance of
ln D is unexplained, while in a feedforward network of the paper, which learns the same pieces from
their counts of tokens, r is at most -0.98. Both must have learnt: accuracy is at least 0.99, and at
most half of D is left. The exit status is 1 unless this is so for every seed.

This claim is not found: ln D of the small BERT is close to a line, with the first token as with the
average.

Sources:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36); Devlin et al. (2019),
    "BERT: pre-training of deep bidirectional transformers for language understanding", NAACL.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from example_setup import (
    CrossEntropyModule,
    options_of,
    parsed,
    results_folder,
    save,
    train_quietly,
)
from fashion_mnist import whole_batches
from feed_forward import FeedForward, Setting
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformers import BertConfig, BertModel
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc import EquiSeparation, NeuralCollapse, Probe, first_token
from lightning_nc.figures import draw_law

NAME = "equi_separation_bert"
MODULES, PIECES, TOKENS, VOCABULARY = 10, 100, 24, 1000
SIZES = {
    "num_hidden_layers": 6,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}
EPOCHS, RATE, BATCH = 30, 1e-3, 32
OTHER, CLS = 0, 1  # tokens that are no words
ABSENT, LINE, LEFT, LEARNT = -0.95, -0.98, 0.5, 0.99
POOLS = {"CLS": first_token, "average": "auto"}
CLAIMS = {"CLS": ("29a", "BERT-CLS"), "average": ("29b", "BERT-AVG")}


def judge(values: Values) -> list[Verdict]:
    """Judge the networks, by what the classifier reads and seed."""
    return [of_bert(reads, values) for reads in POOLS]


def of_bert(reads: str, values: Values) -> Verdict:
    """Whether BERT has no law where the feedforward network has one."""
    claim, panel = CLAIMS[reads]
    bert, plain = list(values[reads].values()), list(values["feedforward"].values())
    r, r_plain = ([number(run["pearson_r"]) for run in runs] for runs in (bert, plain))
    left = [number(run["total"]) for run in bert + plain]
    right = [number(run["accuracy"]) for run in bert + plain]
    learnt = min(right) >= LEARNT and max(left) <= LEFT
    return Verdict(
        claim,
        f"{panel}: ln D is no line, in BERT on SST-2",
        f"r is above {ABSENT}, in the feedforward network at most {LINE}; in both accuracy is at "
        f"least {LEARNT}, and at most {LEFT} of D is left",
        f"r {span(r, bound=ABSENT)}, feedforward {span(r_plain, bound=LINE)}; "
        f"accuracy {span(right, bound=LEARNT)}, left {span(left, 2)}",
        learnt and min(r) > ABSENT and max(r_plain) <= LINE,
    )


def pieces(seed: int) -> tuple[Tensor, Tensor]:
    """Draw pieces of the longest modules of the standard library.

    Returns:
        Tokens of shape ``(MODULES * PIECES, 1 + TOKENS)``, and the module of each piece.
    """
    files = Path(argparse.__file__).parent.glob("*.py")
    texts = sorted((path.read_text(errors="replace") for path in files), key=len)[-MODULES:]
    words = [re.findall(r"\w+|[^\w\s]", text) for text in texts]
    common = Counter(word for text in words for word in text).most_common(VOCABULARY - 2)
    numbers = {word: n for n, (word, _) in enumerate(common, 2)}
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for text in words:
        tokens = torch.tensor([numbers.get(word, OTHER) for word in text])
        parts = tokens[: len(tokens) // TOKENS * TOKENS].view(-1, TOKENS)
        chosen.append(parts[torch.randperm(len(parts), generator=generator)[:PIECES]])
    tokens = nn.functional.pad(torch.cat(chosen), (1, 0), value=CLS)
    return tokens, torch.arange(MODULES).repeat_interleave(PIECES)


class Bert(CrossEntropyModule):
    """BERT and a linear classifier of its first token, or of the average of all.

    Args:
        reads: ``"CLS"`` or ``"average"``.
        steps: Steps of the training, over which the learning rate rises and falls.
    """

    def __init__(self, reads: str, steps: int) -> None:
        super().__init__()
        self.reads, self.steps = reads, steps
        places = {"vocab_size": VOCABULARY, "max_position_embeddings": 1 + TOKENS}
        self.bert = BertModel(BertConfig(**SIZES, **places), add_pooling_layer=False)
        self.classifier = nn.Linear(SIZES["hidden_size"], MODULES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        states = self.bert(tokens).last_hidden_state
        return self.classifier(states[:, 0] if self.reads == "CLS" else states.mean(1))

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW, whose learning rate rises for a tenth of the steps and falls to zero."""
        optimizer = torch.optim.AdamW(self.parameters(), RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, self.steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train_bert(reads: str, seed: int, epochs: int = EPOCHS) -> list[dict[str, Any]]:
    """Train BERT; return what is measured before and after."""
    pl.seed_everything(seed, verbose=False)
    dataset = TensorDataset(*pieces(seed))
    steps = epochs * -(-len(dataset) // BATCH)
    probe = Probe(dataset, "text", samples_per_class=None, batch_size=100)
    return measured(Bert(reads, steps), dataset, BATCH, epochs, probe, POOLS[reads])


def train_feed_forward(seed: int) -> dict[str, Any]:
    """Train the paper's network of 8 layers on counts of tokens; return what is measured after."""
    pl.seed_everything(seed, verbose=False)
    tokens, labels = pieces(seed)
    counts = nn.functional.one_hot(tokens[:, 1:], VOCABULARY).sum(1).float()
    dataset = TensorDataset(counts, labels)
    probe = Probe(dataset, "text", samples_per_class=None, batch_norm="batch", batch_size=100)
    setting = Setting(layers=8, epochs=100, seed=seed)
    return measured(FeedForward(setting, VOCABULARY), dataset, 128, setting.epochs, probe)[-1]


def measured(
    network: pl.LightningModule,
    dataset: TensorDataset,
    batch_size: int,
    epochs: int,
    probe: Probe,
    pool: Any = "auto",
) -> list[dict[str, Any]]:
    """Train a network, and measure the law over its blocks, and accuracy, before and after."""
    options = {"probe": probe, "epochs": (0, epochs), "figures": False, "on_error": "raise"}
    law, collapse = EquiSeparation(pool=pool, **options), NeuralCollapse(**options)
    train_quietly(network, whole_batches(dataset, batch_size), epochs, [law, collapse])
    return [
        {"D": one.arrays["fuzziness"].tolist(), "accuracy": other.values["nc/text/accuracy"]}
        | {key: one.values[f"separation/text/{key}"] for key in ("pearson_r", "rho", "total")}
        for one, other in zip(law.history, collapse.history, strict=True)
    ]


def draw(values: Values) -> Figure:
    """Draw D against depth in each network of the first seed."""
    figure = Figure(figsize=(10.4, 3.6), dpi=100, layout="constrained")
    for axes, (name, seeds) in zip(figure.subplots(1, len(values)), values.items(), strict=True):
        draw_law(axes, torch.tensor(next(iter(seeds.values()))["D"]))
        axes.set_title(f"BERT, {name}" if name in POOLS else name, fontsize="medium")
        axes.set_xlabel("layer")
    figure.axes[0].set_ylabel("separation fuzziness $D$")
    figure.suptitle("Pieces of Python's standard library by module, after training")
    return figure


def run_of(values: dict[str, Any], untrained: dict[str, Any], seeds: list[int]) -> Run:
    """All that is kept of the networks trained with some seeds."""
    settings = {
        "data": f"the {MODULES} longest modules of the standard library, {PIECES} pieces of each",
        "pieces": f"{TOKENS} tokens, of {VOCABULARY} kinds",
        **SIZES,
        "epochs": EPOCHS,
        "optimizer": f"AdamW, learning rate {RATE} after a warm-up, falling to 0",
        "feedforward": "8 layers of width 100, as in equi_separation_panels with Adam, 100 epochs",
    }
    plain = values["feedforward"]
    controls = {
        "the feedforward network in BERT's place": dict.fromkeys(values, plain),
        "BERT before training": untrained | {"feedforward": plain},
    }
    differs = (
        "The talk fine-tunes a pre-trained BERT of 12 layers on sentences of two classes; this one "
        "is trained from scratch. D of the first token is undefined before the first layer, where "
        "it is the same in all pieces, so the first point is the output of that layer."
    )
    return Run(values, controls, settings, seeds, differs, [f"{NAME}.png"])


def main() -> int:
    """Train all networks with each seed; return 0 if the claims are true."""
    options = parsed(options_of(__doc__, seeds=(0, 1, 2)))
    values: dict[str, Any] = {"feedforward": {}} | {reads: {} for reads in POOLS}
    untrained: dict[str, Any] = {reads: {} for reads in POOLS}
    found = False
    for done, seed in enumerate(options.seeds, 1):
        values["feedforward"][str(seed)] = train_feed_forward(seed)
        for reads in POOLS:
            before, after = train_bert(reads, seed)
            untrained[reads][str(seed)], values[reads][str(seed)] = before, after
        print(f"seed {seed}: {values}", flush=True)
        if done == 1:
            save(draw(values), options.output, NAME)
        # what is known after each seed is kept, for the next one takes long
        found = conclude(
            NAME, judge, run_of(values, untrained, options.seeds[:done]), results_folder(options)
        )
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
