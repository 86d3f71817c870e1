"""Annotations of other programs become training data."""

import csv
import json
import shutil
import zipfile

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from logs import logged
from PIL import Image

from keras_unet.cli import main
from keras_unet.data.importing import import_annotations
from keras_unet.data.pairs import annotation_files
from keras_unet.data.samples import read_samples
from keras_unet.data.synthetic import draw_cells
from keras_unet.files import is_own
from keras_unet.measurement.geojson import write_geojson
from keras_unet.measurement.objects import ImageObjects, PlaneObjects
from keras_unet.measurement.rois import write_rois


def square(left, top, side):
    return [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]


def labelme(path, *shapes):
    content = {
        "shapes": [
            {"label": name, "shape_type": "polygon", "points": square(*box)} for name, box in shapes
        ]
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    """Three images, and the ROIs of two of them."""
    (tmp_path / "images").mkdir()
    (tmp_path / "rois").mkdir()
    for seed, name in enumerate("abc"):
        image, labels = draw_cells(seed, size=(80, 90), cells=6)
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", image)
        objects = ImageObjects(tmp_path / f"{name}.tif", [PlaneObjects.of(labels)])
        if name == "a":
            write_rois(tmp_path / "rois" / "a_RoiSet.zip", objects)
        if name == "b":
            write_geojson(tmp_path / "rois" / "b.geojson", objects)
        np.save(tmp_path / f"{name}.npy", labels)
    return tmp_path


def test_what_is_imported_can_be_trained_on(folder):
    out = folder / "data"
    with logged() as lines:
        written = import_annotations(folder / "rois", folder / "images", out)
    assert [path.name for path in written] == ["a.tif", "b.tif"]
    assert any("without annotations, and left out: c" in line for line in lines)
    samples = read_samples(out)
    assert [sample.name for sample in samples.samples] == ["a", "b"]
    for name in "ab":
        labels = tifffile.imread(out / "labels" / f"{name}.tif")
        np.testing.assert_array_equal(labels, np.load(folder / f"{name}.npy"))
        assert not is_own(out / "labels" / f"{name}.tif")  # data, which predictions keep
        source, copy = (path / "images" / f"{name}.tif" for path in (folder, out))
        assert source.read_bytes() == copy.read_bytes()
    assert not (out / "labels" / "classes.csv").exists()


def test_images_that_lie_there_are_not_copied(folder):
    import_annotations(folder / "rois", folder / "images", folder)
    assert sorted(path.name for path in (folder / "images").iterdir()) == [
        "a.tif",
        "b.tif",
        "c.tif",
    ]
    assert sorted(path.name for path in (folder / "labels").iterdir()) == ["a.tif", "b.tif"]


def test_classes(folder):
    for name in "ab":
        boxes = ("round", (0, 0, 9)), ("long", (20, 20, 5)), ("round", (40, 40, 9))
        labelme(folder / "json" / f"{name}.json", *boxes)
    import_annotations(folder / "json", folder / "images", folder / "instances")
    with (folder / "instances" / "labels" / "classes.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows[:3] == [("a.tif", "1", "round"), ("a.tif", "2", "long"), ("a.tif", "3", "round")]
    with logged() as lines:
        import_annotations(folder / "json", folder / "images", folder / "classes", kind="classes")
    assert "classes: 0 background, 1 long, 2 round" in lines
    labels = tifffile.imread(folder / "classes" / "labels" / "a.tif")
    assert np.bincount(labels.ravel()).tolist() == [80 * 90 - 187, 25, 162]


def test_coco_names_its_images(folder):
    polygon = [float(value) for corner in square(0, 0, 4) for value in corner]
    content = {
        "images": [{"id": 1, "file_name": "a.tif"}, {"id": 2, "file_name": "elsewhere.tif"}],
        "annotations": [{"image_id": one, "segmentation": [polygon]} for one in (1, 2)],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    (written,) = import_annotations(folder / "coco.json", folder / "images", folder / "data")
    assert np.count_nonzero(tifffile.imread(written)) == 16


def test_one_image_and_one_file_belong_together(folder):
    labelme(folder / "drawn.json", ("", (0, 0, 4)))
    image = folder / "images" / "a.tif"
    (written,) = import_annotations(folder / "drawn.json", image, folder / "data")
    assert written.name == "a.tif"


def test_what_fails_leaves_nothing(folder):
    labelme(folder / "json" / "a.json", ("", (0, 0, 4)))
    outside = {"type": "Polygon", "coordinates": [square(0, 0, 4)], "plane": {"z": 3}}
    content = {"type": "Feature", "geometry": outside, "properties": {}}
    (folder / "json" / "b.geojson").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"b\.tif: expected objects in the planes 1 to 1"):
        import_annotations(folder / "json", folder / "images", folder / "data")
    assert not (folder / "data").exists()
    assert not (folder / "images" / "labels").exists()


def test_an_image_without_objects_has_labels_without_any(folder):
    labelme(folder / "json" / "a.json", ("round", (0, 0, 4)))
    labelme(folder / "json" / "b.json")
    images = folder / "images"
    _, empty = import_annotations(folder / "json", images, folder / "data", kind="classes")
    assert not tifffile.imread(empty).any()


def test_other_files_are_no_annotations(tmp_path):
    contents = {"a.json": b"", "b.json": b'{"pixels": 3}', "c.zip": b"PK no archive", "d.roi": b"x"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("image.tif", b"")
    assert annotation_files(tmp_path) == {}


def test_a_photograph_is_drawn_upright(tmp_path):
    photograph = Image.fromarray(np.zeros((20, 30), np.uint8))
    exif = photograph.getexif()
    exif[274] = 6  # a quarter turn
    photograph.save(tmp_path / "a.png", exif=exif)
    labelme(tmp_path / "a.json", ("", (0, 0, 4)))
    (written,) = import_annotations(tmp_path / "a.json", tmp_path / "a.png", tmp_path / "data")
    assert tifffile.imread(written).shape == (30, 20)


def test_what_is_refused(folder):
    images = folder / "images"
    labelme(folder / "others" / "z.json", ("", (0, 0, 4)))
    labelme(folder / "some" / "a.json", ("", (0, 0, 4)), ("x", (9, 9, 4)))
    (folder / "empty").mkdir()
    for annotations, options, message in (
        ("others", {}, "expected annotations named like the images in .*Received z"),
        ("some", {"kind": "classes"}, "as 1 object of 2 have no class"),
        ("empty", {}, "expected files of annotations"),
        ("nowhere", {}, "no such file. Expected annotations"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            import_annotations(folder / annotations, images, folder / "data", **options)
        assert not (folder / "data").exists()
    (folder / "labels").mkdir()
    (folder / "labels" / "mine.tif").touch()
    with pytest.raises(FileExistsError, match="expected a new or empty folder for label images"):
        import_annotations(folder / "rois", images, folder)


def test_the_command(folder):
    words = ["data", "import", folder / "rois", "--images", folder / "images", "--out"]
    result = CliRunner().invoke(main, [*map(str, words), str(folder / "data")])
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"next: keras-unet inspect {folder / 'data'}\n")
    again = CliRunner().invoke(main, [*map(str, words), str(folder / "data")])
    assert again.exit_code == 2
    assert len(again.stderr.splitlines()) == 1


@pytest.mark.parametrize("layout", ["in folders", "beside"])
def test_outlines_take_the_place_of_label_images(folder, layout):
    rois, data = folder / "rois", folder / "data"
    places = {"in folders": ("images", "labels"), "beside": ("", "")}[layout]
    images, labels = (data / place for place in places)
    shutil.copytree(folder / "images", images)
    shutil.copytree(rois, labels, dirs_exist_ok=True)
    tifffile.imwrite(labels / "c_mask.tif", np.load(folder / "c.npy").astype(np.uint8))
    labelme(labels / "c.json", ("", (0, 0, 4)))  # the label image comes first
    samples = read_samples(data)
    assert samples.encoding.kind == "instances"
    assert [sample.name for sample in samples.samples] == ["a", "b", "c"]
    for sample in samples.samples:
        np.testing.assert_array_equal(sample.instances, np.load(folder / f"{sample.name}.npy"))
    assert [f"{unused}" for unused in samples.unused] == ["c.json (no partner)"]


def test_outlines_of_several_images_are_imported_first(folder):
    polygon = [float(value) for corner in square(0, 0, 4) for value in corner]
    images = [{"id": number, "file_name": f"{number}.tif"} for number in (1, 2)]
    annotations = [{"image_id": 1, "segmentation": [polygon]}]
    (folder / "labels").mkdir()
    content = {"images": images, "annotations": annotations}
    (folder / "labels" / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="Received those of 2; run keras-unet data import"):
        read_samples(folder)
