"""Scales by pixel sizes and by objects, in memory and by parts, mostly without TensorFlow."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from logs import logged
from scipy import ndimage
from skimage.measure import regionprops
from skimage.segmentation import clear_border

import keras_unet
from keras_unet.architecture import Architecture
from keras_unet.client import Client
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.fingerprint import Percentiles
from keras_unet.data.normalization import Normalization
from keras_unet.data.synthetic import draw_cells
from keras_unet.instances.label import InstanceOptions, cell_probability, label_instances
from keras_unet.metrics.objects import seg
from keras_unet.prediction import scale as scales
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.outputs import OutputOptions
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.resampling import ResampledLabels, resample
from keras_unet.prediction.scale import (
    Sizes,
    advice,
    as_scale,
    middle_window,
    object_diameters,
    scale_of_objects,
    scale_of_pixels,
)
from keras_unet.prediction.segmenter import Member, Segmenter
from keras_unet.prediction.server import ServedSegmenter
from keras_unet.runs import ModelInfo

NETWORK = Architecture(depth=1)
SAVE = ("instances", "classes", "probabilities")
WIDTH = 24.0  # of the discs in training
PIXELS = "c.ome.tif (also b.tif): pixels are 1 micrometers wide, 0.5"


def threshold_network(tile):
    """Logits of background and cell: cells are brighter than 100."""
    lost = NETWORK.margin
    height = (tile[:, lost:-lost, lost:-lost] - 100) / 20
    return np.concatenate([-height, height], axis=-1)


@pytest.fixture
def segmenter():
    info = ModelInfo(
        architecture=NETWORK,
        encoding=LabelEncoding("instances", (0, 1)),
        normalization=Normalization("dataset", (0.0,), (1.0,)),
        instances=InstanceOptions(minimum_size=9),
        pixel_size=(0.5, 0.5),
        diameters=Percentiles(20.0, WIDTH, 28.0),
    )
    return Segmenter(info, (Member(info, lambda _: threshold_network, Path(__file__)),))


def discs(width, *, shape=(150, 170), pitch=1.6):
    """Discs of a width in pixels, with edges as soft as an image has."""
    rows, columns = np.indices(shape) % (pitch * width) - pitch * width / 2
    bright = np.hypot(rows, columns) < width / 2
    return (200 * ndimage.gaussian_filter(bright.astype(float), 0.7)).astype(np.uint16)


def write(path, pixels, *, pixel_size=None):
    metadata = (
        {} if pixel_size is None else {"PhysicalSizeX": pixel_size, "PhysicalSizeY": pixel_size}
    )
    tifffile.imwrite(path, pixels, ome=pixel_size is not None, metadata={"axes": "YX"} | metadata)
    return path


@pytest.mark.parametrize("scale", ["big", "0", "-1", 0.1, 9, float("nan"), float("inf"), "", "1,5"])
def test_what_is_no_scale_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale must be auto, off, or a factor from 0.125 to 8"):
        as_scale(scale)


def test_the_limits_are_scales():
    assert [as_scale(scale) for scale in ("0.125", 8, 1)] == [0.125, 8, 1]


@pytest.mark.parametrize(
    ("pixel_size", "factor"),
    [((1.0, 1.0), 2.0), ((0.25, 0.25), 0.5), ((0.503, 0.503), 1.0), ((1.0, 0.25), 1.0)],
)
def test_the_factor_is_the_ratio_of_the_pixel_sizes(segmenter, pixel_size, factor):
    assert scale_of_pixels(segmenter.info, pixel_size, Path("a.tif")).factor == factor


def test_unknown_pixel_sizes_give_no_factor(segmenter):
    assert scale_of_pixels(segmenter.info, None, Path("a.tif")) is None
    unknown = replace(segmenter.info, pixel_size=None)
    assert scale_of_pixels(unknown, (1.0, 1.0), Path("a.tif")) is None


@given(third=st.integers(1, 12), training=st.floats(3, 80))
def test_the_factor_makes_objects_as_wide_as_in_training(third, training):
    def label(factor):
        numbers = np.pad(np.arange(1, 7), 1)
        side = round(6 * third * factor)
        return np.kron(np.pad(numbers[None], ((1, 1), (0, 0))), np.ones((side, side), int))

    factor = scale_of_objects(label, Percentiles(0, training, 100)).factor
    expected = training / (12 * third / np.sqrt(np.pi))
    if 1 / 1.15 <= expected <= 1.15:
        assert factor == 1
    else:
        assert factor == pytest.approx(min(max(expected, 1 / 3), 3))


@pytest.mark.parametrize("number", [0, 4])
def test_few_objects_leave_the_image_as_it_is(number):
    labels = np.pad(np.arange(1, number + 1)[None], 1)
    choice = scale_of_objects(lambda _: labels, Percentiles(10, 20, 30))
    assert str(choice) == "scale 1: fewer than 5 whole objects found at the scales 0.67, 1, 1.5"


def test_without_diameters_nothing_is_looked_at():
    choice = scale_of_objects(None, None)
    assert str(choice) == "scale 1: the model states no width of objects to look for"


def test_diameters_are_those_of_scikit_image(monkeypatch):
    monkeypatch.setattr(scales, "_BAND", 1000)
    _, labels = draw_cells(3, size=(120, 130), cells=12)
    expected = [cell.equivalent_diameter_area for cell in regionprops(clear_border(labels))]
    assert 0 < len(expected) < labels.max()
    np.testing.assert_allclose(object_diameters(labels), expected)
    assert len(object_diameters(np.zeros((3, 4), int))) == 0


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0.5, 2))
def test_the_middle_is_small_and_inside(height, width, factor):
    rows, columns = middle_window((height, width), factor)
    assert 0 <= rows.start < rows.stop <= height
    assert 0 <= columns.start < columns.stop <= width
    area = (rows.stop - rows.start) * (columns.stop - columns.start) * factor**2
    assert area <= 1.01 * scales.PIXELS


def test_the_image_is_resampled_there_and_back(segmenter):
    image = discs(12)
    size = (270, 306)
    normalized = image[..., None].astype(np.float32)
    there = predict_image(threshold_network, resample(normalized, size), architecture=NETWORK)
    np.testing.assert_array_equal(segmenter.predict(image, scale=1.8), resample(there, image.shape))
    labels = label_instances(cell_probability(there), segmenter.info.instances)
    expected = ResampledLabels(labels, image.shape)[:, :]
    np.testing.assert_array_equal(segmenter.segment(image, scale=1.8), expected)
    assert labels.max() > 20


def test_factor_1_and_off_change_no_bit(segmenter):
    image = discs(12)
    plain = predict_image(
        threshold_network, image[..., None].astype(np.float32), architecture=NETWORK
    )
    for scale in ({}, {"scale": "off"}, {"scale": 1}):
        np.testing.assert_array_equal(segmenter.predict(image, **scale), plain)


@pytest.mark.parametrize("width", [10.0, 15.0, 24.0, 40.0])
def test_auto_finds_the_scale_by_the_objects(segmenter, width):
    image = discs(width, shape=(300, 320))
    choice = segmenter.choose_scale(image[..., None], Path("a.tif"))
    assert choice.factor == (1 if width == WIDTH else pytest.approx(WIDTH / width, rel=0.1))
    expected = segmenter.predict(image, scale=choice.factor)
    np.testing.assert_array_equal(segmenter.predict(image, scale="auto"), expected)


def read(paths):
    return [tifffile.imread(path) for path in paths]


@pytest.mark.parametrize("scale", [1.7, 0.6, "auto"])
def test_by_parts_or_in_memory_the_outputs_are_the_same(segmenter, tmp_path, scale):
    image = write(tmp_path / "a.tif", np.stack([discs(15), discs(15)[::-1]]))
    streamed, whole = OutputOptions(stream=True), OutputOptions(stream=False)
    options = {"save": SAVE, "scale": scale, "tile_size": 60}
    parts = predict_files(segmenter, image, tmp_path / "parts", storage=streamed, **options)
    memory = predict_files(segmenter, image, tmp_path / "memory", storage=whole, **options)
    for one, other in zip(read(parts), read(memory), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape[-2:] == (150, 170)
    assert read(parts)[0].max() > 20


def test_auto_goes_by_the_pixel_size_where_it_is_known(segmenter, tmp_path):
    image = write(tmp_path / "a.ome.tif", discs(15), pixel_size=0.75)
    with logged() as messages:
        auto = predict_files(segmenter, image, tmp_path / "auto", save=SAVE, scale="auto")
    assert "a.ome.tif: scale 1.5: pixels are 0.75 micrometers wide, 0.5 in training" in messages
    given = predict_files(segmenter, image, tmp_path / "given", save=SAVE, scale="1.5")
    for one, other in zip(read(auto), read(given), strict=True):
        np.testing.assert_array_equal(one, other)


def test_pixel_sizes_without_sense_are_refused_before_the_first_image(segmenter, tmp_path):
    images = [write(tmp_path / "a.tif", discs(15))]
    images.append(write(tmp_path / "b.ome.tif", discs(15), pixel_size=0.01))
    with pytest.raises(ValueError, match=r"b\.ome\.tif: scale auto takes .* set scale to a factor"):
        predict_files(segmenter, images, tmp_path / "out", scale="auto")
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_large_once_enlarged_is_streamed(segmenter, tmp_path, monkeypatch):
    image = write(tmp_path / "a.tif", discs(15))
    monkeypatch.setattr("keras_unet.data.lazy.LARGE", 2 * 150 * 170)
    for scale, is_streamed in {"1.2": False, "1.5": True}.items():
        with logged() as messages:
            predict_files(segmenter, image, tmp_path / scale, scale=scale)
        assert ("a.tif: read, predicted and written in parts" in messages) == is_streamed


def test_images_of_another_scale_are_named_in_a_line(segmenter, tmp_path):
    a = write(tmp_path / "a.tif", discs(24))
    b = write(tmp_path / "b.tif", discs(12))
    c = write(tmp_path / "c.ome.tif", discs(24), pixel_size=1.0)
    d = write(tmp_path / "d.ome.tif", discs(12), pixel_size=0.5)
    lines = []
    for images in ([a], [a, b], [c, b], [d]):
        for stream in (False, True):
            with logged() as messages:
                storage = OutputOptions(stream=stream)
                predict_files(segmenter, images, tmp_path / "out", storage=storage)
            lines.append([text for text in messages if text.endswith("resamples it")])
    assert lines[::2] == lines[1::2]
    none, objects, pixels, both = lines[::2]
    assert none == []
    start = "b.tif: 56 objects are 12 pixels wide in the median, 24 in training; "
    assert objects == [start + "--scale auto resamples it"]
    assert pixels == [
        start.replace("b.tif: 56 objects are 12 pixels wide in the median, 24", PIXELS)
        + "--scale auto resamples it"
    ]
    assert both == [start.replace("b.tif", "d.ome.tif") + "--scale 2 resamples it"]
    with logged() as messages:
        predict_files(segmenter, [b], tmp_path / "out", scale="auto")
    assert not any(text.endswith("resamples it") for text in messages)


def test_few_objects_and_classes_are_not_compared(segmenter):
    few = {Path("a.tif"): Sizes(None, 3.0, 4)}
    assert advice(segmenter.info, few) == ""
    unknown = replace(segmenter.info, diameters=None)
    assert advice(unknown, {Path("a.tif"): Sizes(None, 3.0, 40)}) == ""


def test_a_served_model_takes_no_scale(segmenter):
    client = Client("http://localhost:1/v1/models/cells")
    served = ServedSegmenter(segmenter.info, (), client, 2**26)
    assert served.check_scale("off") == 1
    for scale in ("auto", 2):
        with pytest.raises(ValueError, match=r"scale must be off for http://localhost:1.*scaled"):
            served.segment(discs(24), scale=scale)


def test_small_cells_score_better_with_auto():
    """Cells of 0.375 and 0.47 of the width in training, of which all cells have about one width."""
    data = [draw_cells(seed, size=(128, 128), cells=10) for seed in range(8)]
    options = {"depth": 2, "base_filters": 8, "tile": 92, "precision": "float32"}
    options |= {"optimizer": "sgd", "zoom": 0.0}
    options |= {"normalize_kernels": False, "class_balance": True}
    segmenter = keras_unet.train(*zip(*data, strict=True), steps=250, **options)
    scores = []
    for seed, side in product((20, 21), (120, 150)):
        drawn, labels = draw_cells(seed, size=(320, 320), cells=40)
        image = resample(drawn[..., None].astype(np.float32), (side, side))[..., 0]
        truth = ResampledLabels(labels, (side, side))[:, :]
        found = [segmenter.segment(image, scale=scale) for scale in ("off", "auto")]
        scores.append([seg([truth], [labels]) for labels in found])
    plain, auto = np.mean(scores, axis=0)
    assert auto > plain + 0.02  # 0.59 and 0.46
