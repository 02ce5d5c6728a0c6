"""A project: a network, its training and its callbacks, and what is said of them in the table."""

import copy
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lightning_nc
from tests import nets

IGNORED = -100


class Training(pytorch_lightning.LightningModule):
    """A network that learns from pairs of inputs and labels by cross-entropy."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def measured(self, batch, probe):
        """Logits and labels of a batch, as they are measured."""
        return self(batch[0]), batch[1]

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(*self.measured(batch, "train"))

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        chosen = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(chosen, lr=0.05, momentum=0.9)


class ByHand(NamedTuple):
    """How features are made by hand, ``take(output, batch) -> (n, d)``, and what that is called."""

    take: Callable[[Any, Any], Tensor]
    words: str = ""


AS_IT_IS = ByHand(lambda h, _: h.flatten(1))
MEAN_OF_TOKENS = ByHand(lambda h, _: h.mean(1), "mean over tokens")
EVERY_TOKEN = ByHand(lambda h, _: h.flatten(0, 1), "positions as samples")
EVERY_PIXEL = ByHand(lambda h, _: h.movedim(1, -1).flatten(0, 2), "positions as samples")


def linear(module: Any, name: str) -> tuple[Tensor, Tensor]:
    """W and b of a linear layer or of a convolution over single positions."""
    head = module.get_submodule(name)
    W = head.weight.flatten(1)
    return W, torch.zeros(len(W)) if head.bias is None else head.bias


@dataclass(frozen=True)
class Project:
    """A kind of project: a row of the table in docs/projects.md, and all that proves it.

    Attributes:
        name: What it is.
        make: Makes the module and its loader, of whose dataset all samples are measured.
        layers: The layers that are measured, and how each is pooled.
        heads: Name of the head for each probe; empty if there is none.
        last: The module whose input the last-layer features are, if not the head.
        last_pooling: How that input is pooled.
        rows: W and b of a head.
        code: Statements that make the callbacks; the last is their list.
        classes: Number of classes.
        beside: Callbacks of the user's own, after ours.
        samples: What a sample is.
        said: Beginnings of all sentences that are said.
        undefined: Names of values that are NaN.
        at_validation: Whether callbacks measure at the end of validation.
        wrap: Wraps the module before training.
        options: Options of the Trainer.
    """

    name: str
    make: Callable[[], tuple[Any, DataLoader]]
    layers: Mapping[str, ByHand]
    heads: Mapping[str, str]
    last: str | None = None
    last_pooling: ByHand = AS_IT_IS
    rows: Callable[[Any, str], tuple[Tensor, Tensor]] = linear
    code: str = "[NeuralCollapse(), EquiSeparation()]"
    classes: int = 4
    beside: Callable[[], list[Any]] = list
    samples: str = "samples"
    said: Sequence[str] = ()
    undefined: Sequence[str] = ()
    at_validation: bool = False
    wrap: Callable[[Any], Any] = lambda module: module
    options: Mapping[str, Any] = field(default_factory=dict)

    def callbacks(self, dataset: Any) -> list[Any]:
        """The callbacks that the code of the table makes."""
        names = {name: getattr(lightning_nc, name) for name in lightning_nc.__all__}
        names["dataset"] = dataset
        *before, last = self.code.split("; ")
        for statement in before:
            exec(statement, names)
        made: list[Any] = eval(last, names)
        return made


class Weights(pytorch_lightning.Callback):
    """Keeps the weights at the moment at which our callbacks measured."""

    def __init__(self, at_validation: bool) -> None:
        self.at_validation, self.state = at_validation, {}

    def on_train_epoch_end(self, trainer, pl_module):
        if not self.at_validation:
            self.state = copy.deepcopy(pl_module.state_dict())

    def on_validation_end(self, trainer, pl_module):
        if self.at_validation:
            self.state = copy.deepcopy(pl_module.state_dict())


class Run(NamedTuple):
    """A training that has ended."""

    module: Any
    loader: DataLoader
    callbacks: list[Any]
    measured_weights: dict[str, Tensor]
    said: list[str]
    device: torch.device


def trained(project: Project, folder: Any, measured: bool, accelerator: str = "cpu") -> Run:
    """Train from fixed seeds, with the callbacks of the project or without."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    module, loader = project.make()
    callbacks = project.callbacks(loader.dataset) if measured else []
    for callback in callbacks:
        callback.record.figures = False  # they take most of the time, and are tested elsewhere
    weights = Weights(project.at_validation)
    everything = [*callbacks, weights, *project.beside()]
    options = {"accelerator": accelerator, "num_sanity_val_steps": 0, **project.options}
    trainer = nets.trainer(folder, everything, **options)
    validation = DataLoader(loader.dataset, 8) if project.at_validation else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RuntimeWarning)
        trainer.fit(project.wrap(module), loader, validation)
    said = [str(each.message) for each in caught if each.category is RuntimeWarning]
    device = trainer.strategy.root_device
    return Run(module, loader, callbacks, weights.state, said, device)
