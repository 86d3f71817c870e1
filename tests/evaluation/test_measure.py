"""Measurement of folders of label images."""

import csv
import json

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from kinds import write_classes
from PIL import Image

from keras_unet.cli import main
from keras_unet.data import lazy
from keras_unet.data.images import write_tiff
from keras_unet.evaluation import measure
from keras_unet.evaluation.measure import measure_files

CELLS = np.array([[7, 7, 0, 0], [7, 7, 0, 9]], np.uint16)
GREY = np.arange(8, dtype=np.uint16).reshape(2, 4)


def write(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_tiff(folder / f"{name}.tif", np.asarray(array), axes="ZYX"[-np.ndim(array) :])
    return folder


def rows(folder):
    with (folder / "objects.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_objects_of_a_folder(tmp_path):
    labels = write(tmp_path / "labels", a=CELLS, b=np.where(CELLS == 7, 7, 0).astype(np.uint16))
    written = measure_files(labels, tmp_path / "out")
    assert written == [tmp_path / "out" / "objects.csv"]
    found = [(row["file"], row["number"], row["area_px"]) for row in rows(tmp_path / "out")]
    assert found == [("a.tif", "7", "4"), ("a.tif", "9", "1"), ("b.tif", "7", "4")]
    assert "intensity_mean" not in rows(tmp_path / "out")[0]


def test_intensities_and_outlines(tmp_path):
    labels = write(tmp_path / "labels", a_mask=CELLS)
    images = write(tmp_path / "images", a=GREY, other=GREY)
    save = ["rois", "table", "geojson"]
    written = measure_files(labels, tmp_path / "out", images=images, save=save)
    assert [path.name for path in written] == ["a_rois.zip", "a.geojson", "objects.csv"]
    first, second = rows(tmp_path / "out")
    assert (first["file"], first["intensity_mean"], first["intensity_sum"]) == (
        "a.tif",
        "2.5",
        "10",
    )
    assert second["intensity_median"] == "7"


def test_grey_in_three_equal_channels_is_one_channel(tmp_path):
    labels = write(tmp_path / "labels", a=CELLS)
    Image.fromarray(np.stack([GREY.astype(np.uint8)] * 3, axis=-1)).save(tmp_path / "a.png")
    measure_files(labels / "a.tif", tmp_path / "out", images=tmp_path / "a.png")
    assert rows(tmp_path / "out")[0]["intensity_mean"] == "2.5"


def test_one_file_and_its_image(tmp_path):
    write(tmp_path, a_mask=CELLS, a=GREY)
    measure_files(tmp_path / "a_mask.tif", tmp_path / "out", images=tmp_path / "a.tif")
    assert [row["number"] for row in rows(tmp_path / "out")] == ["7", "9"]


def test_predictions_are_measured_without_their_other_outputs(trained, cells, tmp_path):
    from keras_unet.prediction.folder import predict_files

    images = cells / "images"
    save = ["instances", "classes", "probabilities", "table"]
    predict_files(trained, images, tmp_path / "out", save=save)
    measure_files(tmp_path / "out", tmp_path / "measured", images=images)
    first, second = rows(tmp_path / "out"), rows(tmp_path / "measured")
    assert len(first) == len(second) > 0
    left_out = ("class", "mean_probability")  # which labels do not have
    assert [{**row, **dict.fromkeys(left_out)} for row in first] == [
        {**row, **dict.fromkeys(left_out)} for row in second
    ]


def test_classes_are_split_into_components(tmp_path):
    labels = write(tmp_path / "labels", a=np.array([[0, 1, 2, 2, 0, 1]], np.uint8))
    measure_files(labels, tmp_path / "out", kind="classes")
    found = [(row["class"], row["area_px"]) for row in rows(tmp_path / "out")]
    assert found == [("label 1", "1"), ("label 2", "2"), ("label 1", "1")]


def test_the_pixel_size_of_the_image_of_the_labels_or_as_given(tmp_path):
    labels = write(tmp_path / "labels", a=CELLS)
    for name, size in (("labels", 2), ("images", 4)):
        (tmp_path / name).mkdir(exist_ok=True)
        pixels = {"labels": CELLS, "images": GREY}[name]
        calibration = {"axes": "YX", "unit": "um"}
        path = tmp_path / name / "a.tif"
        tifffile.imwrite(path, pixels, imagej=True, resolution=(size, size), metadata=calibration)
    for options, area in (
        ({}, 1),
        ({"images": tmp_path / "images"}, 0.25),
        ({"pixel_size": 3.0}, 36),
    ):
        measure_files(labels, tmp_path / "out", **options)
        assert float(rows(tmp_path / "out")[0]["area_um2"]) == area


def test_planes_of_a_stack(tmp_path):
    labels = write(tmp_path / "labels", a=np.stack([CELLS, CELLS[::-1]]))
    images = write(tmp_path / "images", a=np.stack([GREY, GREY + 100]))
    measure_files(labels, tmp_path / "out", images=images)
    found = [(row["plane"], row["number"], row["intensity_mean"]) for row in rows(tmp_path / "out")]
    assert found == [("1", "7", "2.5"), ("1", "9", "7"), ("2", "7", "102.5"), ("2", "9", "103")]


def test_labels_of_the_cell_tracking_challenge(tmp_path):
    write(tmp_path / "01_GT" / "SEG", man_seg001=CELLS)
    images = write(tmp_path / "01", t000=GREY, t001=GREY + 1)
    measure_files(tmp_path / "01_GT" / "SEG", tmp_path / "out", images=images)
    assert [(row["file"], row["intensity_sum"]) for row in rows(tmp_path / "out")] == [
        ("t001.tif", "14"),
        ("t001.tif", "8"),
    ]


def test_large_files_give_the_same(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    big = np.kron(random.integers(0, 60, (30, 40)), np.ones((9, 9))).astype(np.uint16)
    labels = write(tmp_path / "labels", a=big)
    images = write(tmp_path / "images", a=random.integers(0, 9, big.shape).astype(np.uint8))
    zarr.save_array(tmp_path / "b.zarr", big)
    measure_files(labels, tmp_path / "whole", images=images, kind="instances")
    monkeypatch.setattr(lazy, "LARGE", 1000)
    monkeypatch.setattr(measure, "read_labels", None)
    measure_files(labels, tmp_path / "parts", images=images)
    measure_files(tmp_path / "b.zarr", tmp_path / "zarr", images=images / "a.tif")
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts") == rows(tmp_path / "zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save": ["tables"]}, "save must be of table, rois, geojson. Received: tables"),
        ({"save": []}, "save must be of .* Received: none of them"),
        ({"images": "wrong"}, "expected one plane of 2 x 4 pixels.*Received.*3 x 4 pixels"),
        ({"images": "others"}, "expected images named like the labels"),
        ({"images": "nowhere"}, "expected an image or a folder of images"),
        ({"pixel_size": -1.0}, "pixel_size must be"),
    ],
)
def test_what_is_refused(tmp_path, options, message):
    labels = write(tmp_path / "labels", a=CELLS)
    write(tmp_path / "wrong", a=np.zeros((3, 4), np.uint8))
    write(tmp_path / "others", b=GREY)
    if "images" in options:
        options = {"images": tmp_path / options["images"]}
    with pytest.raises((ValueError, OSError), match=message):
        measure_files(labels, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_one_image_without_a_partner_is_named(tmp_path):
    labels = write(tmp_path / "labels", a=CELLS, b=CELLS)
    images = write(tmp_path / "images", a=GREY)
    with pytest.raises(ValueError, match=r"Received none for b\.tif; add them"):
        measure_files(labels, tmp_path / "out", images=images)


def test_files_of_others_are_not_replaced(tmp_path):
    labels = write(tmp_path / "labels", a=CELLS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "objects.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"objects\.csv: expected no file"):
        measure_files(labels, tmp_path / "out")
    measure_files(labels, tmp_path / "out", overwrite=True)
    measure_files(labels, tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 2


def test_the_command(tmp_path):
    labels = write(tmp_path / "labels", a=CELLS)
    images = write(tmp_path / "images", a=GREY)
    words = ["measure", labels, "--images", images, "--out", tmp_path / "out", "--pixel-size", "2"]
    result = CliRunner().invoke(main, [*map(str, words), "--save", "table,rois"])
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"2 files written to {tmp_path / 'out'}\n")
    assert [row["area_um2"] for row in rows(tmp_path / "out")] == ["16", "4"]
    wrong = CliRunner().invoke(main, [*map(str, words), "--save", "tables"])
    assert (wrong.exit_code, len(wrong.stderr.splitlines())) == (2, 1)


def test_a_table_may_lie_beside_the_labels(tmp_path):
    labels = write(tmp_path / "labels", a=CELLS)
    measure_files(labels, labels)
    assert sorted(path.name for path in labels.iterdir()) == ["a.tif", "objects.csv"]


def test_classes_of_objects_are_read(tmp_path, monkeypatch):
    write(tmp_path / "labels", a=CELLS, b=CELLS)
    write_classes(tmp_path / "labels", {"a": {7: "round", 9: "long"}, "b": {7: "odd", 3: "lost"}})
    for is_large in (False, True):
        out = tmp_path / f"{is_large}"
        monkeypatch.setattr(lazy, "LARGE", 0 if is_large else 2**26)
        measure_files(tmp_path / "labels", out, save=["table", "geojson"])
        found = [(row["file"], row["number"], row["class"]) for row in rows(out)]
        assert found == [
            ("a.tif", "7", "round"),
            ("a.tif", "9", "long"),
            ("b.tif", "7", "odd"),
            ("b.tif", "9", ""),  # added since the classes were written
        ]
        features = json.loads((out / "a.geojson").read_text())["features"]
        classes = [feature["properties"]["classification"] for feature in features]
        assert [one["name"] for one in classes] == ["round", "long"]
        assert classes[0]["color"] != classes[1]["color"]
    monkeypatch.setattr(lazy, "LARGE", 2**26)
    write_classes(tmp_path / "labels", {"a": {7: "round"}, "a.ome": {7: "long"}})
    with pytest.raises(ValueError, match=r"a\.tif: .* Received round and long for object 7"):
        measure_files(tmp_path / "labels", tmp_path / "out")
    measure_files(tmp_path / "labels", tmp_path / "plain", kind="instances")
    assert {row["class"] for row in rows(tmp_path / "plain")} == {""}
    write_classes(tmp_path / "labels", {"a": {7: ""}})
    measure_files(tmp_path / "labels", tmp_path / "nameless")
    assert {row["class"] for row in rows(tmp_path / "nameless")} == {""}
