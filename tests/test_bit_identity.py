"""Training is what it would have been without the callback, to the last bit, in every setting."""

import contextlib
import functools
import random
import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_lightning import callbacks as of_lightning
from pytorch_lightning.callbacks import EarlyStopping, StochasticWeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from lightning_nc import NextTokenLaw, Probe
from tests import nets, sensitive
from tests.snapshots import Watch

pytestmark = [
    pytest.mark.filterwarnings(*nets.only_our_warnings),
    pytest.mark.parametrize("callback_class", nets.CALLBACKS),
]


def beside(kind, **options):
    """A callback of Lightning's in the list before those under test, or after them."""
    if isinstance(kind, str) and (kind := getattr(of_lightning, kind, None)) is None:
        return {}  # of a newer Lightning than this one
    return {
        "before": {"beside": lambda callbacks: [kind(**options), *callbacks]},
        "after": {"beside": lambda callbacks: [*callbacks, kind(**options)]},
    }


def around(module):
    return torch.compile(module, backend="eager")


def inside(module):
    module.net = torch.compile(module.net, backend="eager")
    return module


def in_place(module, backend="eager"):
    module.net.compile(backend=backend)
    return module


UNSIZED = {"num_sanity_val_steps": 0}  # the first pass sizes buffers, and is ours
EMA = beside("EMAWeightAveraging", decay=0.8)
AVERAGE = beside("WeightAveraging")
SWA = beside(StochasticWeightAveraging, swa_lrs=0.02, swa_epoch_start=0.5)
STOPPING = beside(EarlyStopping, monitor="val_loss", patience=0)
PENDING = {"accumulate_grad_batches": 4, "val_check_interval": 0.5}  # after 3 and 6 batches
SCHEDULED = {
    "plateau of epochs": sensitive.scheduled(sensitive.plateau, monitor="loss"),
    "plateau of steps": sensitive.scheduled(
        sensitive.plateau, monitor="loss_step", interval="step"
    ),
    "one cycle": sensitive.scheduled(sensitive.one_cycle, interval="step"),
}

# what the loader, the module and the Trainer are told
SETTINGS = {
    "random augmentations, Dropout and a frozen BatchNorm": {},
    "two workers": {"workers": 2},
    "persistent workers": {"workers": 2, "persistent": True},
    "data that remember": {"dataset": sensitive.RememberingData},
    "data that workers open": {
        "dataset": sensitive.Archive,
        "worker_init_fn": sensitive.open_in_worker,
        "workers": 2,
        "persistent": True,
    },
    "a loader with a generator of its own": {"generator": True},
    "persistent workers and a generator": {"workers": 2, "persistent": True, "generator": True},
    "loaders made anew": {"reload": True, "reload_dataloaders_every_n_epochs": 1},
    "some batches": {"limit_train_batches": 4, "limit_val_batches": 1},
    "one batch": {"fast_dev_run": True},
    "no sanity check": {"num_sanity_val_steps": 0},
    "lightning.pytorch": {"namespace": "lightning"},
    "gradient accumulation": {"accumulate_grad_batches": 4},
    "validation in mid-epoch": {"val_check_interval": 0.5},
    "validation in mid-accumulation": PENDING,
    "validation after each batch": {"val_check_interval": 1, "accumulate_grad_batches": 3},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-true": {"precision": "bf16-true"},
    "64-true": {"precision": "64-true"},
    "gradient clipping": {"gradient_clip_val": 0.1},
    "anomaly detection": {"detect_anomaly": True},
    "deterministic": {"deterministic": True},
    "benchmark": {"benchmark": True},
    "optimizers stepped by hand": {"kind": sensitive.ByHand, "val_check_interval": 0.5},
    "keyword arguments": {"kind": sensitive.Keywords},
    **{name: {"kind": kind, "max_epochs": 3} for name, kind in SCHEDULED.items()},
    "plateau in mid-epoch": {"kind": SCHEDULED["plateau of epochs"], "val_check_interval": 0.5},
    "compiled around the module": {"wrap": around},
    "compiled inside the module": {"wrap": inside},
    "compiled in place": {"wrap": in_place},
    "compiled with autograd": {"wrap": functools.partial(in_place, backend="aot_eager")},
    **{f"average {place}": {**options, **PENDING} for place, options in AVERAGE.items()},
    **{f"moving average {place}": {**options, **PENDING} for place, options in EMA.items()},
    **{f"SWA {place}": {**options, "max_epochs": 4} for place, options in SWA.items()},
    **{
        f"early stopping {place}": {**options, "max_epochs": 4}
        for place, options in STOPPING.items()
    },
    "weights merged for evaluation": {"net": sensitive.merging, "validate": False},
    "generators of modules": {"net": sensitive.drop_path},
    "buffers that evaluation changes": {"net": sensitive.remembering},
    "sparse buffers, COO": {"net": sensitive.graph},
    "sparse buffers, CSR": {"net": functools.partial(sensitive.graph, torch.sparse_csr)},
    "buffers that are sized and hooks that are added": {"net": sensitive.sizing, **UNSIZED},
    "quantisation-aware training": {"net": sensitive.quantised, **UNSIZED},
    **{name: {"net": net} for name, net in sensitive.NORMALISED.items()},
    "hooks of the user": {"net": sensitive.hooked},
    "tied weights": {"net": sensitive.tied},
    "a frozen backbone": {"net": sensitive.frozen},
    "an LSTM": {"net": sensitive.recurrent},
    "modules that run twice": {"net": sensitive.Residual},
}

# those that compile for seconds
SLOW = ("compiled around the module", "compiled inside the module", "compiled with autograd")
settings = pytest.mark.parametrize(
    "setting", [pytest.param(s, marks=[pytest.mark.slow] * (s in SLOW)) for s in SETTINGS]
)

# those in which the outputs of a sample depend on its batch, so that it has no gradient of its own
MIXED = ("buffers that evaluation changes", "buffers that are sized and hooks that are added")
MIXED_A_LITTLE = ("quantisation-aware training",)  # not always so much that it is noticed

# what the callback is told
PASSES = {
    "before training": {"epochs": [0]},
    "train epochs": {},
    "validation ends": {"when": "validation_end"},
    "validation data": {"probe": "val", "when": "validation_end"},
    "batch statistics": {"probe": Probe(batch_norm="batch", samples_per_class=6)},
    "two sweeps": {"probe": Probe(cache_mb=0), "when": "validation_end"},
    "layers in groups": {"probe": Probe(memory_mb=0.0014)},
    "layers in groups, two sweeps": {"probe": Probe(memory_mb=0.0014, cache_mb=0)},
    "workers of the probe": {"probe": Probe(num_workers=1)},
    "all samples": {"probe": Probe(samples_per_class=None, batch_size=9, seed=3)},
    "data of its own": {"probe": Probe(nets.Blobs(), name="own"), "when": "validation_end"},
    "a loader made when asked": {"probe": Probe(lambda: DataLoader(nets.Blobs(), 9), "made")},
}

# names of settings that are used by themselves
PLAIN = "random augmentations, Dropout and a frozen BatchNorm"
MID_ACCUMULATION = "validation in mid-accumulation"


def zero_gradients(module):
    module.zero_grad()


def scale_gradients(module):
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(1.5)


def switch_modes(module):
    module.eval()
    module.train()


def move_statistics(module):
    module.net[5].running_mean.add_(0.1)


def draw_from_data(module):
    module.held["of the dataset"].random()


# what a callback must not do, and a setting in which it shows
TRESPASSES = {
    "torch": (lambda _: torch.rand(()), PLAIN),
    "numpy": (lambda _: np.random.rand(), PLAIN),
    "python": (lambda _: random.random(), PLAIN),
    "a generator of the data": (draw_from_data, PLAIN),
    "running statistics": (move_statistics, PLAIN),
    "modes": (switch_modes, PLAIN),
    "merged weights": (switch_modes, "weights merged for evaluation"),
    "gradients set to zero": (zero_gradients, MID_ACCUMULATION),
    "gradients changed in place": (scale_gradients, MID_ACCUMULATION),
}


@pytest.fixture(autouse=True)
def global_flags_back():
    yield
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    torch.backends.cudnn.benchmark = False


def train(folder, setting, callbacks=()):
    if "compiled" in setting:
        torch._dynamo.reset()  # or code compiled for other tests would be run
    return nets.train_and_trace(folder, callbacks, **SETTINGS[setting])


@functools.cache
def untouched(setting):
    """The same training without a callback."""
    with tempfile.TemporaryDirectory() as folder:
        return train(folder, setting)


def moved(setting, change):
    """Whether a tensor is the same in another place: observers enlarge theirs, which moves it."""
    enlarged = ("fake_quant._buffers.scale in ", "fake_quant._buffers.zero_point in ")
    return setting == "quantisation-aware training" and any(name in change for name in enlarged)


def assert_same_training(trace, setting):
    place = nets.difference(trace, untouched(setting))
    assert place is None, f"{place} changed"


@settings
def test_training_is_bit_identical_in_every_setting(callback_class, setting, tmp_path):
    callbacks = [callback_class(figures=False)]
    if SETTINGS[setting].get("validate", True):
        callbacks.append(callback_class(probe="val", when="validation_end", figures=False))
    watch = Watch()
    of_samples = callback_class not in nets.GEOMETRY
    refused, uncertain = setting in MIXED and of_samples, setting in MIXED_A_LITTLE and of_samples
    expected = pytest.warns(RuntimeWarning, match="has no gradient of its own")
    with expected if refused or uncertain else contextlib.nullcontext():
        trace = train(tmp_path, setting, watch.around(callbacks))
    assert [each for each in watch.changes if not moved(setting, each)] == []
    assert_same_training(trace, setting)
    for callback in callbacks:
        measured = {m.epochs_completed for m in callback.history}
        assert uncertain or (measured == set() if refused else measured >= {0, 1})
        assert uncertain or (callback.failures > 0) == refused


@pytest.mark.parametrize("way", PASSES)
def test_training_is_bit_identical_with_every_kind_of_pass(callback_class, way, tmp_path):
    if way == "batch statistics" and callback_class not in nets.GEOMETRY:
        with pytest.raises(ValueError, match="has no gradient of its own"):
            callback_class(**PASSES[way])
        return
    options = dict(PASSES[way])
    if "groups" in way and callback_class is NextTokenLaw:  # whose accumulators are larger
        options["probe"] = replace(options["probe"], memory_mb=0.0031)
    callback, watch = callback_class(figures=False, **options), Watch()
    trace = train(tmp_path, MID_ACCUMULATION, watch.around([callback]))
    assert watch.changes == []
    assert "on_validation_end" in watch.saw_gradients
    assert_same_training(trace, MID_ACCUMULATION)
    epochs = [0, 0.5, 1, 1.5, 2] if callback.schedule.when == "validation_end" else [0, 1, 2]
    assert [m.epochs_completed for m in callback.history] == PASSES[way].get("epochs", epochs)


def test_training_is_bit_identical_with_figures_and_loggers(callback_class, tmp_path):
    loggers = [CSVLogger(tmp_path), TensorBoardLogger(tmp_path)]
    watch = Watch()
    trace = nets.train_and_trace(tmp_path, watch.around([callback_class()]), logger=loggers)
    assert watch.changes == []
    assert_same_training(trace, PLAIN)
    assert list(tmp_path.rglob("*.png"))


def test_all_callbacks_together_leave_training_as_it_was(callback_class, tmp_path):
    others = [kind() for kind in nets.CALLBACKS if kind is not callback_class]
    watch = Watch()
    trace = train(tmp_path, PLAIN, watch.around([callback_class(), *others]))
    assert watch.changes == []
    assert_same_training(trace, PLAIN)


@pytest.mark.parametrize("inference_mode", [True, False])
def test_evaluation_by_itself_leaves_the_network_as_it_was(
    callback_class, inference_mode, tmp_path
):
    callbacks = [callback_class(probe=source, figures=False) for source in ("val", "test")]
    module, watch = nets.Classifier(), Watch()
    run = nets.trainer(tmp_path, watch.around(callbacks), inference_mode=inference_mode)
    loader = DataLoader(nets.Blobs(), 7)
    run.validate(module, loader, verbose=False)
    run.test(module, loader, verbose=False)
    assert watch.changes == []
    assert watch.hooks == {"on_validation_end", "on_test_end"}
    assert [len(callback.history) for callback in callbacks] == [1, 1]


@pytest.mark.parametrize("deed", TRESPASSES)
def test_the_comparison_notices_a_callback_that_touches(callback_class, deed, tmp_path):
    trespass, setting = TRESPASSES[deed]

    class Trespassing(callback_class):
        def on_train_epoch_end(self, trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)
            trespass(pl_module)

        def on_validation_end(self, trainer, pl_module):
            super().on_validation_end(trainer, pl_module)
            trespass(pl_module)

    watch = Watch()
    trace = train(tmp_path, setting, watch.around([Trespassing(figures=False)]))
    assert watch.changes != []
    with pytest.raises(AssertionError, match="changed"):
        assert_same_training(trace, setting)
