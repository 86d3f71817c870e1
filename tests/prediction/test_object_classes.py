"""Predicted objects have classes, in all outputs."""

import csv
import json
import zipfile

import numpy as np
import pytest
import tifffile
from kinds import NAMES, by_grey, draw_kinds
from roifile import ImagejRoi

from keras_unet.data.object_classes import CLASSES, read_table
from keras_unet.data.samples import read_samples
from keras_unet.measurement.properties import measure_objects
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.outputs import OutputOptions

NUMBERS = {"bright": 1, "dark": 2}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        tifffile.imwrite(folder / f"{name}.tif", draw_kinds(seed, separated=True)[0])
    return folder


def expected_of(labels, truth, classes):
    """Returns the class of each label by the drawn object that it covers most."""
    found = {}
    for number in np.unique(labels[labels > 0]).tolist():
        drawn = truth[(labels == number) & (truth > 0)]
        found[number] = classes[int(np.bincount(drawn).argmax())]
    return found


def test_all_outputs_state_the_class_of_each_object(images, tmp_path):
    out = tmp_path / "out"
    save = ["instances", "classes", "table", "rois", "geojson"]
    written = predict_files(by_grey(), images, out, save=save)
    assert out / CLASSES in written
    rows = read_table(out / CLASSES)
    with (out / "objects.csv").open(newline="") as file:
        table = [(row["file"], int(row["number"]), row["class"]) for row in csv.DictReader(file)]
    assert [(row.file, row.number, row.name) for row in rows] == table
    for seed, name in enumerate("ab"):
        _, truth, classes = draw_kinds(seed, separated=True)
        labels = tifffile.imread(out / f"{name}.tif")
        expected = expected_of(labels, truth, classes)
        assert set(expected.values()) == set(NAMES)
        assert {row.number: row.name for row in rows if row.file == f"{name}.tif"} == expected
        pixels = tifffile.imread(out / f"{name}_classes.tif")
        np.testing.assert_array_equal(
            pixels[truth > 0], [NUMBERS[classes[number]] for number in truth[truth > 0].tolist()]
        )
        features = json.loads((out / f"{name}.geojson").read_text())["features"]
        stated = {
            int(one["properties"]["name"]): one["properties"]["classification"]["name"]
            for one in features
        }
        assert stated == expected
        colors = {}
        with zipfile.ZipFile(out / f"{name}_rois.zip") as archive:
            for entry in archive.namelist():
                roi = ImagejRoi.frombytes(archive.read(entry))
                color = colors.setdefault(expected[int(entry.removesuffix(".roi"))], set())
                color.add(roi.stroke_color)
        assert len(set.union(*colors.values())) == 2
        assert all(len(found) == 1 for found in colors.values())


def test_what_is_predicted_is_read_as_labels_again(images, tmp_path):
    predict_files(by_grey(), images, tmp_path / "labels", overwrite=True)
    samples = read_samples(tmp_path)
    assert samples.encoding == by_grey().info.encoding
    for seed, sample in enumerate(samples.samples):
        _, truth, classes = draw_kinds(seed, separated=True)
        found = [NUMBERS[classes[number]] for number in truth[truth > 0].tolist()]
        np.testing.assert_array_equal(sample.classes[truth > 0], found)


def test_the_classes_of_images_in_parts_are_the_same(images, tmp_path):
    save = ["instances", "table"]
    for name, stream in (("whole", False), ("parts", True)):
        predict_files(
            by_grey(), images, tmp_path / name, save=save, storage=OutputOptions(stream=stream)
        )
    for file in (CLASSES, "objects.csv"):
        whole, parts = ((tmp_path / name / file).read_text() for name in ("whole", "parts"))
        assert whole == parts


@pytest.mark.parametrize("stream", [False, True])
def test_objects_of_a_stack_have_the_plane_and_the_number_of_their_track(tmp_path, stream):
    drawn = draw_kinds(0, separated=True)
    planes = np.stack([drawn[0], 200 - drawn[0]])  # in the second one, classes are swapped
    tifffile.imwrite(tmp_path / "s.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    storage = OutputOptions(stream=stream)
    for link in (None, "z"):
        out = tmp_path / f"{link}"
        predict_files(by_grey(), tmp_path / "s.tif", out, link=link, storage=storage)
        labels, rows = tifffile.imread(out / "s.tif"), read_table(out / CLASSES)
        for plane in (0, 1):
            names = NAMES if plane == 0 else NAMES[::-1]
            classes = {number: names[NAMES.index(name)] for number, name in drawn[2].items()}
            stated = {row.number: row.name for row in rows if row.plane == plane + 1}
            assert stated == expected_of(labels[plane], drawn[1], classes)


def test_rows_of_other_images_are_kept_and_stale_ones_removed(images, tmp_path):
    out = tmp_path / "out"
    predict_files(by_grey(), images / "a.tif", out)
    first = read_table(out / CLASSES)
    predict_files(by_grey(), images / "b.tif", out)
    both = read_table(out / CLASSES)
    assert both[: len(first)] == first
    assert {row.file for row in both} == {"a.tif", "b.tif"}
    predict_files(by_grey(), images, out)
    assert read_table(out / CLASSES) == both
    predict_files(by_grey(()), images / "a.tif", out)
    assert {row.file for row in read_table(out / CLASSES)} == {"b.tif"}
    predict_files(by_grey(()), images, out)
    assert not (out / CLASSES).exists()


def test_other_tables_are_not_replaced(images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / CLASSES).write_text("number;color\n1;red\n")
    with pytest.raises(ValueError, match=r"classes\.csv: expected no file, or one that keras-unet"):
        predict_files(by_grey(), images, out)
    predict_files(by_grey(()), images, out)  # writes no classes
    assert (out / CLASSES).read_text() == "number;color\n1;red\n"
    (out / CLASSES).write_text("file,number,class\na.tif,one,dark\n")
    with pytest.raises(ValueError, match="expected whole numbers from 1"):
        predict_files(by_grey(), images, out)


def test_without_objects_there_is_no_table(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((40, 40), 100, np.uint8))
    written = predict_files(by_grey(), tmp_path / "a.tif", tmp_path / "out")
    assert [path.name for path in written] == ["a.tif"]


def test_a_segmenter_measures_classes_also_of_a_resampled_image():
    image, truth, classes = draw_kinds(0, separated=True)
    for scale in ("off", 2):
        segmenter = by_grey()
        labels = segmenter.segment(image, scale=scale)
        columns = segmenter.measure(image, scale=scale)
        stated = dict(zip(columns["number"].tolist(), columns["class"].tolist(), strict=True))
        assert stated == expected_of(labels, truth, classes)


def test_the_class_is_that_of_the_highest_mean_probability():
    probabilities = np.array([[[0.2, 0.8, 0.0], [0.2, 0.0, 0.8], [0.2, 0.35, 0.45]]], np.float32)
    labels = np.array([[3, 3, 3]])
    columns = measure_objects(labels, probabilities=probabilities, classes=("", *NAMES))
    assert columns["class"].tolist() == ["dark"]  # of means 0.38 and 0.42
