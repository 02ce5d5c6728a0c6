"""What modules and datasets keep in plain attributes is afterwards what it was."""

from collections import deque

import pytest
import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_nc import measure
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


CASES = {
    "a counter": (count, lambda: {"calls": 0}),
    "a cache and its flag": (fill_a_cache, lambda: {"cache": {}, "cached": None}),
    "a list built once": (build_once, lambda: {"scales": [], "built": False}),
    "a ring and its index": (turn_a_ring, lambda: {"ring": deque([0.0], maxlen=5), "at": 0}),
    "hidden states": (remember, lambda: {"hidden": (torch.zeros(()), torch.zeros(()))}),
    "a tensor changed in place": (add_in_place, lambda: {"total": torch.zeros(())}),
    "containers in containers": (nest, lambda: {"deep": {"a": [{1, 2}]}}),
    "a layer built lazily": (build_lazily, lambda: {"layer": None}),
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
            if step and measured:
                measure(net, nets.vectors(), layers=None)
            given.append(net(torch.ones(4 + step, 6)))
        return given

    assert nets.same(outputs(True), outputs(False))


class Ageing(Dataset):
    """Counts how often it is read, and yields what depends on it."""

    def __init__(self):
        self.inputs, self.targets = nets.vectors().tensors
        self.reads, self.seen = 0, []

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.reads += 1
        self.seen.append(index)
        return self.inputs[index] + 0.01 * self.reads, self.targets[index]


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(len(d)))])
def test_a_dataset_that_counts_is_afterwards_where_it_was(wrap):
    data, net = Ageing(), nets.mlp()
    measure(net, wrap(data), layers=None)
    assert data.reads == 0
    assert data.seen == []


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
