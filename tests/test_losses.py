"""The weighted cross-entropy against NumPy in double precision."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from keras_unet.architecture import OFFSETS
from keras_unet.backend import keras, tf
from keras_unet.losses import AffinityCrossEntropy, WeightedCrossEntropy
from keras_unet.model import build_unet


def reference(y_true, logits):
    """Minus w(x) log p_l(x)(x) of each pixel, equation 1, written out."""
    logits = logits.astype(np.float64)
    labels, weights = y_true[..., 0].astype(int), y_true[..., 1].astype(np.float64)
    log_probabilities = logits - logsumexp(logits, axis=-1, keepdims=True)
    picked = np.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]
    return -weights * picked


def draw(seed, shape=(2, 5, 4), classes=3, scale=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=shape)
    weights = rng.uniform(0, 12, size=shape)
    logits = rng.normal(scale=scale, size=(*shape, classes)).astype(np.float32)
    return np.stack([labels, weights], axis=-1).astype(np.float32), logits


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999),
    classes=st.integers(2, 5),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
)
def test_each_pixel_is_numpys(seed, classes, scale):
    y_true, logits = draw(seed, classes=classes, scale=scale)
    loss = WeightedCrossEntropy(reduction="none")(y_true, logits)
    assert loss.dtype == "float32"
    np.testing.assert_allclose(loss, reference(y_true, logits), rtol=2e-6, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999), size=st.sampled_from([(1, 1), (8, 30), (30, 29)]))
def test_affinities_of_all_pairs_count_equally(seed, size):
    height, width = size  # few sizes, because the loss is compiled for each
    rng = np.random.default_rng(seed)
    labels, objects = rng.integers(0, 2, (1, height, width)), rng.integers(0, 3, (1, height, width))
    weights = rng.integers(0, 3, (1, height, width))
    y_true = np.stack([labels, weights, objects], axis=-1).astype(np.float32)
    logits = rng.normal(size=(1, height, width, 2 + len(OFFSETS))).astype(np.float32)
    expected = reference(y_true, logits[..., :2])
    losses, pairs = np.zeros(expected.shape), 0
    for (down, right), scores in zip(OFFSETS, np.moveaxis(logits[0, ..., 2:], -1, 0), strict=True):
        for row, column in np.ndindex(height, width):
            other = row + down, column + right
            if not (0 <= other[0] < height and 0 <= other[1] < width):
                continue
            if weights[0][row, column] and weights[0][other]:
                same = objects[0][row, column] == objects[0][other] > 0
                score = float(scores[row, column])
                losses[0, row, column] += np.logaddexp(0, -score if same else score)
                pairs += 1
    expected = expected.mean() + losses.sum() / max(pairs, 1)
    np.testing.assert_allclose(AffinityCrossEntropy()(y_true, logits), expected, rtol=1e-5)


def test_affinities_need_objects():
    y_true, logits = draw(0)
    with pytest.raises(ValueError, match=r"y_true must have three channels.*Received.*2\)"):
        AffinityCrossEntropy()(y_true, np.zeros((*logits.shape[:-1], 14), np.float32))


def test_logits_of_ten_thousand_are_safe_and_so_are_their_gradients():
    y_true = np.array([[[[0, 2.0], [1, 2.0]]]], np.float32)
    logits = tf.constant([[[[1e4, -1e4], [1e4, -1e4]]]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = WeightedCrossEntropy(reduction="none")(y_true, logits)
    np.testing.assert_array_equal(loss, [[[0, 4e4]]])
    np.testing.assert_array_equal(tape.gradient(loss, logits), [[[[0, 0], [2, -2]]]])


@pytest.mark.parametrize(
    ("reduction", "reduce"),
    [("sum_over_batch_size", np.mean), ("sum", np.sum), ("none", np.asarray)],
)
def test_reductions(reduction, reduce):
    y_true, logits = draw(3)
    loss = WeightedCrossEntropy(reduction=reduction)(y_true, logits)
    np.testing.assert_allclose(loss, reduce(reference(y_true, logits)), rtol=1e-5)


def test_the_default_is_the_mean_over_the_pixels():
    y_true, logits = draw(4)
    assert float(WeightedCrossEntropy()(y_true, logits)) == pytest.approx(
        reference(y_true, logits).mean(), rel=1e-5
    )


@pytest.mark.parametrize("label", [0, 1, 255, -1])
def test_a_pixel_of_weight_zero_takes_no_part_whatever_its_label(label):
    y_true, logits = draw(5)
    y_true[:, 1:3] = label, 0
    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = WeightedCrossEntropy(reduction="sum")(y_true, logits)
    others = np.delete(y_true, (1, 2), axis=1), np.delete(logits.numpy(), (1, 2), axis=1)
    assert float(loss) == pytest.approx(reference(*others).sum(), rel=1e-5)
    gradient = tape.gradient(loss, logits).numpy()
    assert not gradient[:, 1:3].any()
    assert (gradient[:, [0, 3, 4]] != 0).all()


def test_the_gradient_is_the_weight_times_softmax_minus_one_hot():
    y_true, logits = draw(6)
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        loss = WeightedCrossEntropy(reduction="sum")(y_true, variable)
    probabilities = np.exp(logits - logsumexp(logits, axis=-1, keepdims=True))
    one_hot = np.eye(3)[y_true[..., 0].astype(int)]
    expected = y_true[..., 1:] * (probabilities - one_hot)
    np.testing.assert_allclose(tape.gradient(loss, variable), expected, atol=1e-5)


def test_half_precision_logits_are_weighed_in_float32():
    y_true, logits = draw(7)
    halved = tf.cast(logits, "bfloat16")
    loss = WeightedCrossEntropy(reduction="none")(y_true, halved)
    assert loss.dtype == "float32"
    exact = reference(y_true, tf.cast(halved, "float32").numpy())
    np.testing.assert_allclose(loss, exact, rtol=2e-6, atol=1e-5)


def test_labels_and_weights_may_be_whole_numbers():
    y_true, logits = draw(8)
    whole = np.round(y_true).astype(np.int32)
    loss = WeightedCrossEntropy(reduction="none")(whole, logits)
    np.testing.assert_allclose(loss, reference(whole, logits), rtol=2e-6, atol=1e-5)


def test_serialisation_keeps_every_setting():
    loss = WeightedCrossEntropy(reduction="sum", name="energy")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is WeightedCrossEntropy
    assert again.get_config() == loss.get_config()
    assert loss.get_config() == {"name": "energy", "reduction": "sum", "dtype": "float32"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    keras.utils.set_random_seed(1)
    model = build_unet((20, 20, 1), depth=1, base_filters=2)
    model.compile("sgd", loss=WeightedCrossEntropy())
    image = np.random.default_rng(0).normal(size=(3, 20, 20, 1)).astype(np.float32)
    y_true, _ = draw(9, shape=(3, 4, 4), classes=2)
    path = tmp_path_factory.mktemp("saved") / "compiled.keras"
    model.save(path)
    return model, image, y_true, path


def test_a_compiled_model_is_saved_and_loaded_with_its_loss(compiled):
    model, image, y_true, path = compiled
    loaded = keras.models.load_model(path)
    assert type(loaded.loss) is WeightedCrossEntropy
    expected = reference(y_true, model(image).numpy()).mean()
    assert loaded.evaluate(image, y_true, verbose=0) == pytest.approx(expected, rel=1e-4)


def test_fit_lowers_the_loss(compiled):
    *_, image, y_true, path = compiled
    model = keras.models.load_model(path)
    before = model.evaluate(image, y_true, verbose=0)
    model.fit(image, y_true, epochs=5, verbose=0)
    assert model.evaluate(image, y_true, verbose=0) < before


def test_a_compiled_model_loads_as_the_docstring_says(compiled):
    program = (
        "import sys, keras\n"
        "print(keras.models.load_model(sys.argv[1], compile=False).name)\n"
        "from keras_unet import WeightedCrossEntropy\n"
        "print(keras.models.load_model(sys.argv[1]).loss.name)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, compiled[-1]], capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["unet", "weighted_cross_entropy"], result.stderr


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 4, 4, 1), (1, 4, 4, 3)])
def test_y_true_must_carry_label_and_weight(shape):
    with pytest.raises(ValueError, match=r"^y_true must have two channels, .*Received: ") as error:
        WeightedCrossEntropy().call(np.zeros(shape), np.zeros((1, 4, 4, 2)))
    assert str(error.value).endswith(f"y_true.shape={shape}")
