"""From a run to an .onnx file, compared with the run before it gets its name."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from keras_unet.cli import main
from keras_unet.data.images import read_planes
from keras_unet.export import onnx as job
from keras_unet.export.export import export_model
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.predict import predict_image
from keras_unet.runs import Run


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    """The file of an export by the command line, and what was printed."""
    out = tmp_path_factory.mktemp("exported") / "new" / "cells.onnx"
    words = "export", trained, out, "--format", "onnx", "--tile", "60"
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return out, result.output


def test_it_prints_the_difference_and_leaves_one_file(written):
    path, printed = written
    first, last = printed.splitlines()
    assert first.startswith("largest difference from the run on c0.tif, 66 x 66 pixels: ")
    assert last == f"written: {path}"
    assert [one.name for one in path.parent.iterdir()] == ["cells.onnx"]


def test_it_answers_as_the_run_does(written, trained, cells):
    run, file = Run.load(trained), cells / "images" / "c3.tif"
    image = read_planes(file)[0]
    session = onnxruntime.InferenceSession(written[0])
    (answer,) = session.run(["probabilities"], {"image": image[None].astype(np.float32)})
    expected = predict_image(load_network(run), run.normalize(image, file))
    np.testing.assert_allclose(answer[0], expected, atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_an_image_is_resampled_as_the_run_does(written, trained, cells, scale):
    image = read_planes(cells / "images" / "c3.tif")[0]
    session = onnxruntime.InferenceSession(written[0])
    inputs = {"image": image[None].astype(np.float32), "scale": np.array(scale, np.float32)}
    (answer,) = session.run(["probabilities"], inputs)
    np.testing.assert_allclose(answer[0], load(trained).predict(image, scale=scale), atol=1e-5)
    assert [value.name for value in session.get_inputs()] == ["image"]
    assert [value.name for value in session.get_overridable_initializers()] == ["scale"]


def test_it_says_what_it_is(written, trained):
    properties = onnxruntime.InferenceSession(written[0]).get_modelmeta().custom_metadata_map
    about = json.loads(properties["keras_unet.json"])
    assert [one["name"] for one in about["classes"]] == ["background", "cell"]
    assert about["instances"] == Run.load(trained).instances.to_dict()
    assert about["network"]["tile_size"] == 60
    assert about["record"]["options"]["steps"] == 40


def test_a_file_that_answers_otherwise_is_not_kept(trained, tmp_path, monkeypatch):
    write = job.write_onnx

    def of_other_weights(path, metadata, network):
        kernel = network.get_layer("logits").kernel
        before = kernel.numpy()
        kernel.assign(before * 1.01)
        write(path, metadata, network)
        kernel.assign(before)

    monkeypatch.setattr(job, "write_onnx", of_other_weights)
    with pytest.raises(ValueError, match=r"the same as the run, to 1e-05. Received a diff"):
        export_model(trained, tmp_path / "out" / "a.onnx", tile_size=60, format="onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_load_is_not_kept(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "write_onnx", lambda path, *_: path.write_bytes(b"?"))
    with pytest.raises(ValueError, match="expected an export that a fresh process loads and runs"):
        export_model(trained, tmp_path / "out" / "a.onnx", tile_size=60, format="onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(trained, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"a\.tflite: expected .* that ends in \.onnx"):
        export_model(trained, tmp_path / "a.tflite", format="onnx")
    (tmp_path / "a.onnx").touch()
    with pytest.raises(FileExistsError, match="expected a file that does not exist yet"):
        export_model(trained, tmp_path / "a.onnx", format="onnx")
    with pytest.raises(ValueError, match=r"tile_size must be 2k and at least 18.*Received: 27"):
        export_model(trained, tmp_path / "b.onnx", tile_size=27, format="onnx")
    monkeypatch.setattr(job, "require", lambda extra, *_: require_nothing(extra))
    with pytest.raises(ModuleNotFoundError, match="onnx"):
        export_model(trained, tmp_path / "b.onnx", format="onnx")
    assert not (tmp_path / "b.onnx").exists()


def require_nothing(extra):
    raise ModuleNotFoundError(extra)
