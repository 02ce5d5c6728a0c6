"""Every constructor refuses what it cannot use at once, with a sentence that says what to give."""

import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import (
    EquiSeparation,
    LocalElasticity,
    MeasureCallback,
    MinorityCollapse,
    NeuralCollapse,
    NextTokenLaw,
    Probe,
    callbacks_for,
    metrics,
)
from lightning_nc.measures.neural_collapse import CollapseMeasure

DATA = TensorDataset(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
NAN = float("nan")
CALLBACKS = [EquiSeparation, NeuralCollapse, MinorityCollapse, LocalElasticity, NextTokenLaw]

# for each argument: values that are refused, and what the sentence says besides name and value
OF_ALL_CALLBACKS = {
    "probe": (
        [DATA, DataLoader(DATA), None, 3],
        "into a Probe with a name for the logged keys: probe=Probe(dataset, name=",
    ),
    "every_n_epochs": ([1.5, 0, -1, NAN, "2", None, True], "1 or more"),
    "epochs": ([[1.5], [-1], 3, "3", [NAN]], "epochs must be"),
    "when": (["never", None, 1], '"train_epoch_end" or "validation_end"'),
    "figures": (["sometimes", None, 1], "True or False"),
    "on_error": (["explode", None, True], '"warn" or "raise"'),
    "head": ([3, "", False, DATA], "named_modules()"),
    "pool": (["mean", 3], "lightning_nc.first_token"),
}
WITHOUT = {EquiSeparation: {"head"}, LocalElasticity: {"pool"}, NextTokenLaw: {"head"}}
OF_ONE = {
    EquiSeparation: {
        "layers": ([[], "", None, 3, [3], {}], "a list such as"),
    },
    NextTokenLaw: {
        "layers": ([[], "", None, 3, [3], {}], "a list such as"),
        "normalization": (["batch_norm", None, 1], '"layer_norm", "rms_norm" or "none"'),
    },
    MinorityCollapse: {
        "minority": ([[], 3, [0.5], [-1], [1, 1], "1"], "minority"),
        "class_counts": ([[3], 3, [1.5, 2], [-1, 2], [NAN, 2]], "count"),
        "theory": (["yes", None, 1], "True or False"),
        "merged_above": ([NAN, "high", None], "or more"),
    },
    LocalElasticity: {
        "samples_per_class": ([1, 2.5, None, NAN, "5"], "2 (to form pairs) or more"),
        "max_classes": ([1, 2.5, None, NAN], "2 (to form pairs) or more"),
        "outputs": ([0, -1, 1.5, "some", None, True], "number of directions"),
        "relative_similarity": (["yes", None], "True or False"),
        "parameters": ([[], "weight", 3, [3]], '"last_layer"'),
        "loss": (["cross_entropy", 3], "loss(outputs, labels)"),
    },
    Probe: {
        "source": ([None, 3, "training"], "a DataLoader"),
        "name": ([3], "string"),
        "samples_per_class": ([0, 2.5, NAN, "all", True], "1 or more"),
        "min_samples_per_class": ([0, 2.5, NAN, None], "1 or more"),
        "classes": ([3, "ab", [0.5, 1.5], [-1, 2], ["a", "b"], [1], [1, 1]], "classes of a Probe"),
        "ignore_index": ([0.5, None], "whole number"),
        "unpack": (["labels", 3], "batch -> (inputs, labels)"),
        "forward": ([3, "", []], "named_modules(), or a function"),
        "batch_norm": (["train", None], '"eval" or "batch"'),
        "user_hooks": (["no", None, 1], "True or False"),
        "cache_mb": ([NAN, -1, "1 GB", None], "0 or more"),
        "memory_mb": ([NAN, -1, "1 GB", None], "0 or more"),
        "wait_seconds": ([NAN, -1, "60", None], "0 or more"),
        "seed": ([0.5, None, "0"], "whole number"),
        "batch_size": ([0, 2.5, NAN], "1 or more"),
        "num_workers": ([-1, 0.5, None], "0 or more"),
    },
    callbacks_for: {"without": (["nc", 3, None, [3], ["all"]], "without must list some of")},
    metrics.NeuralCollapse: {"num_classes": ([1, 2.5, None, NAN], "num_classes")},
    metrics.SeparationFuzziness: {"num_classes": ([1, 2.5, None, NAN], "num_classes")},
}
REFUSED = [
    pytest.param(kind, name, value, says, id=f"{kind.__name__}-{name}-{number}")
    for kind in dict.fromkeys([*CALLBACKS, *OF_ONE])
    for table in (OF_ALL_CALLBACKS if kind in CALLBACKS else {}, OF_ONE.get(kind, {}))
    for name, (values, says) in table.items()
    if name not in WITHOUT.get(kind, ())
    for number, value in enumerate(values)
    if (kind, name, value) != (NeuralCollapse, "head", False)  # which has a meaning there
]


@pytest.mark.parametrize(("kind", "name", "value", "says"), REFUSED)
def test_a_constructor_names_the_argument_the_value_and_the_way_out(kind, name, value, says):
    with pytest.raises((TypeError, ValueError), match=re.escape(says)) as refused:
        kind(**{name: value})
    sentence = str(refused.value)
    assert name in sentence.replace("Probe source", "source")
    shown = [
        repr(value),
        type(value).__name__,
        *map(repr, value if isinstance(value, list) else []),
    ]
    assert any(text in sentence for text in shown), sentence
    assert sentence.endswith(".")


def test_a_measure_callback_takes_a_measure():
    with pytest.raises(ValueError, match="measure must be a Measure"):
        MeasureCallback(CollapseMeasure)
    assert MeasureCallback(CollapseMeasure()).family == "nc"


def test_numbers_of_numpy_are_numbers():
    two = np.int64(2)
    probe = Probe(DATA, "data", samples_per_class=two, batch_size=two, cache_mb=np.float32(1))
    elasticity = LocalElasticity(samples_per_class=two, outputs=two, probe=probe)
    assert elasticity.measure.kernel.samples_per_class == elasticity.measure.kernel.outputs == 2
    callback = MinorityCollapse(
        minority=np.array([1]),
        class_counts=np.array([30, 2]),
        every_n_epochs=two,
        epochs=np.arange(3),
        figures=np.bool_(False),
    )
    assert callback.schedule.epochs == (0, 1, 2)
    assert callback.schedule.every_n_epochs == 2
    assert type(callback.schedule.every_n_epochs) is type(probe.batch_size) is int
    assert metrics.NeuralCollapse(two).num_classes == 2


def test_budgets_may_be_infinite():
    assert Probe(cache_mb=float("inf"), memory_mb=float("inf")).cache_mb == float("inf")


def test_classes_are_those_that_are_named_in_whatever_form():
    probes = [
        Probe(classes=classes) for classes in ([2, 5], (2, 5), np.array([2, 5]), range(2, 8, 3))
    ]
    assert all(probe == probes[0] for probe in probes)
    assert {probe.settings["classes"] for probe in probes} == {"(2, 5)"}
    assert Probe(classes=[2, 6]) != probes[0] != Probe()


def test_layers_that_can_be_read_once_are_kept():
    callback = EquiSeparation(layers=(name for name in ("0", "2")))
    assert callback.measure.request().layers == ["0", "2"] == callback.measure.request().layers
