import re

import pytest
import torch
from torchmetrics import MeanMetric

from lightning_nc.metrics import NeuralCollapse, SeparationFuzziness

pytestmark = pytest.mark.parametrize("metric", [SeparationFuzziness, NeuralCollapse])
FEATURES, LABELS = torch.randn(6, 2, generator=torch.manual_seed(0)), torch.tensor([0, 1, 2] * 2)


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_fewer_than_two_classes_cannot_be_separated(metric, num_classes):
    with pytest.raises(ValueError, match=f"num_classes={num_classes}"):
        metric(num_classes)


@pytest.mark.parametrize(
    ("features", "labels", "error", "message"),
    [
        (FEATURES, LABELS + 5, ValueError, "Label 7 is out of range for 3 classes"),
        (FEATURES, LABELS - 4, ValueError, "-4"),
        (FEATURES, LABELS.double(), TypeError, "torch.float64"),
        (FEATURES.int(), LABELS, TypeError, "torch.int32"),
        (FEATURES, LABELS[:4], ValueError, "(6, 2) and (4,)"),
        (FEATURES * torch.nan, LABELS, ValueError, "NaN"),
        (FEATURES[:0], LABELS[:0], ValueError, "none"),
        (FEATURES[:, :1], LABELS, ValueError, "from 2 to 1"),
    ],
)
def test_bad_batches_are_named_and_leave_the_state_as_it_was(
    metric, features, labels, error, message
):
    ours = metric(3)
    ours.update(FEATURES, LABELS)
    before = ours.moments.clone()
    with pytest.raises(error, match=re.escape(message)):
        ours.update(features, labels)
    assert torch.equal(ours.moments, before)


def test_an_interrupt_of_forward_leaves_the_state_as_it_was(metric, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(metric, "compute", interrupted)
    ours = metric(3)
    ours.update(FEATURES, LABELS)
    before = ours.moments.clone()
    with pytest.raises(KeyboardInterrupt):
        ours(2 * FEATURES, LABELS)
    assert torch.equal(ours.moments, before)


def test_a_class_never_seen_is_named(metric):
    ours = metric(4)
    ours.update(FEATURES, LABELS)
    with pytest.raises(ValueError, match="No samples of class 3 among 4 classes"):
        ours.compute()


def test_nothing_seen_is_no_class(metric):
    with (
        pytest.warns(UserWarning, match="before the ``update`` method"),
        pytest.raises(ValueError, match="at least two classes, got 0"),
    ):
        metric(3).compute()


def test_coincident_means_are_nan_with_one_warning(metric):
    ours = metric(2)
    ours.update(torch.tensor([[31.0], [29.0], [28.0], [32.0]]), torch.tensor([0, 0, 1, 1]))
    with pytest.warns(UserWarning, match="span 0 of 1") as caught:
        value = ours.compute()
    assert len(caught) == 1
    assert (value["nc1"] if isinstance(value, dict) else value).isnan()


@pytest.mark.parametrize("of_others", [lambda: SeparationFuzziness(4), MeanMetric])
def test_samples_of_other_metrics_are_not_added(metric, of_others):
    with pytest.raises(ValueError, match="features in 3 classes"):
        metric(3).merge_state(of_others())
