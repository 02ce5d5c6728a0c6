"""Loaders with every unusual setting: what is measured is known, or the way out is told."""

import re
import warnings

import pytest
import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from lightning_nc import EquiSeparation, NeuralCollapse, Probe
from tests import nets
from tests.callbacks.runs import Comparing, assert_untouched, epochs, loaders, mixed, train

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)
every_callback = pytest.mark.parametrize("callback_class", nets.CALLBACKS)
# whose values `measure` gives, too
measured_alone = pytest.mark.parametrize("callback_class", [EquiSeparation, NeuralCollapse])


LOADERS = {
    "shuffled": lambda data: DataLoader(data, 10, shuffle=True),
    "in order": lambda data: DataLoader(data, 10),
    "of a subset": lambda data: DataLoader(data, 10, sampler=SubsetRandomSampler(range(8, 30))),
}


@measured_alone
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(("batches", "size"), [(2, 20), (0.67, 20), (1.0, 30)])
def test_overfitting_measures_the_batches_that_are_trained_on(
    callback_class, loader, batches, size, tmp_path
):
    class Trained(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            trained.append(batch[0])

    def data():
        return loaders(train_dataloaders=LOADERS[loader](mixed()))

    trained, callback, options = [], callback_class(figures=False), {"overfit_batches": batches}
    comparing = Comparing(lambda: Subset(mixed(), range(size)))
    assert_untouched(tmp_path, callback, data=data, **options)
    train(tmp_path, [callback, comparing, Trained()], data=data, **options)
    assert nets.same(torch.cat(trained[: len(trained) // 2]), mixed().tensors[0][:size])
    assert [int(m.counts.sum()) for m in callback.history] == [size] * 3
    comparing.assert_same_as(callback.history[1:])


@every_callback
def test_a_batch_sampler_that_lightning_leaves_random_does_not_limit_the_probe(
    callback_class, tmp_path
):
    def data():
        sampler = BatchSampler(RandomSampler(mixed()), 10, drop_last=False)
        return loaders(train_dataloaders=DataLoader(mixed(), batch_sampler=sampler))

    callback = callback_class(figures=False)
    assert_untouched(tmp_path, callback, data=data, overfit_batches=2)
    seen = 30 if callback_class in nets.GEOMETRY else 15  # or five of each class
    assert [int(m.counts.sum()) for m in callback.history] == [seen] * 3


@pytest.mark.parametrize("limit", [2, 0.5])
def test_a_limit_on_training_batches_does_not_limit_the_probe(limit, tmp_path):
    callback, comparing = nets.CALLBACKS[0](figures=False), Comparing(mixed)
    train(tmp_path, [callback, comparing], limit_train_batches=limit)
    comparing.assert_same_as(callback.history[1:])


class Undeclared(Dataset):
    """Does not say what its labels are."""

    def __init__(self, data):
        self.samples = list(data)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Fresh(LightningDataModule):
    """Returns another dataset each time it is asked for one."""

    def __init__(self, sizes, kind):
        super().__init__()
        self.sizes, self.kind, self.given = iter(sizes), kind, []

    def train_dataloader(self):
        torch.manual_seed(len(self.given))
        inputs, labels = nets.vectors(next(self.sizes), seed=len(self.given)).tensors
        order = torch.randperm(len(labels))
        self.given.append(self.kind(TensorDataset(inputs[order], labels[order])))
        return DataLoader(self.given[-1], 10, shuffle=True)

    def val_dataloader(self):
        return DataLoader(mixed(seed=2), 10)


@measured_alone
@pytest.mark.parametrize("kind", [lambda data: data, Undeclared], ids=["declared", "undeclared"])
@pytest.mark.parametrize(
    "sizes", [[(12, 9, 9)] * 3, [(12, 9, 9), (9, 9, 9), (6, 12, 4)]], ids=["same", "other sizes"]
)
def test_reloaded_data_are_measured_as_they_are(callback_class, kind, sizes, tmp_path):
    def data():
        modules.append(Fresh(sizes, kind))
        return {"datamodule": modules[-1]}

    modules, callback = [], callback_class(figures=False)
    comparing = Comparing(lambda: modules[-1].given[-1])
    options = {"data": data, "max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    with nets.our_warnings() as ours:
        assert_untouched(tmp_path, callback, **options)
        train(tmp_path, [callback, comparing], **options)
    assert callback.failures == 0
    assert [m.counts.tolist() for m in callback.history] == [
        list(counts) for counts in (sizes[0], *sizes)
    ]
    assert bool(ours) == (sizes[0] != sizes[1])
    assert all("class counts were 12, 9, 9 and are 9 for 3 classes. Do" in text for text in ours)
    comparing.assert_same_as(callback.history[1:])


class OfSeveral(nets.Classifier):
    """Trains on the first batch of a dict or list of them."""

    def __init__(self):
        super().__init__(freeze=0)

    def training_step(self, batch, index):
        first, *_ = batch.values() if isinstance(batch, dict) else batch
        return super().training_step(first, index)


def pair(kind, mode="min_size"):
    first, second = (DataLoader(mixed(seed=seed), 10, shuffle=True) for seed in (1, 3))
    together = {"a": first, "b": second} if "dict" in kind else [first, second]
    if "single" in kind:
        together = {"a": first} if "dict" in kind else [first]
    return CombinedLoader(together, mode) if "combined" in kind else together


@every_callback
@pytest.mark.parametrize("kind", ["dict", "list", "combined dict", "combined list", "stream"])
def test_data_that_cannot_be_chosen_from_are_skipped_and_the_way_out_is_told(
    callback_class, kind, tmp_path
):
    def data():
        several = DataLoader(nets.Stream(mixed()), 10) if kind == "stream" else pair(kind)
        return loaders(train_dataloaders=several)

    options = {"data": data, "module": None if kind == "stream" else OfSeveral}
    callback = callback_class(figures=False)
    _, plain = train(tmp_path, **options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _, trace = train(tmp_path, [callback], **options)
    assert nets.same(trace, plain)
    cause, often = (str(w.message) for w in told if w.category is RuntimeWarning)
    assert re.search(r"(?s) after 0 epochs; .*Error: .*Probe\(source=.*name=", cause)
    assert "3 of 3 measurements were skipped" in often
    assert callback.failures == 3
    assert callback.history == []

    known = {"class_counts": (12, 9, 9)} if callback_class is nets.MinorityCollapse else {}
    own = callback_class(probe=Probe(DataLoader(mixed(), 10), "mine"), figures=False, **known)
    run, _ = assert_untouched(tmp_path, own, **options)
    assert epochs(own) == [0, 1, 2]
    assert f"{own.family}/mine/failures" in run.callback_metrics


@measured_alone
@pytest.mark.parametrize(
    "kind", ["single dict", "single list", "combined single dict", "combined single list"]
)
@pytest.mark.parametrize("source", ["train", "val"])
def test_a_single_loader_in_a_collection_is_the_one(callback_class, kind, source, tmp_path):
    def data():
        mode = "sequential" if source == "val" else "min_size"
        return loaders(**{f"{source}_dataloaders": pair(kind, mode)})

    callback, comparing = (
        callback_class(probe=Probe(source, "train"), figures=False),
        Comparing(mixed),
    )
    options = {"data": data, "module": OfSeveral if source == "train" else None}
    options |= {
        "check_val_every_n_epoch": 2,
        "num_sanity_val_steps": 0,
    }  # val is not set up at once
    assert_untouched(tmp_path, callback, **options)
    train(tmp_path, [callback, comparing], **options)
    comparing.assert_same_as(callback.history[1:])


@pytest.mark.parametrize("kind", [EquiSeparation, NeuralCollapse])
@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((1, 1, 1), "3 of 3 classes have one .* are 0"),
        ((1, 8, 1), "2 of 3 classes have one .*small"),
        ((9, 1, 9), None),
    ],
)
def test_many_classes_of_one_sample_are_told_once_to_vary_by_nothing(kind, counts, said, tmp_path):
    callback = kind(figures=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nets.fit(tmp_path, [callback], data=nets.vectors(counts), net=nets.mlp(K=3))
    told = [str(w.message) for w in caught if "which is their mean" in str(w.message)]
    assert len(told) == (said is not None)
    assert said is None or re.search(said, told[0])
    assert len(callback.history) == 3
