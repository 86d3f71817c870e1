"""Loading of exported models, and of those that are exported first."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from keras_unet.serving.models import Model, Version


def test_all_versions_of_a_folder_are_loaded(loaded, model):
    assert loaded.name == "cells"
    assert sorted(loaded.versions) == [1, 2]
    assert loaded.newest.number == 2
    assert Model.load(model / "1").name == "cells"
    assert list(Model.load(model / "1").versions) == [1]


def test_a_version_under_another_name_is_the_first(model, tmp_path):
    folder = shutil.copytree(model / "2", tmp_path / "mine")
    found = Model.load(folder)
    assert (found.name, list(found.versions)) == ("mine", [1])


def test_versions_are_found_by_number_and_label(loaded):
    assert loaded.version().number == 2
    assert loaded.version("1").number == loaded.version("01").number == 1
    assert loaded.version(label="stable").number == 1
    assert loaded.version("7") is None
    assert loaded.version("9" * 5000) is None
    with pytest.raises(ValueError, match=r"Unrecognized servable version label: x"):
        loaded.version(label="x")


def test_a_run_is_exported_first_and_leaves_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = Model.load(trained)
    assert (found.name, list(found.versions)) == (trained.name, [1])
    assert not list(tmp_path.iterdir())
    image = np.zeros((1, 5, 6, 1), np.float32)
    assert found.newest.run("serving_default", {"image": image})["classes"].shape == (1, 5, 6)


def test_the_information_is_that_of_the_run(loaded, trained):
    from keras_unet.runs import Run

    run = Run.load(trained)
    info = loaded.versions[1].info
    assert (info.instances, info.encoding) == (run.instances, run.encoding)


REFUSED = {
    "nothing": ("nowhere", {}, OSError, "nowhere: expected a run, an ensemble"),
    "empty": ("empty", {}, OSError, "empty: expected a run, the folder that keras-unet train"),
    "damaged": ("damaged", {}, ValueError, r"1: expected a SavedModel that TensorFlow loads.*ex"),
    "no weights": ("bare", {}, ValueError, "1: expected a SavedModel that TensorFlow loads"),
    "name": ("cells", {"name": "a/b"}, ValueError, "name must be at least one char.*'a/b'; choose"),
    "no name": ("cells", {"name": ":"}, ValueError, "name must be at least one character"),
    "label": ("cells", {"labels": {"x": 3}}, ValueError, "versions 1, 2. Received: x=3"),
}


@pytest.mark.parametrize(("path", "options", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_models_that_cannot_be_served(model, tmp_path, path, options, kind, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged" / "1").mkdir(parents=True)
    (tmp_path / "damaged" / "1" / "saved_model.pb").write_bytes(b"\xff" * 99)
    shutil.copytree(model / "1", tmp_path / "bare" / "1")
    shutil.rmtree(tmp_path / "bare" / "1" / "variables")
    folder = model if path == "cells" else tmp_path / path
    with pytest.raises(kind, match=message) as caught:
        Model.load(folder, **options)
    assert "\n" not in str(caught.value)


def test_errors_of_the_graph_have_the_reason_alone(loaded):
    with pytest.raises(ValueError, match=r"^assertion failed: \[.*\] \[5 6 1\]$"):
        loaded.newest.run("serving_default", {"image": np.zeros((5, 6, 1), np.float32)})
    with pytest.raises(ValueError, match=re.escape('"x" not found in signature def')):
        loaded.newest.input_dtypes("x")


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("ResourceExhaustedError", MemoryError), ("InternalError", RuntimeError)],
)
def test_errors_of_tensorflow_are_those_of_python(kind, raised):
    from keras_unet.backend import tf

    def fail(**_):
        message = "Graph execution error:\n\n<stack traces unavailable>\nthe reason\n\t [[{{node a"
        raise getattr(tf.errors, kind)(None, None, message)

    version = Version(1, {}, {"about": fail}, None)
    with pytest.raises(raised, match=r"^the reason$"):
        version.run("about", {})


def test_a_model_of_others_has_no_information(loaded):
    version = Version(1, {}, {}, None)
    assert version.info is None
    own = loaded.versions[1]

    class Named:
        def numpy(self):
            return np.array([b"{}"], object)

    assert Version(1, {}, {"about": lambda **_: {"about": Named()}}, own).info is None
