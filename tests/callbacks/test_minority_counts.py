"""How many samples of each class training has seen: whatever draws them, packs them, or stops."""

import math
import random
from contextlib import ExitStack
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from lightning_nc import EquiSeparation, MinorityCollapse, NeuralCollapse, Probe, callbacks_for
from lightning_nc.callbacks import measure_callback
from lightning_nc.callbacks.training_counts import TrainingCounts
from tests import nets, reference
from tests.callbacks import processes_of_lightning as children
from tests.callbacks.minority_runs import (
    COUNTS,
    OWN_PROBE,
    RARE,
    Counting,
    counted,
    last_values,
    network,
    oversampling,
    run,
    told,
    undefined,
)
from tests.callbacks.runs import assert_untouched, epochs, mixed, quantities
from tests.processes import run_processes

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


class Twice(Sampler):
    """Draws some samples twice, and others never."""

    def __iter__(self):
        return iter([*range(60), *range(30)])

    def __len__(self):
        return 90


class ByWeights(DistributedSampler):
    """Draws with replacement, and rare classes as often as others; of one process here."""

    def __init__(self, data):
        super().__init__(data, num_replicas=1, rank=0)

    def __iter__(self):
        return iter(oversampling(self.dataset, len(self.dataset)))


class Distributing(DistributedSampler):
    """Distributes the samples of another sampler, as in many programs; to one process here."""

    def __init__(self, sampler):
        super().__init__([*sampler], num_replicas=1, rank=0)
        self.sampler = sampler

    def __iter__(self):
        return iter(self.sampler)


# a loader, options of the Trainer, and what is known before training
ORIGINS = {
    "plain": (lambda data: DataLoader(data, 10, shuffle=True), {}, COUNTS),
    "in order": (lambda data: DataLoader(data, 10), {}, COUNTS),
    "oversampled": (lambda data: DataLoader(data, 10, sampler=oversampling(data)), {}, None),
    "distributed by weights": (
        lambda data: DataLoader(data, 10, sampler=ByWeights(data)),
        {},
        None,
    ),
    "distributed, in order": (
        lambda data: DataLoader(data, 10, sampler=Distributing(RandomSampler(data))),
        {},
        COUNTS,
    ),
    "duplicates": (lambda data: DataLoader(data, 10, sampler=Twice()), {}, None),
    "drawn with replacement": (
        lambda data: DataLoader(data, 10, sampler=RandomSampler(data, True)),
        {},
        None,
    ),
    "a part of the data": (
        lambda data: DataLoader(data, 10, sampler=RandomSampler(data, num_samples=50)),
        {},
        None,
    ),
    "batches of a sampler": (
        lambda data: DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 9, True)),
        {},
        None,
    ),
    "drop_last": (lambda data: DataLoader(data, 33, shuffle=True, drop_last=True), {}, COUNTS),
    "some batches": (
        lambda data: DataLoader(data, 10, shuffle=True),
        {"limit_train_batches": 3},
        COUNTS,
    ),
    "more batches than are kept": (lambda data: DataLoader(data, 1, shuffle=True), {}, COUNTS),
    "gradient accumulation": (
        lambda data: DataLoader(data, 10, sampler=oversampling(data)),
        {"accumulate_grad_batches": 4},
        None,
    ),
    "a stream": (lambda _: DataLoader(nets.Stream(mixed(COUNTS)), 10), {}, None),
    "a stream that is cut": (
        lambda _: DataLoader(nets.Stream(mixed(COUNTS)), 10),
        {"limit_train_batches": 7},
        None,
    ),
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_class_counts_are_those_of_the_last_epoch_of_training_batches(origin, tmp_path):
    loader, options, before = ORIGINS[origin]
    counting, callback = Counting(), MinorityCollapse(RARE, probe=OWN_PROBE, figures=False)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))  # for batches of one, too
    module = nets.Classifier(net)
    run(tmp_path, [counting, callback], loader(mixed(COUNTS)), module, max_epochs=3, **options)
    assert callback.failures == 0
    assert counted(callback) == [before if before is None else list(before), *counting.epochs]
    for m, n in zip(callback.history, counted(callback), strict=True):
        ratio = m.values["minority/own/imbalance_ratio"]
        if n is None:
            assert math.isnan(ratio)
        else:
            expected = reference.imbalance_ratio(n, [False, False, True, True])
            assert ratio == pytest.approx(expected, rel=1e-12)
    if origin == "oversampled":
        assert all(max(n) < 2 * min(n) for n in counting.epochs)


@pytest.mark.parametrize("wrapped", [lambda sampler: sampler, Distributing])
@pytest.mark.parametrize("weights", ["balanced", "rare"])
def test_classes_that_are_drawn_less_often_by_chance_are_no_minority(weights, wrapped, tmp_path):
    data = mixed((20, 20, 15, 15))
    of_class = torch.tensor({"balanced": [3.0, 3, 4, 4], "rare": [3.0, 3, 0.2, 0.2]}[weights])
    sampler = WeightedRandomSampler(of_class[data.tensors[1]], 200)
    callback = MinorityCollapse(figures=False)
    loader = DataLoader(data, 10, sampler=wrapped(sampler))
    said = [t for t in told(tmp_path, [callback], loader, max_epochs=8) if "no minority" in t]
    found = [m.arrays["minority"].tolist() for m in callback.history]
    counts = counted(callback)[1:]
    if weights == "rare":
        assert (said, found[1:]) == ([], [[0, 0, 1, 1]] * 8)
        return
    by_chance = [reference.minority_classes(list(map(int, n))) for n in counts]
    assert any(map(any, by_chance))  # as if samples were drawn once each
    assert found == [[0] * 4] * 9
    assert len(said) == 1


class OfOne(nets.Classifier):
    """Trains on batches that are in a collection by themselves, in the way of their loader."""

    def training_step(self, batch, index):
        while len(batch) == 1:
            (batch,) = batch.values() if isinstance(batch, dict) else batch
        return super().training_step(batch, index)


@pytest.mark.parametrize("unpack", [None, lambda batch: (batch[0], 3 - batch[1])])
@pytest.mark.parametrize(
    "collect",
    [lambda one: [one], lambda one: {"a": one}, lambda one: {"a": [one]}],
    ids=["list", "dict", "list in a dict"],
)
def test_batches_of_a_single_loader_in_a_collection_are_counted(collect, unpack, tmp_path):
    data = mixed(COUNTS)
    options = {"probe": Probe("train", unpack=unpack), "figures": False}
    alone, callback = (MinorityCollapse(RARE, **options) for _ in "ab")
    for each, around in ((alone, lambda one: one), (callback, collect)):
        loader = DataLoader(data, 10, sampler=oversampling(data))
        run(tmp_path, [each], around(loader), OfOne(nets.mlp(K=4), freeze=0))
    assert counted(callback) == counted(alone)
    assert counted(callback)[0] is None
    assert sum(counted(callback)[-1]) == 100


class LearningMore(nets.Classifier):
    """Learns two more classes from its second epoch on."""

    def train_dataloader(self):
        more = () if self.trainer.current_epoch == 0 else (8, 8)
        return DataLoader(nets.vectors((12, 9, 9, *more)), 10, shuffle=True)

    def on_train_epoch_start(self):
        if self.trainer.current_epoch == 1:
            self.net[-1] = nn.Linear(10, 5)


def test_old_classes_are_measured_when_a_head_gets_rows_for_new_ones(tmp_path):
    own = Probe(nets.vectors(), "own")
    callback = MinorityCollapse([1, 2], probe=own, figures=False)
    limits = {"reload_dataloaders_every_n_epochs": 1, "limit_val_batches": 0}
    trainer = nets.trainer(tmp_path, [callback], **limits)
    with pytest.warns(RuntimeWarning, match="has 5 rows, and the probe has samples of 3 of these"):
        trainer.fit(LearningMore(nets.mlp(), freeze=0))
    assert epochs(callback) == [0, 1, 2]
    assert callback.failures == 0
    assert last_values(callback)["imbalance_ratio"] == 12 / 9


@pytest.mark.parametrize("first", [EquiSeparation, NeuralCollapse])
def test_counts_are_known_before_training_whichever_callback_comes_first(first, tmp_path):
    callback = MinorityCollapse(figures=False, on_error="raise")
    run(tmp_path, [first(figures=False), callback])
    assert counted(callback) == [list(COUNTS)] * 3
    assert callback.history[0].values["minority/train/imbalance_ratio"] == 4


def test_within_an_epoch_the_counts_are_of_the_epoch_before(tmp_path):
    counting = Counting()
    callback = MinorityCollapse(RARE, when="validation_end", figures=False)
    data = mixed(COUNTS)
    loader = DataLoader(data, 10, sampler=oversampling(data))
    options = {"val_check_interval": 0.5, "limit_val_batches": 1}
    run(tmp_path, [counting, callback], loader, **options)
    assert epochs(callback) == [0, 0.5, 1, 1.5, 2]
    first, second = counting.epochs
    assert counted(callback) == [None, None, first, first, second]


def test_an_epoch_that_ends_early_does_not_count(tmp_path):
    counting, callback = Counting(), MinorityCollapse(RARE, figures=False)
    data = mixed(COUNTS)
    loader = DataLoader(data, 10, sampler=oversampling(data))
    run(tmp_path, [counting, callback], loader, max_epochs=-1, max_steps=15)
    assert counted(callback) == [None, counting.epochs[0], counting.epochs[0]]


@pytest.mark.parametrize(
    ("minority", "lost"),
    [
        (None, "imbalance_ratio and all that needs minority classes are not logged"),
        (RARE, "imbalance_ratio is undefined (NaN)"),
    ],
)
def test_a_training_that_ends_within_its_first_epoch_says_why_counts_are_unknown(
    minority, lost, tmp_path
):
    def loader():
        return DataLoader(nets.Stream(mixed(COUNTS)), 10)

    callback = MinorityCollapse(minority, probe=OWN_PROBE, figures=False)
    (text,) = told(tmp_path, [callback], loader(), max_epochs=-1, max_steps=5)
    assert counted(callback) == [None, None]
    assert undefined(callback) == (set() if minority is None else {"imbalance_ratio"})
    assert f": {lost}: training ended before an epoch" in text
    assert "class_counts=[...]" in text
    callback = MinorityCollapse(minority, class_counts=COUNTS, probe=OWN_PROBE, figures=False)
    assert told(tmp_path, [callback], loader(), max_epochs=-1, max_steps=5) == []
    assert undefined(callback) == set()
    every = callbacks_for(OWN_PROBE, figures=False, without=["separation", "nc", "elasticity"])
    assert told(tmp_path, every, loader(), max_epochs=-1, max_steps=5) == []


def test_a_second_training_counts_afresh(tmp_path):
    callback, other = MinorityCollapse(RARE, figures=False), mixed((5, 5, 20, 30))
    run(tmp_path, [callback])
    assert counted(callback) == [list(COUNTS)] * 3
    run(tmp_path, [callback], DataLoader(other, 10, shuffle=True))
    assert counted(callback) == [[5, 5, 20, 30]] * 3
    run(tmp_path, [callback], DataLoader(other, 10, sampler=oversampling(other)), max_epochs=1)
    assert counted(callback)[0] is None


def test_counts_that_are_given_are_taken(tmp_path):
    callback = MinorityCollapse(class_counts=(9, 4, 90, 70), figures=False)
    run(tmp_path, [callback])
    assert counted(callback) == [[9, 4, 90, 70]] * 3
    assert callback.history[-1].arrays["minority"].tolist() == [1, 1, 0, 0]
    assert last_values(callback)["imbalance_ratio"] == 80 / 6.5


def test_classes_that_training_never_sees_make_the_ratio_infinite(tmp_path):
    loader = DataLoader(mixed((40, 20)), 10, shuffle=True)
    callback = MinorityCollapse(probe=OWN_PROBE, figures=False, on_error="raise")
    run(tmp_path, [callback], loader)
    assert counted(callback) == [[40, 20, 0, 0]] * 3
    assert last_values(callback)["imbalance_ratio"] == math.inf
    assert undefined(callback) == set()


class Dicts(Dataset):
    """Samples are dicts, in a dict if they are nested; labels are declared if asked for."""

    def __init__(self, nested=False, first=0):
        self.inputs, self.labels = mixed(COUNTS).tensors
        self.nested, self.first = nested, first

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        sample = {"x": self.inputs[index], "y": self.labels[index] + self.first}
        return {"sample": sample} if self.nested else sample


class OfDicts(nets.Classifier):
    def __init__(self, first=0):
        super().__init__(nets.mlp(K=4), freeze=0)
        self.first = first

    def training_step(self, batch, index):
        batch = batch.get("sample", batch)
        return super().training_step((batch["x"], batch["y"] - self.first), index)


def taking(batch):
    labels = batch.pop("y")
    return batch.pop("x"), labels


def drawing(batch):
    noise = 1e-3 * (float(torch.rand(())) + np.random.rand() + random.random())
    return batch["x"] + noise, batch["y"]


UNPACK = {
    "takes labels out": (taking, {}),
    "takes labels out of a dict within": (lambda batch: taking(batch["sample"]), {"nested": True}),
    "draws random numbers": (drawing, {}),
    "numbers labels in place": (lambda batch: (batch["x"], batch["y"].sub_(1)), {"first": 1}),
    "scales inputs in place": (lambda batch: (batch["x"].mul_(0.5), batch["y"]), {}),
}


@pytest.mark.parametrize("way", UNPACK)
def test_what_unpack_does_to_a_batch_does_not_reach_training(way, tmp_path):
    unpack, options = UNPACK[way]

    def data():
        data = Dicts(**options)
        return {"train_dataloaders": DataLoader(data, 10, shuffle=True)}

    callback = MinorityCollapse(RARE, probe=Probe(unpack=unpack), figures=False)
    first = options.get("first", 0)
    assert_untouched(tmp_path, callback, data=data, module=lambda: OfDicts(first))
    assert callback.failures == 0
    assert counted(callback)[1:] == [list(COUNTS)] * 2


class Renumbering(nets.Classifier):
    """Trains on classes that it numbers anew."""

    def training_step(self, batch, index):
        return super().training_step(self.unpack(batch), index)


@pytest.mark.parametrize(
    ("anew", "expected"),
    [(lambda y: y // 2, [40, 15, 10]), (lambda y: 5 - y, [5, 5, 7, 8, 10, 30])],
    ids=["merged", "reversed"],
)
def test_classes_that_unpack_numbers_anew_are_counted_as_numbered(anew, expected, tmp_path):
    module = Renumbering(nets.mlp(K=len(expected)), freeze=0)
    module.unpack = lambda batch: (batch[0], anew(batch[1]))
    probe = Probe(unpack=module.unpack)
    callback = MinorityCollapse((1, 2), probe=probe, figures=False, on_error="raise")
    run(tmp_path, [callback], DataLoader(mixed((30, 10, 8, 7, 5, 5)), 10, shuffle=True), module)
    before, *after = counted(callback)
    assert after == [expected] * 2
    assert before in (None, expected)


def numbered_from_zero(samples):
    inputs, labels = default_collate(samples)
    return inputs, labels - 1


def test_classes_that_a_loader_numbers_anew_are_counted_as_numbered(tmp_path):
    inputs, labels = mixed(COUNTS).tensors
    data = TensorDataset(inputs, labels + 1)
    loader = DataLoader(data, 10, shuffle=True, collate_fn=numbered_from_zero)
    callback = MinorityCollapse(RARE, figures=False, on_error="raise")
    run(tmp_path, [callback], loader)
    before, *after = counted(callback)
    assert after == [list(COUNTS)] * 2
    assert before in (None, after[0])


class Undeclarable(Dataset):
    """Its labels are in a file that is gone, and looking for it draws random numbers."""

    def __init__(self):
        self.data = mixed(COUNTS)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]

    @property
    def targets(self):
        torch.rand(3)
        raise OSError("the file of labels is gone")


def test_labels_that_cannot_be_declared_do_not_stop_training(tmp_path):
    def data():
        return {"train_dataloaders": DataLoader(Undeclarable(), 10, shuffle=True)}

    callback = MinorityCollapse(RARE, probe=OWN_PROBE, figures=False)
    assert_untouched(tmp_path, callback, data=data, module=network)
    assert counted(callback) == [None, list(COUNTS), list(COUNTS)]


def count_epoch(counts, labels):
    counts.begin_epoch()
    counts.see(None, (torch.ones(len(labels), 2), labels))
    labels.zero_()  # as a training step may do to its batch
    counts.end_epoch()


def test_why_batches_cannot_be_counted_is_told_without_advice_for_another_probe():
    counts = TrainingCounts()
    counts.begin_epoch()
    counts.see(None, {"jpg": torch.ones(3, 2), "cls": torch.tensor([0, 1, 1])})
    counts.end_epoch()
    assert counts.lost.startswith("TypeError: Cannot tell inputs from labels in a dict of 'jpg'")
    assert "unpack" not in counts.lost


@pytest.mark.parametrize("ignored", [-100, 255])
def test_positions_to_ignore_are_not_counted(ignored):
    counts = TrainingCounts(ignore_index=ignored)
    count_epoch(counts, torch.tensor([[0, 1, ignored], [ignored, 1, 3]]))
    assert counts.lost == ""
    assert counts.complete.tolist() == [1, 2, 0, 1]


def test_an_epoch_that_cannot_be_counted_leaves_no_counts_of_an_earlier_one():
    counts = TrainingCounts()
    count_epoch(counts, torch.tensor([0, 1, 1]))
    assert counts.complete.tolist() == [1, 2]
    assert counts.tally(3).tolist() == [1, 2, 0]
    count_epoch(counts, torch.rand(3, 2))
    assert counts.complete is None
    assert counts.tally(3).isnan().all()


def test_counts_of_more_classes_are_of_other_data_if_they_were_declared():
    counts = TrainingCounts()
    counts.set_declared(torch.tensor([3, 2, 1]))
    assert [counts.tally(K).tolist() for K in (2, 3)] == [[0, 0], [3, 2, 1]]
    count_epoch(counts, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="Label 2 of the training batches is out of range for 2 "):
        counts.tally(2)


def soft(samples):
    inputs, labels = default_collate(samples)
    hard = nn.functional.one_hot(labels, 4).float()
    return inputs, 0.7 * hard + 0.3 * hard.flip(0)


@pytest.mark.parametrize("minority", [None, RARE])
def test_soft_labels_cannot_be_counted_and_one_warning_tells_the_way_out(minority, tmp_path):
    def loader():
        return DataLoader(nets.Stream(mixed(COUNTS)), 10, collate_fn=soft)

    callback = MinorityCollapse(minority, theory=True, probe=OWN_PROBE, figures=False)
    (text,) = told(tmp_path, [callback], loader())
    assert "class_counts=[...]" in text
    assert "imbalance_ratio" in text
    assert counted(callback) == [None] * 3
    assert callback.failures == 0
    unknown = {"imbalance_ratio", "predicted_cos", "critical_ratio"}
    assert undefined(callback) == (set() if minority is None else unknown)
    assert minority is None or all(name in text for name in unknown)
    assert ("cos_weights" in last_values(callback)) == (minority is not None)
    given = MinorityCollapse(class_counts=COUNTS, probe=OWN_PROBE, figures=False)
    assert_untouched(tmp_path, given, data=lambda: {"train_dataloaders": loader()}, module=network)
    assert undefined(given) == set()


class State(Callback):
    """The class counts in the state of a callback when training begins."""

    def __init__(self, callback):
        self.callback, self.counts = callback, "none yet"

    def on_train_start(self, trainer, pl_module):
        self.counts = self.callback.state_dict()["class_counts"]


SAVED = {
    "at the end of an epoch": {"save_on_train_epoch_end": True, "every_n_epochs": 1},
    "on the last batch of an epoch": {"every_n_train_steps": 10},
    "within an epoch": {"every_n_train_steps": 14},
}


@pytest.mark.parametrize("saved", SAVED)
def test_counts_are_kept_by_a_checkpoint_and_those_of_whole_epochs_follow(saved, tmp_path):
    def loader():
        data = mixed(COUNTS)
        return DataLoader(data, 10, sampler=oversampling(data))

    counting, first = Counting(), MinorityCollapse(RARE, figures=False)
    saving = ModelCheckpoint(tmp_path, save_top_k=-1, **SAVED[saved])
    options = {"enable_checkpointing": True}
    run(tmp_path, [counting, first, saving], loader(), **options)
    (path, *_) = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    state = torch.load(path, weights_only=True)["callbacks"][first.state_key]
    assert state["class_counts"] == counting.epochs[0]

    again = MinorityCollapse(RARE, figures=False)
    counting_again, seen = Counting(), State(again)
    counting_again.on_train_epoch_start(None, None)  # which Lightning does not call in mid-epoch
    torch.manual_seed(6)
    trainer = nets.trainer(
        tmp_path, [seen, counting_again, again], limit_val_batches=0, max_epochs=3
    )
    trainer.fit(network(), loader(), ckpt_path=path)
    assert seen.counts == counting.epochs[0]
    assert epochs(again) == [0, 1, 2, 3]
    # older Lightning trains once more on the batch in whose hook a checkpoint was written
    same = 2 - (trainer.global_step - 30)
    assert quantities(again)[:same] == quantities(first)[:same]
    third = counting_again.epochs[-1]
    assert sum(third) == 100
    assert counted(again)[1] == counting.epochs[0]
    assert counted(again)[3] == third
    # of an epoch of which this run has seen a part: all of it, or what was known before
    second = counted(again)[2]
    assert sum(second) == 100
    if saved != "within an epoch":
        assert second == counting_again.epochs[-2]


def watching(calls):
    """A patch that notes what measurements communicate."""
    measure_together = measure_callback.measure_together

    def noted(name, original, *args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    def watched(*args):
        with ExitStack() as stack:
            for name in children.COLLECTIVES:
                noting = partial(noted, name, getattr(torch.distributed, name))
                stack.enter_context(patch.object(torch.distributed, name, noting))
            measure_together(*args)

    return patch.object(measure_callback, "measure_together", watched)


def on_this_process(rank, world):
    """Measurements on several kinds of loaders, what they cost, and what was counted here."""
    if world > 1:
        children.join(rank, world)
    options = {"strategy": "ddp", "devices": world} if world > 1 else {}
    data, results = mixed(COUNTS), {}
    cases = {
        "plain": {"shuffle": True},
        "oversampled": {"sampler": oversampling(data)},
        "soft on one": {"shuffle": True, "collate_fn": soft if rank == 1 else None},
    }
    for name, of_loader in cases.items():
        counting, calls = Counting(), []
        probe = Probe(data, "own", batch_size=7)
        callback = MinorityCollapse(RARE, probe=probe, figures=False, on_error="raise")
        with watching(calls):
            run(None, [counting, callback], DataLoader(data, 10 // world, **of_loader), **options)
        first = {k: v for k, v in callback.history[0].values.items() if "seconds" not in k}
        state = callback.state_dict()["class_counts"]
        results[name] = first, counted(callback), counting.epochs, calls, state
    return results


@pytest.fixture(scope="module")
def by_two():
    return run_processes(on_this_process, 2)


@pytest.mark.slow
def test_two_processes_measure_and_count_what_one_does(by_two):
    expected, *_ = on_this_process(0, 1)["plain"]
    for results in by_two:
        values, counts, _, calls, state = results["plain"]
        assert values == pytest.approx(expected, rel=1e-12)
        assert counts == [list(COUNTS)] * 3
        assert state == list(COUNTS)
        # buffers, two votes and two reductions, three times
        assert calls == ["all_reduce"] * 15


@pytest.mark.slow
def test_counts_are_added_up_over_processes_and_kept_in_the_state(by_two):
    here = [results["oversampled"][2] for results in by_two]
    both = [[sum(n) for n in zip(*of_epoch, strict=True)] for of_epoch in zip(*here, strict=True)]
    for results in by_two:
        _, counts, _, _, state = results["oversampled"]
        assert counts == [None, *both]
        assert state == both[-1]


@pytest.mark.slow
def test_counts_that_one_process_lacks_are_not_known(by_two):
    for results in by_two:
        _, counts, *_ = results["soft on one"]
        assert counts == [list(COUNTS), None, None]
