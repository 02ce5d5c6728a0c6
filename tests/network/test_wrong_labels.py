"""What is said of labels that are no class indices fits what they are."""

import numpy as np
import pytest
import torch

from lightning_nc.network.labels import class_indices
from lightning_nc.network.wrong_labels import are_positions

MULTI_LABEL = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
ONE_HOT = torch.eye(3)

# labels, the words that fit them, and the words that would mislead
CASES = {
    "regression": (
        torch.tensor([0.3, 1.7, 2.2]),
        ["(3,)", "torch.float32", "regression", "not class indices", "no classes to measure"],
        ["argmax", "soft", "multi-label", "mixup"],
    ),
    "regression in a column": (
        torch.tensor([[0.3], [1.7], [2.2]]),
        ["regression", "not class indices", "no classes to measure"],
        ["argmax", "soft", "multi-label"],
    ),
    "regression of several targets": (
        torch.tensor([[0.3, -4.0], [1.7, 2.5]]),
        ["(2, 2)", "regression", "not class indices"],
        ["argmax", "soft", "multi-label"],
    ),
    "not a number": (torch.tensor([0.0, torch.nan]), ["regression"], ["argmax"]),
    "mixup": (
        torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]]),
        ["soft", "mixup", 'Probe(dataset, name="clean")', "argmax(1)", "unpack="],
        ["regression", "multi-label"],
    ),
    "label smoothing in half precision": (
        (0.9 * ONE_HOT + 0.1 / 3).half(),
        ["soft", "label smoothing", "argmax(1)"],
        ["regression", "multi-label"],
    ),
    "one-hot": (
        ONE_HOT,
        ["one-hot", "argmax(1)", "unpack="],
        ["mixup", "regression", "multi-label", "clean"],
    ),
    "several classes per sample": (
        MULTI_LABEL,
        ["multi-label", "each sample needs one class", "unpack=", "targets[:, 0]"],
        ["argmax", "soft", "regression", "position"],
    ),
    "several classes per sample as floats": (
        MULTI_LABEL.float(),
        ["multi-label", "each sample needs one class"],
        ["argmax", "soft", "regression"],
    ),
    "tokens": (
        torch.tensor([[4, 1, -100], [2, 0, 3]]),
        ["(2, 3)", "positions", "sequence", "each sample needs one", "unpack="],
        ["argmax", "soft", "multi-label", "regression"],
    ),
    "segmentation in two classes": (
        torch.zeros(2, 4, 4, dtype=torch.uint8),
        ["(2, 4, 4)", "positions", "image"],
        ["argmax", "soft", "multi-label", "regression"],
    ),
    "a second view": (
        torch.rand(2, 3, 8, 8),
        ["second view", "each sample needs a label", "Probe(dataset, name="],
        ["argmax", "soft", "multi-label", "regression"],
    ),
    "a number for the whole batch": (
        torch.tensor(3),
        ["whole batch", "one label per sample"],
        ["argmax", "regression"],
    ),
    "names": (
        ["cat", "dog", "cat"],
        ["list of 3 str", "names.index(label)", "unpack="],
        ["argmax", "soft", "Return a tensor"],
    ),
    "names in an array": (np.array(["cat", "dog"]), ["NumPy array", "names.index"], ["argmax"]),
    "several targets": (
        (torch.tensor([0, 1]), torch.tensor([1, 0]), 0.3),
        ["tuple of 3 items", "int64 of shape (2,)", "Return one of these", "unpack="],
        ["argmax", "soft"],
    ),
    "several targets by name": (
        {"coarse": torch.tensor([0, 1]), "fine": torch.tensor([3, 2])},
        ["'coarse'", "'fine'", "Return one of these"],
        ["argmax"],
    ),
    "no labels": (None, ["NoneType", "labelled data"], ["argmax", "Return a tensor"]),
    "ignored samples": (
        torch.tensor([1, -100]),
        ["Label -100", "numbered from 0", "ignored", "Subset"],
        ["unpack=", "labels +"],
    ),
    "labels of a hinge loss": (
        torch.tensor([-1, 1]),
        ["Label -1", "(labels > 0).long()", "unpack=", "Subset"],
        ["argmax", "labels + 1"],
    ),
    "labels below zero": (torch.tensor([-1, 0, 2]), ["Label -1", "labels + 1"], ["argmax"]),
    "identifiers": (
        torch.tensor([1, 2, 2**20]),
        ["Label 1048576", "numbered from 0 to 1048575", "torch.searchsorted(ids, labels)"],
        ["argmax", "labels - 1", "labels +"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_said_fits_the_labels(case):
    labels, words, misleading = CASES[case]
    with pytest.raises((TypeError, ValueError)) as raised:
        class_indices(labels)
    text = str(raised.value)
    assert [word for word in words if word not in text] == [], text
    assert [word for word in misleading if word in text] == [], text


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1],
        (2, 0, 1),
        np.array([2, 0, 1]),
        np.array([2, 0, 1], dtype=np.uint16),
        np.array([[2.0], [0.0], [1.0]]),
        [np.int64(2), np.int64(0), np.int64(1)],
        [torch.tensor(2), torch.tensor(0), torch.tensor(1)],
        (torch.tensor([2]), torch.tensor([0]), torch.tensor([1])),
        torch.tensor([2, 0, 1], dtype=torch.uint16),
    ],
    ids=repr,
)
def test_whole_numbers_in_any_container_are_class_indices(labels):
    read = class_indices(labels)
    assert read.dtype == torch.int64
    assert read.tolist() == [2, 0, 1]


@pytest.mark.parametrize("labels", [[True, False], np.array([True, False])], ids=repr)
def test_truth_values_are_two_classes(labels):
    assert class_indices(labels).tolist() == [1, 0]


def test_positions_are_whole_numbers_of_more_than_one_axis_but_for_multi_label():
    assert are_positions(torch.tensor([[0, 2], [1, -100]]))
    assert are_positions(torch.zeros(2, 4, 4, dtype=torch.bool))
    assert not are_positions(MULTI_LABEL)
    assert not are_positions(torch.rand(2, 4, 4))
    assert not are_positions(torch.arange(3))
