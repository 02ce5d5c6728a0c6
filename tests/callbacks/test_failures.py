"""What is said of measurements that are skipped: each cause once in a run, and how often."""

import pytest
from pytorch_lightning import Callback
from torch.utils.data import DataLoader

from lightning_nc import (
    EquiSeparation,
    GeometrySummary,
    LocalElasticity,
    MeasureCallback,
    NeuralCollapse,
    Probe,
)
from lightning_nc.passes.request import DoesNotApply
from tests import nets
from tests.callbacks.runs import epochs
from tests.measures.own_family import LayerwiseVariance

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def told_in(root, callbacks, **options):
    """What is warned of while a network trains."""
    with nets.our_warnings() as caught:
        run = nets.fit(root, callbacks, **options)
    return caught, run


class Failing(nets.Blobs):
    """Data that cannot be read after some epochs; what it raises depends on their number."""

    def __init__(self, errors):
        super().__init__(augment=False)
        self.errors, self.epoch = errors, 0

    def __getitem__(self, index):
        if self.epoch in self.errors:
            raise self.errors[self.epoch]
        return super().__getitem__(index)


class Clock(Callback):
    """Tells data how many epochs are completed."""

    def __init__(self, data):
        self.data = data

    def on_train_epoch_end(self, trainer, pl_module):
        self.data.epoch = trainer.current_epoch + 1


def told_of(root, errors, *kinds, max_epochs):
    """What is warned of if data fail after some epochs, by callbacks of some kinds."""
    data = Failing(errors)
    callbacks = [kind(probe=Probe(data, "mine"), figures=False) for kind in kinds]
    told, _ = told_in(root, [Clock(data), *callbacks], max_epochs=max_epochs)
    return told, callbacks


def test_a_wrong_option_costs_two_warnings_however_long_the_run(tmp_path):
    callback = NeuralCollapse(head="fc", figures=False)
    (cause, often), run = told_in(tmp_path, [callback], max_epochs=20)
    assert cause.startswith("NeuralCollapse skipped the measurement on 'train' after 0 epochs; ")
    assert "'fc'" in cause
    start = "NeuralCollapse on 'train': 21 of 21 measurements were skipped: process 0 raised "
    assert often.startswith(start)
    first = often.removeprefix(start).removesuffix(".")
    assert first in cause
    assert len(often) < len(cause)
    assert callback.failures == float(run.callback_metrics["nc/train/failures"]) == 21


def test_an_error_that_stops_the_run_shows_where_in_the_data_it_was_raised(tmp_path):
    probe = Probe(nets.Broken(), "broken")
    callbacks = [NeuralCollapse(probe=probe, on_error="raise"), EquiSeparation(probe=probe)]
    with pytest.raises(OSError, match="the disk is gone") as raised:
        nets.fit(tmp_path, callbacks)
    assert raised.traceback[-1].name == "__getitem__"


class Inapplicable(LayerwiseVariance):
    """Applies to nothing."""

    def evaluate(self, answer):
        raise DoesNotApply("there is nothing to vary.")


def test_what_does_not_apply_is_no_error_of_a_process(tmp_path):
    callback = MeasureCallback(Inapplicable(), figures=False)
    (told, often), _ = told_in(tmp_path, [callback])
    assert told.endswith(" after 0 epochs; there is nothing to vary.")
    assert often.endswith("3 of 3 measurements were skipped: there is nothing to vary.")


def test_the_number_of_the_epoch_makes_no_new_cause(tmp_path):
    errors = {n: OSError(f"epoch {n}: {n}.5 s passed at 0x{n}f") for n in range(3, 13)}
    (cause, often), (callback,) = told_of(tmp_path, errors, NeuralCollapse, max_epochs=12)
    assert "after 3 epochs; process 0 raised OSError: epoch 3: 3.5 s passed at 0x3f" in cause
    assert often == (
        "NeuralCollapse on 'mine': 10 of 13 measurements were skipped: process 0 raised OSError: "
        "epoch 3: 3.5 s passed at 0x3f."
    )
    assert callback.failures == 10
    assert epochs(callback) == [0, 1, 2]


def test_a_new_cause_is_told_in_full_and_an_old_one_is_not_forgotten(tmp_path):
    gone, odd, late = OSError("gone. Look for it"), ValueError("gone. Look for it"), OSError("late")
    errors = {1: gone, 2: odd, 3: gone, 4: odd, 5: gone, 6: late}
    told, _ = told_of(tmp_path, errors, NeuralCollapse, max_epochs=7)
    *causes, often = told
    said = ["OSError: gone. Look for it", "ValueError: gone. Look for it", "OSError: late"]
    assert [c.split(" after ")[1] for c in causes] == [
        f"{n} epochs; process 0 raised {text}" for n, text in zip((1, 2, 6), said, strict=True)
    ]
    assert often == (
        "NeuralCollapse on 'mine': 6 of 8 measurements were skipped: "
        "process 0 raised OSError: gone (3 of them); process 0 raised ValueError: gone (2 of them);"
        " process 0 raised OSError: late (1 of them)."
    )


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        ("aab", "{a} (2 of them); {b} (1 of them)."),
        ("aabc", "{a} (2 of them); {b} (1 of them); {c} (1 of them)."),
        ("aabbbcde", "{b} (3 of them); {a} (2 of them); {c} (1 of them); and 2 more causes."),
    ],
)
def test_of_many_causes_the_most_frequent_are_listed(names, listed, tmp_path):
    errors = {n: OSError(f"file {name} is gone") for n, name in enumerate(names)}
    last = len(names) - 1
    (*causes, often), _ = told_of(tmp_path, errors, NeuralCollapse, max_epochs=last)
    assert len(causes) == len(set(names))
    said = {name: f"process 0 raised OSError: file {name} is gone" for name in "abc"}
    times = f": {len(names)} of {len(names)} measurements were skipped: "
    assert often.endswith(times + listed.format(**said))


def test_causes_told_in_full_are_not_summed_up(tmp_path):
    errors = {1: OSError("gone"), 2: ValueError("odd")}
    told, (callback,) = told_of(tmp_path, errors, NeuralCollapse, max_epochs=3)
    assert ["skipped the measurement" in text for text in told] == [True, True]
    assert callback.failures == 2


def test_a_cause_shared_by_callbacks_and_how_often_it_came_are_told_once(tmp_path):
    errors = dict.fromkeys(range(3), OSError("gone"))
    told, _ = told_of(tmp_path, errors, EquiSeparation, NeuralCollapse, max_epochs=3)
    cause = "process 0 raised OSError: gone"
    assert told == [
        f"EquiSeparation and NeuralCollapse skipped the measurement on 'mine' after 0 epochs; "
        f"{cause}",
        f"EquiSeparation and NeuralCollapse on 'mine': 3 of 4 measurements were skipped: {cause}.",
    ]


def test_of_a_cause_that_ends_two_kinds_of_passes_the_way_out_is_told_once(tmp_path):
    kinds, cause = (EquiSeparation, LocalElasticity), "process 0 raised OSError: gone"
    told, _ = told_of(tmp_path, {0: OSError("gone. Look for it")}, *kinds, max_epochs=1)
    assert told == [
        f"EquiSeparation skipped the measurement on 'mine' after 0 epochs; {cause}. Look for it",
        f"LocalElasticity skipped the measurement on 'mine' after 0 epochs; {cause}",
    ]


def test_callbacks_that_fail_in_one_pass_for_causes_of_their_own_are_told_apart(tmp_path):
    callbacks = [EquiSeparation(layers=["net.nowhere"]), NeuralCollapse(head="fc")]
    told, _ = told_in(tmp_path, callbacks)
    starts = [
        "EquiSeparation skipped the measurement on 'train' after 0 epochs",
        "NeuralCollapse skipped the measurement on 'train' after 0 epochs",
        "EquiSeparation on 'train': 3 of 3 measurements were skipped",
        "NeuralCollapse on 'train': 3 of 3 measurements were skipped",
    ]
    named = ["net.nowhere", "'fc'"] * 2
    for text, start, name in zip(told, starts, named, strict=True):
        assert text.startswith(start)
        assert name in text


def test_a_callback_that_meets_a_known_cause_later_is_told_of_too(tmp_path):
    probe = Probe(nets.Broken(), "broken")
    callbacks = [EquiSeparation(probe=probe), NeuralCollapse(probe=probe, epochs=[2])]
    told, _ = told_in(tmp_path, callbacks)
    assert [text.partition(";")[0].partition(":")[0] for text in told] == [
        "EquiSeparation skipped the measurement on 'broken' after 0 epochs",
        "NeuralCollapse skipped the measurement on 'broken' after 2 epochs",
        "EquiSeparation on 'broken'",
    ]


@pytest.mark.parametrize("same_object", [True, False])
def test_a_resumed_run_tells_a_cause_again_and_counts_its_own(same_object, tmp_path):
    def broken():
        return NeuralCollapse(probe=Probe(nets.Broken(), "broken"), figures=False)

    first = broken()
    (_, often), run = told_in(tmp_path, [first])
    assert "3 of 3 measurements" in often
    run.save_checkpoint(tmp_path / "2.ckpt")
    again = first if same_object else broken()
    options = {"max_epochs": 5, "fit_options": {"ckpt_path": tmp_path / "2.ckpt"}}
    (cause, often), _ = told_in(tmp_path, [again], **options)
    assert "the disk is gone" in cause
    # what was due at the checkpoint is tried again
    assert "NeuralCollapse on 'broken': 4 of 4 measurements were skipped" in often
    assert again.failures == 7


def test_validation_tells_its_cause_once_each_time_it_is_run(tmp_path):
    callback = NeuralCollapse(probe=Probe(nets.Broken(), "broken"), figures=False)
    run = nets.trainer(tmp_path, [callback])
    for failures in (1, 2):
        with pytest.warns(RuntimeWarning, match="the disk is gone") as caught:
            run.validate(nets.Classifier(), DataLoader(nets.vectors(), 10), verbose=False)
        assert len([w for w in caught if w.category is RuntimeWarning]) == 1
        assert callback.failures == failures


def test_a_note_is_told_once_in_a_run(tmp_path):
    callback = NeuralCollapse(figures=False)
    options = {"data": nets.vectors((15, 12)), "net": nets.mlp(K=2), "max_epochs": 6}
    (note,), _ = told_in(tmp_path, [callback], **options)
    assert "undefined (NaN)" in note
    assert len(callback.history) == 7


def test_the_summary_says_how_many_measurements_were_skipped(tmp_path, capsys):
    callback = NeuralCollapse(probe=Probe(nets.Broken(), "broken"), figures=False)
    told_in(tmp_path, [callback, GeometrySummary()])
    assert "NeuralCollapse on 'broken': nothing measured, 3 skipped." in capsys.readouterr().out


def test_callbacks_without_a_class_of_their_own_have_the_names_of_their_measures(tmp_path, capsys):
    class Failing(LayerwiseVariance):
        family = "failing"

        def evaluate(self, answer):
            raise OSError("the disk is gone")

    callbacks = [MeasureCallback(one(), figures=False) for one in (LayerwiseVariance, Failing)]
    told, _ = told_in(tmp_path, [*callbacks, GeometrySummary()])
    assert [text.split(" ")[0] for text in told] == ["Failing", "Failing"]
    heads = [line for line in capsys.readouterr().out.splitlines() if "on 'train'" in line]
    assert [head.split(" ")[0] for head in heads] == ["LayerwiseVariance", "Failing"]
    assert repr(callbacks[1]).startswith("<Failing on 'train', ")
