import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from lightning_nc import Probe
from lightning_nc.guards.unobtrusive import unobtrusive
from lightning_nc.network.labels import class_indices, dataset_labels
from lightning_nc.network.runner import plain_runner
from lightning_nc.network.samples import samples_of
from lightning_nc.network.unpacking import unpack_batch
from lightning_nc.passes.planning import make_plan
from lightning_nc.passes.request import Request

LABELS = [2, 0, 1, 1, 0, 2, 2, 0]


class Declared(Dataset):
    """Declares labels under a name and counts how often it is read."""

    def __init__(self, labels, name=None, declared=None, transform=None):
        self.held, self.reads = torch.as_tensor(labels), []
        if name is not None:
            setattr(self, name, labels if declared is None else declared)
        if transform is not None:
            self.target_transform = transform

    def __len__(self):
        return len(self.held)

    def __getitem__(self, index):
        self.reads.append(index)
        label = int(self.held[index])
        transform = getattr(self, "target_transform", None)
        return torch.full((4,), float(index)), transform(label) if transform else label


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize("kind", [list, torch.tensor, np.array, tuple])
def test_labels_are_declared_under_either_name_in_any_container(name, kind):
    assert dataset_labels(Declared(LABELS, name, kind(LABELS))).tolist() == LABELS


def test_no_sample_is_read_for_declared_labels():
    dataset = Declared(LABELS, "targets")
    dataset_labels(dataset)
    assert dataset.reads == []


def test_target_transforms_are_applied():
    dataset = Declared(LABELS, "targets", transform=lambda label: 2 - label)
    assert dataset_labels(dataset).tolist() == [2 - label for label in LABELS]


def test_tensor_datasets_end_with_labels():
    assert dataset_labels(TensorDataset(torch.zeros(8, 3), torch.tensor(LABELS))).tolist() == LABELS
    assert dataset_labels(TensorDataset(torch.zeros(8, 3))) is None


def test_subsets_and_concatenations_are_looked_through():
    base = Declared(LABELS, "targets", transform=lambda label: label + 1)
    both = ConcatDataset(
        [Subset(base, [1, 0]), TensorDataset(torch.zeros(2), torch.tensor([5, 4]))]
    )
    assert dataset_labels(Subset(both, np.array([3, 1, 0]))).tolist() == [4, 3, 1]
    assert dataset_labels(ConcatDataset([base, Declared(LABELS)])) is None


@pytest.mark.parametrize(
    "declared",
    [["cat", "dog"] * 4, [[0, 1]] * 8, [0.5] * 8, LABELS[:3], [-1] * 8, [[0], [0, 1]] * 4, 7],
    ids=["names", "rows", "soft", "too few", "negative", "ragged", "number"],
)
def test_what_is_declared_but_is_no_class_index_is_left_to_the_batches(declared):
    assert dataset_labels(Declared(LABELS, "targets", declared)) is None


def planned(dataset, samples_per_class=1, batch_size=2, classifier=True, classes=None):
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3))
    probe = Probe(dataset, "data", samples_per_class=samples_per_class, classes=classes)
    with unobtrusive(model):
        request = Request("blocks", classifier=classifier)
        return make_plan(plain_runner(model), samples_of(dataset, batch_size), probe, [request])


def chosen(plan):
    """Index and label of every sample of a plan."""
    return [pair for b in plan.batches for pair in zip(b.indices, b.labels.tolist(), strict=True)]


@pytest.mark.parametrize("declared", [None, LABELS[::-1]], ids=["none", "wrong"])
def test_labels_are_read_where_they_are_not_declared_as_batches_hold_them(declared):
    dataset = Declared(LABELS, "targets" if declared else None, declared)
    pairs = chosen(planned(dataset, samples_per_class=2))
    assert sorted(label for _, label in pairs) == [0, 0, 1, 1, 2, 2]
    assert all(LABELS[index] == label for index, label in pairs)


def test_declared_and_read_labels_choose_the_same_samples():
    labels = torch.arange(60) % 3
    assert chosen(planned(Declared(labels))) == chosen(planned(Declared(labels, "targets")))


def test_reading_stops_once_every_class_has_its_quota():
    dataset = Declared(torch.arange(300) % 3)
    planned(dataset, samples_per_class=2, batch_size=10)
    assert 10 <= len(set(dataset.reads)) <= 50


def test_nothing_but_a_first_batch_is_read_where_labels_are_declared():
    dataset = Declared(torch.arange(300) % 3, "targets")
    planned(dataset, samples_per_class=2, batch_size=10)
    assert len(dataset.reads) == 10


def test_reading_does_not_go_on_for_a_class_that_the_probe_does_not_name():
    dataset = Declared(torch.arange(300) % 2)
    planned(dataset, samples_per_class=2, batch_size=10, classes=[1, 0])
    assert 10 <= len(set(dataset.reads)) <= 50


def test_reading_goes_on_to_the_end_for_a_class_that_is_short():
    dataset = Declared([0, 1] * 30 + [2])
    plan = planned(dataset, samples_per_class=4)
    assert sorted(label for _, label in chosen(plan)) == [0] * 4 + [1] * 4 + [2]


def test_batches_are_pairs_or_dicts_with_a_known_key():
    assert unpack_batch(["x", "y"]) == ("x", "y")
    for key in ("labels", "label", "targets", "target", "y"):
        assert unpack_batch({"x": 1, key: 2}) == ({"x": 1}, 2)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.tensor([[1], [0]]), [1, 0]),
        (torch.tensor([1.0, 0.0]), [1, 0]),
        (torch.tensor([True, False]), [1, 0]),
        (torch.tensor([1, 0], dtype=torch.uint8), [1, 0]),
    ],
    ids=["column", "float", "bool", "uint8"],
)
def test_labels_of_any_type_are_read_as_class_indices(labels, expected):
    read = class_indices(labels)
    assert read.dtype == torch.int64
    assert read.tolist() == expected
