"""A probe's data reach the network as in training or as in evaluation, as its source says."""

from collections import UserList
from contextlib import nullcontext

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import NeuralCollapse, Probe
from tests import nets, reference
from tests.callbacks.runs import mixed

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def augmented(batch):
    return batch[0] ** 3 + 1, batch[1]


class Jitter(nn.Module):
    """An augmentation that looks at its own flag, as those of torch_audiomentations do."""

    def forward(self, batch):
        return augmented(batch) if self.training else batch


# how code finds out that it is in training
FLAGS = {
    "trainer.training": lambda hooked: hooked.trainer.training,
    "stage": lambda hooked: hooked.trainer.state.stage == "train",
    "not validating": lambda hooked: not (hooked.trainer.validating or hooked.trainer.testing),
    "not evaluating": lambda hooked: not hooked.trainer.evaluating,
}
OF_MODULES = {"self.training": lambda hooked: hooked.training}


def with_hook(kind, hook, flag):
    def transfer(self, batch, *args):
        if hook == "transfer_batch_to_device":
            batch = super(hooked, self).transfer_batch_to_device(batch, *args)
        return augmented(batch) if flag(self) else batch

    hooked = type("Hooked", (kind,), {hook: transfer})
    return hooked


class Data(pytorch_lightning.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(mixed(), 10, shuffle=True)

    def val_dataloader(self):
        return DataLoader(mixed(seed=2), 10)


HOOKS = ["on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"]
PLACES = [
    *(("module", hook, flag) for hook in HOOKS for flag in {**FLAGS, **OF_MODULES}),
    *(("datamodule", hook, "trainer.training") for hook in HOOKS),
]


def module_and_data(place, hook, flag):
    condition = {**FLAGS, **OF_MODULES}[flag]
    module = with_hook(nets.Classifier, hook, condition) if place == "module" else nets.Classifier
    data = with_hook(Data, hook, condition) if place == "datamodule" else Data
    return module(freeze=0), data()


def nc1_of(module, data, change=lambda batch: batch):
    x, y = change(data.tensors)
    module.eval()
    with torch.no_grad():
        return reference.variability_collapse(module.net[:-1](x).double().numpy(), y.numpy())


@pytest.mark.parametrize(("place", "hook", "flag"), PLACES)
def test_a_clean_probe_is_clean_and_training_data_come_as_in_training(tmp_path, place, hook, flag):
    module, data = module_and_data(place, hook, flag)
    own = mixed(seed=3)
    probes = [Probe(own, "clean", samples_per_class=None), Probe("train", samples_per_class=None)]
    probes.append(Probe("val", samples_per_class=None))
    callbacks = [NeuralCollapse(probe=probe, figures=False) for probe in probes]
    trainer = nets.trainer(tmp_path, callbacks, num_sanity_val_steps=0)
    trainer.fit(module, datamodule=data)
    clean, train, val = (c.history[-1].values[f"{c.record.prefix}nc1"] for c in callbacks)
    assert clean == pytest.approx(nc1_of(module, own), rel=1e-4)
    assert train == pytest.approx(nc1_of(module, mixed(), augmented), rel=1e-4)
    assert val == pytest.approx(nc1_of(module, mixed(seed=2)), rel=1e-4)
    assert abs(nc1_of(module, mixed(), augmented) / nc1_of(module, mixed()) - 1) > 0.01


class WithModes(nets.Classifier):
    """Augments by a submodule; a second is kept in evaluation while training."""

    def __init__(self):
        super().__init__(freeze=0)
        self.jitter, self.frozen = Jitter(), Jitter()

    def on_train_epoch_start(self):
        self.frozen.eval()

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return self.frozen(self.jitter(batch))


@pytest.mark.parametrize("when", ["train_epoch_end", "validation_end"])
def test_modules_on_the_way_of_training_data_are_in_their_modes_of_training(tmp_path, when):
    module = WithModes()
    probe = Probe("train", samples_per_class=None)
    callback = NeuralCollapse(probe=probe, when=when, figures=False)
    nets.trainer(tmp_path, [callback]).fit(module, datamodule=Data())
    # in validation Lightning has set all modules to evaluation, and theirs of training are unknown
    change = augmented if when == "train_epoch_end" else lambda batch: augmented(augmented(batch))
    expected = nc1_of(module, mixed(), change)
    assert callback.history[-1].values["nc/train/nc1"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("namespace", nets.NAMESPACES)
@pytest.mark.parametrize("fails", [False, True])
def test_stage_and_modes_are_put_back_also_after_an_exception(tmp_path, namespace, fails):
    # lists around the module would be put back
    seen, numbers, after = UserList(), UserList(), []
    base = nets.UnifiedClassifier if namespace == "lightning" else nets.Classifier

    class Looking(base):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            numbers.append(dataloader_idx)
            return batch

        def on_after_batch_transfer(self, batch, dataloader_idx):
            numbers.append(dataloader_idx)
            seen.append((self.trainer.state.stage, self.training, self.trainer.sanity_checking))
            if fails and self.trainer.validating:
                raise OSError("the augmentation is gone")
            return batch

    class After(nets.NAMESPACES[namespace].Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            modes = {module.training for module in pl_module.modules()}
            after.append((trainer.state.stage, modes, trainer.training))

    callback = NeuralCollapse(probe=Probe(mixed(seed=3), "clean"), figures=False)
    trainer = nets.trainer(tmp_path, [callback, After()], namespace)
    told = pytest.warns(RuntimeWarning, match="augmentation is gone") if fails else nullcontext()
    with told:
        trainer.fit(Looking(freeze=0), DataLoader(mixed(), 10))
    assert after == [("train", {True}, True)] * 2
    assert set(seen) == {("train", True, False), ("validate", False, False)}
    assert set(numbers) == {0}


def test_data_of_ones_own_come_as_in_testing_when_tested(tmp_path):
    module, _ = module_and_data("module", "on_after_batch_transfer", "not evaluating")
    own = mixed(seed=3)
    callback = NeuralCollapse(probe=Probe(own, "clean", samples_per_class=None), figures=False)
    trainer = nets.trainer(tmp_path, [callback])
    trainer.test(module, DataLoader(mixed(), 10), verbose=False)
    expected = pytest.approx(nc1_of(module, own), rel=1e-4)
    assert callback.history[-1].values["nc/clean/nc1"] == expected
    assert trainer.state.stage is None or trainer.state.stage == "test"


class LooksWhileReading(TensorDataset):
    """Augments where it is read, if the Trainer is training."""

    trainer = None

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (x**3 + 1 if self.trainer is None or self.trainer.training else x), y


def test_data_of_ones_own_are_also_read_as_in_validation(tmp_path):
    own = LooksWhileReading(*mixed(seed=3).tensors)
    callback = NeuralCollapse(probe=Probe(own, "clean", samples_per_class=None), figures=False)
    own.trainer = nets.trainer(tmp_path, [callback])
    module = nets.Classifier(freeze=0)
    own.trainer.fit(module, DataLoader(mixed(), 10))
    expected = pytest.approx(nc1_of(module, mixed(seed=3)), rel=1e-4)
    assert callback.history[-1].values["nc/clean/nc1"] == expected
