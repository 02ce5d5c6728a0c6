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
    with pytest.warns(RuntimeWarning, match="8 samples are too few for 8 features") as told:
        found = measure(Language(), probe_on(Tokens(2, 5)), measures=[NextTokenLaw()]).values
    assert len(told) == 1
    assert found["next_token/text/rho"] != found["next_token/text/rho"]


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
