"""A dry run says what a measurement then has, and disturbs nothing."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

import lightning_nc
from lightning_nc import Probe, callbacks_for, check, measure, next_token
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

COUNTS = (40, 30, 6)


def tokens(labelled):
    generator = torch.Generator().manual_seed(1)
    of_each = {"attention_mask": torch.ones(9, dtype=torch.long)}
    return [
        of_each
        | {"input_ids": torch.randint(20, (9,), generator=generator)}
        | ({"labels": n % 3} if labelled else {})
        for n in range(40)
    ]


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = BertConfig(vocab_size=20, intermediate_size=24, num_labels=3, **sizes)
    return BertForSequenceClassification(config)


def gpt():
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=3, n_head=2, **ends))


def encoder():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2), nn.ReLU())


# for each network: a function that makes it, its data, and the families that do not apply
WAYS_IN = {
    "perceptron": (nets.mlp, lambda: nets.vectors(COUNTS), []),
    "images": (nets.convnet, lambda: nets.images(COUNTS), []),
    "BERT": (bert, lambda: tokens(labelled=True), []),
    "no head": (encoder, lambda: nets.vectors(COUNTS), ["MinorityCollapse"]),
    "positions": (
        gpt,
        lambda: Probe(tokens(labelled=False), "text", unpack=next_token, samples_per_class=12),
        ["LocalElasticity"],
    ),
}


def measured(model, probe):
    """A pass for the families that share one, and its answers."""
    requests = [each.measure.request() for each in callbacks_for(probe)[:3]]
    runner = plain_runner(model, probe.forward)
    one_pass = GeometryPass(runner, lambda: probe.source, probe, requests, Processes(requests=3))
    return one_pass, one_pass.run()


@pytest.mark.parametrize("way", WAYS_IN)
def test_what_is_said_is_what_a_measurement_then_has(way):
    make, data, inapplicable = WAYS_IN[way]
    model, source = make(), data()
    found = check(model, source)
    probe = source if isinstance(source, Probe) else Probe(source, "data")
    one_pass, (separation, collapse, minority) = measured(model, probe)
    assert found.plan.digest == one_pass.plan.digest
    assert found.layers == list(separation.layers)
    for name, geometry in (*separation.layers.items(), *of_last(collapse, found)):
        assert found.widths[name] == geometry.means.shape[1]
    assert (found.head is None) == (collapse.classifier.weight is None)
    assert found.counts == dict(
        zip(collapse.labels.tolist(), collapse.counts.long().tolist(), strict=True)
    )
    assert found.pooling == {**separation.pooling, **collapse.pooling}
    assert [each.name for each in found.families if not each.applies] == inapplicable
    assert isinstance(minority, Exception) == ("MinorityCollapse" in inapplicable)


def of_last(collapse, found):
    """The last-layer features, by the name of their point."""
    (point,) = found.plan.last_layers
    return [(point.name, collapse.classifier.features)]


@pytest.mark.parametrize(("way", "head"), [("perceptron", "8"), ("BERT", "classifier")])
def test_the_head_is_named(way, head):
    make, data, _ = WAYS_IN[way]
    assert check(make(), data()).head == head


def test_every_number_of_a_small_network_is_right():
    data, model = nets.vectors(COUNTS), nets.mlp()
    found = check(model, DataLoader(data, 10))
    assert found.layers == ["input", "2", "6"]
    assert found.widths == {"input": 6, "2": 12, "6": 10, "input of 8": 10}
    assert found.counts == {0: 40, 1: 30, 2: 6}
    # 3 arrays of K x d float64 numbers of each point, and per class 1 or 2 numbers of its sums
    arrays = 8 * 3 * 3 * (6 + 12 + 10 + 10) / 2**20
    assert arrays <= found.megabytes < 2 * arrays
    assert found.cached
    assert not check(model, Probe(data, "mine", cache_mb=0)).cached
    assert check(model, Probe(data, "mine", memory_mb=0.0015)).plan.in_groups(0.0015)[1:]


def test_times_are_those_of_a_batch_times_what_is_read():
    data = nets.vectors((400, 300, 60))
    found = check(nets.mlp(), Probe(data, "mine", samples_per_class=50, batch_size=20))
    pace = sum(found.pace)
    assert found.seconds == pytest.approx(150 * pace)
    assert found.epoch_seconds == pytest.approx(760 * (pace + 2 * found.pace.forward))
    again = check(nets.mlp(), Probe(data, "mine", cache_mb=0))
    assert again.seconds == pytest.approx(2 * 260 * sum(again.pace))


class Slow(nets.Blobs):
    """A dataset of which each sample takes a hundredth of a second."""

    def __getitem__(self, index):
        import time

        time.sleep(0.01)
        return super().__getitem__(index)


def test_reading_is_timed():
    found = check(nets.mlp(), DataLoader(Slow(), 4))
    assert found.pace.reading > 0.01 > found.pace.forward


def test_local_elasticity_is_estimated_from_one_of_its_outputs(monkeypatch):
    asked = []
    kernel = lightning_nc.passes.gradient_pass.output_directions

    def noted(outputs, *others):
        asked.append(outputs)
        return kernel(outputs, *others)

    monkeypatch.setattr("lightning_nc.passes.gradient_pass.output_directions", noted)
    monkeypatch.setattr(
        "lightning_nc.tangent.checked_pass.perf_counter", itertools.count().__next__
    )
    for outputs, seconds in (("all", 29), (5, 4)):  # of a clock that goes on with each look at it
        callback = lightning_nc.LocalElasticity(outputs=outputs)
        found = check(nets.mlp(K=30), nets.vectors(COUNTS), [callback])
        assert asked == [1, 1]
        asked.clear()
        assert seconds < found.families[0].seconds < seconds + 1
    twice = lightning_nc.LocalElasticity(relative_similarity=True)
    assert 58 < check(nets.mlp(K=30), nets.vectors(COUNTS), [twice]).families[0].seconds < 59


@pytest.mark.parametrize(
    ("data", "families", "sentence"),
    [
        (lambda: nets.vectors((12, 12, 12)), "MinorityCollapse", "no minority classes."),
        (WAYS_IN["no head"][1], "MinorityCollapse", "Found no head"),
        (WAYS_IN["positions"][1], "LocalElasticity", "labels are of positions"),
    ],
)
def test_why_a_family_does_not_apply_is_one_line_of_the_table(data, families, sentence):
    make = {"Found no head": encoder, "labels are of positions": gpt}.get(sentence, nets.mlp)
    rows = dict(check(make(), data()).rows())
    assert rows[families].startswith("does not apply: ")
    assert sentence in rows[families]


def test_minority_classes_may_be_known_only_from_training():
    undeclared = [(x, int(y)) for x, y in nets.vectors((12, 12, 12))]
    assert dict(check(nets.mlp(), undeclared).rows())["MinorityCollapse"] == "applies"


@pytest.mark.parametrize(
    ("counts", "shares", "applies"),
    [((40, 30, 6), (1, 1, 1), False), ((12, 12, 12), (9, 9, 1), True)],
)
def test_minority_classes_are_those_that_the_sampler_draws_less_often(counts, shares, applies):
    data = nets.vectors(counts)
    labels = data.tensors[1]
    weights = (torch.tensor(shares) / torch.tensor(counts))[labels]
    loader = DataLoader(data, sampler=WeightedRandomSampler(weights.tolist(), len(labels)))
    row = dict(check(nets.mlp(), loader).rows())["MinorityCollapse"]
    assert (row == "applies") == applies


def test_callbacks_of_ones_own_are_checked_with_their_options():
    law = lightning_nc.EquiSeparation(layers=["input", "6"])
    wrong = lightning_nc.NeuralCollapse(head="fc")
    few = lightning_nc.LocalElasticity(parameters=["nothing.*"])
    found = check(nets.mlp(), nets.vectors(), [law, wrong, few])
    assert found.layers == ["input", "6"]
    assert [each.applies for each in found.families] == [True, False, False]
    assert "'fc'" in found.families[1].why_not
    assert "No parameter matches 'nothing.*'" in found.families[2].why_not


def test_classes_have_the_names_that_the_dataset_tells():
    data = nets.Blobs(COUNTS, augment=False)
    data.classes = ["cat", "dog", "<owl>"]
    found = check(nets.mlp(), Subset(data, range(76)))
    assert (
        dict(found.rows())["classes"] == "3, with 6 to 40 samples each: cat: 40, dog: 30, <owl>: 6"
    )
    alike = check(nets.mlp(), Probe(Subset(data, range(76)), "few", samples_per_class=5))
    assert dict(alike.rows())["classes"] == "3, with 5 samples each: cat, dog, <owl>"
    assert "&lt;owl&gt;: 6" in found._repr_html_()
    assert str(found).splitlines()[0] == "layers            3: input, 2, 6"


def test_a_probe_of_the_trainer_and_wrong_labels_are_sentences():
    with pytest.raises(ValueError, match=r"there is no Trainer\. Give the loader"):
        check(nets.mlp(), Probe("train"))
    soft = TensorDataset(torch.randn(9, 6), torch.rand(9, 3))
    with pytest.raises(ValueError, match="Got targets of shape"):
        check(nets.mlp(), soft)


class Stateful(nets.Blobs):
    """Data with a counter and a generator of their own."""

    def __init__(self):
        super().__init__(COUNTS)
        self.reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("augmented", [False, True])
def test_nothing_is_disturbed(augmented):
    model, data = nets.mlp(), Stateful() if augmented else nets.vectors(COUNTS)
    loss = nn.functional.cross_entropy(model(nets.vectors().tensors[0]), nets.vectors().tensors[1])
    loss.backward()
    model[1].eval()  # frozen
    before = state(model, data)
    check(model, data)
    assert nets.difference(state(model, data), before) is None


def state(model, data):
    held = (
        {"reads": data.reads, "rng": data.rng.bit_generator.state} if vars(data).get("rng") else {}
    )
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "gradients": [p.grad.clone() for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "switches": model[7].switches,
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "data": held,
    }


def test_a_measurement_after_a_check_has_the_values_that_it_has_without():
    model, data = nets.mlp(), nets.vectors(COUNTS)
    before = measure(model, data).values
    check(model, data)
    assert str(measure(model, data).values) == str(before)


def test_callbacks_that_do_not_measure_are_passed_over():
    net, data, law = nets.mlp(), nets.vectors(), lightning_nc.EquiSeparation()
    summary = lightning_nc.GeometrySummary()
    assert [each.name for each in check(net, data, [summary, law]).families] == ["EquiSeparation"]
    for none, sentence in (
        ([summary], "None of callbacks=.* measures"),
        ([lightning_nc.NeuralCollapse], "such as NeuralCollapse"),
        ([law.measure], "by MeasureCallback"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check(net, data, none)
    with pytest.raises(TypeError, match=r"must be an nn\.Module, got None"):
        check(None, data)
