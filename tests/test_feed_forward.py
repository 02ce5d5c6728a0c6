"""The networks, data and kept trainings of the examples on the law of equi-separation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_nc.functional import separation_fuzziness


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def equal(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_half_of_the_layers_are_fixed_while_the_others_are_trained(example):
    feed_forward = example("feed_forward")
    from example_setup import train_quietly

    setting = feed_forward.Setting(layers=4, data="digits", bottom_first=2)
    data = example("image_sets").training_images("digits", 20, 0, Path())
    network = feed_forward.FeedForward(setting, pixels=64)
    bottom, top = network.hidden[:3], torch.nn.ModuleList([network.hidden[3], network.classifier])
    for alone in (True, False):
        before = weights(bottom), weights(top)
        network.train_bottom(alone)
        train_quietly(network, feed_forward.whole_batches(data, 128), 1, [])
        assert equal(weights(bottom), before[0]) is not alone
        assert equal(weights(top), before[1]) is alone


def test_D_of_imbalanced_data_weights_samples(example):
    feed_forward = example("feed_forward")
    per_class = (40,) * 5 + (10,) * 5
    setting = feed_forward.Setting(layers=3, data="digits", per_class=per_class, epochs=1)
    (measured,) = feed_forward.train(setting, (1,))
    x, y = example("image_sets").training_images("digits", per_class, 0, Path()).tensors
    assert y.bincount().tolist() == list(per_class)
    assert measured["D"][0] == pytest.approx(float(separation_fuzziness(x.flatten(1), y)))


def test_digits_to_test_on_are_those_not_trained_on(example):
    sets = example("image_sets")
    trained = sets.training_images("digits", 100, 1, Path()).tensors[0]
    tested = sets.test_images("digits", 100, 1, Path()).tensors[0]
    assert len(trained) == 1000
    assert len(tested) == 797
    assert not (trained[:, None] == tested[None, :50]).flatten(2).all(2).any()


def test_the_green_channel_of_cifar_10_is_read(example, tmp_path):
    records = np.random.default_rng(0).integers(0, 256, (20, 3073), np.uint8)
    records[:, 0] = np.arange(20) % 10
    records[:, 1025:2049] = 51 * (records[:, :1] % 5)  # each image is plain green
    for number in range(1, 6):
        records.tofile(tmp_path / f"data_batch_{number}.bin")
    images, labels = example("image_sets").training_images("CIFAR-10", 5, 0, tmp_path).tensors
    assert images.shape == (50, 1, 10, 10)
    torch.testing.assert_close(images[:, 0, 0, 0], 0.4 * (labels % 5) - 1)
    with pytest.raises(SystemExit, match=r"test_batch.bin is missing"):
        example("image_sets").test_images("CIFAR-10", 5, 0, tmp_path)


@pytest.mark.parametrize("per_class", [3, (1, 3, 1), (1, 2, 0), (1, 2)])
def test_more_images_than_a_class_has_are_refused(example, per_class):
    labels = torch.tensor([0, 1, 1, 2, 2])
    most = "1" if per_class == 3 else r"\[1, 2, 2\]"
    with pytest.raises(SystemExit, match=f"from 1 to {most}, not"):
        example("fashion_mnist").choose(labels, per_class, 0)


def test_the_learning_rate_lies_between_those_of_the_paper(example):
    setting = example("feed_forward").Setting
    rates = [setting(layers).rate for layers in (3, 4, 6, 8, 12, 20, 30)]
    assert rates[:2] == [pytest.approx(3e-3), 3e-3]
    assert rates[3] == 1e-3
    assert rates[5:] == [3e-4, pytest.approx(3e-4)]
    assert rates[1] > rates[2] > rates[3] > rates[4] > rates[5]
    assert setting(6, learning_rate=0.5).rate == 0.5


def test_a_training_is_made_once_until_its_setting_or_code_changes(example, tmp_path, monkeypatch):
    trainings = example("trainings")
    made = []

    def train(setting, epochs, **options):
        made.append((setting, options))
        return [{"pearson_r": -1.0, "D": [2.0, 1.0]}]

    monkeypatch.setattr(trainings, "train", train)
    setting = trainings.Setting(data="digits", width=(5, 6))

    def ask(code="one", seed=0, **options):
        kept = trainings.Trainings(Path(), tmp_path, code)
        kept.of(replace(setting, seed=seed), (0, 1), **options)
        assert kept.of(replace(setting, seed=seed), (0, 1), **options)[0]["D"] == [2, 1]
        assert kept.made().startswith("2 at ")
        return len(made)

    asked = [ask(), ask(), ask(seed=1), ask(of_test_data=True), ask("two"), ask()]
    assert asked == [1, 1, 2, 3, 4, 4]
    assert trainings.digest_of_code() == trainings.digest_of_code()
