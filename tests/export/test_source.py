"""An ensemble exported as one, in every format, against what it predicts itself."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import onnxruntime
import pytest
import tifffile
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner
from logs import logged

from keras_unet.backend import tf
from keras_unet.cli import main
from keras_unet.data.images import read_planes
from keras_unet.data.normalization import Normalization
from keras_unet.export.export import export_model
from keras_unet.export.graph import average_ensemble
from keras_unet.export.tflite import TOLERANCES
from keras_unet.instances.label import InstanceOptions
from keras_unet.prediction import server as remote
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.load import load
from keras_unet.prediction.networks import new_network
from keras_unet.prediction.tflite import load_tflite
from keras_unet.runs import BEST, Ensemble, Run

RULE = InstanceOptions(threshold=0.4)
SAVE = ("instances", "probabilities")


def changed(run, folder, rule, **data):
    """A copy of a run that has normalized by other numbers, on other images."""
    shutil.copytree(run, folder)
    values = json.loads((folder / "run.json").read_text())
    values["normalization"] = rule.to_dict()
    values["record"]["data"].update(data)
    (folder / "run.json").write_text(json.dumps(values))


@pytest.fixture(scope="module")
def ensemble(trained, tmp_path_factory):
    """A trained and a drawn network, each with numbers of its own; not to be written to."""
    folder = tmp_path_factory.mktemp("ensembles") / "cells"
    held_out = (("c3",), ("c0", "c1", "c2"))
    record = Ensemble(folder, held_out, {"steps": 40}, RULE)
    first, second = record.folds
    changed(trained, first, Normalization("dataset", (100.0,), (30.0,)))
    other = Normalization("dataset", (40.0,), (75.0,))
    changed(trained, second, other, training=["c3"], validation=["c0", "c1", "c2"])
    network = new_network(Run.load(second), seed=5)
    layer = network.get_layer("logits")
    layer.set_weights([4 * weights for weights in layer.get_weights()])
    network.save(second / BEST)
    record.save()
    return folder


@pytest.fixture(scope="module")
def predicted(ensemble, cells, tmp_path_factory):
    """What the ensemble makes of c3: a folder of label image and probabilities."""
    return predict(ensemble, cells, tmp_path_factory.mktemp("predicted"))


def predict(source, cells, out, **options):
    files = [cells / "images" / "c3.tif"]
    predict_files(source, files, out, save=SAVE, **options)
    return out


def probabilities(folder):
    return np.moveaxis(tifffile.imread(folder / "c3_probabilities.tif"), 0, -1)


def labels(folder):
    return tifffile.imread(folder / "c3.tif")


def c3(cells):
    return read_planes(cells / "images" / "c3.tif")[0].astype(np.float32)[None]


def command(*words):
    result = CliRunner().invoke(main, ["export", *map(str, words)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("largest difference from the ensemble on c0.tif, ")


@pytest.fixture(scope="module")
def saved(ensemble, tmp_path_factory):
    """The folder of a SavedModel."""
    out = tmp_path_factory.mktemp("exported") / "cells"
    command(ensemble, out, "--format", "saved_model", "--tile", 60)
    return out / "1"


def test_the_folds_would_not_predict_alike(ensemble, predicted, cells, tmp_path):
    for fold in Ensemble.load(ensemble).folds:
        alone = probabilities(predict(fold, cells, tmp_path / fold.name))
        assert np.abs(alone - probabilities(predicted)).max() > 0.1
    members = load(ensemble).members
    network = average_ensemble(
        [one.network for one in members], [one.info.normalization for one in members]
    )
    assert network.name == "ensemble"
    assert len(network.get_weights()) == 2 * len(members[0].network.get_weights())


def test_a_saved_model_predicts_the_mean(saved, predicted, cells):
    loaded = tf.saved_model.load(str(saved))
    answer = loaded.signatures["serving_default"](image=tf.constant(c3(cells)))
    np.testing.assert_allclose(answer["probabilities"][0], probabilities(predicted), atol=1e-5)


def test_a_saved_model_says_what_it_is(saved, ensemble):
    metadata = json.loads((saved / "assets.extra" / "keras_unet.json").read_text())
    folds = [member.info for member in load(ensemble).members]
    assert metadata["name"] == "cells"
    assert metadata["instances"] == RULE.to_dict()
    data = metadata["record"]["data"]
    assert data == {"folder": data["folder"], "training": ["c0", "c1", "c2", "c3"]}
    assert metadata["record"]["options"] == {"steps": 40}
    for said, fold in zip(metadata["provenance"]["folds"], folds, strict=True):
        assert said["name"] == fold.folder.name
        assert said["normalization"] == fold.normalization.to_dict()
        assert said["record"]["data"]["training"] == fold.record["data"]["training"]
        assert "/" not in said["record"]["data"]["folder"]
        assert said["record"]["outcome"]["steps"] == 40
    assert len({said["sha256"] for said in metadata["provenance"]["folds"]}) == 2
    assert metadata["normalization"] == folds[0].normalization.to_dict()
    card = (saved / "README.md").read_text()
    assert "# cells\n\nAn ensemble of 2 U-Nets (" in card
    assert "Training: 4 images, each held out by one network, 40 + 40 steps; validation" in card


class Loaded:
    """A client whose server is the SavedModel in this process."""

    def __init__(self, folder):
        self.signatures, self.address = tf.saved_model.load(str(folder)).signatures, "here"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def about(self):
        return json.loads(self.signatures["about"](query=tf.constant([b""]))["about"].numpy()[0])

    def predict(self, signature, inputs, outputs):
        pixels = tf.constant(np.asarray(inputs["image"]))
        answer = self.signatures[signature](image=pixels)
        return {name: answer[name].numpy() for name in outputs}


def test_a_served_ensemble_predicts_the_same_files(saved, predicted, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "Client", lambda *_, **__: Loaded(saved))
    files = [cells / "images" / "c3.tif"]
    with logged() as lines:
        predict_files("grpc://here/cells", files, tmp_path, save=SAVE)
    assert lines[0] == RULE.describe()
    np.testing.assert_allclose(probabilities(tmp_path), probabilities(predicted), atol=1e-5)
    assert (labels(tmp_path) == labels(predicted)).mean() > 0.999
    assert Loaded(saved).about()["networks"] == 2


def test_a_tflite_file_predicts_the_same_files(ensemble, predicted, cells, tmp_path):
    path = tmp_path / "cells.tflite"
    command(ensemble, path, "--format", "tflite", "--tile", 60)
    predict(path, cells, tmp_path)
    np.testing.assert_allclose(probabilities(tmp_path), probabilities(predicted), atol=1e-5)
    assert (labels(tmp_path) == labels(predicted)).mean() > 0.999
    run = load_tflite(path).info
    assert run.instances == RULE
    assert run.record["data"]["training"] == ["c0", "c1", "c2", "c3"]


@pytest.mark.parametrize("mode", ["float16", "int8"])
def test_a_smaller_tflite_file_predicts_nearly_the_same(ensemble, predicted, cells, tmp_path, mode):
    """int8 with tiles of the images of all folds."""
    path = tmp_path / "cells.tflite"
    options = {"quantize": mode, "int8_io": mode == "int8"}
    with logged() as lines:
        export_model(ensemble, path, tile_size=60, **options)
    assert "difference from the ensemble on c0.tif" in lines[0]
    measure, tolerance = TOLERANCES[mode]
    answer, expected = probabilities(predict(path, cells, tmp_path)), probabilities(predicted)
    assert measure.compute(answer, expected) < tolerance
    (graph,) = schema.ModelT.InitFromPackedBuf(path.read_bytes()).subgraphs
    types = {tensor.type for tensor in graph.tensors}
    assert mode != "int8" or types == {schema.TensorType.INT8, schema.TensorType.INT32}


def test_a_bioimageio_package_predicts_the_mean(ensemble, predicted, cells, tmp_path):
    path = tmp_path / "cells.zip"
    command(ensemble, path, "--format", "bioimageio")
    with zipfile.ZipFile(path) as package:
        session = onnxruntime.InferenceSession(package.read("weights.onnx"))
        rdf, card = (package.read(name).decode() for name in ("rdf.yaml", "README.md"))
    (answer,) = session.run(["probabilities"], {"image": c3(cells)})
    np.testing.assert_allclose(answer[0], probabilities(predicted), atol=1e-5)
    assert "description: Ensemble of 2 U-Nets that predict" in rdf
    assert "name: fold-2\n" in rdf
    assert "\nAn ensemble of 2 U-Nets (" in card


def test_an_onnx_file_predicts_the_mean(ensemble, predicted, cells, tmp_path):
    path = tmp_path / "cells.onnx"
    command(ensemble, path, "--format", "onnx", "--tile", 60)
    session = onnxruntime.InferenceSession(path)
    (answer,) = session.run(["probabilities"], {"image": c3(cells)})
    np.testing.assert_allclose(answer[0], probabilities(predicted), atol=1e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["keras_unet.json"])
    assert about["networks"] == len(about["provenance"]["folds"]) == 2


def copied(ensemble, tmp_path):
    return Ensemble.load(shutil.copytree(ensemble, tmp_path / "copy"))


def test_an_ensemble_that_is_not_trained_to_its_end_is_refused(ensemble, tmp_path):
    record = copied(ensemble, tmp_path)
    Ensemble(record.folder, record.held_out, record.options).save()
    with pytest.raises(FileNotFoundError, match=r"all 2 folds are trained.* one of its folds"):
        export_model(record.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folds_that_do_not_go_together_are_refused(ensemble, tmp_path):
    record = copied(ensemble, tmp_path)
    path = record.folds[1] / "run.json"
    values = json.loads(path.read_text())
    values["normalization"] = Normalization("image").to_dict()
    path.write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match=r"copy: expected .* Received 2 different ones; train it again"
    ):
        export_model(record.folder, tmp_path / "out")
