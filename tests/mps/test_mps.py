"""A network on MPS is measured like one on the CPU, where the sums are."""

import copy
import pickle

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils._pytree import tree_leaves
from torchmetrics import MetricCollection

import lightning_nc
from lightning_nc import functional, metrics
from tests import nets

pytestmark = [
    pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device"),
    pytest.mark.filterwarnings("default"),
]
MPS = torch.device("mps", 0)


def convolutional():
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Flatten(), nn.Linear(24, 3))


def attentive():
    block = [nn.TransformerEncoderLayer(6, 2, 12, 0.1, batch_first=True) for _ in range(2)]
    return nn.Sequential(nn.Unflatten(1, (1, 6)), *block, nn.Flatten(), nn.Linear(6, 3))


class Adapted(nn.Linear):
    """A head whose own weight is not the one that acts."""

    def forward(self, x):
        return super().forward(x) + x @ torch.full_like(self.weight, 0.3).triu().mT


def adapted():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 7), nn.Tanh(), Adapted(7, 3))


NETWORKS = {
    "layers": (nets.mlp, nets.vectors),
    "a head of another weight": (adapted, nets.vectors),
    "convolutions": (convolutional, nets.images),
    "attention": (attentive, nets.vectors),
}


def callbacks(data):
    return [
        *lightning_nc.callbacks_for("train", on_error="raise"),
        lightning_nc.MinorityCollapse([1, 2], probe="val", on_error="raise"),
        lightning_nc.LocalElasticity(
            probe="val", relative_similarity=True, samples_per_class=3, on_error="raise"
        ),
        lightning_nc.LocalElasticity(
            probe=lightning_nc.Probe(data, "own"), parameters="last_layer", on_error="raise"
        ),
    ]


@pytest.mark.parametrize(
    ("network", "precision"),
    [("layers", "16-mixed"), ("convolutions", "32-true"), ("attention", "bf16-mixed")],
)
def test_training_is_bit_identical_and_is_measured(tmp_path, network, precision):
    make, data = NETWORKS[network]
    weights = []
    for added in ([], callbacks(data())):
        torch.manual_seed(0)
        options = {"accelerator": "mps", "precision": precision, "max_epochs": 1}
        run = nets.fit(tmp_path, added, data(), make(), **options)
        assert run.strategy.root_device == MPS
        weights.append(run.lightning_module.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    measured = {each.record.measure.family for each in added if len(each.history) == 2}
    assert len(measured) == 4


def measured(net, device):
    probe = lightning_nc.Probe(NETWORKS[net][1](), "p", samples_per_class=None, batch_size=8)
    measures = [
        lightning_nc.EquiSeparation(),
        lightning_nc.NeuralCollapse(),
        lightning_nc.LocalElasticity(samples_per_class=2, relative_similarity=True),
    ]
    torch.manual_seed(3)
    model = NETWORKS[net][0]().eval().to(device)
    found = lightning_nc.measure(model, probe, measures=measures)
    return {name: value for name, value in found.values.items() if "seconds" not in name}


@pytest.mark.parametrize("network", NETWORKS)
def test_values_are_those_of_the_cpu(network):
    values = measured(network, "cpu")
    assert len(values) > 20
    # float32 activations differ in their last bits
    assert measured(network, "mps") == pytest.approx(values, rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("loss", [None, nn.functional.cross_entropy])
@pytest.mark.parametrize("are_shares", [False, True])
def test_steps_on_a_loss_are_compared(loss, are_shares):
    inputs, labels = nets.vectors().tensors
    labels = nn.functional.one_hot(labels).float() if are_shares else labels
    torch.manual_seed(3)
    net = nets.mlp().eval()
    on_cpu = functional.relative_similarity(net, inputs, labels, loss=loss)
    moved = copy.deepcopy(net).to(MPS), inputs.to(MPS), labels.to(MPS)
    torch.testing.assert_close(
        functional.relative_similarity(*moved, loss=loss), on_cpu, rtol=1e-3, atol=1e-4
    )


METRICS = [metrics.SeparationFuzziness, metrics.NeuralCollapse]


@pytest.fixture
def samples():
    return nets.vectors().tensors


def expected(kind, inputs, labels):
    metric = kind(3)
    metric.update(inputs.double(), labels)
    return metric.compute()


def assert_same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-14, equal_nan=True)


def moved(*tensors):
    return [x.to(MPS) for x in tensors]


@pytest.mark.parametrize("kind", METRICS)
def test_a_metric_that_is_moved_stays_exact(kind, samples):
    metric = nn.ModuleDict({"D": kind(3)}).to(MPS)["D"]
    wanted = expected(kind, *samples)
    assert_same(metric(*moved(*samples)), wanted)
    assert metric.device == metric.moments.device == torch.device("cpu")
    metric.reset()
    for x, y in zip(*(x.split(11) for x in moved(*samples)), strict=True):
        metric.update(x, y)
        metric = pickle.loads(pickle.dumps(metric.clone().to(MPS).half())).to(MPS)
    assert_same(metric.compute(), wanted)
    metric.to(MPS)  # with the value that it keeps
    metric.persistent(True)
    other = kind(3).to(MPS)
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    assert torch.equal(other.moments, metric.moments)


def test_a_collection_of_metrics_is_moved(samples):
    collection = MetricCollection([kind(3) for kind in METRICS]).to(MPS)
    for _ in range(2):
        collection.update(*moved(*samples))
        wanted = expected(metrics.NeuralCollapse, *samples)
        wanted["SeparationFuzziness"] = expected(metrics.SeparationFuzziness, *samples)
        assert_same(collection.compute(), wanted)
        collection.reset()


class WithMetric(nets.Classifier):
    """Logs a metric, which the Trainer moves."""

    def __init__(self):
        super().__init__(nets.mlp(), freeze=0)
        self.D = metrics.SeparationFuzziness(3)

    def validation_step(self, batch, index):
        self.D.update(*batch)
        self.log("D", self.D)


def test_a_trainer_moves_and_logs_a_metric(tmp_path, samples):
    loader = torch.utils.data.DataLoader(nets.vectors(), 10)
    run = nets.trainer(tmp_path, accelerator="mps", num_sanity_val_steps=0)
    run.fit(WithMetric(), loader, loader)
    assert_same(run.callback_metrics["D"], expected(METRICS[0], *samples))


def test_a_checkpoint_that_monitors_a_value_can_be_loaded_onto_the_device(tmp_path):
    callback = lightning_nc.NeuralCollapse(figures=False)
    keeper = ModelCheckpoint(tmp_path, monitor="nc/train/nc1")
    both = [callback, keeper, EarlyStopping("nc/train/accuracy", mode="max")]
    nets.fit(tmp_path, both, accelerator="mps", enable_checkpointing=True)
    lowest = min(callback.history.series("nc/train/nc1")[1:])
    assert float(keeper.best_model_score) == pytest.approx(lowest, rel=1e-6)
    saved = torch.load(keeper.best_model_path, map_location="cpu", weights_only=False)
    tensors = [each for each in tree_leaves(saved) if isinstance(each, torch.Tensor)]
    assert len(tensors) > 10
    assert {each.to(MPS).device for each in tensors} == {MPS}
