"""Outlines in every form, filled again."""

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Curve
from roifile import ROI_TYPE, roiread
from skimage.data import binary_blobs
from skimage.measure import label

from keras_unet.data.synthetic import draw_cells
from keras_unet.files import own_kind
from keras_unet.measurement import windows
from keras_unet.measurement.geojson import write_geojson
from keras_unet.measurement.objects import ImageObjects, PlaneObjects
from keras_unet.measurement.outlines import outlines_of
from keras_unet.measurement.rois import write_rois

LABELS = arrays(
    np.int32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 3)
)
RING = np.array(
    [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 2, 1], [1, 1, 1, 1], [0, 0, 0, 0], [2, 2, 0, 1]]
)


class Windows:
    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __getitem__(self, window):
        return self.array[window]


def objects_of(*planes, stack=(), classes=(), **options):
    measured = [PlaneObjects.of(plane, classes=classes, **options) for plane in planes]
    return ImageObjects(Path("image.tif"), measured, stack, classes)


def centers(shape):
    rows, columns = np.indices(shape)
    return columns.ravel() + 0.5, rows.ravel() + 0.5


def filled(outlines, shape):
    x, y = centers(shape)
    labels = np.zeros(shape, np.int32)
    for number, outline in outlines.items():
        labels[shapely.contains_xy(outline, x, y).reshape(shape)] = number
    return labels


def filled_roi(roi, shape):
    """Fills a ROI by the even-odd rule at the centers of pixels, as ImageJ does."""
    inside = np.zeros(shape, bool)
    for corners in roi.coordinates(multi=True):
        inside ^= Curve(corners).contains_points(np.stack(centers(shape), axis=-1)).reshape(shape)
    return inside


def filled_rois(path, shape):
    labels = np.zeros(shape, np.int32)
    for roi in roiread(path):
        labels[filled_roi(roi, shape)] = int(roi.name)
    return labels


def features(path):
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def filled_geojson(path, shape):
    found = {
        int(feature["properties"]["name"]): shapely.from_geojson(json.dumps(feature["geometry"]))
        for feature in features(path)
    }
    return filled(found, shape)


@given(LABELS)
def test_outlines_filled_again_are_the_labels(labels):
    outlines = outlines_of(labels)
    assert list(outlines) == sorted(set(np.unique(labels).tolist()) - {0})
    assert all(outline.is_valid for outline in outlines.values())
    np.testing.assert_array_equal(filled(outlines, labels.shape), labels)


@given(LABELS, st.integers(1, 4))
def test_outlines_are_the_same_by_windows(labels, side):
    whole = outlines_of(labels)
    with patch.object(windows, "SIDE", side):
        parts = outlines_of(Windows(labels))
    assert list(whole) == list(parts)
    assert all(outline.equals(parts[number]) for number, outline in whole.items())


@pytest.mark.parametrize("labels", [RING, RING.T, np.zeros((3, 3), np.int32)])
def test_files_filled_again_are_the_labels(tmp_path, labels):
    objects = objects_of(labels)
    write_rois(tmp_path / "rois.zip", objects)
    write_geojson(tmp_path / "image.geojson", objects)
    np.testing.assert_array_equal(filled_geojson(tmp_path / "image.geojson", labels.shape), labels)
    if labels.any():  # roifile reads no archive without ROIs
        np.testing.assert_array_equal(filled_rois(tmp_path / "rois.zip", labels.shape), labels)
    assert own_kind(tmp_path / "rois.zip") == "zip"
    assert own_kind(tmp_path / "image.geojson") == "json"


def test_files_of_cells_and_of_tissue(tmp_path):
    _, cells = draw_cells(0, size=(160, 160))
    tissue = label(binary_blobs(100, 0.2, volume_fraction=0.5, rng=0), connectivity=1)
    for labels in (cells, tissue):
        objects = objects_of(labels)
        write_rois(tmp_path / "rois.zip", objects)
        write_geojson(tmp_path / "image.geojson", objects)
        np.testing.assert_array_equal(filled_rois(tmp_path / "rois.zip", labels.shape), labels)
        found = filled_geojson(tmp_path / "image.geojson", labels.shape)
        np.testing.assert_array_equal(found, labels)


def test_a_roi_of_one_piece_has_the_corners_of_its_pixels(tmp_path):
    write_rois(tmp_path / "rois.zip", objects_of(np.array([[0, 4, 4], [0, 4, 4], [0, 0, 0]])))
    (roi,) = roiread(tmp_path / "rois.zip")
    assert roi.roitype == ROI_TYPE.TRACED
    assert (roi.name, roi.left, roi.top, roi.right, roi.bottom) == ("4", 1, 0, 3, 2)
    assert sorted(map(tuple, roi.coordinates().tolist())) == [(1, 0), (1, 2), (3, 0), (3, 2)]


def test_positions_beyond_16_bits(tmp_path):
    labels = np.zeros((2, 70_000), np.int32)
    labels[:, 69_990:] = 1
    write_rois(tmp_path / "rois.zip", objects_of(labels))
    (roi,) = roiread(tmp_path / "rois.zip")
    assert roi.coordinates().max(axis=0).tolist() == [70_000, 2]


@pytest.mark.parametrize(
    ("stack", "roi_place", "plane"),
    [
        ((("Z", 2),), (2, 0, 0), {"c": -1, "z": 1, "t": 0}),
        ((("T", 2),), (2, 0, 0), {"c": -1, "z": 0, "t": 1}),
        ((("T", 2), ("Z", 1)), (2, 0, 0), {"c": -1, "z": 0, "t": 1}),
    ],
)
def test_a_stack(tmp_path, stack, roi_place, plane):
    objects = objects_of(np.array([[1]]), np.array([[7]]), stack=stack)
    write_rois(tmp_path / "rois.zip", objects)
    write_geojson(tmp_path / "image.geojson", objects)
    first, second = roiread(tmp_path / "rois.zip")
    assert (first.name, second.name) == ("1-1", "2-7")
    assert (second.position, second.z_position, second.t_position) == roi_place
    assert features(tmp_path / "image.geojson")[1]["geometry"]["plane"] == plane


def test_a_film_of_volumes(tmp_path):
    planes = [np.array([[number]]) for number in range(1, 7)]
    objects = objects_of(*planes, stack=(("T", 3), ("Z", 2)))
    write_rois(tmp_path / "rois.zip", objects)
    places = [
        (roi.position, roi.t_position, roi.z_position) for roi in roiread(tmp_path / "rois.zip")
    ]
    assert places == [(0, 1, 1), (0, 1, 2), (0, 2, 1), (0, 2, 2), (0, 3, 1), (0, 3, 2)]


def test_classes_and_measurements(tmp_path):
    labels = np.array([[1, 0, 2]])
    probabilities = np.array([[[0, 1, 0], [1, 0, 0], [0.5, 0, 0.5]]])
    objects = objects_of(
        labels, classes=("background", "round", "long"), probabilities=probabilities, pixel_size=2
    )
    write_rois(tmp_path / "rois.zip", objects)
    write_geojson(tmp_path / "image.geojson", objects)
    first, second = (feature["properties"] for feature in features(tmp_path / "image.geojson"))
    assert first["objectType"] == "detection"
    assert (first["classification"]["name"], second["classification"]["name"]) == ("round", "long")
    assert first["classification"]["color"] != second["classification"]["color"]
    assert second["measurements"]["area_um2"] == 4
    assert second["measurements"]["mean_probability"] == 0.5
    assert "circularity" not in second["measurements"]  # NaN, which JSON has not
    colors = [roi.stroke_color for roi in roiread(tmp_path / "rois.zip")]
    assert [list(color[1:]) for color in colors] == [
        item["classification"]["color"] for item in (first, second)
    ]


def test_one_class_has_no_color(tmp_path):
    probabilities = np.array([[[0.0, 1.0]]])
    options = {"classes": ("background", "cell"), "probabilities": probabilities}
    write_geojson(tmp_path / "image.geojson", objects_of(np.array([[1]]), **options))
    (feature,) = features(tmp_path / "image.geojson")
    assert feature["properties"]["classification"] == {"name": "cell"}
