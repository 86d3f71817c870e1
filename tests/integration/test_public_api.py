"""The library as a new user meets it in a notebook: what is tried first works, or says why not."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import keras_unet
from keras_unet.backend import keras, tf
from keras_unet.data.normalization import Normalization

NETWORK = keras_unet.Architecture(depth=1, base_filters=4)
TILE = 60
FUNCTIONS = [name for name in keras_unet.__all__ if inspect.isfunction(getattr(keras_unet, name))]


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Any], list[Any]]:
    """Images of 16 bits and their label images, of different sizes."""
    pairs = [keras_unet.draw_cells(seed, size=(80, 70 + seed), cells=6) for seed in range(3)]
    images = [np.rint(1000 * image).astype(np.uint16) for image, _ in pairs]
    return images, [labels for _, labels in pairs]


def network() -> Any:
    keras.utils.set_random_seed(0)
    return keras_unet.build_unet((None, None, 1), depth=1, base_filters=4)


def tiles(drawn: tuple[list[Any], list[Any]], **options: Any) -> Any:
    options = {"tile_size": TILE, "architecture": NETWORK, **options}
    return keras_unet.tile_dataset(*drawn, **options)


class TestPaths:
    """Every public function takes text for a path."""

    def test_a_run_is_trained_predicted_scored_and_loaded(self, cells, tmp_path):
        run, out = str(tmp_path / "run"), str(tmp_path / "predicted")
        options = keras_unet.TrainingOptions(steps=2, depth=1, base_filters=4)
        keras_unet.train(str(cells), run=run, options=options)
        images = str(cells / "images")
        assert len(keras_unet.predict_files(run, images, out)) == 4
        scores = keras_unet.evaluate_folders(out, str(cells), json=str(tmp_path / "a.json"))
        assert len(scores.rows) == 4
        assert (tmp_path / "a.json").is_file()
        assert keras_unet.load(run).info.architecture.depth == 1

    def test_a_run_is_exported_in_every_format(self, trained, tmp_path):
        for name in ("served", "a.tflite", "a.onnx"):
            made = keras_unet.export_model(str(trained), str(tmp_path / name), tile_size=60)
            assert made.exists()
        assert keras_unet.load(str(tmp_path / "a.tflite")).info.architecture.depth == 1

    def test_a_model_is_trained(self, drawn, tmp_path):
        initial = keras_unet.Segmenter.from_model(network())
        run = str(tmp_path / "run")
        keras_unet.train(tiles(drawn), initial=initial, run=run, steps=2)
        assert (tmp_path / "run" / "best.keras").is_file()


class TestFit:
    """Keras' own `fit` with the data set, the losses and the metrics."""

    def expected(self, model: Any, drawn: Any) -> tuple[float, float]:
        """Accuracy and mean IoU over the pixels of two tiles, by NumPy."""
        confusion = np.zeros((2, 2))
        for image, y_true in tiles(drawn).take(2):
            found = np.argmax(model(image), axis=-1)
            counted = y_true[..., 1].numpy() != 0
            np.add.at(confusion, (y_true[..., 0].numpy()[counted].astype(int), found[counted]), 1)
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion)
        return np.trace(confusion) / confusion.sum(), float(np.mean(np.diag(confusion) / union))

    def test_metrics_beside_the_channel_of_weights_are_true(self, drawn):
        model = network()
        metrics = [keras_unet.PixelAccuracy(), keras_unet.MeanIoU(2)]
        model.compile(loss=keras_unet.WeightedCrossEntropy(), metrics=metrics)
        found = model.evaluate(tiles(drawn), steps=2, verbose=0, return_dict=True)
        accuracy, iou = self.expected(model, drawn)
        assert found["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-6)
        assert found["mean_iou"] == pytest.approx(iou, abs=1e-6)

    def test_keras_loss_of_sample_weights_is_the_same(self, drawn):
        model = network()
        model.compile(loss=keras_unet.WeightedCrossEntropy())
        ours = model.evaluate(tiles(drawn), steps=2, verbose=0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, weighted_metrics=["accuracy"])
        batches = tiles(drawn, weights="sample_weight")
        theirs = model.evaluate(batches, steps=2, verbose=0, return_dict=True)
        assert theirs["loss"] == pytest.approx(ours, rel=1e-6)
        assert 0 < theirs["accuracy"] < 1

    def test_a_compiled_model_loads_with_its_metrics(self, tmp_path):
        model = network()
        metrics = [keras_unet.PixelAccuracy(), keras_unet.MeanIoU(2)]
        model.compile("sgd", keras_unet.WeightedCrossEntropy(), metrics=metrics)
        model.save(tmp_path / "a.keras")
        assert keras.models.load_model(tmp_path / "a.keras").loss.name == "weighted_cross_entropy"

    def test_metrics_refuse_labels_without_weights(self):
        for metric in (keras_unet.PixelAccuracy(), keras_unet.MeanIoU(2)):
            with pytest.raises(ValueError, match=r'tile_dataset.*weights="channel"'):
                metric.update_state(np.zeros((1, 4, 4)), np.zeros((1, 4, 4, 2)))

    def test_fast_gradients_learn_what_the_model_would(self, drawn):
        plain, given = network(), network()
        fast = keras_unet.with_fast_gradients(given)
        for model in (plain, fast):
            model.compile(keras.optimizers.SGD(0.01), keras_unet.WeightedCrossEntropy())
            keras.utils.set_random_seed(1)
            model.fit(tiles(drawn), steps_per_epoch=3, shuffle=False, verbose=0)
        for one, other in zip(plain.weights, given.weights, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)

    def test_fast_gradients_leave_other_layers_as_they_are(self):
        image = keras.Input((16, 16, 128))
        conv = keras.layers.Conv2D(128, 3, strides=2, use_bias=False)
        up = keras.layers.Conv2DTranspose(4, 3, strides=2, padding="same")
        dilated = keras.layers.Conv2D(128, 3, dilation_rate=2, groups=2)
        model = keras.Model(image, up(conv(dilated(image))))
        tile = np.random.default_rng(0).normal(size=(1, 16, 16, 128)).astype(np.float32)
        fast = keras_unet.with_fast_gradients(model)
        np.testing.assert_array_equal(fast(tile), model(tile))


class TestAugmentation:
    def test_none_gives_plain_tiles(self, drawn):
        (batch,) = tiles(drawn, augmentation=None).take(1)
        values = np.concatenate([Normalization("image").apply(i[..., None]) for i in drawn[0]], 1)
        assert np.isin(np.float32(batch[0][0, 20:40, 20:40]), np.float32(values)).all()

    def test_a_function_varies_image_and_labels(self, drawn):
        seen = []

        def mirror(image: Any, labels: Any) -> Any:
            seen.append((image.shape, labels.shape, labels.dtype))
            return image[:, ::-1], labels[:, ::-1]

        same = list(tiles(drawn, augmentation=lambda image, labels: (image, labels)).take(4))
        mirrored = list(tiles(drawn, augmentation=mirror).take(4))
        assert set(seen) == {((TILE, TILE, 1), (TILE, TILE), np.dtype(np.int32))}
        for (image, y_true), (turned, y_turned) in zip(same, mirrored, strict=True):
            np.testing.assert_array_equal(image[:, :, ::-1], turned)
            np.testing.assert_allclose(y_true[:, :, ::-1], y_turned, atol=1e-5)

    def test_an_identity_gives_the_plain_tiles(self, drawn):
        plain = tiles(drawn, augmentation=None).take(4)
        same = tiles(drawn, augmentation=lambda image, labels: (image, labels)).take(4)
        for (image, y_true), (other, y_other) in zip(plain, same, strict=True):
            np.testing.assert_allclose(image, other, atol=1e-5)
            np.testing.assert_array_equal(y_true[..., 0], y_other[..., 0])

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda image, _: image, "of unchanged shapes.*Received"),
            (lambda image, labels: (image[1:], labels), r"\(60, 60, 1\) and \(60, 60\)"),
            (lambda image, labels: (image, labels * 0.5), "labels of whole numbers"),
            (lambda image, labels: (image + np.nan, labels), "3600 grey values that are NaN"),
        ],
    )
    def test_what_a_function_must_not_return_is_refused(self, drawn, function, message):
        with pytest.raises(ValueError, match=message):
            tiles(drawn, augmentation=function)

    def test_weight_maps_do_not_follow_a_function(self, drawn):
        maps = [np.ones(labels.shape, np.float32) for labels in drawn[1]]
        with pytest.raises(ValueError, match="weight_maps must be None"):
            tiles(drawn, augmentation=lambda *pair: pair, weight_maps=maps)


class TestTileDataset:
    def test_figure_1_is_the_default(self, drawn):
        (batch,) = keras_unet.tile_dataset(*drawn).take(1)
        assert [tuple(one.shape) for one in batch] == [(1, 572, 572, 1), (1, 388, 388, 2)]

    def test_weights_are_those_of_equation_2(self, drawn):
        maps = [np.full(labels.shape, 7, np.float32) for labels in drawn[1]]
        (given,) = tiles(drawn, weight_maps=maps).take(1)
        np.testing.assert_array_equal(given[1][..., 1], 7)
        (own,) = tiles(drawn).take(1)
        assert float(tf.reduce_max(own[1][..., 1])) > 1

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            ([np.zeros((9, 9))], [], "equal number"),
            ([np.zeros(9)], [np.zeros((9, 9), int)], r"must be of shape \(height, width\)"),
            ([np.zeros((9, 9))], [np.eye(8, dtype=int)], r"labels\[0\]: expected 9 x 9 pixels"),
            ([np.zeros((9, 9))], [np.eye(9) / 2], r"labels\[0\]: .*whole numbers"),
            ([np.full((9, 9), np.nan)], [np.eye(9, dtype=int)], r"images\[0\]: 81 of 81 pixels"),
        ],
    )
    def test_arrays_that_do_not_go_together_are_refused(self, images, labels, message):
        with pytest.raises(ValueError, match=message):
            keras_unet.tile_dataset(images, labels)

    def test_an_unknown_word_is_refused(self, drawn):
        with pytest.raises(ValueError, match='weights must be "channel" or "sample_weight"'):
            tiles(drawn, weights="map")


class TestPrediction:
    def test_whole_numbers_are_refused_or_normalized_by_name(self, drawn):
        image, model = drawn[0][0], network()
        with pytest.raises(ValueError, match=r'image of uint16.*|normalization="image"'):
            keras_unet.predict_image(model, image)
        by_name = keras_unet.predict_image(model, image, normalization="image")
        pixels = Normalization("image").apply(image[..., None])
        np.testing.assert_array_equal(by_name, keras_unet.predict_image(model, pixels))
        fixed = Normalization("dataset", (500.0,), (100.0,))
        by_numbers = keras_unet.predict_image(model, image, normalization=fixed)
        np.testing.assert_array_equal(
            by_numbers, keras_unet.predict_image(model, fixed.apply(image[..., None]))
        )


class TestHelp:
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_signatures_are_readable(self, name):
        signature = inspect.signature(getattr(keras_unet, name))
        shown = str(signature)
        assert signature.return_annotation not in ("Any", inspect.Signature.empty), shown
        assert " at 0x" not in shown, shown

    def test_a_network_is_a_keras_model(self):
        assert inspect.signature(keras_unet.build_unet).return_annotation == "keras.Model"


def test_a_model_of_a_notebook_is_saved_exported_and_predicts_files(cells, tmp_path):
    segmenter = keras_unet.Segmenter.from_model(network(), normalization="image")
    segmenter.save(tmp_path / "run")
    made = keras_unet.export_model(segmenter, tmp_path / "a.tflite")
    assert made.is_file()
    assert keras_unet.predict_files(tmp_path / "run", cells / "images", tmp_path / "out")


def test_arrays_train_a_model_that_others_start_from(drawn):
    first = keras_unet.train(*drawn, steps=2, depth=1, base_filters=4)
    second = keras_unet.train(*drawn, steps=2, initial=first)
    assert second.info.architecture == first.info.architecture
    assert second.segment(drawn[0][0]).shape == drawn[0][0].shape
