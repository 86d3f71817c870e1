"""Cells of two kinds, from drawn labels to scores by class, by the command line."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from kinds import NAMES, draw_kinds, with_values, write_classes

import keras_unet
from keras_unet.cli import main
from keras_unet.data.object_classes import CLASSES
from keras_unet.measurement.geojson import write_geojson
from keras_unet.measurement.objects import ImageObjects, PlaneObjects
from keras_unet.prediction.load import load
from keras_unet.prediction.outputs import OutputOptions
from keras_unet.runs import Run

TINY = ["--depth", "1", "--base-filters", "2", "--steps", "1"]
TRAINING = ["--depth", "2", "--base-filters", "8", "--padding", "same", "--steps", "250"]
TRAINING += ["--seed", "1", "--precision", "float32", "--amplitude", "0"]


def write(folder, names, *, is_labeled=True):
    """Writes drawn images, with labels, and returns the truth by name."""
    for place in ("images", *(["labels"] if is_labeled else [])):
        (folder / place).mkdir(parents=True, exist_ok=True)
    drawn = {name: draw_kinds(ord(name), size=(128, 128), cells=20) for name in names}
    for name, (image, labels, _) in drawn.items():
        tifffile.imwrite(folder / "images" / f"{name}.tif", image)
        if is_labeled:
            tifffile.imwrite(folder / "labels" / f"{name}.tif", labels.astype(np.uint16))
    if is_labeled:
        write_classes(folder / "labels", {name: one[2] for name, one in drawn.items()})
    return drawn


def run(*words):
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def trained_on_kinds(tmp_path_factory):
    """Folder with a run, trained on six images."""
    folder = tmp_path_factory.mktemp("kinds")
    write(folder / "data", "abcdef")
    run("train", folder / "data", "--run", folder / "run", *TRAINING)
    return folder


def test_new_cells_are_found_apart_with_their_classes(trained_on_kinds, tmp_path):
    truth = write(tmp_path / "new", "xyz")
    out = tmp_path / "out"
    save = "instances,classes,table,rois,geojson"
    run(
        "predict",
        trained_on_kinds / "run",
        tmp_path / "new" / "images",
        "--out",
        out,
        "--save",
        save,
    )
    with (out / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = touching = apart = 0
    for name, (_, labels, classes) in truth.items():
        found = tifffile.imread(out / f"{name}.tif")
        stated = {int(row["number"]): row["class"] for row in rows if row["file"] == f"{name}.tif"}
        match = {number: int(np.bincount(found[labels == number]).argmax()) for number in classes}
        right += sum(stated.get(match[number]) == classes[number] for number in classes)
        for one, other in touching_pairs(labels):
            if classes[one] != classes[other]:
                touching += 1
                apart += match[one] != match[other]
    cells = sum(len(classes) for _, _, classes in truth.values())
    assert touching >= 10
    assert right >= 0.9 * cells
    assert apart >= 0.9 * touching
    scores = tmp_path / "scores.json"
    result = run("evaluate", out, tmp_path / "new" / "labels", "--json", scores)
    assert "Cells matched within each class" in result.stdout
    overall = json.loads(scores.read_text())["overall"]
    by_class = overall["matching_of_class"]
    assert list(by_class) == list(NAMES)
    assert overall["matching"][0]["tp"] >= 0.5 * cells  # many that touch have nearly one grey
    assert sum(rows[0]["tp"] for rows in by_class.values()) >= 0.9 * overall["matching"][0]["tp"]


def touching_pairs(labels):
    """Returns the pairs of cells that share an edge of a pixel."""
    pairs = set()
    for first, second in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        at_edge = (first != second) & (first > 0) & (second > 0)
        pairs |= set(map(tuple, np.sort(np.stack([first[at_edge], second[at_edge]], -1)).tolist()))
    return pairs


def test_the_run_states_the_classes(trained_on_kinds):
    trained = Run.load(trained_on_kinds / "run")
    assert trained.encoding.class_names == NAMES
    assert trained.architecture.classes == 3
    assert load(trained_on_kinds / "run").info.encoding == trained.encoding
    counts = trained.record["data"]["objects"]
    page = (trained_on_kinds / "run" / "report.html").read_text()
    assert f"{counts['bright']} bright, {counts['dark']} dark" in page
    assert "Cells matched within each class" in page


def test_inspect_counts_the_cells_of_each_class(trained_on_kinds, tmp_path):
    counts = Run.load(trained_on_kinds / "run").record["data"]["objects"]
    result = run("inspect", trained_on_kinds / "data", "--out", tmp_path / "inspection")
    line = f"in total: {counts['bright']} bright, {counts['dark']} dark"
    assert line in re.sub(r"\s+", " ", result.output)


def test_predictions_are_labels_for_another_training(trained_on_kinds, tmp_path):
    write(tmp_path / "data", "xy", is_labeled=False)
    images, labels = tmp_path / "data" / "images", tmp_path / "data" / "labels"
    run("predict", trained_on_kinds / "run", images, "--out", labels, "--overwrite")
    assert (labels / CLASSES).is_file()
    result = run(
        "train", tmp_path / "data", "--run", tmp_path / "run", "--steps", 1, "--from",
        trained_on_kinds / "run",
    )  # fmt: skip
    assert "starting from the weights of" in result.output
    assert "initialized at random" not in result.output


def test_what_is_imported_is_trained_on_at_once(tmp_path):
    drawn = write(tmp_path / "drawn", "ab", is_labeled=False)
    (tmp_path / "outlines").mkdir()
    for name, (_, labels, classes) in drawn.items():
        objects = PlaneObjects.of(labels).of_classes(classes)
        write_geojson(
            tmp_path / "outlines" / f"{name}.geojson",
            ImageObjects(tmp_path / f"{name}.tif", [objects], classes=("background", *NAMES)),
        )
    images = tmp_path / "drawn" / "images"
    run("data", "import", tmp_path / "outlines", "--images", images, "--out", tmp_path / "data")
    run("train", tmp_path / "data", "--run", tmp_path / "run", *TINY)
    assert Run.load(tmp_path / "run").encoding.class_names == NAMES


def test_arrays_with_classes_are_trained_on():
    drawn = [draw_kinds(seed, size=(96, 96)) for seed in range(2)]
    images = [image for image, _, _ in drawn]
    pairs = [with_values(*pair) for _, *pair in drawn]
    segmenter = keras_unet.train(images, pairs, steps=1, depth=1, base_filters=2)
    assert segmenter.info.encoding.names == ("background", "class 1", "class 2")
    assert segmenter.segment(images[0]).shape == (96, 96)
    assert set(segmenter.measure(images[0])["class"].tolist()) <= {"class 1", "class 2"}
    plain = keras_unet.train(images, pairs, steps=1, depth=1, base_filters=2, kind="instances")
    assert plain.info.encoding.names == ("background", "cell")


def test_affinities_are_those_of_objects_of_any_class(tmp_path):
    drawn = [draw_kinds(seed, size=(96, 96)) for seed in range(2)]
    images = [image for image, _, _ in drawn]
    pairs = [with_values(*pair) for _, *pair in drawn]
    options = {"steps": 1, "depth": 1, "base_filters": 2, "affinities": True}
    segmenter = keras_unet.train(images, pairs, **options)
    assert segmenter.info.architecture.affinities
    assert segmenter.info.architecture.classes == 3
    assert segmenter.predict(images[0]).shape == (96, 96, 3)
    tifffile.imwrite(tmp_path / "a.tif", images[0])
    for stream in (False, True):
        keras_unet.predict_files(
            segmenter,
            tmp_path / "a.tif",
            tmp_path / f"{stream}",
            save=["instances", "table"],
            instances={"affinities": True, "threshold": 0.3},
            storage=OutputOptions(stream=stream),
        )
    tables = [(tmp_path / f"{stream}" / "objects.csv").read_text() for stream in (False, True)]
    assert tables[0] == tables[1]
    merged = [np.where(pair[..., 0] > 0, pair[..., 1], 0) for pair in pairs]
    assert not keras_unet.train(
        images, merged, kind="classes", **options
    ).info.architecture.affinities


def test_data_that_lack_a_class_are_refused_in_one_line(trained_on_kinds, tmp_path):
    data = shutil.copytree(trained_on_kinds / "data", tmp_path / "data")
    table = data / "labels" / CLASSES
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    result = CliRunner().invoke(main, ["train", str(data), "--run", str(tmp_path / "run"), *TINY])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "f.tif: expected a class for each object" in line
    assert not (tmp_path / "run").exists()
