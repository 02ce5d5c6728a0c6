"""Minority collapse as it is logged: against the formulas, undefined, told of, and drawn."""

import copy
import warnings

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lightning_nc import MinorityCollapse, NeuralCollapse, Probe, measure
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from tests import nets, reference
from tests.callbacks import records
from tests.callbacks.minority_runs import (
    COUNTS,
    RARE,
    counted,
    last_values,
    network,
    oversampling,
    run,
    told,
    undefined,
)
from tests.callbacks.runs import assert_untouched, mixed

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

LONG_TAIL = (60, 30, 14, 7, 3, 2)
BOOK = {row.name for row in BOOKKEEPING}


def expected_values(module, callback, data, training_counts, minority):
    """From what goes into the head, sample by sample of the probe, and the head itself."""
    (plan,) = callback.record.plans.values()
    net, features, labels = copy.deepcopy(module.net).eval(), [], []
    net[-1].register_forward_pre_hook(lambda _, args: features.append(args[0].double().numpy()))
    for batch in plan.batches:
        labels.append(data.tensors[1][batch.indices].numpy())
        with torch.no_grad():
            net(data.tensors[0][batch.indices])
    h, y = np.concatenate(features), np.concatenate(labels)
    W, b = (p.detach().double().numpy() for p in (net[-1].weight, net[-1].bias))
    return reference.minority_values(h, y, W, b, training_counts, minority)


@pytest.mark.parametrize("samples_per_class", [8, None])
@pytest.mark.parametrize(
    ("counts", "given", "minority"),
    [
        (COUNTS, None, (2, 3)),
        (LONG_TAIL, None, (4, 5)),
        ((40, 30, 20, 14, 10, 6), None, (4, 5)),
        (LONG_TAIL, (5, 1, 3), (1, 3, 5)),
        ((12, 12, 12, 12), (0, 3), (0, 3)),
    ],
)
def test_all_values_are_those_of_the_formulas(counts, given, minority, samples_per_class, tmp_path):
    inputs, labels = nets.vectors(counts, spread=3.0).tensors
    data = TensorDataset(inputs[(order := torch.randperm(len(labels)))], labels[order])
    probe = Probe(samples_per_class=samples_per_class, batch_size=9)
    callback = MinorityCollapse(given, probe=probe, figures=False, on_error="raise")
    module = nets.Classifier(nets.mlp(K=len(counts)), freeze=0)
    run(tmp_path, [callback], DataLoader(data, 10, shuffle=True, drop_last=True), module)
    n = counted(callback)[-1]  # without what is dropped
    expected = expected_values(module, callback, data, n, minority)
    values = last_values(callback)
    assert set(values) == {*expected, *BOOK}
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-7), name
    assert callback.history[0].arrays["minority"].nonzero().flatten().tolist() == list(minority)
    if counts == COUNTS:
        assert 0 < values["minority_accuracy"] < 1
    W = module.net[-1].weight.detach().double().numpy()
    centred = reference.group_cosine(reference.centred_means(W), minority)
    assert values["cos_weights"] != pytest.approx(centred, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_counts": (5, 5, 1)}, "class_counts has 3 counts, but there is a class 3"),
        ({"class_counts": (0, 0, 0, 0)}, r"per class must .* not all zero, got \[0, 0, 0, 0\]"),
        (
            {"minority": (2, 4)},
            r"minority=\[2, 4\] must be some, not all, of the classes 0, 1",
        ),
        (
            {"minority": (3, 1, 2, 0)},
            r"minority=\[3, 1, 2, 0\] must be some, not all, of the",
        ),
    ],
)
def test_what_does_not_fit_the_classes_is_skipped_and_said(options, message, tmp_path):
    callback = MinorityCollapse(figures=False, **options)
    with pytest.warns(RuntimeWarning, match=message):
        run(tmp_path, [callback])
    assert (len(callback.history), callback.failures) == (0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minority": ()}, r"minority needs one or more distinct classes, got \[\]"),
        ({"minority": (2, 2)}, r"minority needs one or more distinct classes, got \[2, 2\]"),
        ({"class_counts": (5,)}, r"class_counts needs a count for each class, got \[5\]"),
        ({"class_counts": (5, -1)}, "each of class_counts must be 0 or more, got -1"),
        ({"minority": (-1,)}, "each of minority must be 0 or more, got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MinorityCollapse(**options)


OF_MINORITY = {
    *("cos_weights", "cos_means", "cos_majority_weights", "norm_ratio", "imbalance_ratio"),
    "minority_accuracy",
}


def test_a_rare_class_alone_has_no_pair_and_one_warning_says_what_is_undefined(tmp_path):
    names, callback = {"cos_weights", "cos_means"}, MinorityCollapse(figures=False)
    with pytest.warns(RuntimeWarning, match="class 3 alone is the minority") as caught:
        run(tmp_path, [callback], DataLoader(mixed((20, 20, 20, 4)), 8, shuffle=True))
    (text,) = (str(w.message) for w in caught if w.category is RuntimeWarning)
    assert all(name in text for name in names)
    assert undefined(callback) == names


@pytest.mark.parametrize("theory", [False, True])
@pytest.mark.parametrize("counts", [(9, 9, 9, 9), (14, 10, 12, 11)])
def test_balanced_classes_cost_one_sentence_and_no_series_of_nan(counts, theory, tmp_path):
    callback, logger = MinorityCollapse(theory=theory), CSVLogger(tmp_path)
    loader = DataLoader(mixed(counts), 8, shuffle=True)
    (text,) = told(tmp_path, [callback], loader, logger=logger)
    assert all(name in text for name in OF_MINORITY)
    assert "less than 1.5 times as many" in text
    assert "name them with minority=[...]" in text
    energies = {"energy_weights", "energy_features", "energy_features_centered"}
    for m in callback.history:
        assert not any(np.isnan(value) for value in m.values.values())
        assert {key.split("/")[2] for key in m.values} == energies | BOOK
    assert counted(callback) == [list(counts)] * 3
    assert callback.history[-1].arrays["minority"].tolist() == [0, 0, 0, 0]
    (row, *_) = records.csv_rows(tmp_path)
    assert not {f"minority/train/{name}" for name in OF_MINORITY} & row.keys()
    assert len(list(tmp_path.rglob("minority/train/norms/*.png"))) == 3


@pytest.mark.parametrize("balanced", [False, True])
def test_keys_appear_when_counts_are_known_and_nothing_is_said_before(balanced, tmp_path):
    data = mixed((10, 10, 10, 10) if balanced else COUNTS)
    loader = DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 10, False))
    monitored, logger = Monitored(), CSVLogger(tmp_path)
    callback = MinorityCollapse(figures=False)
    texts = told(tmp_path, [callback, monitored], loader, logger=logger)
    assert counted(callback)[0] is None
    assert len(texts) == balanced
    keys = {f"minority/train/{name}" for name in OF_MINORITY}
    first, *others = (keys & m.values.keys() for m in callback.history)
    assert first == set()
    assert others == [set() if balanced else keys] * 2
    assert monitored.keys[0] & keys == set()
    assert monitored.keys[-1] & keys == (set() if balanced else keys)
    rows = [r for r in records.csv_rows(tmp_path) if r.get("minority/train/energy_weights")]
    shown = [{key for key in keys if row.get(key)} for row in rows]
    assert shown == [first, *others]


class Monitored(Callback):
    """The keys that monitors find before training and at the ends of epochs."""

    def __init__(self):
        self.keys = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            self.keys.append(set(trainer.callback_metrics))

    def on_train_end(self, trainer, pl_module):
        self.keys.append(set(trainer.callback_metrics))


def test_a_resumed_run_continues_with_the_keys_that_there_were(tmp_path):
    for counts, keys in ((COUNTS, OF_MINORITY), ((10, 10, 10, 10), set())):
        first, again = MinorityCollapse(figures=False), MinorityCollapse(figures=False)
        loader = DataLoader(mixed(counts), 10, shuffle=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(tmp_path, [first], loader, max_epochs=1).save_checkpoint(tmp_path / "1.ckpt")
            trainer = nets.trainer(tmp_path, [again], limit_val_batches=0)
            trainer.fit(network(), loader, ckpt_path=tmp_path / "1.ckpt")
        assert len(again.history) == 3
        for m in again.history:
            assert {key.split("/")[2] for key in m.values} & OF_MINORITY == keys
        ours = {key.split("/")[2] for key in trainer.callback_metrics if "minority/" in key}
        assert ours & OF_MINORITY == keys


def test_without_training_it_is_said_that_counts_are_missing(tmp_path):
    probe = Probe(mixed((9, 9, 9, 9)), "own")
    for options, missing in (({}, OF_MINORITY), ({"minority": RARE}, set())):
        callback = MinorityCollapse(probe=probe, figures=False, **options)
        trainer = nets.trainer(tmp_path, [callback])
        with pytest.warns(RuntimeWarning, match="no training in which to count") as caught:
            trainer.validate(network(), DataLoader(mixed(COUNTS), 10), verbose=False)
        (text,) = (str(w.message) for w in caught if w.category is RuntimeWarning)
        assert "class_counts=[...]" in text
        assert last_values(callback).keys() & OF_MINORITY == OF_MINORITY - missing
        assert undefined(callback) == (set() if missing else {"imbalance_ratio"})
        with pytest.warns(RuntimeWarning, match="no training in which to count"):
            measure(network(), probe, measures=[MinorityCollapse(**options)])


def test_one_class_named_by_the_user_is_as_good(tmp_path):
    callback = MinorityCollapse((1,), figures=False)
    (text,) = told(tmp_path, [callback])
    assert "class 1 alone is the minority" in text
    assert undefined(callback) == {"cos_weights", "cos_means"}


class OneLogit(nets.Classifier):
    def loss_of(self, batch):
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0])[:, 0], batch[1])


@pytest.mark.parametrize("rows", [2, 1])
def test_two_classes_have_no_pair_of_rare_ones(rows, tmp_path):
    inputs, labels = mixed((30, 10)).tensors
    data = TensorDataset(inputs, labels.float() if rows == 1 else labels)
    module = (OneLogit if rows == 1 else nets.Classifier)(nets.mlp(K=rows), freeze=0)
    callback = MinorityCollapse(figures=False)
    (text,) = told(tmp_path, [callback], DataLoader(data, 10, shuffle=True), module)
    assert "class 1 alone is the minority" in text
    assert counted(callback) == [[30, 10]] * 3
    assert undefined(callback) == {"cos_weights", "cos_means", "cos_majority_weights"}
    values, W = last_values(callback), module.net[-1].weight.detach().double().numpy()
    W = np.concatenate([-W / 2, W / 2]) if rows == 1 else W
    assert values["imbalance_ratio"] == 3
    assert values["energy_weights"] == pytest.approx(reference.classifier_energy(W), rel=1e-12)
    norms = np.linalg.norm(W, axis=1)
    assert values["norm_ratio"] == pytest.approx(norms[1] / norms[0], rel=1e-12)


def test_a_head_that_is_not_affine_has_the_accuracy_of_its_outputs(tmp_path):
    net = nets.mlp(K=4)
    net[-1] = nets.CosineHead(10, 4)
    data = nets.vectors(COUNTS, spread=3.0)
    probe = Probe(samples_per_class=None, batch_size=9)
    callback = MinorityCollapse(RARE, probe=probe, figures=False)
    module = nets.Classifier(net, freeze=0)
    assert told(tmp_path, [callback], DataLoader(data, 10), module) == []
    assert undefined(callback) == set()
    x, y = data.tensors
    with torch.no_grad():
        right = (net.eval()(x).argmax(1) == y).double()
    expected = torch.stack([right[y == k].mean() for k in RARE]).mean()
    assert last_values(callback)["minority_accuracy"] == pytest.approx(float(expected), rel=1e-9)


def merged():
    """A network whose rows for the rare classes have merged."""
    net = nets.mlp(K=4)
    with torch.no_grad():
        net[-1].weight[3] = 2 * net[-1].weight[2]
    return nets.Classifier(net, freeze=0)


def test_rare_classes_that_have_merged_are_told_of_once_in_a_run(tmp_path):
    callback = MinorityCollapse(figures=False)
    for _ in range(2):
        (text,) = told(tmp_path, [callback], module=merged())
        assert "MinorityCollapse on 'train': the classifier rows of 2 minority classes" in text
    assert callback.history[0].values["minority/train/cos_weights"] == pytest.approx(1, abs=1e-12)
    for options in ({"module": merged()}, {}):
        quiet = MinorityCollapse(merged_above=1.01 if options else 0.95, figures=False)
        assert told(tmp_path, [quiet], **options) == []


@pytest.mark.slow
def test_wandb_is_sent_an_alert_once(tmp_path, offline):
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    callbacks = [MinorityCollapse(merged_above=-1.0, figures=False), NeuralCollapse(figures=False)]
    (text,) = told(tmp_path, callbacks, logger=logger, module=merged())
    logger.experiment.finish()
    ((title, sent),) = records.wandb_alerts(tmp_path)
    assert title == "minority classes have merged"
    assert text == sent
    assert "mean cosine of 1.000" in sent


@pytest.mark.slow
def test_wandb_is_sent_no_alert_below_the_threshold(tmp_path, offline):
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    assert told(tmp_path, [MinorityCollapse(figures=False)], logger=logger) == []
    logger.experiment.finish()
    assert records.wandb_alerts(tmp_path) == []


def long_tail(K):
    return tuple(max(3, round(60 * 0.75**k)) for k in range(K))


FIGURES = {
    "3 classes": (3, {}),
    "10 classes": (10, {}),
    "40 classes": (40, {}),
    "unknown counts": (10, {"minority": (8, 9)}),
    "classes without samples": (5, {"class_counts": (30, 20, 10, 0, 0)}),
}


@pytest.mark.parametrize("case", FIGURES)
def test_figures_are_drawn(case, tmp_path):
    K, options = FIGURES[case]
    data = mixed(long_tail(K))
    sampler = oversampling(data) if case == "unknown counts" else RandomSampler(data)
    callback = MinorityCollapse(**({"minority": (1, 2)} | options))
    loader = DataLoader(data, 10, sampler=sampler, drop_last=True)
    module = nets.Classifier(nets.mlp(K=K), freeze=0)
    run(tmp_path, [callback], loader, module, logger=CSVLogger(tmp_path))
    assert callback.failures == 0
    for tag in ("minority/train/cosines", "minority/train/norms"):
        (folder,) = tmp_path.rglob(tag)
        files = sorted(folder.iterdir())
        assert len(files) == 3
        assert all(0.01 < imread(file).std() < 1 for file in files)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_the_same_bit_by_bit(workers, tmp_path):
    callback = MinorityCollapse(minority=[1, 2])
    expected = nets.train_and_trace(tmp_path, workers=workers, logger=CSVLogger(tmp_path))
    trace = nets.train_and_trace(tmp_path, [callback], workers=workers, logger=CSVLogger(tmp_path))
    assert nets.difference(trace, expected) is None
    assert counted(callback) == [[16, 12, 12]] * 3


def test_training_on_oversampled_classes_is_the_same_bit_by_bit(tmp_path):
    def data():
        data = mixed(COUNTS)
        loader = DataLoader(data, 10, sampler=oversampling(data))
        return {"train_dataloaders": loader, "val_dataloaders": DataLoader(mixed(COUNTS), 10)}

    callback, options = MinorityCollapse(), {"accumulate_grad_batches": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_untouched(
            tmp_path,
            callback,
            data=data,
            module=network,
            **options,
        )
    assert len(callback.history) == 3
