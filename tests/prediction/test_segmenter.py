"""One object for a run, an ensemble, a .tflite file and a Keras model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy.special import rel_entr

import keras_unet
from keras_unet.backend import keras, precision_policy, tf
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import read_planes
from keras_unet.data.normalization import Normalization
from keras_unet.instances.label import InstanceOptions, label_instances
from keras_unet.model import build_unet
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.outputs import OutputOptions
from keras_unet.prediction.predict import SYMMETRIES, predict_image, undo_view
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import Ensemble, Run, is_ensemble


def network(classes=2, **numbers):
    keras.utils.set_random_seed(0)
    return build_unet((None, None, 1), classes, depth=1, base_filters=4, **numbers)


def grey(shape=(50, 70), seed=0):
    return np.random.default_rng(seed).integers(0, 2742, shape).astype(np.uint16)


@pytest.fixture
def c3(cells):
    return tifffile.imread(cells / "images" / "c3.tif")


@pytest.fixture(scope="module")
def ensemble(trained, tmp_path_factory):
    """Two copies of a run, the second with numbers of its own to normalize by."""
    folder = tmp_path_factory.mktemp("ensemble") / "two"
    record = Ensemble(folder, (("c3",), ("c0",)), {"steps": 40}, InstanceOptions(threshold=0.4))
    for fold, mean in zip(record.folds, (100.0, 60.0), strict=True):
        fold.mkdir(parents=True)
        run = Run.load(trained)
        normalization = Normalization("dataset", (mean,), (50.0,))
        replace(run, folder=fold, normalization=normalization).save()
        (fold / "best.keras").write_bytes((trained / "best.keras").read_bytes())
    record.save()
    return folder


def test_cells_are_measured(trained, c3):
    segmenter = load(trained)
    labels, probabilities = segmenter.segment(c3), segmenter.predict(c3)
    expected = keras_unet.measure_objects(
        labels, c3, probabilities=probabilities, pixel_size=0.5, classes=("background", "cell")
    )
    columns = segmenter.measure(c3, pixel_size=0.5)
    assert len(columns["number"]) == labels.max() > 2
    assert set(columns["class"]) == {"cell"}
    assert columns["mean_probability"].min() > 0.5
    assert list(columns) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(columns[name], column)
    large = segmenter.measure(c3, minimum_size=int(np.median(columns["area_px"])))
    assert 0 < len(large["number"]) < len(columns["number"])


class TestRun:
    def test_it_predicts_what_the_network_of_the_run_does(self, trained, c3):
        run = Run.load(trained)
        expected = predict_image(load_network(run), c3, normalization=run.normalization)
        np.testing.assert_array_equal(load(trained).predict(c3), expected)

    def test_it_labels_cells_by_the_options_of_the_run(self, trained, c3):
        segmenter = load(str(trained))
        foreground = segmenter.predict(c3)[..., 1]
        expected = label_instances(foreground, Run.load(trained).instances)
        np.testing.assert_array_equal(segmenter.segment(c3), expected)
        other = replace(Run.load(trained).instances, threshold=0.9, gap=0)
        found = segmenter.segment(c3, threshold=0.9, gap=0)
        np.testing.assert_array_equal(found, label_instances(foreground, other))
        np.testing.assert_array_equal(
            segmenter.with_instances(threshold=0.9, gap=0).segment(c3), found
        )

    def test_disagreement_is_that_of_its_views(self, trained, c3):
        segmenter, views = load(trained), []
        for mirrored, turns in SYMMETRIES:
            view = np.rot90(c3[::-1] if mirrored else c3, turns)
            views.append(undo_view(segmenter.predict(view), mirrored, turns))
        divergence = rel_entr(views, np.mean(views, axis=0)).sum(-1).mean() / np.log(2)
        assert divergence > 1e-4
        assert segmenter.disagreement(c3) == pytest.approx(divergence, rel=1e-3)
        assert segmenter.disagreement(c3[..., None], tile_size=60) == pytest.approx(
            divergence, rel=1e-3
        )

    def test_its_network_is_built_when_it_is_used(self, trained):
        segmenter = load(trained)
        assert segmenter.members[0].weights == trained / "best.keras"
        assert "network" not in vars(segmenter.members[0])
        assert segmenter.model is segmenter.members[0].network

    def test_a_copy_is_the_same_run_for_every_command(self, trained, c3, tmp_path):
        folder = load(trained).save(tmp_path / "copy")
        assert sorted(path.name for path in folder.iterdir()) == ["best.keras", "run.json"]
        assert (folder / "best.keras").read_bytes() == (trained / "best.keras").read_bytes()
        assert replace(Run.load(folder), folder=trained) == Run.load(trained)
        np.testing.assert_array_equal(load(folder).predict(c3), load(trained).predict(c3))

    def test_test_time_augmentation_turns_with_the_image(self, trained, c3):
        segmenter = load(trained)
        upright = segmenter.predict(c3, tta=True)
        turned = segmenter.predict(np.rot90(c3), tta=True)
        np.testing.assert_allclose(turned, np.rot90(upright), atol=1e-5)
        assert np.abs(upright - segmenter.predict(c3)).max() > 1e-4

    def test_an_ensemble_is_the_mean_of_its_folds(self, ensemble, c3, tmp_path):
        segmenter = load(ensemble)
        folds = [load(fold).predict(c3) for fold in Ensemble.load(ensemble).folds]
        assert np.abs(folds[0] - folds[1]).max() > 1e-3
        np.testing.assert_allclose(segmenter.predict(c3), np.mean(folds, axis=0), atol=1e-6)
        assert segmenter.info.name == "two"
        assert segmenter.info.instances == InstanceOptions(threshold=0.4)
        saved = segmenter.save(tmp_path / "copy")
        assert is_ensemble(saved)
        np.testing.assert_array_equal(load(saved).predict(c3), segmenter.predict(c3))
        with pytest.raises(ValueError, match=r"two: expected a segmenter of one Keras model"):
            _ = segmenter.model

    def test_a_tflite_file_is_one_as_well(self, trained, lite, c3, tmp_path):
        segmenter = load(lite)
        np.testing.assert_allclose(segmenter.predict(c3), load(trained).predict(c3), atol=1e-5)
        assert segmenter.info.instances == Run.load(trained).instances
        with pytest.raises(ValueError, match="which can be copied"):
            segmenter.save(tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_another_precision_computes_in_it(self, trained, c3):
        half = load(trained, precision="bfloat16")
        assert half.model.get_layer("level0_down_conv1").compute_dtype == "bfloat16"
        exact = half.with_precision("float32")
        np.testing.assert_array_equal(exact.predict(c3), load(trained).predict(c3))
        assert half.predict(c3) == pytest.approx(exact.predict(c3), abs=0.05)


class TestFromModel:
    def test_a_model_of_a_notebook_predicts_raw_pixels(self):
        model, image = network(), grey()
        found = Segmenter.from_model(model).predict(image)
        np.testing.assert_array_equal(found, predict_image(model, image, normalization="image"))

    def test_it_is_saved_exported_and_predicted_with_from_files(self, tmp_path):
        image = grey()
        segmenter = Segmenter.from_model(network(), normalization="image", name="mine")
        tifffile.imwrite(tmp_path / "a.tif", image)
        segmenter.save(tmp_path / "run")
        again = load(tmp_path / "run")
        assert again.info.name == "run"
        np.testing.assert_array_equal(again.predict(image), segmenter.predict(image))
        (path,) = predict_files(segmenter, tmp_path / "a.tif", tmp_path / "out")
        np.testing.assert_array_equal(read_planes(path)[0, ..., 0], segmenter.segment(image))

    @pytest.mark.parametrize("precision", [None, "bfloat16"])
    @pytest.mark.parametrize("name", ["a.tflite", "a"])
    def test_affinities_are_saved_and_not_exported(self, tmp_path, name, precision):
        image = grey()
        segmenter = Segmenter.from_model(network(affinities=True))
        segmenter.save(tmp_path / "run")
        for one in (segmenter, load(tmp_path / "run")):
            classes = one.without_affinities()
            assert not classes.info.architecture.affinities
            outputs = one.predict(image)
            separated = (outputs == [1, 0]).all(axis=-1)
            assert 0 < separated.mean() < 1
            np.testing.assert_array_equal(outputs[~separated], classes.predict(image)[~separated])
        if name == "a.tflite" and precision:
            return
        options = {"precision": precision} if precision else {}
        path = keras_unet.export_model(segmenter, tmp_path / name, tile_size=60, **options)
        if name == "a.tflite":
            found = load(path).predict(image)
        else:
            signature = tf.saved_model.load(str(path)).signatures["serving_default"]
            (found,) = signature(tf.constant(image[None, ..., None], tf.float32))["probabilities"]
        np.testing.assert_allclose(found, classes.predict(image), atol=0.05 if precision else 1e-5)

    def test_affinities_can_be_left_out(self, tmp_path):
        image, network_with = grey(), network(affinities=True)
        segmenter = Segmenter.from_model(network_with)
        assert segmenter.info.instances.affinities
        classes = segmenter.without_affinities()
        expected = classes.segment(image)
        assert (segmenter.segment(image) != expected).any()
        np.testing.assert_array_equal(segmenter.segment(image, affinities=False), expected)
        tifffile.imwrite(tmp_path / "a.tif", image)
        for stream in (False, True):
            written = predict_files(
                segmenter,
                tmp_path / "a.tif",
                tmp_path / f"out-{stream}",
                save=["instances", "probabilities"],
                instances={"affinities": False},
                storage=OutputOptions(stream=stream),
            )
            found, probabilities = map(tifffile.imread, written)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_allclose(
                np.moveaxis(probabilities, 0, -1), classes.predict(image), atol=1e-6
            )

    def test_classes_are_separated_by_affinities(self):
        labels = LabelEncoding("classes", (7, 9))
        segmenter = Segmenter.from_model(network(affinities=True), labels=labels)
        lines = segmenter.segment(grey()) != segmenter.segment(grey(), affinities=False)
        assert 0 < lines.mean() < 0.5
        assert set(segmenter.segment(grey())[lines]) == {7}

    def test_affinities_need_a_network_that_predicts_them(self):
        segmenter = Segmenter.from_model(network())
        message = "affinities=True needs a network that predicts affinities"
        with pytest.raises(ValueError, match=message):
            segmenter.segment(grey(), affinities=True)
        with pytest.raises(ValueError, match=message):
            Segmenter.from_model(network(), instances=InstanceOptions(affinities=True))

    def test_classes_have_the_values_of_the_labels(self):
        segmenter = Segmenter.from_model(network(3), labels=LabelEncoding("classes", (0, 7, 255)))
        assert set(np.unique(segmenter.segment(grey()))) <= {0, 7, 255}
        assert Segmenter.from_model(network(3)).info.encoding.values == (0, 1, 2)
        with pytest.raises(ValueError, match="gap: options for instances"):
            segmenter.segment(grey(), gap=1)

    def test_numbers_of_a_data_set_are_taken(self):
        model, image = network(), grey()
        fixed = Normalization("dataset", (500.0,), (100.0,))
        np.testing.assert_array_equal(
            Segmenter.from_model(model, normalization=fixed).predict(image),
            predict_image(model, image, normalization=fixed),
        )

    def test_a_model_in_half_precision_is_exported_in_float32(self):
        with precision_policy("bfloat16"):
            half = network()
        segmenter = Segmenter.from_model(half)
        assert segmenter.info.precision == "bfloat16"
        exact = segmenter.with_precision("float32").model
        assert exact.get_layer("level0_down_conv1").compute_dtype == "float32"
        for one, other in zip(exact.get_weights(), half.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"labels": "instances"}, r"as many classes as the model, 3. Received: 2 \(instances"),
            ({"normalization": "z"}, "mode must be 'image' or 'dataset'"),
        ],
    )
    def test_what_does_not_suit_the_model_is_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            Segmenter.from_model(network(3), **options)

    def test_a_foreign_model_needs_its_architecture(self):
        model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 1)])
        with pytest.raises(ValueError, match="must be a network of build_unet"):
            Segmenter.from_model(model)


@pytest.mark.parametrize("shape", [(), (9,), (0, 9), (2, 9, 9, 1)])
def test_what_is_no_image_is_refused(trained, shape):
    with pytest.raises(ValueError, match=r"image must be \(height, width\) or"):
        load(trained).predict(np.zeros(shape))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((9, 9, 2)), "image: expected 1 channel or 3 equal ones, received 2"),
        (np.full((9, 9), np.nan), "image: 81 of 81 pixels are NaN"),
    ],
)
def test_an_image_that_does_not_suit_is_refused(trained, image, message):
    with pytest.raises(ValueError, match=message):
        load(trained).segment(image)


def test_a_folder_that_holds_files_is_not_written_to(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="new or empty folder for the model"):
        Segmenter.from_model(network()).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a run, an ensemble"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="chosen when it was exported"):
        load("grpc://localhost:1/cells", precision="float32")
