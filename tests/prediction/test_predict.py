"""Stitched tiles against one call of the network on the whole image.

The whole image is padded by indices written out here: nothing of `tiling` is in the oracle.
"""

from __future__ import annotations

import tracemalloc
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, tf
from keras_unet.model import build_unet, unet_of
from keras_unet.prediction.predict import predict_image, predict_tiles
from keras_unet.tiling import Tiling

RECIPES = {
    "depth 1": Architecture(depth=1, base_filters=4),
    "depth 2": Architecture(depth=2, base_filters=3),
    "depth 3, RGB, batch": Architecture(
        depth=3, base_filters=2, channels=3, classes=3, norm_layer="batch"
    ),
    "depth 4": Architecture(depth=4, base_filters=2),
    "depth 2, same": Architecture(depth=2, base_filters=3, padding="same"),
    "depth 3, same, batch": Architecture(
        depth=3, base_filters=2, padding="same", norm_layer="batch"
    ),
}


@pytest.fixture(scope="module", params=RECIPES.values(), ids=RECIPES)
def model(request):
    return network(request.param)


@cache
def network(architecture, size=(None, None), seed=3):
    """Builds a network with biases and running statistics that matter, as after a training."""
    keras.utils.set_random_seed(seed)
    model = unet_of(architecture, size)
    for weight in model.weights:
        if weight.name in ("bias", "beta", "gamma", "moving_mean", "moving_variance"):
            weight.assign(weight + np.random.default_rng(seed).uniform(0, 0.5, weight.shape))
    return model


def draw(size, architecture, seed=0):
    shape = (*size, architecture.channels)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reflected(size, before, length):
    """Indices of a row mirrored at its first and last pixel, one by one."""
    indices = []
    for start in range(-before, length - before):
        position = start if size > 1 else 0
        while not 0 <= position < size:
            position = -position if position < 0 else 2 * (size - 1) - position
        indices.append(position)
    return indices


def one_shot(score, image, architecture):
    """Softmax of one call on the whole image, padded by the context and up to a size that fits."""
    context, skip = architecture.context, architecture.context - architecture.margin
    height, width = image.shape[:2]
    rows, columns = (
        reflected(size, context, architecture.fitting_size(size + 2 * context))
        for size in (height, width)
    )
    whole = image[rows][:, columns]
    logits = np.asarray(score(whole[None]), np.float64)[0]
    scores = np.exp(logits[skip : skip + height, skip : skip + width])
    return scores / scores.sum(-1, keepdims=True)


def arithmetic(architecture, phase=0):
    """Makes a network of plain arithmetic, which any wrong tile changes.

    Its logits are the largest pixel of the pooling block (right only on the lattice) and the two
    pixels at the far corners of the context (right only if all of it is read), zeros being what
    lies beyond the tile.
    """
    step, margin, context = architecture.step, architecture.margin, architecture.context

    def score(batch):
        image = batch[0, ..., 0]
        height, width = (architecture.output_size(size) for size in image.shape)
        rows, columns = ((size - phase) // step for size in image.shape)
        blocks = image[phase : phase + rows * step, phase : phase + columns * step]
        pooled = blocks.reshape(rows, step, columns, step).max((1, 3))
        upsampled = np.kron(pooled, np.ones((step, step)))[margin - phase :, margin - phase :]
        around = np.pad(image, context - margin)
        logits = (
            upsampled[:height, :width],
            around[:height, :width],
            around[2 * context :, 2 * context :],
        )
        return np.stack(logits, axis=-1)[None]

    return score


@st.composite
def plans(draw, architecture, largest=700, tiles=6):
    """Draws an image size, a tile size that covers it, and None for the default."""
    size = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    # A tile that takes more than `tiles` a side only costs time: the small images have them too.
    least = max(min(max(size), architecture.step), max(size) // tiles)
    useful = draw(st.integers(least, max(size) + 3 * architecture.step))
    tile = architecture.fitting_size(2 * architecture.context + useful)
    return size, draw(st.sampled_from([tile, tile, None]))


@settings(deadline=None, max_examples=80)
@given(data=st.data())
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_arithmetic_is_stitched_without_a_trace(padding, data):
    depth = data.draw(st.integers(1, 4))
    architecture = Architecture(depth=depth, classes=3, padding=padding)
    size, tile = data.draw(plans(architecture))
    phase = data.draw(st.integers(0, architecture.step - 1)) if padding == "valid" else 0
    score = arithmetic(architecture, phase)
    image = draw(size, architecture)
    stitched = predict_image(score, image, tile_size=tile, architecture=architecture)
    np.testing.assert_allclose(stitched, one_shot(score, image, architecture), atol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_tile_size_that_fits_gives_the_same(depth, padding):
    architecture = Architecture(depth=depth, classes=3, padding=padding)
    score = arithmetic(architecture)
    image = draw((45, 38), architecture)
    expected = one_shot(score, image, architecture)
    least = architecture.fitting_size(2 * architecture.context + architecture.step)
    for tile in range(least, least + 60, architecture.step):
        stitched = predict_image(score, image, tile_size=tile, architecture=architecture)
        np.testing.assert_allclose(stitched, expected, atol=1e-6, err_msg=f"tile_size={tile}")


def test_the_arithmetic_notices_a_tile_off_the_lattice():
    architecture = Architecture(depth=2, classes=3)
    score = arithmetic(architecture)
    image = draw((80, 80), architecture)
    shifted = one_shot(score, image[1:], architecture)
    assert np.abs(one_shot(score, image, architecture)[1:] - shifted)[30:40, 30:40].max() > 0.01


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_stitched_is_one_shot(model, data):
    architecture = Architecture.of(model)
    size, tile = data.draw(plans(architecture, largest=700 if architecture.depth < 4 else 300))
    image = draw(size, architecture)
    stitched = predict_image(model, image, tile_size=tile)
    assert (stitched.dtype, stitched.shape) == (np.float32, (*size, architecture.classes))
    expected = one_shot(lambda x: model(x, training=False), image, architecture)
    np.testing.assert_allclose(stitched, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (2, 3), (700, 700)])
def test_stitched_is_one_shot_at_the_extremes(size):
    model = network(RECIPES["depth 2"])
    image = draw(size, RECIPES["depth 2"])
    expected = one_shot(lambda x: model(x, training=False), image, RECIPES["depth 2"])
    for tile in (None, 236):
        stitched = predict_image(model, image, tile_size=tile)
        np.testing.assert_allclose(stitched, expected, rtol=0, atol=1e-5)


def test_scores_depend_on_the_image(model):
    """The equality above would be worth nothing if scores were constant."""
    architecture = Architecture.of(model)
    scores = predict_image(model, draw((60, 60), architecture))
    assert scores.std(axis=(0, 1)).min() > 1e-3


def test_an_image_beyond_the_largest_tile_is_predicted_in_several():
    model = network(Architecture(depth=1, base_filters=1))
    image = draw((1500, 40), Architecture())
    calls = []

    def counted(batch):
        calls.append(batch.shape)
        return model.predict_on_batch(batch)

    stitched = predict_image(counted, image, architecture=Architecture.of(model))
    assert len(calls) == 2
    expected = one_shot(lambda x: model(x, training=False), image, Architecture.of(model))
    np.testing.assert_allclose(stitched, expected, rtol=0, atol=1e-5)


def test_mirroring_does_not_repeat_the_edge_pixel():
    """A single bright pixel, one from the border, is seen again two beyond its neighbour."""
    architecture = Architecture(depth=1, classes=3)
    image = np.zeros((30, 30, 1), np.float32)
    image[1, 15] = 5
    scores = predict_image(arithmetic(architecture), image, architecture=architecture)
    # Logit 1 reads 8 rows up and 8 columns left: row 7 reads row -1, which mirrors row 1.
    assert np.flatnonzero(scores[:, 23, 1] > 0.9).tolist() == [7, 9]


@pytest.mark.parametrize("fixed", [(60, 52), (60, None)])
def test_a_network_of_fixed_input_size_predicts_any_image_by_tiles_of_it(fixed):
    architecture = RECIPES["depth 2"]
    anysize, model = network(architecture), network(architecture, fixed)
    for size in [(100, 90), (9, 61), (1, 1)]:
        image = draw(size, architecture)
        expected = one_shot(lambda x: anysize(x, training=False), image, architecture)
        np.testing.assert_allclose(predict_image(model, image), expected, rtol=0, atol=1e-5)


def test_one_tile_shape_an_image_and_few_traces_over_many_sizes():
    model = network(Architecture(depth=2, base_filters=1))
    rng = np.random.default_rng(0)
    for size in rng.integers(1, 90, size=(40, 2)):
        predict_image(model, draw(size, Architecture()), tile_size=None)
    for tile in (48, 52, 92):
        predict_image(model, draw((90, 30), Architecture()), tile_size=tile)
    # One for the first shape and one or two more until Keras leaves height and width open.
    assert model.predict_function.experimental_get_tracing_count() <= 4


def test_all_tiles_of_an_image_have_one_shape():
    architecture = Architecture(depth=2, classes=3)
    shapes = set()

    def score(batch):
        shapes.add(batch.shape)
        return arithmetic(architecture)(batch)

    predict_image(score, draw((101, 77), architecture), tile_size=60, architecture=architecture)
    assert shapes == {(1, 60, 60, 1)}


class Read:
    """An image that counts its reads and holds one row in memory, however high it is."""

    def __init__(self, *size):
        self.shape, self.row, self.reads = (*size, 1), np.arange(size[1], dtype=np.float32), 0

    def __getitem__(self, window):
        rows, columns = window
        self.reads += 1
        return np.repeat(self.row[None, columns, None], rows.stop - rows.start, axis=0)


@pytest.mark.parametrize("size", [(1, 1), (20, 21), (60, 90), (333, 30)])
def test_a_tile_is_read_once_and_scored_once(size):
    architecture, image, calls = Architecture(depth=2, classes=3), Read(*size), []
    score = arithmetic(architecture)
    tiling = Tiling.covering(size, architecture, (60, 60))
    written = np.zeros(size, int)
    for window, _ in predict_tiles(lambda x: calls.append(x) or score(x), image, tiling):
        written[window] += 1
    assert image.reads == len(calls) == len(tiling) == np.prod([-(-one // 20) for one in size])
    assert (written == 1).all()


def test_memory_is_that_of_a_tile_however_large_the_image():
    architecture = Architecture(depth=2, classes=3)
    score = arithmetic(architecture)

    def most_bytes(height):
        tiling = Tiling.covering((height, 40), architecture, (140, 140))
        tracemalloc.start()
        for _ in predict_tiles(score, Read(height, 40), tiling):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most_bytes(300)
    assert most_bytes(4000) < 1.2 * most_bytes(300)


@pytest.mark.parametrize("tile", [None, 60, 100])
def test_average_over_the_symmetries_turns_with_the_image(tile):
    architecture = RECIPES["depth 2"]
    model, image = network(architecture), draw((61, 90), architecture)
    average = predict_image(model, image, tile_size=tile, tta=True)
    versions = [np.rot90(predict_image(model, np.rot90(image, k)), -k) for k in range(4)]
    turned = [np.rot90(image[:, ::-1], k) for k in range(4)]
    versions += [np.rot90(predict_image(model, one), -k)[:, ::-1] for k, one in enumerate(turned)]
    np.testing.assert_allclose(average, np.mean(versions, axis=0), rtol=0, atol=1e-5)
    assert np.abs(average - predict_image(model, image)).max() > 1e-3
    for turn in (lambda x: x[:, ::-1], lambda x: x.swapaxes(0, 1), lambda x: np.rot90(x, 3)):
        turned = predict_image(model, turn(image), tile_size=tile, tta=True)
        np.testing.assert_allclose(turned, turn(average), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "bool", "float16", "float64"])
def test_numbers_of_any_kind_are_taken_as_float32(dtype):
    model = network(RECIPES["depth 1"])
    image = np.random.default_rng(0).integers(0, 2, size=(20, 23)).astype(dtype)
    before = image.copy()
    how = {"normalization": None if image.dtype.kind == "f" else "image"}
    scores = predict_image(model, image, **how)
    np.testing.assert_array_equal(scores, predict_image(model, image.astype(np.float32), **how))
    np.testing.assert_array_equal(image, before)


def test_lists_tensors_and_an_explicit_channel_axis_are_the_same_image():
    model = network(RECIPES["depth 1"])
    image = draw((9, 12), RECIPES["depth 1"])[..., 0]
    scores = predict_image(model, image)
    for same in (image[..., None], image.tolist(), tf.constant(image), np.asfortranarray(image)):
        np.testing.assert_array_equal(predict_image(model, same), scores)


def test_probabilities_are_softmax_even_of_large_logits():
    logits = np.array([1e4, -1e4, 9999.0])
    architecture = Architecture(depth=1, classes=3)

    def score(batch):
        height, width = (architecture.output_size(size) for size in batch.shape[1:3])
        return np.broadcast_to(logits, (1, height, width, 3))

    scores = predict_image(score, draw((5, 5), architecture), architecture=architecture)
    expected = np.broadcast_to([1 / (1 + np.exp(-1)), 0, 1 / (1 + np.exp(1))], (5, 5, 3))
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_half_precision_logits_become_float32_probabilities():
    architecture = RECIPES["depth 1"]
    model = network(architecture)
    image = draw((7, 8), architecture)
    halved = predict_image(
        lambda batch: tf.cast(model(batch), "bfloat16"), image, architecture=architecture
    )
    assert halved.dtype == np.float32
    np.testing.assert_allclose(halved.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(halved, predict_image(model, image), atol=0.02)


def test_dropout_is_off():
    model = network(Architecture(depth=1, base_filters=2, dropout=0.9))
    image = draw((30, 20), Architecture())
    np.testing.assert_array_equal(predict_image(model, image), predict_image(model, image))


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((5, 5), 3), ((5, 5, 3), 1), ((5,), 1), ((1, 5, 5, 1), 1), ((0, 5), 1), ((5, 0, 1), 1)],
)
def test_a_shape_that_does_not_suit_the_network(shape, channels):
    architecture = Architecture(depth=1, channels=channels)
    with pytest.raises(ValueError, match="image") as refusal:
        predict_image(arithmetic(architecture), np.zeros(shape), architecture=architecture)
    assert str(refusal.value) == (
        f"image must be (height, width, channels) with channels={channels} and at least one pixel. "
        f"Received: shape={shape}"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_pixels_that_are_not_finite(bad):
    image = np.zeros((6, 6))
    image[2, 3:5] = bad
    with pytest.raises(ValueError, match="image") as refusal:
        predict_image(network(RECIPES["depth 1"]), image)
    assert str(refusal.value) == (
        "image must hold finite float32 numbers. Received: 2 values that are NaN or infinite"
    )


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (
            0,
            (
                'tile_size must be 4k and at least 44 for depth=2 and padding="valid". '
                "Received: 0; the nearest that fits is 44"
            ),
        ),
        (
            63,
            (
                'tile_size must be 4k and at least 44 for depth=2 and padding="valid". '
                "Received: 63; the nearest that fit are 60 and 64"
            ),
        ),
    ],
)
def test_a_tile_that_does_not_fit(tile, message):
    with pytest.raises(ValueError, match="tile_size") as refusal:
        predict_image(network(RECIPES["depth 2"]), np.zeros((9, 9)), tile_size=tile)
    assert str(refusal.value) == message


def test_a_tile_that_fits_the_network_but_not_the_lattice():
    model = build_unet((188, 188, 1), base_filters=1)
    with pytest.raises(ValueError, match=r"^tile_size must be at least 204 for .* Received: 188;"):
        predict_image(model, np.zeros((30, 30)))


def test_another_tile_than_the_fixed_one():
    model = network(RECIPES["depth 2"], (60, 52))
    with pytest.raises(ValueError, match="tile_size") as refusal:
        predict_image(model, np.zeros((9, 9)), tile_size=60)
    assert str(refusal.value) == (
        "tile_size must be left out or be 60 x 52, for which the network was built. Received: 60; "
        "a network of input_shape=(None, None, channels) takes any that fits"
    )


def test_a_model_that_build_unet_has_not_made_needs_its_architecture():
    with pytest.raises(ValueError, match=r"^model must be a network of build_unet, .*architecture"):
        predict_image(lambda batch: batch, np.zeros((9, 9)))


def test_logits_of_another_shape_than_the_architecture_says():
    architecture = Architecture(depth=2, classes=3)
    with pytest.raises(ValueError, match="model") as refusal:
        predict_image(
            lambda batch: batch, np.zeros((9, 9)), tile_size=60, architecture=architecture
        )
    assert str(refusal.value) == (
        "model must give logits of shape (1, 20, 20, 3) for a tile of (60, 60) pixels. Received: "
        f"(1, 60, 60, 1); is architecture={architecture} the model's?"
    )


def test_logits_that_are_not_finite():
    model = unet_of(RECIPES["depth 1"])
    model.get_layer("logits").bias.assign([np.nan, 0])
    with pytest.raises(ValueError, match="model") as refusal:
        predict_image(model, np.zeros((2, 2)))
    assert str(refusal.value) == (
        "model must give finite logits. Received: 4 that are NaN or infinite, from a finite image; "
        "its weights are damaged, or its numbers exceed the range of its precision"
    )
