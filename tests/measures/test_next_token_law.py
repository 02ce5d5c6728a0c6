"""The law of next-token prediction on positions: PR at each layer is that of features by hand."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import EquiSeparation, NextTokenLaw, Probe, measure, next_token
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from tests import reference
from tests.processes import run_processes

WIDTH, VOCABULARY, BLOCKS = 8, 50_257, 4


class Block(nn.Module):
    """What a position has seen so far, mixed."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, h):
        seen = h.cumsum(1) / torch.arange(1, h.shape[1] + 1)[:, None]
        return h + torch.tanh(self.mix(seen))


class Language(nn.Module):
    """A causal language model with the vocabulary of GPT-2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))

    def forward(self, tokens):
        return self.head(self.blocks(self.embed(tokens)))


class Tokens(TensorDataset):
    """Sequences of tokens, most of which occur once."""

    def __init__(self, sequences=40, length=6):
        random = torch.Generator().manual_seed(0)
        super().__init__(torch.randint(0, VOCABULARY, (sequences, length), generator=random))

    def __getitem__(self, index):
        return self.tensors[0][index]


def probe_on(data, **options):
    options = {"samples_per_class": None, "batch_size": 9, "unpack": next_token} | options
    return Probe(data, "text", **options)


def residuals_by_hand(net, tokens, kind):
    h, y, found = net.embed(tokens), tokens[:, 1:].flatten(), []
    for block in net.blocks:
        h = block(h)
        features = h[:, :-1].flatten(0, 1).detach()
        found.append(reference.prediction_residual(features, y, kind))
    return found


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm", "none"])
@pytest.mark.parametrize("cache_mb", [512, 0])
def test_the_residual_of_each_block_is_that_of_its_features(kind, cache_mb):
    net, data = Language().eval(), Tokens()
    law = NextTokenLaw(normalization=kind)
    found = measure(net, probe_on(data, cache_mb=cache_mb), measures=[law]).values
    expected = residuals_by_hand(net, data.tensors[0], kind)
    keys = [f"next_token_layers/text/blocks.{number}" for number in range(BLOCKS)]
    assert [key for key in found if "layers" in key] == keys
    for key, PR in zip(keys, expected, strict=True):
        assert found[key] == pytest.approx(PR, rel=1e-7)
    slope = np.polyfit(range(BLOCKS), np.log(expected), 1)[0]
    r = np.corrcoef(range(BLOCKS), np.log(expected))[0, 1]
    assert found["next_token/text/rho"] == pytest.approx(np.exp(slope), rel=1e-7)
    assert found["next_token/text/pearson_r"] == pytest.approx(r, abs=1e-7)
    assert found["next_token/text/total"] == pytest.approx(expected[-1] / expected[0], rel=1e-7)


def test_nothing_of_the_size_of_the_vocabulary_times_the_width_is_needed():
    # a sum of each class alone would take 8 (200 x 8) bytes
    probe = probe_on(Tokens(), memory_mb=0.007)
    found = measure(Language(), probe, measures=[NextTokenLaw()]).values
    assert 0 < found["next_token_layers/text/blocks.0"] < 1
    with pytest.raises(ValueError, match="accumulators for"):
        measure(Language(), probe, measures=[EquiSeparation(["blocks.0"])])


def test_what_any_tokens_would_fit_is_undefined_and_said():
    with pytest.warns(RuntimeWarning, match="8 samples are too few for the 8 features") as told:
        found = measure(Language(), probe_on(Tokens(2, 5)), measures=[NextTokenLaw()]).values
    assert len(told) == 1
    assert found["next_token/text/rho"] != found["next_token/text/rho"]


def windows(length=3):
    """The tokens before each, and the next one, as in models of a fixed context."""
    pieces = Tokens().tensors[0].unfold(1, length + 1, 1).flatten(0, 1)
    return TensorDataset(pieces[:, :-1], pieces[:, -1])


def of_windows():
    language = Language()
    mean = nn.AdaptiveAvgPool1d(1)
    return nn.Sequential(
        *(language.embed, *language.blocks, nn.Flatten(1), nn.Linear(3 * WIDTH, WIDTH), mean)
    )


def embedded():
    """Embeddings that were computed before, with the next token at each position."""
    tokens = Tokens().tensors[0]
    return TensorDataset(torch.randn(*tokens[:, 1:].shape, WIDTH), tokens[:, 1:])


IS_TEXT = {
    "positions of text": (Language, "blocks", lambda: probe_on(Tokens())),
    "the token after a window": (of_windows, "123", lambda: probe_on(windows(), unpack=None)),
    "positions of embeddings": (
        lambda: Language().blocks,
        "123",
        lambda: probe_on(embedded(), unpack=None),
    ),
}


@pytest.mark.parametrize("case", IS_TEXT)
def test_nothing_is_said_of_text(case):
    network, layers, probe = IS_TEXT[case]
    law = NextTokenLaw(layers if layers == "blocks" else [*layers])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(network(), probe(), measures=[law]).values
    assert found["next_token/text/total"] > 0


IS_NONE = {
    "vectors": lambda: (torch.randn(200, WIDTH), nn.Linear(WIDTH, WIDTH)),
    "images": lambda: (torch.randn(200, 3, 5, 5), nn.Conv2d(3, 4, 2)),
    "numbers over time": lambda: (torch.randn(200, 6, WIDTH), nn.Linear(WIDTH, WIDTH)),
}


@pytest.mark.parametrize("case", IS_NONE)
def test_labels_of_whole_samples_that_are_no_text_are_told_once(case):
    inputs, layer = IS_NONE[case]()
    net = nn.Sequential(layer, nn.Tanh(), nn.Flatten(1), nn.Tanh(), nn.LazyLinear(4))
    net(inputs[:1])
    data = TensorDataset(inputs, torch.arange(200) % 4)
    of_layers = [measured(["0", "1", "3"]) for measured in (NextTokenLaw, EquiSeparation)]
    with pytest.warns(RuntimeWarning, match="labels are of whole samples and the") as caught:
        measure(net, data, measures=of_layers)
    assert len(caught) == 1


def by_process(rank, world):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe, measured = probe_on(Tokens()), NextTokenLaw().measure
        runner, processes = plain_runner(Language().eval()), Processes(rank, world)
        one = GeometryPass(runner, lambda: probe.source, probe, [measured.request()], processes)
        (answer,) = one.run()
        return dict(measured.evaluate(answer).layers)


@pytest.mark.slow
def test_two_processes_find_what_one_does():
    alone = by_process(0, 1)
    first, second = run_processes(by_process, 2)
    assert first == second  # to the last bit
    assert first == pytest.approx(alone, rel=1e-12)
