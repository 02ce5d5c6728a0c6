"""Whatever has become of the state of a callback in a checkpoint, the run that loads it goes on."""

import copy
import functools
import io
import math
import tempfile
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_nc import MinorityCollapse, NeuralCollapse
from lightning_nc.callbacks.moments import Moment
from lightning_nc.measures.measurement import Measurement
from tests import nets
from tests.callbacks.runs import quantities
from tests.callbacks.scripts.train import train

AT_THE_END = Moment("fit", ("train_epoch_end",), 99, None, 0)


@functools.cache
def trained():
    """A callback of every kind after training."""
    callbacks = [kind(figures=False) for kind in nets.CALLBACKS]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nets.fit(folder, callbacks)
    return {type(callback): callback for callback in callbacks}


def state_of(kind):
    """A copy of the state of a trained callback."""
    return copy.deepcopy(trained()[kind].state_dict())


def load(kind, state, stage="fit"):
    """A new callback that has loaded a state, and what it said."""
    callback = kind(figures=False)
    callback.record.begin_run(stage, fresh=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        callback.load_state_dict(state)
    return callback, [str(w.message) for w in told]


# what a value may have become
numbers = st.sampled_from(
    [math.nan, math.inf, -math.inf, -1, -0.5, 0.5, 10**400, -(10**400), 2**60]
)
tensors = st.sampled_from(
    [
        *(torch.tensor(math.nan), torch.zeros(0), torch.zeros(2, 3), torch.tensor([True])),
        *(torch.eye(2).to_sparse(), torch.zeros(3, device="meta"), torch.tensor([1j])),
        *(torch.tensor([-1, 2**62]), torch.tensor([math.inf, -1.0], dtype=torch.float64)),
        torch.zeros(2, requires_grad=True),
    ]
)
keys = st.one_of(st.text(max_size=3), st.integers(), st.none())
plain = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=3), tensors, st.binary())
junk = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=5,
)


def places(value):
    """All places in a nested state that hold something: the container and the key."""
    inside = range(len(value)) if isinstance(value, list) else ()
    for key in [*value] if isinstance(value, dict) else inside:
        yield value, key
        yield from places(value[key])


def damaged(draw, value):
    """What a value may have become: of another kind, or a tensor of which some is lost or wrong."""
    ours = isinstance(value, Tensor) and value.dtype in (torch.int64, torch.float64)
    if not ours or value.is_sparse or value.is_meta or draw(st.booleans()):
        return draw(junk)
    flat = value.clone().flatten()
    kind = draw(st.sampled_from(["entry", "short", "long", "dtype", "shape", "empty"]))
    if kind == "entry" and len(flat):
        bad = [math.nan, math.inf, -1, 0.5, 1e300] if flat.is_floating_point() else [-1, 7, 2**62]
        flat[draw(st.integers(0, len(flat) - 1))] = draw(st.sampled_from(bad))
        return flat.reshape(value.shape)
    return {
        "short": flat[: len(flat) // 2],
        "long": flat.repeat(2),
        "dtype": value.to(draw(st.sampled_from([torch.float32, torch.int32, torch.bool]))),
        "shape": value[None],
    }.get(kind, value.new_zeros(0))


@st.composite
def damaged_states(draw):
    kind = draw(st.sampled_from(nets.CALLBACKS))
    state = state_of(kind)
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from([*places(state)] or [({"": 0}, "")]))
        how = draw(st.sampled_from(["replace", "replace", "delete", "add"]))
        if how == "replace":
            container[key] = damaged(draw, container[key])
        elif how == "delete":
            del container[key]
        elif isinstance(container, dict):
            container[draw(keys)] = draw(junk)
        else:
            container.append(draw(junk))
    return kind, state


def assert_valid(callback):
    for m in callback.history:
        assert isinstance(m, Measurement)
        assert 0 <= m.epochs_completed < math.inf
        assert type(m.step) is int
        assert m.step >= 0
        assert all(isinstance(k, str) and type(v) is float for k, v in m.values.items())
        assert all(isinstance(array, Tensor) for array in m.arrays.values())
        assert m.counts.ndim == 1
        assert (m.counts >= 0).all()
        assert m.stage in ("fit", "validate", "test", "measure")
        assert m.when
        assert repr(m)
    assert 0 <= callback.failures < 2**53
    fitted = callback.record.fitted()
    assert all(map(math.isfinite, fitted.last_finite().values()))
    callback.record.due(AT_THE_END)
    if fitted:
        assert not callback.record.due(
            AT_THE_END._replace(epochs_completed=fitted[-1].epochs_completed)
        )
    file = io.BytesIO()
    torch.save(callback.state_dict(), file)
    file.seek(0)
    again, told = load(type(callback), torch.load(file, weights_only=True))
    assert told == []
    assert again.history == callback.history
    if isinstance(callback, MinorityCollapse):
        assert len(callback.counts.tally(3)) == 3


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(damaged_states())
def test_of_a_damaged_state_what_is_left_is_valid(kind_and_state):
    kind, state = kind_and_state
    callback, told = load(kind, state)
    assert len(told) <= 1
    assert_valid(callback)


@pytest.mark.parametrize("kind", nets.CALLBACKS)
def test_a_state_is_read_whole(kind):
    callback, told = load(kind, state_of(kind))
    assert told == []
    known = trained()[kind]
    assert quantities(callback) == quantities(known)
    assert [m.step for m in callback.history] == [m.step for m in known.history]
    for one, other in zip(callback.history, known.history, strict=True):
        assert nets.same(one.arrays | {"n": one.counts}, other.arrays | {"n": other.counts})
    assert_valid(callback)


@pytest.mark.parametrize("kind", nets.CALLBACKS)
def test_fields_of_other_releases_are_passed_over_and_missing_ones_empty(kind):
    state = state_of(kind)
    for layout in state["history"]["layouts"]:
        del layout["pooling"], layout["probe"]
        layout["field of the future"] = [1.0]
    callback, told = load(kind, state | {"another": {"nested": [1]}})
    assert told == []
    assert quantities(callback) == quantities(trained()[kind])
    callback, told = load(kind, {})
    assert (callback.history, callback.failures, told) == ([], 0, [])


def a_step_of_three(state):
    state["history"]["numbers"].view(torch.float64)[1] = 0.5


def counts_of(**changed):
    """Give the counts of classes another type or shape."""

    def change(state):
        name, dtype, shape = state["history"]["layouts"][0]["arrays"][0]
        of_counts = [name, changed.get("dtype", dtype), changed.get("shape", lambda n: n)(shape)]
        state["history"]["layouts"][0]["arrays"][0] = of_counts

    return change


@pytest.mark.parametrize(
    ("change", "left", "said"),
    [
        (lambda s: s.update(failures=math.inf), 3, "the number of failures"),
        (lambda s: s.update(history=7), 0, "the history"),
        (a_step_of_three, 2, "1 of 3 measurements"),
        (lambda s: s["history"].pop("layouts"), 0, "the history"),
        (lambda s: s["history"].update(numbers=torch.ones(3)), 0, "the history"),
        (lambda s: s["history"]["layout_of"].fill_(-1), 0, "1 layouts, and others are named"),
        (counts_of(shape=lambda shape: [1, *shape]), 0, "no number for each class"),
        (counts_of(dtype="complex64"), 0, "no number for each class"),
        (counts_of(shape=lambda shape: [-1, -shape[0]]), 0, "is no shape"),
        (lambda s: s["history"].update(large=[1]), 3, "arrays of the last measurement"),
        (lambda s: s["history"].update(large={"plane": "?"}), 3, "arrays of the last measurement"),
        (lambda s: s["history"]["layouts"][0].update(pooling={"0": math.nan}), 0, "pooling is"),
        (lambda s: s.update(version=3), 0, "newer release"),
        (lambda s: s.update(version="abc"), 0, "its version is damaged"),
        (lambda s: s.update(version=1), 0, "its version is damaged"),
    ],
)
def test_one_sentence_says_what_is_left_out(change, left, said):
    state = state_of(nets.NeuralCollapse)
    change(state)
    callback, told = load(nets.NeuralCollapse, state)
    assert len(callback.history) == left
    (sentence,) = told
    assert sentence.startswith("NeuralCollapse on 'train'")
    assert said in sentence
    assert_valid(callback)


def test_a_state_that_is_no_dictionary_is_not_read():
    callback, told = load(nets.NeuralCollapse, ["history"])
    assert told == [
        "NeuralCollapse on 'train' starts with an empty history, without its state in the "
        "checkpoint: it is list, not a dictionary."
    ]
    assert_valid(callback)


@pytest.mark.parametrize("counts", ["abc", [1, -1], [math.nan], [10**400], ["abc", 2], 3])
def test_damaged_class_counts_are_counted_again(counts):
    kind = nets.MinorityCollapse
    callback, (sentence,) = load(kind, state_of(kind) | {"class_counts": counts})
    assert sentence.endswith(
        "goes on without the class counts in the checkpoint, which cannot be read."
    )
    assert callback.counts.complete is None
    assert len(callback.history) == 3


def nothing_left(state):
    return dict.fromkeys(state)


def every_tensor_short(state):
    history = {k: v[:-1] if isinstance(v, Tensor) else v for k, v in state["history"].items()}
    return state | {"history": history}


def of_the_future(state):
    return state | {"version": 99, "history": {"in another form": [1]}}


def of_many_more_classes(state):
    return state | {"class_counts": [5] * 50} if "class_counts" in state else state


DAMAGES = [
    nothing_left,
    every_tensor_short,
    of_the_future,
    of_many_more_classes,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_resumes_goes_on_and_measures(damage, tmp_path):
    first = [kind(figures=False) for kind in nets.CALLBACKS]
    train(tmp_path, first, max_epochs=1).save_checkpoint(tmp_path / "whole.ckpt")
    checkpoint = torch.load(tmp_path / "whole.ckpt", weights_only=False)
    checkpoint["callbacks"] = {k: damage(state) for k, state in checkpoint["callbacks"].items()}
    torch.save(checkpoint, tmp_path / "damaged.ckpt")
    callbacks = [kind(figures=False) for kind in nets.CALLBACKS]
    path = tmp_path / "damaged.ckpt"
    run = train(tmp_path, callbacks, ckpt_path=path, max_epochs=2)
    assert run.state.finished
    for callback in callbacks:
        assert [m.epochs_completed for m in callback.history][-2:] == [1, 2]
        assert callback.failures == 0
        assert_valid(callback)


@pytest.mark.parametrize("counters", [{}, None, {"epoch_progress": {"current": {}}}])
@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_without_lightnings_counters_can_be_validated(counters, tmp_path):
    run = nets.fit(tmp_path)
    run.save_checkpoint(tmp_path / "whole.ckpt")
    checkpoint = torch.load(tmp_path / "whole.ckpt", weights_only=False)
    checkpoint["loops"]["fit_loop"] = counters
    torch.save(checkpoint, tmp_path / "damaged.ckpt")
    callback = NeuralCollapse(probe="val", figures=False)
    trainer = nets.trainer(tmp_path, [callback])
    loader = torch.utils.data.DataLoader(nets.vectors(), 10)
    with nets.our_warnings() as ours:
        trainer.validate(run.lightning_module, loader, tmp_path / "damaged.ckpt", verbose=False)
    assert len(callback.history) == 1
    said = "Could not tell how far the weights in the checkpoint were trained"
    assert [text.startswith(said) for text in ours] == [True] * (counters is not None)
