"""Which batches can be read in one way only, and what is said of the others."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_nc.network.labels import dataset_labels
from lightning_nc.network.nesting import described, replaced, tensors_in
from lightning_nc.network.unpacking import unpack_batch

X = torch.rand(4, 3)
Y = torch.tensor([1, 0, 2, 1])
INDEX = torch.tensor([7, 3, 5, 9])


class Item(NamedTuple):
    image: Any
    label: Any
    index: Any


class Swapped(NamedTuple):
    image: Any
    index: Any
    label: Any


@dataclass(frozen=True)
class Record:
    image: Any
    label: Any


@dataclass
class OtherRecord:
    image: Any
    kind: Any


class Graph:
    """Holds its tensors as attributes, as the graphs of torch_geometric do."""

    def __init__(self, x, y):
        self.x, self.y = x, y


READABLE = {
    "a pair": (X, Y),
    "a pair in a list": [X, Y],
    "with weights": (X, Y, torch.rand(4)),
    "with file names": (X, Y, ["a.png", "b.png", "c.png", "d.png"]),
    "with a dict": [X, Y, {"weight": torch.rand(4)}, None],
    "with boxes": (X, Y, torch.zeros(4, 4, dtype=torch.long)),
    "labels in a list": (X, Y.tolist(), ["a", "b", "c", "d"]),
    "labels in an array": (X, Y.numpy(), torch.rand(4)),
    "a column": (X, Y[:, None], torch.rand(4)),
    "a named tuple": Item(X, Y, INDEX),
}


@pytest.mark.parametrize("case", READABLE)
def test_what_can_be_read_in_one_way_is_read(case):
    inputs, labels = unpack_batch(READABLE[case])
    assert inputs is X
    assert torch.as_tensor(labels).flatten().tolist() == Y.tolist()


def test_dataclasses_are_split_at_a_name_for_labels():
    inputs, labels = unpack_batch(Record(X, Y))
    assert list(inputs) == ["image"]
    assert inputs["image"] is X
    assert labels is Y


def test_named_tuples_are_split_at_a_name_for_labels_that_are_not_the_second():
    inputs, labels = unpack_batch(Swapped(X, INDEX, Y))
    assert list(inputs) == ["image", "index"]
    assert inputs["image"] is X
    assert labels is Y


IMAGES = torch.rand(4, 3, 8, 8)
MASK = torch.randint(3, (4, 8, 8))


@pytest.mark.parametrize("mask", [MASK, MASK[:, None], MASK.float(), MASK.numpy()])
@pytest.mark.parametrize("key", ["mask", "segmentation"])
def test_the_only_part_with_a_number_for_each_pixel_holds_the_labels(key, mask):
    batch = {"image": IMAGES, key: mask, "bbox": torch.rand(4, 6), "name": ["a", "b", "c", "d"]}
    inputs, labels = unpack_batch(batch)
    assert list(inputs) == ["image", "bbox", "name"]
    assert labels is mask


@pytest.mark.parametrize(
    "others",
    [
        {"mask": MASK.float(), "trimap": MASK},  # which of two is not told
        {"mask": MASK, "kind": Y},  # nor whether pixels or images have classes
        {"mask": MASK[:, :4, :4]},
    ],
)
def test_labels_of_pixels_are_not_guessed(others):
    with pytest.raises(TypeError, match="Cannot tell inputs from labels in a dict"):
        unpack_batch({"image": IMAGES, **others})


def test_a_mask_of_tokens_is_no_label():
    with pytest.raises(TypeError, match="Cannot tell inputs from labels in a dict"):
        unpack_batch({"tokens": torch.rand(4, 8, 3), "mask": torch.ones(4, 8)})


def test_beside_texts_it_is_not_told_which_items_are_labels():
    with pytest.raises(TypeError, match="Cannot tell inputs from labels in a tuple of 3 items"):
        unpack_batch((["a", "b"], torch.tensor([0, 1]), torch.tensor([7, 8])))


def test_of_an_object_the_whole_is_the_input():
    graph = Graph(X, Y)
    assert unpack_batch(graph) == (graph, Y)


def test_what_the_dataset_declares_decides_between_two_that_could_be_labels():
    assert unpack_batch((X, Y, INDEX), lambda: Y)[1] is Y
    with pytest.raises(TypeError, match=r"int64 of shape \(4,\); int64 of shape \(4,\)"):
        unpack_batch((X, INDEX, Y), lambda: Y)
    with pytest.raises(TypeError, match="Cannot tell"):
        unpack_batch((X, Y, Y), lambda: Y)


def test_what_the_dataset_does_not_confirm_is_not_taken_for_labels():
    soft = torch.rand(4, 3)
    assert unpack_batch((X, INDEX, soft))[1] is INDEX
    with pytest.raises(TypeError, match="Cannot tell"):
        unpack_batch((X, INDEX, soft), lambda: Y)


UNREADABLE = {
    "an index beside labels": (
        (X, Y, INDEX),
        ["tuple of 3 items", "batch[2], and not batch[1]", "lambda batch: (batch[0], batch[2])"],
    ),
    "labels at the end": (
        (X, torch.rand(4, 3), Y),
        ["float32 of shape (4, 3)", "int64 of shape (4,)", "(batch[0], batch[2])", "batch[:2] if"],
    ),
    "texts in one row, with offsets": (
        (Y, torch.zeros(9, dtype=torch.long), INDEX),
        ["lambda batch: (inputs, labels))."],
    ),
    "unusual keys": (
        {"kind": Y, "pixels": X},
        ["'kind': int64", "'pixels': float32", "(batch['pixels'], batch['kind'])"],
    ),
    "unusual names": (OtherRecord(X, Y), ["OtherRecord", "'kind'", "(batch.image, batch.kind)"]),
    "a tensor": (X, ["no labels", "float32 of shape (4, 3)", "Probe(dataset, name="]),
    "a graph without labels": (Graph(X, None), ["Graph", "'x'", "(inputs, labels)"]),
    "one item": ((X,), ["tuple of 1 items", "(inputs, labels)"]),
    "nothing": ([], ["list", "(inputs, labels)"]),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_described_with_the_way_out(case):
    batch, words = UNREADABLE[case]
    with pytest.raises(TypeError) as raised:
        unpack_batch(batch)
    assert [word for word in words if word not in str(raised.value)] == [], str(raised.value)


def test_of_several_tensors_of_a_dataset_the_only_one_of_whole_numbers_is_declared():
    assert dataset_labels(TensorDataset(X, Y, X)).tolist() == Y.tolist()
    assert dataset_labels(TensorDataset(X, X, Y)).tolist() == Y.tolist()
    assert dataset_labels(TensorDataset(X, Y, INDEX)) is None


def test_a_tensor_is_replaced_in_containers_of_the_same_kind_and_the_given_ones_stay():
    nested = [Item({"a": (X, Y)}, Record(X, Graph(X, Y)), np.zeros(2)), Y]
    new = torch.zeros(4, 3)
    result = replaced(nested, X, new)
    assert type(result[0]) is Item
    assert type(result[0].label) is Record
    assert [t is new for t in tensors_in(result)] == [True, False, True, True, False]
    assert [t is X for t in tensors_in(nested)] == [True, False, True, True, False]
    assert result[0].label.label.y is Y


def test_a_long_list_is_described_by_what_it_is_a_list_of():
    assert described(["a"] * 3) == "a list of 3 str"
    assert described([X] * 30) == "a list of 30 Tensor"
