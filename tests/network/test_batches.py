import os
import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    SubsetRandomSampler,
    get_worker_info,
)

from lightning_nc import Probe
from lightning_nc.guards.unobtrusive import unobtrusive
from lightning_nc.network.batches import form_batches, read_batches, seeded_order, stratified
from lightning_nc.network.samples import samples_of
from tests import nets, sensitive


def indices_of(batches):
    return [index for batch in batches for index in batch.indices]


def chosen(labels, samples_per_class, seed=0):
    order = seeded_order(len(labels), seed)
    return order[stratified(labels[order], samples_per_class, seed)]


@pytest.fixture
def labels():
    return torch.tensor([0] * 50 + [1] * 20 + [2] * 5)


def test_indices_depend_on_the_seed_alone(labels):
    first = chosen(labels, 10, seed=3)
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(chosen(labels, 10, seed=3), first)
    assert not torch.equal(chosen(labels, 10, seed=4), first)


def test_each_class_gives_its_quota_or_all_it_has(labels):
    picked = chosen(labels, 10)
    assert labels[picked].bincount().tolist() == [10, 10, 5]
    assert len(set(picked.tolist())) == 25


def test_without_a_quota_all_samples_are_taken_once(labels):
    assert sorted(chosen(labels, None).tolist()) == list(range(75))


def test_classes_are_mixed_within_batches(labels):
    picked = chosen(labels, 20)
    assert len(labels[picked[:15]].unique()) > 1


def test_a_larger_quota_keeps_the_samples_of_a_smaller_one(labels):
    assert set(chosen(labels, 5).tolist()) <= set(chosen(labels, 20).tolist())


@pytest.mark.parametrize(("samples", "size"), [(75, 10), (100, 32), (7, 100), (33, 1), (64, 32)])
def test_batches_are_of_near_equal_size_and_hold_each_index_once(samples, size):
    indices = torch.randperm(samples)
    batches = form_batches(indices, indices % 3, size)
    sizes = [len(batch.indices) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= size
    assert len(batches) == -(-samples // size)
    assert indices_of(batches) == indices.tolist()
    assert [batch.number for batch in batches] == list(range(len(batches)))
    for batch in batches:
        assert torch.equal(batch.labels, torch.tensor(batch.indices) % 3)


class Augmented(Dataset):
    """Draws from all three global generators, and from none of its own."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        noise = [torch.rand(()).item(), np.random.rand(), random.random()]
        return torch.tensor([index, *noise], dtype=torch.float64), index % 4


def read(samples, batches, **options):
    with unobtrusive(torch.nn.Identity()):
        return {plan.number: batch for plan, batch in read_batches(samples, batches, 5, **options)}


@pytest.fixture
def plan():
    return form_batches(torch.arange(40), torch.arange(40) % 4, 9)


@pytest.mark.parametrize("world", [2, 3])
def test_batches_do_not_depend_on_the_number_of_processes(plan, world):
    samples = samples_of(Augmented(), 9)
    alone = read(samples, plan)
    dealt = {}
    for rank in range(world):
        dealt |= read(samples, plan[rank::world])
    assert dealt.keys() == alone.keys()
    for number, (inputs, labels) in alone.items():
        assert torch.equal(dealt[number][0], inputs)
        assert torch.equal(dealt[number][1], labels)


def test_worker_processes_read_the_same_batches(plan):
    samples = samples_of(Augmented(), 9)
    alone, by_workers = read(samples, plan), read(samples, plan, num_workers=2)
    for number, (inputs, _) in alone.items():
        assert torch.equal(by_workers[number][0], inputs)


def test_augmentations_differ_between_batches_and_repeat_between_readings(plan):
    samples = samples_of(Augmented(), 9)
    first, again = read(samples, plan), read(samples, plan)
    assert torch.equal(first[0][0], again[0][0])
    assert not torch.equal(first[0][0][:8, 1:], first[1][0][:8, 1:])


RNG = np.random.default_rng(4)


class Drawing(Augmented):
    """Draws from a generator of its class, one of its module, and from one of many."""

    rng = np.random.default_rng(5)

    def __init__(self):
        self.many = [np.random.default_rng(i) for i in range(1500)]

    def __getitem__(self, index):
        drawn = [rng.random() for rng in (RNG, self.rng, self.many[index])]
        return torch.tensor(drawn), index % 4


def test_generators_of_classes_modules_and_long_lists_are_seeded(plan):
    first, again = read(samples_of(Drawing(), 9), plan), read(samples_of(Drawing(), 9), plan[::-1])
    assert nets.same(first, {number: again[number] for number in first})


class DrawingOn(Augmented):
    """Draws from a generator of its own."""

    def __init__(self, rng, draw):
        self.rng, self.draw = rng, draw

    def __getitem__(self, index):
        return torch.tensor([self.draw(self.rng)]), index % 4


@pytest.mark.parametrize(
    ("rng", "draw"),
    [
        (np.random.default_rng(6), np.random.Generator.random),
        (np.random.RandomState(6), np.random.RandomState.random_sample),
        (random.Random(6), random.Random.random),
        (torch.Generator(), lambda rng: torch.rand((), generator=rng).item()),
    ],
)
def test_generators_of_every_kind_are_seeded_for_each_batch(plan, rng, draw):
    data = DrawingOn(rng, draw)
    first, again = read(samples_of(data, 9), plan), read(samples_of(data, 9), plan[::-1])
    assert nets.same(first, {number: again[number] for number in first})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_generator_of_the_loader_is_left_alone(plan, num_workers):
    generator = torch.Generator().manual_seed(11)
    loader = DataLoader(Augmented(), 7, shuffle=True, generator=generator)
    before, world = generator.get_state(), torch.get_rng_state()
    samples = samples_of(loader, None)
    read(samples, plan, num_workers=num_workers)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), world)


class Archive(Augmented):
    """Samples in a file that is opened in each process that reads."""

    def __init__(self):
        self.handle = None

    def open(self):
        self.handle = sensitive.Handle()

    def __getitem__(self, index):
        return super().__getitem__(self.handle.read(index))


def lent(dataset, **options):
    """The samples of a loader whose workers open the dataset."""
    options = {"num_workers": 2, "worker_init_fn": sensitive.open_in_worker} | options
    return samples_of(DataLoader(dataset, 9, **options), None)


@pytest.mark.parametrize(("num_workers", "start"), [(0, None), (2, None), (0, "spawn")])
def test_a_dataset_that_workers_open_is_opened_for_the_probe(plan, num_workers, start):
    expected = read(samples_of(Augmented(), 9), plan)
    dataset = Archive()
    samples = lent(dataset, multiprocessing_context=start)
    got = read(samples, plan, num_workers=num_workers)
    for number, (inputs, _) in expected.items():
        assert torch.equal(got[number][0], inputs)
    assert dataset.handle is None


@pytest.mark.filterwarnings("ignore:Got pickle error")
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_what_workers_cannot_be_sent_is_told_with_the_way_out(plan, start):
    samples = lent(Augmented(), collate_fn=lambda items: items, multiprocessing_context=start)
    with pytest.raises(ValueError, match=r"cannot be pickled \(Can't .*local.*num_workers=0"):
        read(samples, plan, num_workers=1)


def test_a_file_that_is_open_in_this_process_is_read_here(plan):
    class Open(Archive):
        def __init__(self):
            self.open()

    assert len(read(lent(Open()), plan)) == len(plan)


@pytest.mark.parametrize("limit", [False, True])
def test_workers_see_the_dataset_of_the_user(plan, limit):
    class Asking(Augmented):
        def __getitem__(self, index):
            return type(get_worker_info().dataset).__name__, index

    sampler = SubsetRandomSampler(range(40)) if limit else None
    samples = samples_of(DataLoader(Asking(), 9, sampler=sampler), None)
    got = read(samples, plan, num_workers=1)
    assert {kind for kinds, _ in got.values() for kind in kinds} == {"Asking"}


def test_what_prepares_workers_is_not_called_in_this_process(plan):
    def prepare(_):
        called.append(os.getpid())

    called = []
    read(samples_of(DataLoader(Augmented(), 9, num_workers=2, worker_init_fn=prepare), None), plan)
    assert called == []


class Fetched(Augmented):
    def __getitems__(self, indices):
        return [(torch.tensor([float(index)]), index % 4) for index in indices]

    def __getitem__(self, index):
        raise AssertionError("samples are fetched together")


def test_datasets_that_fetch_samples_together_are_asked_to(plan):
    first, _ = read(samples_of(Fetched(), 9), plan)[0]
    assert first.flatten().tolist() == plan[0].indices


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "training"}, "'training' is none of train, val, test"),
        ({"source": Augmented()}, r"Augmented needs a name.*name="),
        ({"batch_norm": "train"}, "batch_norm.*'train'"),
        ({"samples_per_class": 0}, "samples_per_class of a Probe must be 1 or more, got 0"),
        ({"batch_size": -1}, "batch_size of a Probe must be 1 or more, got -1"),
    ],
)
def test_a_probe_refuses_what_it_could_not_read(arguments, message):
    with pytest.raises(ValueError, match=message):
        Probe(**arguments)


def test_a_probe_is_called_by_its_source_or_its_name():
    assert Probe("val").key == "val"
    assert Probe("val", name="held_out").key == "held_out"
