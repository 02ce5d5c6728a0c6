"""What modules and datasets keep in plain attributes is afterwards what it was."""

import functools
import io
import itertools
import random
import warnings
from collections import Counter, OrderedDict, deque

import numpy as np
import pytest
import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_nc import Probe, measure
from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


class Keeping(nn.Module):
    """Runs a deed on itself whenever it is called, and gives its input, changed by its state."""

    def __init__(self, deed, **attributes):
        super().__init__()
        self.deed = deed
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return x + self.deed(self, x)


def count(net, x):
    net.calls += 1
    return 0.1 * net.calls


def fill_a_cache(net, x):
    if net.cached != len(x):
        net.cache["mask"], net.cached = torch.full((len(x), 1), 0.5), len(x)
    return net.cache["mask"]


def build_once(net, x):
    if not net.built:
        net.scales.append(0.5)
        net.built = True
    return sum(net.scales)


def turn_a_ring(net, x):
    net.ring.append(float(x.detach().mean()))
    net.at += 1
    return net.ring[net.at % len(net.ring)]


def remember(net, x):
    first, second = net.hidden
    net.hidden = (second + 0.1, x.mean().detach())
    return first


def add_in_place(net, x):
    net.total += 1
    return 0.1 * net.total


def nest(net, x):
    net.deep["a"][0].add(len(net.deep["a"][0]))
    return 0.1 * len(net.deep["a"][0])


def build_lazily(net, x):
    if net.layer is None:
        net.layer = nn.Linear(6, 6)
    return net.layer(x)


def use_up(net, x):
    return vars(net).pop("first", 0.5)


def draw_for_the_last_time(net, x):
    return next(vars(net).pop("numbers", iter([0.5])))


CASES = {
    "a counter": (count, lambda: {"calls": 0}),
    "a cache and its flag": (fill_a_cache, lambda: {"cache": {}, "cached": None}),
    "a list built once": (build_once, lambda: {"scales": [], "built": False}),
    "a ring and its index": (turn_a_ring, lambda: {"ring": deque([0.0], maxlen=5), "at": 0}),
    "hidden states": (remember, lambda: {"hidden": (torch.zeros(()), torch.zeros(()))}),
    "a tensor changed in place": (add_in_place, lambda: {"total": torch.zeros(())}),
    "containers in containers": (nest, lambda: {"deep": {"a": [{1, 2}]}}),
    "a layer built lazily": (build_lazily, lambda: {"layer": None}),
    "an attribute that is removed": (use_up, lambda: {"first": 0.1}),
    "an iterator that is removed": (draw_for_the_last_time, lambda: {"numbers": iter([0.1])}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_network_with_a_memory_gives_what_it_would_have_given(case):
    def outputs(measured):
        torch.manual_seed(3)
        deed, attributes = CASES[case]
        layers = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
        net = nn.Sequential(Keeping(deed, **attributes()), *layers)
        given = []
        for step in range(3):
            if measured:
                measure(net, nets.vectors(), layers=None)
            given.append(net(torch.ones(4 + step, 6)))
        return given

    assert nets.same(outputs(True), outputs(False))


class Sparing:
    """Has a name in slots and a second one, which is not given yet."""

    __slots__ = ("first", "later")

    def __init__(self):
        self.first = 1


TALLY = []


def tally(net, x):
    (lambda: TALLY.append(len(x)))()  # named by the function within alone
    net.sparing.first, net.sparing.later = 2, 3
    return 0.1


def test_slots_come_back_and_globals_that_are_named_in_inner_functions():
    sparing = Sparing()
    measure(nn.Sequential(Keeping(tally, sparing=sparing), *nets.mlp()), nets.vectors())
    assert (sparing.first, hasattr(sparing, "later")) == (1, False)
    assert TALLY == []


class Remembering(Dataset):
    """Yields what depends on what it remembers, which reading changes."""

    def __init__(self, deed, **attributes):
        self.inputs, self.targets = nets.vectors().tensors
        self.deed = deed
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index] + self.deed(self, index), self.targets[index]


class Holder:
    """An object of the user, which is no dataset."""

    drawn = 0
    rng = np.random.default_rng(3)

    def __init__(self, **held):
        vars(self).update(held)


class Slotted:
    __slots__ = ("reads",)

    def __init__(self):
        self.reads = 0


DRAWN = {"rng": np.random.default_rng(5), "count": 0}


def of_a_number(number):
    """A number in which small differences show."""
    return 0.01 * float(number)


def with_globals(data, _):
    global TOTAL
    TOTAL += 1
    DRAWN["count"] += 1
    return of_a_number(TOTAL + DRAWN["count"] + DRAWN["rng"].random())


TOTAL = 0


def count_in_class(data, _):
    type(data.held).drawn += 1
    return of_a_number(Holder.drawn + data.held.rng.random())


def count_in_held(data, _):
    data.held.reads = data.slotted.reads = data.held.reads + 1
    data.held.seen.append(data.held.reads)
    return of_a_number(len(data.held.seen) + data.slotted.reads)


def change_array(data, index):
    data.array[index] *= 1.5
    data.turned.T[index % 3] += 1
    data.total += 1
    return of_a_number(data.array[index] + data.turned.sum() + data.total)


def change_tensor(data, index):
    data.memory[index] *= 1.5
    data.memory.numpy()[0] += 1  # which no version counter sees
    data.of_a_column += 1
    data.expanded[:1] += 1
    return of_a_number(data.memory[index] + data.of_a_column[0] + 3 * data.expanded[4])


def add_up(data, index):
    data.counts[index] += 1
    data.counts.update([index])
    data.ordered.move_to_end(index)
    return of_a_number(data.counts[index] + next(reversed(data.ordered)) + data.counts.total())


def forget(data, index):
    data.names[index] = data.names.pop()
    data.objects[0] = data.objects[0] + 1
    data.turned[0, 1] = data.turned[0, 1] + 1
    return of_a_number(data.names[index] + 3 * data.objects[0] + 7 * data.turned[0, 1])


def draw_from_one_of_many(data, index):
    return of_a_number(data.many[1999 - index].random())


def go_on(data, _):
    drawn = sum(next(each) for each in data.many)
    return of_a_number(drawn + next(data.one)[0] + data.file.tell() + len(data.file.readline()))


@functools.lru_cache(maxsize=8)
def drawn_once(index):
    return torch.rand(()).item()


class Decoder(Holder):
    @functools.lru_cache  # noqa: B019
    def of(self, index):
        return torch.rand(()).item()


def look_up(data, index):
    return of_a_number(drawn_once(index) + data.decoder.of(index))


def closed_over():
    reads, rng = 0, random.Random(3)

    def deed(data, index):
        nonlocal reads
        reads += 1
        return of_a_number(reads + rng.random())

    return deed


def with_default(data, _, seen=[]):  # noqa: B006
    seen.append(0)
    return of_a_number(len(seen))


MEMORIES = {
    "globals": (with_globals, dict),
    "class attributes": (count_in_class, lambda: {"held": Holder()}),
    "attributes of objects": (
        count_in_held,
        lambda: {"held": Holder(reads=0, seen=[]), "slotted": Slotted()},
    ),
    "arrays changed in place": (
        change_array,
        lambda: {
            "array": np.ones(30),
            "turned": np.zeros((4, 3))[::-1],
            "total": np.zeros(()),
        },
    ),
    "tensors changed in place": (
        change_tensor,
        lambda: {
            "memory": torch.ones(30),
            "of_a_column": torch.ones(4, 3)[:1, 0],
            "expanded": torch.ones(1).expand(5),
        },
    ),
    "counters and ordered dicts": (
        add_up,
        lambda: {"counts": Counter(), "ordered": OrderedDict.fromkeys(range(30))},
    ),
    "containers of any length": (
        forget,
        lambda: {
            "names": list(range(50_000)),
            "objects": np.array([1, 2, None], dtype=object),
            "turned": np.array([[1, None], [2, [3, 4]]], dtype=object).T,  # as of a data frame
        },
    ),
    "generators in long containers": (
        draw_from_one_of_many,
        lambda: {"many": [np.random.default_rng(i) for i in range(2000)]},
    ),
    "iterators and files": (
        go_on,
        lambda: {
            "many": [itertools.count(), itertools.cycle([1, 2, 3]), iter(range(10**6))],
            "one": enumerate(iter([0] * 10**4)),
            "file": io.StringIO("a line\n" * 1000),
        },
    ),
    "caches": (look_up, lambda: {"decoder": Decoder()}),
    "variables around functions": (closed_over, dict),
    "default arguments": (with_default, dict),
}


def make(memory):
    deed, attributes = MEMORIES[memory]
    return Remembering(deed() if deed is closed_over else deed, **attributes())


@pytest.fixture
def as_at_first():
    """State that is no attribute of a dataset is the same before each test and each half of it."""

    def reset():
        global TOTAL
        TOTAL, DRAWN["count"], Holder.drawn = 0, 0, 0
        DRAWN["rng"], Holder.rng = np.random.default_rng(5), np.random.default_rng(3)
        drawn_once.cache_clear()
        Decoder.of.cache_clear()
        with_default.__defaults__[0].clear()

    return reset


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(len(d)))])
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_dataset_with_a_memory_gives_what_it_would_have_given(memory, wrap, as_at_first):
    def read(measured):
        as_at_first()
        net, data, given = nets.mlp(), wrap(make(memory)), []
        torch.manual_seed(3)
        for index in range(6):
            if index % 3 == 2 and measured:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    measure(net, data, layers=None)
            given.append(float(data[index][0][0]))
        return given

    assert read(True) == read(False)


def test_what_a_transform_of_an_installed_package_remembers_is_put_back():
    class Counting:
        __module__, calls = "torchmetrics", 0

        def __call__(self):
            self.calls += 1
            return 0.1 * self.calls

    data = Remembering(lambda data, _: data.transform(), transform=Counting())
    measure(nets.mlp(), data, layers=None)
    assert data.transform.calls == 0


def test_the_user_keeps_caches_iterators_and_what_they_hold(as_at_first):
    as_at_first()
    data = make("caches")
    data.many = [itertools.count()]
    kept, inner, of = drawn_once, data.many[0], Decoder.of
    first = drawn_once(0)
    measure(nets.mlp(), data, layers=None)
    assert (drawn_once, data.many[0], Decoder.of) == (kept, inner, of)
    assert drawn_once.cache_info()[:2] == (0, 1)
    assert drawn_once(0) == first


def test_nothing_is_told_of_stand_ins_in_one_of_many():
    data = Remembering(lambda *_: 0.0, many=[Holder(one=iter([1]), two=[iter([2])])] * 2)
    data.more = [Holder(one=iter([1]), two=[iter([2])]) for _ in range(6000)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(nets.mlp(), data, layers=None)
    assert [next(each.one) + next(each.two[0]) for each in data.more] == [3] * 6000


def test_what_a_container_of_a_derived_class_does_is_not_done():
    class Importing(OrderedDict):
        def _refuse(self, *_):
            raise OSError("the library was asked")

        __getitem__ = __iter__ = __len__ = values = keys = items = _refuse

    net = nets.mlp()
    net.lazy = Importing.fromkeys("ab")
    measure(net, nets.vectors(), layers=None)


class Shared(nn.Module):
    """Works with what no attribute of its own holds."""

    calls = 0
    steps = Holder(number=0, kept=np.zeros(3))

    def forward(self, x):
        type(self).calls += 1
        self.steps.number += 1
        self.steps.kept += 1
        return x + 0.1 * self.calls + self.steps.number + self.steps.kept[0]


def test_what_classes_of_modules_and_their_objects_hold_is_put_back():
    measure(nn.Sequential(Shared(), nn.Linear(6, 3)), nets.vectors(), layers=None)
    assert (Shared.calls, Shared.steps.number, Shared.steps.kept.tolist()) == (0, 0, [0, 0, 0])


def stream():
    while True:
        yield 0.0


def advance(data, _):
    return next(data.stream)


def normalise(data, index):
    data.large[index] += 1
    return 0.0


def advance_one_of_several(data, _):
    return next(data.streams[1])


def extend(data, index):
    data.long.append(index)
    return 0.0


def count_each(data, index):
    data.each[index]["reads"] += 1
    return 0.0


def draw(data, index):
    return data.drawn[index].random()


TOLD = {
    "a generator function": (advance, lambda: {"stream": stream()}, "Remembering.stream"),
    "one of several": (
        advance_one_of_several,
        lambda: {"streams": [stream(), stream()]},
        "Remembering.streams",
    ),
    "a large tensor": (normalise, lambda: {"large": torch.ones(30, 2**19)}, "Remembering.large"),
    "a large array": (normalise, lambda: {"large": np.ones((30, 2**18))}, "Remembering.large"),
    "a long list": (extend, lambda: {"long": [0] * 10**6}, "Remembering.long"),
    "a list of many objects": (
        count_each,
        lambda: {"each": [{"reads": 0} for _ in range(10_000)]},
        "Remembering.each",
    ),
    "a list of many generators": (
        draw,
        lambda: {"drawn": [random.Random(i) for i in range(6000)]},
        "Remembering.drawn",
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_cannot_be_put_back_is_told(case):
    deed, attributes, where = TOLD[case]
    data, clean = Remembering(deed, **attributes()), Remembering(lambda *_: 0.0, **attributes())
    with pytest.warns(RuntimeWarning, match=rf"has changed `{where}`.*Probe\(num_workers=1\)"):
        measure(nets.mlp(), data, layers=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(nets.mlp(), Probe(data, "data", num_workers=1), layers=None)
        measure(nets.mlp(), clean, layers=None)


def test_a_file_that_reading_closes_is_not_put_back_as_open():
    def read_on(data, index):
        data.file.close()
        data.file = io.StringIO("next")
        return 0.0

    data = Remembering(read_on, file=io.StringIO("first"))
    with pytest.warns(RuntimeWarning, match="held something open that has been closed"):
        measure(nets.mlp(), data, layers=None)
    assert data.file.read() == "next"


def test_what_one_callback_of_several_cannot_put_back_is_told_once_in_a_run(tmp_path):
    data = Remembering(advance, stream=stream())
    with pytest.warns(RuntimeWarning) as told:
        nets.fit(tmp_path, [kind(figures=False) for kind in nets.GEOMETRY], data)
    assert len([each for each in told if "Remembering.stream" in str(each.message)]) == 1


@pytest.mark.parametrize("memory", MEMORIES)
def test_nothing_changes_where_one_thing_cannot_be_put_back(memory, as_at_first):
    class Refusing(io.StringIO):
        def seek(self, *_):
            raise OSError("refused")

    def read(measured):
        as_at_first()
        net, data = nets.mlp(), make(memory)
        torch.manual_seed(3)
        data.first, deed = Refusing("a line"), data.deed
        data.deed = lambda data, index: (data.first.read(1), deed(data, index))[1]
        if measured:
            with pytest.raises(OSError, match="refused"):
                measure(net, data, layers=None)
        return [float(data[index][0][0]) for index in range(3)]

    assert read(True) == read(False)


def test_what_modules_log_of_a_probe_is_not_logged(tmp_path):
    class Logging(nets.Classifier):
        def forward(self, x):
            out = super().forward(x)
            self.log("norm", out.norm(), on_epoch=True)
            return out

    def logged(callbacks):
        torch.manual_seed(5)
        run = nets.trainer(tmp_path, callbacks)
        run.fit(Logging(), DataLoader(nets.vectors(), 10))
        return {k: v for k, v in run.callback_metrics.items() if "norm" in k and "/" not in k}

    for kind in nets.CALLBACKS:
        callback = kind(figures=False)
        assert nets.same(logged([callback]), logged([]))
        assert callback.failures == 0


def test_metrics_of_the_user_are_not_computed_before_they_are_complete(tmp_path):
    class Finishing(torchmetrics.SumMetric):
        factor = None

        def compute(self):
            return super().compute() * self.factor

    class Complete(nets.Classifier):
        def __init__(self):
            super().__init__()
            self.metric = Finishing()

        def training_step(self, batch, index):
            self.metric.update(1.0)
            self.log("metric", self.metric, on_step=False, on_epoch=True)
            return super().training_step(batch, index)

        def on_train_epoch_end(self):
            self.metric.factor = 2

    for callbacks in ([], [kind(figures=False) for kind in nets.CALLBACKS]):
        run = nets.trainer(tmp_path, callbacks, max_epochs=1)
        run.fit(Complete(), DataLoader(nets.vectors(), 10))
        assert float(run.callback_metrics["metric"]) == 6


def test_scripted_modules_within_a_network_are_run_and_not_hooked():
    scripted = torch.jit.script(nn.Linear(6, 5))
    net = nn.Sequential(scripted, nn.ReLU(), nn.Linear(5, 3))
    assert measure(net, nets.vectors(), layers=None).values["nc/data/nc1"] > 0


def test_nested_tensors_in_data_are_passed_over():
    data = nets.vectors()
    with warnings.catch_warnings():  # a prototype of torch
        warnings.simplefilter("ignore")
        data.nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert "nc/data/nc1" in measure(nets.mlp(), data).values
