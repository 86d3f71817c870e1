"""From a run to a version folder, compared with the run before it gets its name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from logs import logged

from keras_unet.data.images import read_planes
from keras_unet.export import saved_model as export
from keras_unet.export.export import export_model
from keras_unet.export.saved_model import write_graph
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.predict import predict_image
from keras_unet.runs import Run


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    """The folder of an export, and the lines that were said."""
    out = tmp_path_factory.mktemp("exported") / "cells"
    with logged() as lines:
        path = export_model(trained, out, tile_size=60, version=7, format="saved_model")
    return path, lines


def test_the_folder_is_as_servers_want_it(written):
    path, lines = written
    assert path.name == "7"
    assert [one.name for one in path.parent.iterdir()] == ["7"]
    assert sorted(one.name for one in path.iterdir()) == [
        "README.md",
        "assets",
        "assets.extra",
        "saved_model.pb",
        "variables",
    ]
    (line,) = lines
    assert line.startswith("largest difference from the run on c0.tif, 66 x 66 pixels: ")


def test_the_metadata_says_what_it_is(written, trained):
    path, _ = written
    run = Run.load(trained)
    metadata = json.loads((path / "assets.extra" / "keras_unet.json").read_text())
    assert [one["name"] for one in metadata["classes"]] == ["background", "cell"]
    assert replace(run, record=metadata["record"]) == Run.from_dict(metadata, folder=run.folder)
    assert metadata["network"]["tile_size"] == 60
    assert metadata["record"]["options"]["steps"] == 40
    weights = sha256((trained / "best.keras").read_bytes()).hexdigest()
    assert metadata["provenance"]["sha256"] == weights
    data = metadata["record"]["data"]
    assert data["training"] == ["c0", "c1", "c2"]
    assert "/" not in data["folder"]
    card = (path / "README.md").read_text()
    assert "| 1 | 1 | cell |" in card
    assert "Tile: 60 x 60 pixels" in card


def test_it_answers_as_the_run_does(written, trained, cells):
    import tensorflow as tf

    run, file = Run.load(trained), cells / "images" / "c3.tif"
    image = read_planes(file)[0]
    expected = predict_image(load_network(run), run.normalize(image, file))
    loaded = tf.saved_model.load(str(written[0]))
    answer = loaded.signatures["serving_default"](image=tf.constant(image[None], tf.float32))
    np.testing.assert_allclose(answer["probabilities"][0], expected, atol=1e-5)


def test_warm_up_requests_are_answered(written):
    import tensorflow as tf

    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    loaded = tf.saved_model.load(str(written[0]))
    path = written[0] / "assets.extra" / "tf_serving_warmup_requests"
    for one in tf.data.TFRecordDataset(str(path)):
        request = logs.PredictionLog.FromString(one.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(it)) for name, it in request.inputs.items()}
        assert loaded.signatures[request.model_spec.signature_name](**inputs)


def test_a_graph_that_answers_otherwise_is_not_kept(trained, tmp_path, monkeypatch):
    def of_other_weights(folder, run, network, *arguments, **options):
        kernel = network.get_layer("logits").kernel
        before = kernel.numpy()
        kernel.assign(before * 1.01)
        write_graph(folder, run, network, *arguments, **options)
        kernel.assign(before)

    monkeypatch.setattr(export, "write_graph", of_other_weights)
    with pytest.raises(ValueError, match=r"the same as the run, to 1e-05. Received a diff"):
        export_model(trained, tmp_path / "out", tile_size=60, format="saved_model")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_does_not_load_is_not_kept(trained, tmp_path, monkeypatch):
    def spoilt(folder, *arguments, **options):
        write_graph(folder, *arguments, **options)
        (folder / "saved_model.pb").write_bytes(b"?")

    monkeypatch.setattr(export, "write_graph", spoilt)
    with pytest.raises(ValueError, match="expected an export that a fresh process loads and runs"):
        export_model(trained, tmp_path / "out", tile_size=60, format="saved_model")
    assert not list(tmp_path.iterdir())


def test_without_its_data_a_run_is_compared_on_a_drawn_image(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    record = folder / "run.json"
    values = json.loads(record.read_text())
    values["record"]["data"]["folder"] = str(tmp_path / "moved")
    record.write_text(json.dumps(values))
    with logged() as lines:
        export_model(folder, tmp_path / "out", tile_size=60, frozen=True, format="saved_model")
    assert "on a drawn image, 66 x 66 pixels" in lines[0]
