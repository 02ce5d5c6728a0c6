"""Tiny networks, data with random augmentations, and Trainers for them."""

import contextlib
import os
import random
import warnings
from pkgutil import resolve_name
from typing import Any

import lightning.pytorch
import numpy as np
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import lightning_nc
from lightning_nc import MeasureCallback
from lightning_nc.measures.history import History
from lightning_nc.measures.saved_history import rows_of
from lightning_nc.passes.geometry_pass import GeometryPass
from tests.traces import difference as difference
from tests.traces import same as same
from tests.traces import trace_of

NAMESPACES = {"lightning": lightning.pytorch, "pytorch_lightning": pytorch_lightning}


class MinorityCollapse(lightning_nc.MinorityCollapse):
    __doc__ = lightning_nc.MinorityCollapse.__doc__

    def __init__(self, minority=(1, 2), **options):
        # a few batches of tiny data need not tell which classes are minority classes
        super().__init__(minority, **options)


class NeuralCollapse(lightning_nc.NeuralCollapse):
    __doc__ = lightning_nc.NeuralCollapse.__doc__

    def __init__(self, head=None, layers="blocks", **options):
        # what is logged of layers keeps the contract too
        super().__init__(head, layers, **options)


# every callback of the package, including those still to be written
CALLBACKS = [
    {
        lightning_nc.MinorityCollapse: MinorityCollapse,
        lightning_nc.NeuralCollapse: NeuralCollapse,
    }.get(kind, kind)
    for kind in (getattr(lightning_nc, name) for name in lightning_nc.__all__)
    if isinstance(kind, type) and issubclass(kind, MeasureCallback) and kind is not MeasureCallback
]

# and callbacks of others that must keep the same contract, as module:Class
CALLBACKS += [resolve_name(path) for path in os.environ.get("CALLBACKS_UNDER_TEST", "").split()]

# the callbacks that share a pass over layers
GEOMETRY = [kind for kind in CALLBACKS if kind().measure.passes is GeometryPass]

# what is said of data as tiny as those of the tests, and is so
OF_TINY_DATA = (
    # some classes lie on opposite sides
    "LocalElasticity on .*gradients of .* took a backward pass for each sample",
    "LocalElasticity on .*relative_ratio.*the mean kernel between classes is not positive",
    "NextTokenLaw on .*samples are too few for .* features",
    ".* on .*labels are of whole samples and the inputs are no tokens",
    ".* on .*class . alone is the majority",  # as of three
)
# Lightning's warnings are not our concern; this package's warnings are errors
only_our_warnings = (
    "ignore",
    "error::RuntimeWarning",
    "ignore:Guards may run slower on Python 3.13.0",  # of torch
    *(f"ignore:{words}" for words in OF_TINY_DATA),
    # expected where a network is only evaluated
    "ignore:MinorityCollapse on .*there has been no training in which to count classes",
)


@contextlib.contextmanager
def our_warnings():
    """After the block, the list has what this package has warned of in it."""
    ours = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield ours
    ours += [str(w.message) for w in told if w.category is RuntimeWarning]


def family_of(kind):
    """The family of a callback, the first part of its keys."""
    return kind().family


def through(callback, place, change):
    """Make a method of the callback's measure return its result changed by a function."""
    method = getattr(callback.measure, place)
    setattr(callback.measure, place, lambda argument: change(method(argument)))
    return callback


def history_of(state):
    """The history in the state of a callback."""
    rows, lost = rows_of(state["history"])
    assert lost == []
    return History(rows)


def drawings(callback, number=-1):
    """The functions that draw the figures of a measurement, by tag."""
    record = callback.record
    timeline = record.timeline(number)
    return {record.prefix + name: draw for name, draw in record.measure.draw(timeline).items()}


def drawings_at_end(callback, number=-1):
    """The functions that draw the figures of the whole run, by tag."""
    record = callback.record
    timeline = record.timeline(number)
    drawn = record.measure.draw_at_end(timeline)
    return {record.prefix + name: draw for name, draw in drawn.items()}


class Blobs(Dataset):
    """Three classes of unequal size; each read adds noise from four random generators."""

    def __init__(self, counts=(16, 12, 12), augment=True, d=6):
        generator = torch.Generator().manual_seed(7)
        self.targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        centres = 2 * torch.randn(len(counts), d, generator=generator)
        self.inputs = centres[self.targets]
        self.inputs = self.inputs + torch.randn(self.inputs.shape, generator=generator)
        self.augment = augment
        self.rng = np.random.default_rng(3)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        x = self.inputs[index]
        if self.augment:
            x = x + 0.01 * float(torch.randn(())) + 0.01 * random.random()
            x = x + 0.01 * np.random.rand() + 0.01 * self.rng.random()
        return x.float(), self.targets[index]


class Broken(Blobs):
    """A dataset that cannot be read."""

    def __getitem__(self, index):
        raise OSError("the disk is gone")


class Stream(IterableDataset):
    """Samples one after another, of which nothing tells how many there are."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


class CosineHead(nn.Linear):
    """Logits are scaled cosines, and no affine map of the features."""

    def forward(self, h):
        normalised = nn.functional.normalize
        return 5 * nn.functional.linear(normalised(h), normalised(self.weight))


class Training:
    """The common part of the modules of both namespaces."""

    def __init__(self, net=None, freeze=1):
        super().__init__()
        self.net = net if net is not None else mlp()
        self.freeze = freeze  # number of BatchNorm layers that keep their running statistics
        self.steps: list[Any] = []
        self.held: dict[str, Any] = {}  # random generators of data and loader

    def forward(self, x):
        return self.net(x)

    def on_train_epoch_start(self):
        norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms[: self.freeze]:
            norm.eval()

    def loss_of(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, _):
        loss = self.loss_of(batch)
        modes = tuple(module.training for module in self.modules())
        rng = hash(torch.get_rng_state().numpy().tobytes())
        self.steps.append((float(loss), modes, rng, random.getstate()[1][-1]))
        if not torch.compiler.is_compiling():  # dynamo cannot trace Lightning's log
            self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        loss = self.loss_of(batch)
        if not torch.compiler.is_compiling():
            self.log("val_loss", loss)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Classifier(Training, pytorch_lightning.LightningModule):
    """A module of ``pytorch_lightning``."""


class UnifiedClassifier(Training, lightning.pytorch.LightningModule):
    """A module of ``lightning.pytorch``."""


class Observer(nn.Module):
    """Counts how often it runs, in evaluation too, and how often ``train()`` is called."""

    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))
        self.switches = 0  # not a buffer, which would be restored

    def train(self, mode=True):
        self.switches += 1
        return super().train(mode)

    def forward(self, x):
        self.runs += 1
        return x


def mlp(d=6, K=3):
    return nn.Sequential(
        nn.Linear(d, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(12, 10),
        nn.BatchNorm1d(10),
        nn.ReLU(),
        Observer(),
        nn.Linear(10, K),
    )


def convnet(K=3):
    """A network for images of shape (1, 6, 6)."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, K),
    )


def vectors(counts=(12, 9, 9), d=6, seed=1, offset=0.0, spread=1.0):
    """Fixed samples of separated classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = 2 * torch.randn(len(counts), d, generator=generator) + offset
    noise = torch.randn(len(labels), d, generator=generator)
    return TensorDataset(centres[labels] + spread * noise, labels)


def images(counts=(12, 9, 9), **options):
    inputs, labels = vectors(counts, d=36, **options).tensors
    return TensorDataset(inputs.unflatten(1, (1, 6, 6)), labels)


def trainer(root, callbacks=(), namespace="pytorch_lightning", **options):
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": root,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 2,
        "num_sanity_val_steps": 1,
        "log_every_n_steps": 1,
    }
    return NAMESPACES[namespace].Trainer(callbacks=list(callbacks), **(quiet | options))


def fit(root, callbacks=(), data=None, net=None, batch_size=10, fit_options=None, **options):
    """Train a tiny network and return its Trainer; the module is ``trainer.lightning_module``."""
    torch.manual_seed(5)
    module = Classifier(net, freeze=0)
    run = trainer(root, callbacks, **options)
    validation = vectors(seed=2) if data is None else data
    data = vectors() if data is None else data
    loaders = DataLoader(data, batch_size, shuffle=True), DataLoader(validation, batch_size)
    run.fit(module, *loaders, **(fit_options or {}))
    return run


def train_and_trace(
    root,
    callbacks=(),
    workers=0,
    persistent=False,
    generator=False,
    wrap=None,
    net=None,
    kind=None,
    beside=None,
    validate=True,
    reload=False,
    dataset=None,
    worker_init_fn=None,
    ckpt_path=None,
    **options,
):
    """Train with augmentations from fixed seeds, and record everything that could differ.

    Args:
        root: Folder that the Trainer writes to.
        callbacks: Callbacks under test.
        workers: Number of workers of the training loader.
        persistent: Whether the workers persist from epoch to epoch.
        generator: Whether the training loader has a generator of its own.
        wrap: Function that wraps the module before training, such as ``torch.compile``.
        net: Function that makes the network.
        kind: Class that precedes the module's own in the method resolution order.
        beside: Function that makes all callbacks of the Trainer from those under test.
        validate: Whether to validate.
        reload: Whether the module provides the training loader, so that it can be reloaded.
        dataset: Class of the training data, such as a subclass of `Blobs`.
        worker_init_fn: Function that the training loader calls in its workers.
        ckpt_path: Checkpoint to resume from.
        options: Options of the Trainer.
    """
    torch.manual_seed(11)
    np.random.seed(12)
    random.seed(13)
    data, validation = (dataset or Blobs)(), Blobs(augment=False)
    own = torch.Generator().manual_seed(14) if generator else None
    lightning_style = options.get("namespace", "pytorch_lightning") == "lightning"
    base = UnifiedClassifier if lightning_style else Classifier
    module = (type(kind.__name__, (kind, base), {}) if kind else base)(net() if net else None)
    module.held = {"of the dataset": data.rng, "of the loader": own}
    run = trainer(root, beside(callbacks) if beside else callbacks, **options)

    def loader():
        return DataLoader(
            data,
            7,
            shuffle=True,
            num_workers=workers,
            persistent_workers=persistent,
            generator=own,
            worker_init_fn=worker_init_fn,
        )

    loaders = {"val_dataloaders": DataLoader(validation, 20) if validate else None}
    if reload:
        module.train_dataloader = loader
    else:
        loaders["train_dataloaders"] = loader()
    run.fit(wrap(module) if wrap else module, **loaders, ckpt_path=ckpt_path)
    return trace_of(run, module)
