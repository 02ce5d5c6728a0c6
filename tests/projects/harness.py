"""A project: a network, its training and its callbacks; and the same values, taken by hand."""

import copy
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, NeuralCollapse
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from tests import nets, reference

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
        callbacks: The callbacks, given the dataset.
        code: The same, as it is written in the table.
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
    callbacks: Callable[[Any], list[Any]] = lambda _: [NeuralCollapse(), EquiSeparation()]
    code: str = "NeuralCollapse(), EquiSeparation()"
    beside: Callable[[], list[Any]] = list
    samples: str = "samples"
    said: Sequence[str] = ()
    undefined: Sequence[str] = ()
    at_validation: bool = False
    wrap: Callable[[Any], Any] = lambda module: module
    options: Mapping[str, Any] = field(default_factory=dict)


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


def trained(project: Project, folder: Any, measured: bool) -> Run:
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
    trainer = nets.trainer(folder, everything, num_sanity_val_steps=0, **project.options)
    validation = DataLoader(loader.dataset, 8) if project.at_validation else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RuntimeWarning)
        trainer.fit(project.wrap(module), loader, validation)
    said = [str(each.message) for each in caught if each.category is RuntimeWarning]
    return Run(module, loader, callbacks, weights.state, said)


class Taken(NamedTuple):
    """What was taken from a network by hand, as float64 arrays."""

    layers: dict[str, np.ndarray]
    last: np.ndarray
    labels: np.ndarray
    decided: np.ndarray
    rows: tuple[np.ndarray, np.ndarray] | None


def plan_of(run: Run, callback: Any) -> Any:
    """The plan of a callback, which the first of those that share it holds."""
    plans = {key: plan for each in run.callbacks for key, plan in each.record.plans.items()}
    return next(plan for prefixes, plan in plans.items() if callback.record.prefix in prefixes)


@torch.no_grad()
def taken(project: Project, run: Run, callback: Any) -> Taken:
    """Features of all layers and of the head's input, by hooks that know nothing of the package."""
    module, dataset, probe = run.module, run.loader.dataset, callback.probe.key
    module.load_state_dict(run.measured_weights)
    module.eval()
    plan = plan_of(run, callback)
    # the same batches, since sums in float32 depend on how many samples are summed at once
    batches = [batch.indices for batch in plan.batches]
    assert sorted(index for batch in batches for index in batch) == list(range(len(dataset)))
    head = project.heads.get(probe, project.last)
    seen: dict[str, Any] = {}

    def keep(name: str, of_input: bool) -> Any:
        return lambda _, args, output: seen.update({name: args[0] if of_input else output})

    hooks = [module.get_submodule(head).register_forward_hook(keep("last", True))]
    for name in project.layers:
        if name != "input":
            layer = module.get_submodule(name)
            hooks.append(layer.register_forward_hook(keep(name, False)))
    pools = {**project.layers, "last": project.last_pooling}
    features: dict[str, list[Tensor]] = {name: [] for name in pools}
    labels, decided = [], []
    precision = project.options.get("precision") == "bf16-mixed"
    torch.backends.mha.set_fastpath_enabled(False)  # which calls no hooks
    for indices in batches:
        batch = run.loader.collate_fn([dataset[i] for i in indices])
        seen["input"] = batch[0] if isinstance(batch, tuple | list) else None
        with torch.autocast("cpu", torch.bfloat16, enabled=precision):
            logits, y = module.measured(batch, probe)
        kept = y.flatten() != IGNORED
        labels.append(y.flatten()[kept].long())
        decided.append(decisions(logits)[kept])
        for name, pool in pools.items():
            features[name].append(pool.take(seen[name], batch).double()[kept])
    torch.backends.mha.set_fastpath_enabled(True)
    for hook in hooks:
        hook.remove()
    h = {name: torch.cat(parts).numpy() for name, parts in features.items()}
    rows = project.rows(module, head) if project.heads else None
    exact = None if rows is None else (rows[0].double().numpy(), rows[1].double().numpy())
    last = h.pop("last")
    return Taken(h, last, torch.cat(labels).numpy(), torch.cat(decided).numpy(), exact)


def decisions(logits: Tensor) -> Tensor:
    """The class of the largest logit of each sample or position; of a single logit, by its sign."""
    if logits.ndim == 1 or logits.shape[1] == 1:
        return (logits.flatten() > 0).long()
    classes = 2 if logits.ndim == 3 else 1
    return logits.movedim(classes, -1).flatten(0, -2).argmax(-1)


def expected(family: str, project: Project, run: Run, found: Taken) -> dict[str, float]:
    """All values of a family from the slow reference, by the names under which they are logged."""
    classes, y = np.unique(found.labels, return_inverse=True)
    if family == "separation":
        D = {name: reference.separation_fuzziness(h, y) for name, h in found.layers.items()}
        law = reference.separation_values(list(D.values()))
        return law | {f"layers/{name}": value for name, value in D.items()}
    right = found.decided == found.labels
    if found.rows is None:
        W, b = np.eye(len(classes), found.last.shape[1]), np.zeros(len(classes))
        values = reference.collapse_values(found.last, y, W, b)
        of_head = ("_weights", "nc3", "nc4", "accuracy")
        return {name: value for name, value in values.items() if not name.endswith(of_head)}
    if len(found.rows[0]) == 1:  # the two rows whose logits differ by the only one
        W, b = (np.concatenate([-x / 2, x / 2]) for x in found.rows)
    else:
        W, b = (x[classes] for x in found.rows)
    if family == "minority":
        n = np.bincount([int(y) for _, y in run.loader.dataset])
        minority = {int(k) for k in np.flatnonzero(reference.minority_classes(n.tolist()))}
        values = reference.minority_values(found.last, y, W, b, n, minority)
        of_class = [right[found.labels == k].mean() for k in sorted(minority)]
        return values | {"minority_accuracy": np.mean(of_class)}
    nearest = ((found.last[:, None] - reference.class_means(found.last, y)) ** 2).sum(2).argmin(1)
    return reference.collapse_values(found.last, y, W, b) | {
        "accuracy": right.mean(),
        "nc4": np.mean(found.decided != classes[nearest]),
    }


def logged(callback: Any) -> dict[str, float]:
    """All values of the last measurement but bookkeeping."""
    family, probe = callback.family, callback.probe.key
    book = {f"{family}/{probe}/{row.name}" for row in BOOKKEEPING}
    of_layers = f"{family}_layers/{probe}/"
    return {
        key.replace(of_layers, "layers/").removeprefix(f"{family}/{probe}/"): value
        for key, value in callback.history[-1].values.items()
        if key not in book
    }


def check_values(project: Project, run: Run) -> None:
    """Every value that is logged is that of the reference, and nothing else is logged."""
    for callback in run.callbacks:
        found = taken(project, run, callback)
        values = expected(callback.family, project, run, found)
        values |= {name: np.nan for name in project.undefined if name in values}
        of_ours = logged(callback)
        assert of_ours.keys() == values.keys()
        near = {k: pytest.approx(v, rel=1e-6, abs=1e-12, nan_ok=True) for k, v in values.items()}
        assert {k: (of_ours[k], values[k]) for k in values if of_ours[k] != near[k]} == {}


def check_row(project: Project, run: Run) -> None:
    """What the table says of layers, head, pooling, samples and messages is so."""
    for callback in run.callbacks:
        plan = plan_of(run, callback)
        measurement, probe = callback.history[-1], callback.probe.key
        assert callback.failures == 0
        assert len(callback.history) == 3
        pools = project.layers if callback.family == "separation" else {}
        if callback.family != "separation":
            head = project.heads.get(probe)
            pools = {f"input of {head or project.last}": project.last_pooling}
            assert set(plan.heads.values()) == ({head} if head else set())
        assert measurement.pooling == {n: pool.words for n, pool in pools.items() if pool.words}
    unsaid = [text for text in project.said if not any(text in each for each in run.said)]
    unknown = [each for each in run.said if not any(text in each for text in project.said)]
    assert (unsaid, unknown) == ([], [])


def check(project: Project, folder: Any) -> None:
    """Train with and without callbacks, and compare weights, values and the row of the table."""
    alone, run = trained(project, folder, False), trained(project, folder, True)
    before, after = alone.module.state_dict(), run.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name].to_dense(), after[name].to_dense()) for name in before)
    check_row(project, run)
    check_values(project, run)
