import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from lightning_nc import EquiSeparation, NeuralCollapse, Probe, measure
from lightning_nc.network.batches import form_batches, read_batches, seeded_order
from lightning_nc.network.runner import plain_runner
from lightning_nc.network.samples import samples_of
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.request import Request
from tests import reference

LABELS = torch.arange(60) % 3


class Noisy(Dataset):
    """Inputs with noise of a generator that the dataset holds; labels that it declares or not."""

    def __init__(self, labels=LABELS, declared=True, noise=1.0):
        self.labels_of = labels
        self.noise = noise
        self.generator = torch.Generator().manual_seed(5)
        if declared:
            self.targets = labels

    def __len__(self):
        return len(self.labels_of)

    def __getitem__(self, index):
        x = torch.randn(5, generator=torch.Generator().manual_seed(index))
        x = x + self.noise * torch.randn(5, generator=self.generator)
        return x, self.labels_of[index]


class MeanOfTokens(nn.Module):
    def forward(self, x):
        return x.mean(1)


def net(hidden=8, rows=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Tanh(), nn.Linear(hidden, rows))


class Annotated(torch.Tensor):
    """Its methods take other arguments than torch's, as those of MONAI's MetaTensor do."""

    def new_empty(self, size, **options):
        return super().new_empty(tuple(size), **options)


@pytest.mark.parametrize("wrapped", [lambda z: z, lambda z: (z, None), lambda z: {"logits": z}])
def test_tensors_of_a_class_of_their_own_are_measured_like_any(wrapped):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            return wrapped(self.net(x))

    x, found = torch.randn(60, 5), []
    for inputs, labels in [(x, LABELS), (x.as_subclass(Annotated), LABELS.as_subclass(Annotated))]:
        found.append(measure(Net(), TensorDataset(inputs, labels)).values)
    assert found[0] == pytest.approx(found[1], rel=1e-12, nan_ok=True)


def test_a_sampler_of_a_subset_limits_the_probe():
    data = TensorDataset(torch.randn(60, 5), LABELS)
    loader = DataLoader(data, 10, sampler=SubsetRandomSampler(range(30, 60)))
    samples = samples_of(loader, None)
    assert [int(samples.dataset.indices[i]) for i in range(len(samples.dataset))] == [
        *range(30, 60)
    ]
    assert measure(net(), loader).counts.tolist() == [10, 10, 10]


def test_generators_of_the_dataset_draw_the_same_for_a_batch_whoever_reads_it():
    samples = samples_of(Noisy(), 10)
    batches = form_batches(torch.arange(60), LABELS, 10)
    all_read = [inputs for _, (inputs, _) in read_batches(samples, batches, seed=0)]
    for rank in (0, 1):
        own = [inputs for _, (inputs, _) in read_batches(samples, batches[rank::2], seed=0)]
        assert all(torch.equal(a, b) for a, b in zip(own, all_read[rank::2], strict=True))


def test_data_and_network_with_generators_of_their_own_can_be_read_twice():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = torch.Generator().manual_seed(1)

        def forward(self, x):
            return x + torch.randn(x.shape, generator=self.generator)

    model = nn.Sequential(Noise(), *net())
    twice = measure(model, Probe(Noisy(), "data", cache_mb=0)).values
    assert twice == pytest.approx(measure(model, Noisy()).values, nan_ok=True, rel=1e-12)


@pytest.mark.parametrize("declared", [True, False])
def test_a_hidden_layer_with_as_many_rows_as_classes_is_not_taken_for_the_head(declared):
    model = net(hidden=3, rows=5)
    message = r"Cannot tell which layer is the head: '0' .* '3', .* head="
    with pytest.raises(ValueError, match=message):
        measure(model, Noisy(declared=declared), layers=None)
    with pytest.warns(RuntimeWarning, match=f"measure.. leaves out neural collapse: {message}"):
        values = measure(model, Noisy(declared=declared)).values
    only_law = measure(model, Noisy(declared=declared), head=False).values
    assert values == only_law


def test_samples_that_a_dataset_has_gained_are_measured():
    samples = [(torch.randn(5), index % 3) for index in range(12)]
    one = GeometryPass(
        plain_runner(net()), lambda: samples, Probe(samples, "own"), [Request()], Processes()
    )
    counts = [one.run()[0].counts.tolist()]
    samples += [(torch.randn(5), 0) for _ in range(4)]
    counts += [one.run()[0].counts.tolist()]
    assert counts == [[4, 4, 4], [8, 4, 4]]


def test_a_rare_class_is_found_where_neither_labels_nor_rows_tell_of_it():
    late = seeded_order(60, 0)[-2:].tolist()  # which are read last
    samples = [(torch.randn(5), 2 if index in late else index % 2) for index in range(60)]
    probe = Probe(samples, "own", samples_per_class=2, batch_size=4)
    activations = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    measured = measure(activations, probe, layers=["0", "1", "2"], head=False)
    assert measured.counts.tolist() == [2, 2, 2]


def test_undeclared_labels_give_what_declared_ones_give():
    # an early batch may lack the last class; head and classes are settled by all labels
    labels = torch.cat([torch.zeros(28), torch.ones(28), torch.full((4,), 2)]).long()
    of = [measure(net(), Probe(Noisy(labels, d), "data", batch_size=4)) for d in (True, False)]
    assert of[0].values == pytest.approx(of[1].values, nan_ok=True)


@pytest.mark.parametrize("of_images", [True, False])
def test_that_inputs_vary_in_size_is_seen_where_most_batches_are_of_one(of_images):
    """A quarter of the samples is longer, so that most batches of 10 are of one size."""

    class Padded(Noisy):
        def __getitem__(self, index):
            shape = (8,) if index % 4 == 3 else (6,)
            return torch.randn((1, *shape, *shape) if of_images else shape), self.labels_of[index]

    def collate(samples):
        inputs, labels = zip(*samples, strict=True)
        size = max(x.shape[-1] for x in inputs)
        sides = 2 if of_images else 1
        padded = [nn.functional.pad(x, (0, size - x.shape[-1]) * sides) for x in inputs]
        return torch.stack(padded), torch.stack(labels)

    class Waves(nn.Module):
        def forward(self, x):
            return x if of_images else x[:, None, None]

    layers = [nn.Conv2d(1, 5, 1), nn.ReLU(), nn.Conv2d(5, 5, 1), nn.ReLU(), nn.Tanh()]
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    model = nn.Sequential(Waves(), *layers, *pooled)
    with pytest.warns(RuntimeWarning, match="raw input varies in size"):
        measured = measure(model, DataLoader(Padded(), 10, collate_fn=collate))
    layers = {key for key in measured.values if key.startswith("separation_layers")}
    assert layers == {f"separation_layers/data/{name}" for name in (2, 4, 5)}
    assert measured.pooling == dict.fromkeys("245", "mean over positions")


@pytest.mark.filterwarnings("ignore:measure")
@pytest.mark.parametrize("largest", [6, 8])
@pytest.mark.parametrize("collate", [default_collate, lambda samples: default_collate(samples)])
def test_inputs_that_are_read_one_by_one_may_vary_in_size(largest, collate):
    class Images(Noisy):
        def __getitem__(self, index):
            size = largest if index % 4 == 3 else 6
            random = torch.Generator().manual_seed(index)
            return torch.randn(1, size, size, generator=random), self.labels_of[index]

    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    model = nn.Sequential(nn.Conv2d(1, 5, 1), nn.ReLU(), *ends)
    measured = measure(model, DataLoader(Images(), 1, collate_fn=collate))
    varies = largest > 6
    maps = [model[:2](Images()[index][0][None]).detach() for index in range(60)]
    h = torch.cat([x.mean((2, 3)) if varies else x.flatten(1) for x in maps])
    D = reference.separation_fuzziness(h.double().numpy(), LABELS.numpy())
    layers = {key: v for key, v in measured.values.items() if "separation_layers" in key}
    assert layers["separation_layers/data/1"] == pytest.approx(D, rel=1e-6)
    assert ("separation_layers/data/input" in layers) != varies
    assert measured.pooling == ({"1": "mean over positions"} if varies else {})


def test_inputs_of_varying_size_are_no_layer_and_it_is_said():
    class Padded(Noisy):
        def __getitem__(self, index):
            return torch.randn(4 + index // 10, 5), self.labels_of[index]

    def collate(samples):
        inputs, labels = zip(*samples, strict=True)
        return nn.utils.rnn.pad_sequence(inputs, batch_first=True), torch.stack(labels)

    loader = DataLoader(Padded(), 10, collate_fn=collate)
    model = nn.Sequential(MeanOfTokens(), *net())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        values = measure(model, loader).values
    assert len([w for w in told if "raw input varies in size" in str(w.message)]) == 1
    layers = {key for key in values if key.startswith("separation_layers")}
    assert layers == {"separation_layers/data/2", "separation_layers/data/3"}
    with pytest.raises(ValueError, match=r"'input' has \d+ features.*in the first.*layers="):
        measure(model, loader, layers=["input", "2"])


def test_an_input_of_nodes_is_no_layer_and_the_others_are_pooled_by_the_batch():
    class Nodes(Noisy):
        def __getitem__(self, index):
            x = torch.randn(2 + index % 3, 5, generator=torch.Generator().manual_seed(index))
            return x, self.labels_of[index]

    def collate(samples):
        nodes, labels = zip(*samples, strict=True)
        graph = torch.arange(len(nodes)).repeat_interleave(torch.tensor([len(x) for x in nodes]))
        return {"x": torch.cat(nodes), "graph": graph, "labels": torch.stack(labels)}

    def mean_of_nodes(h, inputs):
        sums = torch.zeros(int(inputs["graph"].max()) + 1, h.shape[1])
        sums.index_add_(0, inputs["graph"], h)
        return sums / inputs["graph"].bincount()[:, None]

    class OfGraphs(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Sequential(*net()[:-1]), net()[-1]

        def forward(self, x, graph):
            return self.head(mean_of_nodes(self.body(x), {"graph": graph}))

    loader = DataLoader(Nodes(), 10, collate_fn=collate)
    with pytest.raises(ValueError, match=r"pool=lambda output, inputs: \.\.\."):
        measure(OfGraphs(), loader, measures=[EquiSeparation()])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        values = measure(OfGraphs(), loader, pool=mean_of_nodes).values
    assert len([w for w in told if "5) for 10 samples, so it has no class" in str(w.message)]) == 1
    layers = {key for key in values if key.startswith("separation_layers")}
    assert layers == {"separation_layers/data/body.1", "separation_layers/data/body.2"}


def test_labels_of_the_nodes_of_one_graph_are_samples_by_the_advice():
    graph, network = SimpleNamespace(x=torch.randn(60, 5), y=LABELS), net()
    loader = DataLoader([graph], collate_fn=lambda graphs: graphs[0])
    said = r"A batch of 1 sample came with 60 labels.* batch\.y\[None\]"
    with pytest.raises(ValueError, match=said):
        measure(network, Probe(loader, "data", forward=lambda module, batch: module(batch.x)))
    probe = Probe(
        loader,
        unpack=lambda batch: (batch, batch.y[None]),
        forward=lambda module, batch: module(batch.x)[None],
        name="data",
    )
    expected = measure(network, TensorDataset(graph.x, LABELS)).values
    assert measure(network, probe).values == pytest.approx(expected, rel=1e-6)


def test_nodes_of_a_batch_are_measured_without_their_neighbours():
    """As from torch_geometric's NeighborLoader: nodes of the batch come first in each layer."""

    class Layer(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.other, self.own = nn.Linear(5, n), nn.Linear(5, n)

        def forward(self, x, neighbours):
            return self.other(neighbours @ x) + self.own(x)

    class OfNodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = Layer(5), Layer(3)

        def forward(self, x):
            neighbours = torch.full((len(x), len(x)), 1 / len(x))
            return self.head(self.first(x, neighbours).tanh(), neighbours)

    x, others = torch.randn(60, 5), torch.randn(7, 5)

    def collate(chosen):
        return SimpleNamespace(x=torch.cat([x[chosen], others]), y=LABELS[chosen])

    network = OfNodes()
    probe = Probe(
        DataLoader(range(60), 60, collate_fn=collate),
        unpack=lambda data: (data, data.y),
        forward=lambda module, data: module(data.x)[: len(data.y)],
        name="nodes",
        samples_per_class=None,
    )
    collapse = NeuralCollapse(pool=lambda nodes, data: nodes[: len(data.y)])
    with pytest.warns(RuntimeWarning, match="decisions those of the output"):
        values = measure(network, probe, measures=[collapse]).values
    inputs = []
    network.head.own.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    decided = network(torch.cat([x, others]))[:60].argmax(1)
    assert values["nc/nodes/accuracy"] == pytest.approx(float((decided == LABELS).double().mean()))
    h = inputs[0][:60].detach().double().numpy()
    W, b = network.head.own.weight.detach().double().numpy(), np.zeros(3)
    expected = reference.collapse_values(h, LABELS.numpy(), W, b)
    assert values["nc/nodes/nc3"] == pytest.approx(expected["nc3"], rel=1e-6)


def test_a_plan_is_made_anew_for_data_that_declare_other_labels():
    plans = []
    for shift in (0, 1):
        data = TensorDataset(torch.randn(60, 5), (LABELS + shift) % 3)
        one_pass = GeometryPass(
            plain_runner(net()),
            lambda data=data: data,
            Probe("train"),
            [Request(layers="blocks")],
            Processes(),
            plans[0] if plans else None,
        )
        one_pass.run()
        plans.append(one_pass.plan)
    assert plans[0].digest != plans[1].digest


def test_a_cosine_head_decides_as_it_outputs_and_has_no_self_duality():
    class Cosine(nn.Linear):
        def forward(self, h):
            return nn.functional.linear(
                nn.functional.normalize(h), nn.functional.normalize(self.weight)
            )

    model = nn.Sequential(*net()[:3], Cosine(8, 3))
    data = Noisy()
    data.noise = 0.0
    with pytest.warns(RuntimeWarning, match="nc3, unc3 are undefined .*does not compute W h"):
        values = measure(model, data, layers=None).values
    assert values["nc/data/nc3"] != values["nc/data/nc3"]
    assert values["nc/data/nc1"] > 0
    x, y = (torch.stack(parts) for parts in zip(*map(data.__getitem__, range(60)), strict=True))
    h = model[:3](x)
    means = torch.stack([h[y == k].mean(0) for k in range(3)])
    decided = model(x).argmax(1)
    assert values["nc/data/accuracy"] == pytest.approx(float((decided == y).float().mean()))
    mismatch = float((decided != torch.cdist(h, means).argmin(1)).float().mean())
    assert values["nc/data/nc4"] == pytest.approx(mismatch)


def test_one_logit_has_no_simplex_to_speak_of():
    with pytest.warns(RuntimeWarning, match="nc2_equinorm_weights"):
        values = measure(net(rows=1), Noisy(LABELS % 2), layers=None).values
    assert all(value != value for key, value in values.items() if "nc2_" in key)
    assert 0 <= values["nc/data/accuracy"] <= 1
