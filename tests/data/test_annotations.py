"""Annotations of other programs, as label images."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from roifile import ROI_TYPE, ImagejRoi, roiwrite

from keras_unet.data.annotations import Annotation, Mask, draw_labels, read_annotations
from keras_unet.data.synthetic import draw_cells
from keras_unet.measurement.geojson import write_geojson
from keras_unet.measurement.objects import ImageObjects, PlaneObjects
from keras_unet.measurement.rois import write_rois

LABELS = arrays(
    np.int32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 3)
)


IMAGE = Path("a.tif")


def drawn(path, shape):
    (objects,) = read_annotations(path).objects.values()
    return draw_labels(objects, shape, IMAGE)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def square(left, top, side):
    return [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]


@settings(deadline=None)
@given(LABELS)
def test_what_this_program_writes_is_read_as_it_was(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("rois")
    objects = ImageObjects(Path("a.tif"), [PlaneObjects.of(labels)])
    write_rois(folder / "a.zip", objects)
    write_geojson(folder / "a.geojson", objects)
    for name in ("a.zip", "a.geojson"):
        found = drawn(folder / name, (1, *labels.shape))
        np.testing.assert_array_equal(found.labels[0], labels)
        assert (found.covered, found.lost) == (0, ())


def test_stacks_are_read_as_they_were(tmp_path):
    _, first = draw_cells(0, size=(80, 90))
    _, second = draw_cells(1, size=(80, 90))
    planes = [PlaneObjects.of(labels) for labels in (first, second)]
    objects = ImageObjects(Path("a.tif"), planes, (("Z", 2),))
    write_rois(tmp_path / "a.zip", objects)
    write_geojson(tmp_path / "a.geojson", objects)
    for name in ("a.zip", "a.geojson"):
        labels = drawn(tmp_path / name, (2, 80, 90)).labels
        np.testing.assert_array_equal(labels, [first, second])


def test_rois_of_imagej(tmp_path):
    rois = [
        ImagejRoi(roitype=ROI_TYPE.RECT, left=1, top=2, right=4, bottom=4),
        ImagejRoi(roitype=ROI_TYPE.OVAL, left=10, top=0, right=20, bottom=10),
        ImagejRoi.frompoints(np.array([[5, 12], [9, 12], [9, 16], [5, 16]])),
    ]
    point = ImagejRoi.frompoints(np.array([[1.0, 1.0]]))
    point.roitype = ROI_TYPE.POINT
    names = ["nucleus", "cell", "third", "point"]
    for roi, name in zip([*rois, point], names, strict=True):
        roi.name = name
    roiwrite(tmp_path / "RoiSet.zip", [*rois, point])
    content = read_annotations(tmp_path / "RoiSet.zip")
    assert [one.name for one in content.objects[""]] == names[:3]
    assert content.left_out == {"point": 1}
    (labels,) = draw_labels(content.objects[""], (1, 20, 20), IMAGE).labels
    assert np.argwhere(labels == 1).min(axis=0).tolist() == [2, 1]
    assert np.count_nonzero(labels == 1) == 6
    rows, columns = np.indices((20, 20)) + 0.5
    np.testing.assert_array_equal(labels == 2, (columns - 15) ** 2 + (rows - 5) ** 2 < 25)
    assert np.count_nonzero(labels == 3) == 16
    roiwrite(tmp_path / "one.roi", rois[0])
    assert np.count_nonzero(drawn(tmp_path / "one.roi", (1, 20, 20)).labels) == 6


def test_geojson_of_qupath(tmp_path):
    def feature(kind, coordinates, **properties):
        geometry = {"type": kind, "coordinates": coordinates}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    features = [
        feature("Polygon", [square(0, 0, 6), square(2, 2, 2)], classification={"name": "Tumor"}),
        feature("MultiPolygon", [[square(8, 0, 2)], [square(8, 4, 1)]], objectType="annotation"),
        feature("Point", [3, 3]),
    ]
    for content in (features, {"type": "FeatureCollection", "features": features}):
        path = write(tmp_path / "a.geojson", content)
        found = drawn(path, (1, 10, 10))
        assert np.bincount(found.labels.ravel()).tolist() == [100 - 32 - 5, 32, 5]
        assert found.categories == ({1: "Tumor", 2: ""},)
        assert read_annotations(path).left_out == {"Point": 1}


def test_json_of_labelme(tmp_path):
    shapes = [
        {"label": "a", "shape_type": "polygon", "points": square(0, 0, 3)},
        {"label": "b", "shape_type": "rectangle", "points": [[4, 0], [6, 2]]},
        {"label": "c", "shape_type": "circle", "points": [[5, 5], [5, 7]]},
        {"label": "d", "shape_type": "point", "points": [[5, 5]]},
    ]
    path = write(tmp_path / "a.json", {"imagePath": "..\\images\\day 1.png", "shapes": shapes})
    assert list(read_annotations(path).objects) == ["day 1"]
    found = drawn(path, (1, 8, 8))
    assert np.bincount(found.labels.ravel())[1:].tolist() == [9, 4, 12]
    assert list(found.categories[0].values()) == ["a", "b", "c"]


# The same mask as polygon, as numbers and as text, made with pycocotools.
RUNS = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}
TEXT = {"size": [4, 5], "counts": "52207"}


def test_json_of_coco(tmp_path):
    polygon = [float(value) for corner in square(1, 1, 2) for value in corner]
    content = {
        "images": [{"id": 7, "file_name": "x/a.png"}, {"id": 8, "file_name": "b.png"}],
        "categories": [{"id": 3, "name": "cell"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "segmentation": [polygon]},
            {"image_id": 8, "category_id": 3, "segmentation": RUNS},
            {"image_id": 8, "category_id": 3, "segmentation": TEXT},
            {"image_id": 8, "category_id": 3, "segmentation": [], "bbox": [0, 0, 1, 1]},
        ],
    }
    found = read_annotations(write(tmp_path / "coco.json", content))
    assert found.left_out == {"box": 1}
    expected = np.zeros((4, 5), int)
    expected[1:3, 1:3] = 1
    (first,) = draw_labels(found.objects["a"], (1, 4, 5), IMAGE).labels
    np.testing.assert_array_equal(first, expected)
    runs, text = found.objects["b"]
    assert (runs.mask.corner, runs.mask.pixels.shape) == ((1, 1), (2, 2))  # of its box alone
    for item in (runs, text):
        np.testing.assert_array_equal(draw_labels([item], (1, 4, 5), IMAGE).labels[0], expected)
    assert {one.category for one in (runs, text)} == {"cell"}


def test_the_smaller_of_two_that_overlap_is_on_top():
    large, small = (Annotation((np.array(square(0, 0, side), float),)) for side in (4, 2))
    for objects in ((large, small), (small, large)):
        found = draw_labels(objects, (1, 5, 5), IMAGE)
        sizes = dict(zip(*np.unique(found.labels, return_counts=True), strict=True))
        assert sorted(sizes.values()) == [4, 9, 12]
        assert (found.covered, found.lost) == (1, ())
    found = draw_labels((small, small), (1, 5, 5), IMAGE)
    assert found.lost == ("object 1",)


def test_objects_beyond_the_image_are_cut():
    outside = Annotation((np.array(square(-3, -3, 5), float),), name="left")
    assert np.count_nonzero(draw_labels([outside], (1, 5, 5), IMAGE).labels) == 4
    away = Annotation((np.array(square(9, 9, 5), float),), name="away")
    assert draw_labels([away], (1, 5, 5), IMAGE).lost == ("away",)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            Annotation((np.zeros((3, 2)),), plane=2),
            r"a\.tif: expected objects in the planes 1 to 1",
        ),
        (
            Annotation((), mask=Mask.of(np.ones((2, 2), bool))),
            r"a\.tif: expected objects of an image of 5 x 5 pixels\. Received 1 of one of 2 x 2",
        ),
    ],
)
def test_what_does_not_belong_to_the_image_is_refused(item, message):
    with pytest.raises(ValueError, match=message):
        draw_labels([item], (1, 5, 5), IMAGE)


@pytest.mark.parametrize("name", ["a.zip", "a.roi", "a.json", "a.geojson"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"shapes": 3}', b"PK\3\4garbage"])
def test_other_files_are_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: expected ImageJ ROIs") as error:
        read_annotations(tmp_path / name)
    assert "\n" not in str(error.value)


def test_an_archive_without_rois_has_no_objects(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "none")
    assert read_annotations(tmp_path / "a.zip").objects == {"": ()}
    assert not draw_labels((), (1, 3, 3), IMAGE).labels.any()
