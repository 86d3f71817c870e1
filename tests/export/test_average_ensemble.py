"""Networks average_ensemble as one, against the mean of what each predicts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, precision_policy, tf
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.export.graph import GraphTiling, average_ensemble
from keras_unet.export.saved_model import write_graph
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image
from keras_unet.runs import Run

NETWORK = Architecture(depth=1, base_filters=2, channels=2, classes=3)
BY_IMAGE = Normalization("image")
RULES = [
    Normalization("dataset", (100.0, 7.0), (30.0, 0.0)),
    Normalization("dataset", (60.0, 7.5), (55.0, 0.25)),
    Normalization("dataset", (1000.0, 7.0), (9.0, 0.0)),
]


def networks(number=3, precision="float32", spread=1.0):
    """Drawn networks; with a large spread, of probabilities that are 0 or 1."""
    keras.utils.set_random_seed(3)
    with precision_policy(precision):
        drawn = [unet_of(NETWORK) for _ in range(number)]
    for network in drawn:
        layer = network.get_layer("logits")
        layer.set_weights([spread * weights for weights in layer.get_weights()])
    return drawn


def image(*size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 2)).astype(np.float32)
    pixels[..., 1] = 7 + (pixels[..., 1] > 99)
    return pixels


def mean_of(models, tiles):
    return np.mean([softmax(np.asarray(one(tiles)), axis=-1) for one in models], axis=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_its_softmax_is_the_mean_of_theirs(precision):
    models = networks(precision=precision)
    one = average_ensemble(models, [BY_IMAGE] * 3)
    tile = BY_IMAGE.apply(image(40, 36))[None]
    logits = one(tile)
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(softmax(logits, axis=-1), mean_of(models, tile), atol=1e-6)
    each = [softmax(np.asarray(model(tile)), axis=-1) for model in models]
    assert np.abs(each[0] - each[1]).max() > 0.1


def test_probabilities_of_0_and_1_have_finite_logits():
    models = networks(spread=1e4)
    tile = BY_IMAGE.apply(image(40, 36))[None]
    logits, expected = (
        np.asarray(average_ensemble(models, [BY_IMAGE] * 3)(tile)),
        mean_of(models, tile),
    )
    assert (expected == 0).any()
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(softmax(logits, axis=-1), expected, atol=1e-6)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
def test_each_has_grey_values_as_in_its_own_training(order):
    """Numbers of the data set differ from fold to fold; a channel may be constant in one."""
    models, rules = networks(), [RULES[place] for place in order]
    raw = image(40, 36)
    answer = softmax(average_ensemble(models, rules)(rules[0].apply(raw)[None]), axis=-1)
    each = [
        softmax(np.asarray(model(rule.apply(raw)[None])), axis=-1)
        for model, rule in zip(models, rules, strict=True)
    ]
    np.testing.assert_allclose(answer, np.mean(each, axis=0), atol=1e-5)
    alike = mean_of(models, rules[0].apply(raw)[None])
    assert np.abs(answer - alike).max() > 0.01  # or the test would show nothing


def test_one_network_stays_what_it_is():
    (model,) = networks(1)
    assert average_ensemble([model], [BY_IMAGE]) is model


def test_in_a_frozen_graph_of_half_precision(tmp_path):
    """The mean is float32 there, and grey values are, until each network's first convolution."""
    models = networks(precision="bfloat16")
    run = Run(
        folder=tmp_path,
        architecture=NETWORK,
        encoding=LabelEncoding("classes", (0, 1, 2)),
        normalization=RULES[0],
        precision="bfloat16",
        record={},
    )
    tiling = GraphTiling.of(NETWORK, 26)
    write_graph(tmp_path, run, average_ensemble(models, RULES), tiling, {}, frozen=True)
    raw = image(31, 12)
    loaded = tf.saved_model.load(str(tmp_path))
    answer = loaded.signatures["serving_default"](image=tf.constant(raw[None]))
    expected = [
        predict_image(model, rule.apply(raw), tile_size=26)
        for model, rule in zip(models, RULES, strict=True)
    ]
    np.testing.assert_allclose(answer["probabilities"][0], np.mean(expected, axis=0), atol=2e-2)
