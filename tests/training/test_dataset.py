from dataclasses import replace

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.data.samples import read_samples
from keras_unet.data.standardisation import Standardisation
from keras_unet.training.dataset import Parts, training_batches, training_image, weight_maps
from keras_unet.training.options import SettledOptions
from keras_unet.training.targets import Target

OPTIONS = SettledOptions(steps=2, depth=1, tile=60, validation=("c1",), precision="float32")


def test_parts_are_those_that_the_options_say(cells):
    parts = Parts.of(read_samples(cells), OPTIONS)
    assert parts.names == {"training": ["c0", "c2", "c3"], "validation": ["c1"]}
    assert parts.pixels == 3 * 96**2


def test_patience_needs_images_held_out(cells):
    samples = read_samples(cells)
    alone = replace(samples, samples=samples.samples[:1])
    with pytest.raises(ValueError, match=r"Received: 1 image in all, none of them held out"):
        Parts.of(alone, replace(OPTIONS, validation=0.2, patience=3))


@pytest.mark.parametrize("balance", [True, False])
def test_weights_follow_the_options(cells, tmp_path, balance):
    samples = read_samples(cells)
    targets = [Target.of(one, samples.scheme) for one in samples.samples]
    options = replace(OPTIONS, class_balance=balance, border_weight=0.0)
    weights = weight_maps(tmp_path, targets, 2, options).of(targets[0])
    assert (len(np.unique(weights)) == 2) == balance


def test_batches_go_on_where_they_are_asked_to(cells, tmp_path):
    samples = read_samples(cells)
    targets = [Target.of(one, samples.scheme) for one in samples.samples]
    weights = weight_maps(tmp_path, targets, 2, OPTIONS)
    images = [training_image(one, Standardisation("image"), weights) for one in targets]
    assert images[0].image.mean() == pytest.approx(0, abs=1e-4)
    network = Architecture(depth=1, base_filters=2)
    third = list(training_batches(images, network, OPTIONS).take(3))[2]
    (later,) = training_batches(images, network, OPTIONS, 2).take(1)
    np.testing.assert_array_equal(third[0], later[0])
    assert third[1].shape == (1, 44, 44, 2)
