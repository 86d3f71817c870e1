"""From a run to a .tflite file, compared with the run before it gets its name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tifffile
from logs import logged

from keras_unet.data.images import read_planes
from keras_unet.export import tflite as job
from keras_unet.export.export import export_model
from keras_unet.export.graph import GraphTiling
from keras_unet.export.parity import MEAN
from keras_unet.export.tflite import write_tflite
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.prediction.tflite import load_tflite
from keras_unet.runs import Run
from keras_unet.tiling import Tiling, mirrored_window


def export(run, out, **options):
    return export_model(run, out, tile_size=60, **options, format="tflite")


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def with_record(run, folder, change):
    """A copy of a run whose record of the data is changed."""
    shutil.copytree(run, folder)
    record = folder / "run.json"
    values = json.loads(record.read_text())
    change(values["record"]["data"])
    record.write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "largest difference from the run on c0.tif, 66 x 66 pixels: "),
        ({"quantize": "float16"}, "largest difference from the run on c0.tif"),
        ({"quantize": "dynamic"}, "mean difference from the run on c0.tif"),
        ({"quantize": "int8", "int8_io": True}, "mean difference from the run on c0.tif"),
    ],
)
def test_a_file_of_each_kind_answers_as_the_run_does(trained, cells, tmp_path, options, line):
    with logged() as lines:
        path = export(trained, tmp_path / "new" / "cells.tflite", **options)
    assert path == tmp_path / "new" / "cells.tflite"
    assert files(tmp_path) == ["cells.tflite", "new"]
    assert len(lines) == 1
    assert lines[0].startswith(line)
    run, network, file = Run.load(trained), load_tflite(path), cells / "images" / "c3.tif"
    image = run.normalize(read_planes(file)[0], file)
    answer = predict_image(network, image, architecture=network.architecture)
    expected = predict_image(load_network(run), image, tile_size=60)
    measure, tolerance = job.TOLERANCES[options.get("quantize", "none")]
    assert measure.compute(answer, expected) < tolerance


def spoiled(spoil):
    """A writer that spoils the last layer of the network."""

    def write(path, metadata, network, quantization, tiles):
        layer = network.get_layer("logits")
        before = layer.get_weights()
        layer.set_weights([spoil(weights) for weights in before])
        write_tflite(path, metadata, network, quantization, tiles)
        layer.set_weights(before)

    return write


@pytest.mark.parametrize(
    ("quantize", "spoil", "message"),
    [
        ("none", lambda weights: weights * 1.01, r"to 1e-05\. Received .* \(largest\) on c0\.tif"),
        ("none", lambda weights: weights * np.nan, "model must give finite logits"),
        ("int8", np.zeros_like, r"to 1e-01\. Received a difference of \S+ \(mean\)"),
        ("dynamic", lambda weights: weights[..., ::-1].copy(), r"to 5e-02\. Received"),
    ],
    ids=["other weights", "no numbers", "dropped weights", "swapped classes"],
)
def test_a_file_that_answers_otherwise_is_not_kept(
    trained, tmp_path, monkeypatch, quantize, spoil, message
):
    monkeypatch.setattr(job, "write_tflite", spoiled(spoil))
    with pytest.raises(ValueError, match=message):
        export(trained, tmp_path / "new" / "cells.tflite", quantize=quantize)
    assert not files(tmp_path)


def test_few_cells_are_not_lost_among_background():
    answered = np.tile([1.0, 0.0], (10, 10, 1))
    expected = answered.copy()
    expected[0, :2] = [0.0, 1.0]
    assert np.abs(answered - expected).mean() == pytest.approx(0.02)
    assert MEAN.compute(answered, expected) == 0.5
    assert MEAN.compute(expected, expected) == 0


def moved(data):
    data["folder"] = "/nowhere/cells"


def of_others(data):
    data["training"] = ["x1", "x2"]


REFUSED = {
    "ending": ({}, "cells.onnx", r"cells\.onnx: expected the name of a file .* in \.tflite"),
    "mode": ({"quantize": "int4"}, "a.tflite", "quantize must be one of none, .*Received: 'int4'"),
    "io": ({"int8_io": True}, "a.tflite", 'int8_io needs quantize="int8"'),
    "data": ({"data": "here"}, "a.tflite", 'data is for quantize="int8" only.*"none"; leave'),
    "no data": (
        {"quantize": "int8", "data": "no"},
        "a.tflite",
        r"no: no such folder\. .* by data \(--data\)",
    ),
    "tile": ({"tile_size": 47}, "a.tflite", "tile_size must be 2k.*Received: 47"),
    "there": ({}, "there.tflite", r"there\.tflite: expected a file that does not exist yet"),
}


@pytest.mark.parametrize(("options", "name", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exported_leaves_nothing(trained, tmp_path, options, name, message):
    (tmp_path / "there.tflite").touch()
    if "data" in options:
        options = options | {"data": tmp_path / options["data"]}
    with pytest.raises((ValueError, OSError), match=message) as error:
        export_model(trained, tmp_path / name, **options, format="tflite")
    assert "\n" not in str(error.value)
    assert files(tmp_path) == ["there.tflite"]


def test_int8_needs_the_images_of_the_training(trained, cells, tmp_path):
    run = with_record(trained, tmp_path / "moved", moved)
    with pytest.raises(FileNotFoundError, match=r"/nowhere/cells: no such folder.*\(--data\)"):
        export(run, tmp_path / "a.tflite", quantize="int8")
    assert export(run, tmp_path / "a.tflite", quantize="int8", data=cells).is_file()
    other = with_record(trained, tmp_path / "other", of_others)
    with pytest.raises(ValueError, match=r"expected images that the run was trained on\. Received"):
        export(other, tmp_path / "b.tflite", quantize="int8")


def representative(run, data):
    return job._representative_tiles(run, GraphTiling.of(run.architecture, 60), data)


def windows(run, path):
    image = run.normalize(read_planes(path)[0], path)
    tiles = Tiling.covering(image.shape[:2], run.architecture, (60, 60))
    return [mirrored_window(image, *tile.read) for tile in tiles]


def test_representative_tiles_are_cut_from_the_training_images(trained, cells):
    run = Run.load(trained)
    tiles = representative(run, cells)
    known = [tile for n in range(3) for tile in windows(run, cells / "images" / f"c{n}.tif")]
    assert len(tiles) == job.TILES
    assert len(known) == 3 * 9
    for tile in tiles:
        assert tile.dtype == np.float32
        assert any(np.array_equal(tile, one) for one in known)
    assert len({tile.tobytes() for tile in tiles}) == job.TILES


def test_tiles_with_a_bright_speck_are_not_representative(trained, cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    path = data / "images" / "c1.tif"
    image = tifffile.imread(path).astype(np.float32)
    image[3, 3] = 100 * image.max()
    tifffile.imwrite(path, image)
    run = Run.load(trained)
    assert max(np.abs(tile).max() for tile in windows(run, path)) > 50
    assert max(np.abs(tile).max() for tile in representative(run, data)) < 10


def test_a_few_tiles_are_all_taken(trained, cells, tmp_path):
    run = with_record(trained, tmp_path / "run", lambda data: data.update(training=["c1"]))
    assert 1 <= len(representative(Run.load(run), cells)) <= 9


def test_files_are_predicted_as_by_the_run(trained, lite, cells, tmp_path):
    image, outputs = cells / "images" / "c3.tif", ("instances", "probabilities")
    for source, name in ((trained, "run"), (lite, "lite")):
        predict_files(source, [image], tmp_path / name, save=outputs)
    by_run, by_lite = (
        [tifffile.imread(tmp_path / name / file) for file in ("c3.tif", "c3_probabilities.tif")]
        for name in ("run", "lite")
    )
    np.testing.assert_allclose(by_lite[1], by_run[1], atol=1e-5)
    assert (by_lite[0] == by_run[0]).mean() > 0.999
    assert by_run[0].max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bfloat16"}, r"precision is that of .*cells\.tflite.*; leave it out"),
        ({"tile_size": 70}, "tile_size must be left out or be 60 x 60"),
    ],
)
def test_a_file_has_its_own_tile_and_precision(lite, cells, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        predict_files(lite, [cells / "images"], tmp_path / "out", **options)
    assert not files(tmp_path)


def test_a_notebooks_model_is_measured_on_images_that_are_named(
    trained, cells, tmp_path, monkeypatch
):
    """It has recorded no data, and the current folder is not taken for it."""
    segmenter = Segmenter.from_model(load(trained).model)
    monkeypatch.chdir(cells)
    options = {"tile_size": 60, "quantize": "int8"}
    with pytest.raises(FileNotFoundError, match=r"model: no such folder. Expected the data"):
        export_model(segmenter, tmp_path / "a.tflite", **options)
    assert export_model(segmenter, tmp_path / "a.tflite", data=cells, **options).is_file()
