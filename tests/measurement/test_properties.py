"""Measurements of objects, beside scikit-image and by hand."""

import time
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops_table

from keras_unet.data.synthetic import draw_cells
from keras_unet.measurement import windows
from keras_unet.measurement.properties import measure_objects

LABELS = arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)
)
SHAPE = ("bbox", "area", "perimeter", "solidity", "centroid", "orientation")
AXES = ("axis_major_length", "axis_minor_length")
INTENSITIES = ("intensity_mean", "intensity_median", "intensity_std")


class Windows:
    """An array that is only read by windows."""

    def __init__(self, array):
        self.array, self.shape, self.largest = array, array.shape, 0

    def __getitem__(self, window):
        found = self.array[window]
        self.largest = max(self.largest, found.size)
        return found


def drawn(seed=0, size=200):
    image, labels = draw_cells(seed, size=(size, size))
    return image, labels


def same(first, second):
    assert list(first) == list(second)
    for name, column in first.items():
        assert column.dtype.kind == second[name].dtype.kind, name
        if column.dtype.kind in "Ub":
            np.testing.assert_array_equal(column, second[name])
        else:
            np.testing.assert_allclose(column, second[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_rectangle_by_hand():
    labels = np.zeros((6, 8), int)
    labels[2:4, 3:8] = 9
    image = np.arange(48.0).reshape(6, 8)
    columns = measure_objects(labels, image, pixel_size=0.5)
    found = {name: column.item() for name, column in columns.items()}
    assert found["number"] == 9
    assert found["class"] == ""
    assert (found["centroid_y_px"], found["centroid_x_px"]) == (2.5, 5)
    assert (found["centroid_y_um"], found["centroid_x_um"]) == (1.25, 2.5)
    assert (found["area_px"], found["area_um2"]) == (10, 2.5)
    assert found["perimeter_px"] == 10  # of the centers of its pixels at the border
    assert found["perimeter_um"] == 5
    assert found["circularity"] == 1  # 4 pi 10 / 100, cut
    assert abs(found["orientation_deg"]) == 90  # horizontal
    assert found["major_axis_px"] == pytest.approx(4 * 2**0.5)  # variance of -2 ... 2: 2
    assert found["minor_axis_um"] == pytest.approx(1)  # variance of 0 and 1: 1/4
    assert found["solidity"] == 1
    assert found["touches_border"] is True
    pixels = image[2:4, 3:8]
    assert found["intensity_mean"] == pixels.mean()
    assert found["intensity_median"] == np.median(pixels)
    assert found["intensity_std"] == pytest.approx(pixels.std())
    assert found["intensity_sum"] == pixels.sum()


def test_equal_to_scikit_image():
    image, labels = drawn()
    labels = np.where(labels == 3, 0, labels)  # numbers with a gap
    channels = np.stack([image, image.max() - image], axis=-1)
    columns = measure_objects(labels, channels, pixel_size=(0.2, 0.2), channels=("dna", "rest"))
    names = {
        "number": "label",
        "centroid_y_px": "centroid-0",
        "centroid_x_px": "centroid-1",
        "area_px": "area",
        "perimeter_px": "perimeter",
        "major_axis_px": "axis_major_length",
        "minor_axis_px": "axis_minor_length",
        "solidity": "solidity",
        "intensity_mean_dna": "intensity_mean-0",
        "intensity_mean_rest": "intensity_mean-1",
    }
    properties = {name.split("-")[0] for name in names.values()} | {"orientation"}
    theirs = regionprops_table(labels, channels, properties=sorted(properties))
    for mine, name in names.items():
        np.testing.assert_allclose(columns[mine], theirs[name], rtol=1e-12, err_msg=mine)
    np.testing.assert_allclose(columns["orientation_deg"], np.degrees(theirs["orientation"]))
    micrometers = regionprops_table(
        labels,
        properties=("centroid", "area", "perimeter", "axis_major_length"),
        spacing=(0.2, 0.2),
    )
    np.testing.assert_allclose(columns["centroid_y_um"], micrometers["centroid-0"])
    np.testing.assert_allclose(columns["centroid_x_um"], micrometers["centroid-1"])
    np.testing.assert_allclose(columns["area_um2"], micrometers["area"])
    np.testing.assert_allclose(columns["perimeter_um"], micrometers["perimeter"])
    np.testing.assert_allclose(columns["major_axis_um"], micrometers["axis_major_length"])
    for number, *rest in zip(
        columns["number"],
        columns["intensity_median_dna"],
        columns["intensity_std_rest"],
        columns["intensity_sum_dna"],
        strict=True,
    ):
        inside = channels[labels == number].astype(float)
        expected = np.median(inside[:, 0]), inside[:, 1].std(), inside[:, 0].sum()
        assert rest == pytest.approx(expected)


@given(LABELS, st.integers(1, 5))
def test_the_same_by_windows(labels, side):
    image = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    probabilities = np.random.default_rng(1).dirichlet(np.ones(3), labels.shape)
    options = {"pixel_size": (0.5, 0.25), "classes": ("none", "round", "long")}
    whole = measure_objects(labels, image, probabilities=probabilities, **options)
    with patch.object(windows, "SIDE", side):
        parts = measure_objects(
            Windows(labels), Windows(image), probabilities=Windows(probabilities), **options
        )
    same(whole, parts)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int64"])
def test_labels_of_any_integer_type(dtype):
    _, labels = drawn()
    same(measure_objects(labels.astype(dtype)), measure_objects(labels))


def test_lists_are_taken_for_arrays():
    columns = measure_objects([[1, 1, 0]], [[2, 4, 9]])
    assert (columns["area_px"].item(), columns["intensity_mean"].item()) == (2, 3)


def test_windows_are_small(monkeypatch):
    monkeypatch.setattr(windows, "SIDE", 64)
    image, labels = drawn(size=400)
    pixels = Windows(labels)
    same(measure_objects(labels, image), measure_objects(pixels, Windows(image)))
    assert pixels.largest < labels.size / 6


def test_no_object_gives_the_same_columns():
    image, labels = drawn()
    options = {"probabilities": np.full((*labels.shape, 2), 0.5), "pixel_size": 2}
    some = measure_objects(labels, image, **options)
    none = measure_objects(np.zeros_like(labels), image, **options)
    assert list(some) == list(none)
    assert {len(column) for column in none.values()} == {0}
    assert all(none[name].dtype.kind == column.dtype.kind for name, column in some.items())


def test_class_and_probability():
    labels = np.array([[1, 1, 0, 5]])
    probabilities = np.array([[[0.1, 0.6, 0.3], [0.3, 0.1, 0.6], [1, 0, 0], [0.25, 0.25, 0.5]]])
    columns = measure_objects(
        labels, probabilities=probabilities, classes=("background", "round", "long")
    )
    assert columns["class"].tolist() == ["long", "long"]  # 0.35 and 0.45, in the first
    assert columns["mean_probability"].tolist() == pytest.approx([0.8, 0.75])
    assert measure_objects(labels, probabilities=probabilities)["class"].tolist() == ["2", "2"]


def test_pixels_that_are_no_squares():
    labels = np.zeros((9, 9), int)
    labels[2:7, 4] = 1  # five rows
    columns = measure_objects(labels, pixel_size=(2, 1))
    assert columns["area_um2"].item() == 10
    assert np.isnan(columns["perimeter_um"].item())
    assert columns["major_axis_um"].item() == pytest.approx(
        2 * columns["major_axis_px"].item(), rel=0.01
    )


def test_one_pixel_has_no_circularity():
    columns = measure_objects(np.array([[0, 1, 0]]))
    assert columns["perimeter_px"].item() == 0
    assert np.isnan(columns["circularity"].item())
    assert columns["solidity"].item() == 1


@pytest.mark.parametrize(
    ("labels", "others", "message"),
    [
        (np.zeros((2, 2, 2), int), {}, r"labels must be one image .* shape=\(2, 2, 2\)"),
        (np.zeros((2, 2)), {}, "labels must be integers.*float64"),
        (np.array([[-1, 2]]), {}, "labels must be integers.*from -1 to 2"),
        (np.zeros((2, 2), int), {"image": np.zeros((2, 3))}, r"image must .* shape=\(2, 3\)"),
        (
            np.zeros((2, 2), int),
            {"image": np.zeros((2, 2, 3)), "channels": ("dna", "actin")},
            "channels must be 3 names, or empty",
        ),
        (
            np.zeros((2, 2), int),
            {"probabilities": np.zeros((2, 2, 2)), "classes": ("cell",)},
            "classes must be 2 names, or empty",
        ),
        (np.zeros((2, 2), int), {"pixel_size": 0}, "pixel_size must be one or two numbers above 0"),
    ],
)
def test_what_cannot_be_measured(labels, others, message):
    with pytest.raises(ValueError, match=message):
        measure_objects(labels, **others)


def test_as_fast_as_scikit_image():
    rows, columns = np.mgrid[:64, :64] - 31.5
    disk = (rows / 20) ** 2 + (columns / 26) ** 2 < 1
    labels = np.zeros((1024, 1024), np.int32)
    for number in range(1, 251):
        top, left = divmod(number - 1, 16)
        labels[64 * top :, 64 * left :][:64, :64][disk] = number
    image = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)

    def ours():
        return measure_objects(labels, image, pixel_size=0.5)["number"]

    def theirs():
        properties = ("label", *SHAPE, *AXES, *INTENSITIES)
        return regionprops_table(labels, image, properties=properties)["label"]

    seconds = {}
    for measure in (ours, theirs) * 3:  # in turns, since the processor may be in use
        start = time.process_time()
        numbers = measure()
        seconds.setdefault(measure, []).append(time.process_time() - start)
        np.testing.assert_array_equal(numbers, np.arange(1, 251))
    assert min(seconds[ours]) < 1.5 * min(seconds[theirs])


@given(LABELS)
def test_ellipses_are_those_of_scikit_image(labels):
    names = {
        "centroid_y_px": "centroid-0",
        "major_axis_px": "axis_major_length",
        "minor_axis_px": "axis_minor_length",
    }
    columns = measure_objects(labels)
    properties = ("centroid", "axis_major_length", "axis_minor_length", "orientation")
    theirs = regionprops_table(labels, properties=properties)
    for mine, name in names.items():
        np.testing.assert_allclose(columns[mine], theirs[name], rtol=1e-9, atol=1e-6)
    turned = np.abs(columns["orientation_deg"] - np.degrees(theirs["orientation"]))
    is_long = theirs["axis_major_length"] - theirs["axis_minor_length"] > 1e-6
    np.testing.assert_allclose(np.minimum(turned, 180 - turned)[is_long], 0, atol=1e-6)
