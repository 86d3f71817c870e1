"""From a run to a BioImage.IO package, tested and compared before it gets its name."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from keras_unet.cli import main
from keras_unet.export import bioimageio as job
from keras_unet.export import bioimageio as writing
from keras_unet.export.export import export_model
from keras_unet.export.graph import smallest_block
from keras_unet.runs import Run

FILES = [
    "README.md",
    "cover.png",
    "model.keras",
    "rdf.yaml",
    "sample_input.tif",
    "sample_output.tif",
    "test_input.npy",
    "test_output.npy",
    "tf_weights.zip",
    "weights.onnx",
]


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    """The file of an export by the command line, and what was printed."""
    out = tmp_path_factory.mktemp("exported") / "new" / "cells.zip"
    words = ["export", str(trained), str(out), "--format", "bioimageio", "--license", "MIT"]
    words += ["--author", "Ada Lovelace", "--author", "Grace Hopper"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_it_prints_the_difference_and_leaves_one_file(written):
    path, printed = written
    first, second, last = printed.splitlines()
    assert first.startswith("largest difference from the run on c0.tif, 96 x 96 pixels: ")
    assert second == "authors: Ada Lovelace, Grace Hopper (--author); license: MIT (--license)"
    assert last == f"written: {path}"
    assert [one.name for one in path.parent.iterdir()] == ["cells.zip"]


def test_the_package_is_complete(written, trained, tmp_path):
    with zipfile.ZipFile(written[0]) as package:
        assert sorted(package.namelist()) == FILES
        package.extractall(tmp_path)
    text = (tmp_path / "rdf.yaml").read_text()
    assert "  - name: Ada Lovelace\n  - name: Grace Hopper\nlicense: MIT\n" in text
    assert f"min: {smallest_block(Run.load(trained).architecture)}\n" in text
    with Image.open(tmp_path / "cover.png") as cover:
        assert cover.size == (192, 96)
    assert np.load(tmp_path / "test_input.npy").shape == (1, 96, 96, 1)
    assert "| 1 | 1 | cell |" in (tmp_path / "README.md").read_text()


def test_weights_that_answer_otherwise_are_not_kept(trained, tmp_path, monkeypatch):
    """The package's own test compares them with what the run has made of the example."""
    model = writing.any_size_model

    def of_other_weights(network, *arguments):
        kernel = network.get_layer("logits").kernel
        kernel.assign(kernel.numpy() * 1.5)
        return model(network, *arguments)

    monkeypatch.setattr(writing, "any_size_model", of_other_weights)
    with pytest.raises(ValueError, match=r"process loads and runs. Received .*Reproduce test out"):
        export_model(trained, tmp_path / "out" / "a.zip", format="bioimageio")
    assert not list(tmp_path.iterdir())


def test_a_description_that_is_not_valid_is_not_kept(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_TAGS", [{"not": "text"}])
    with pytest.raises(ValueError, match=r"process loads and runs. Received .*valid string"):
        export_model(trained, tmp_path / "out" / "a.zip", format="bioimageio")
    assert not list(tmp_path.iterdir())


def test_an_image_smaller_than_a_block_is_mirrored(trained):
    run = Run.load(trained)
    deep = replace(run, architecture=replace(run.architecture, depth=4))
    image = job._example_image(deep)
    assert image.shape == (208, 208, 1)
    np.testing.assert_array_equal(image[96:191], image[94::-1][:95])


def test_what_cannot_be_exported(trained, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"cells: expected .* that ends in \.zip"):
        export_model(trained, tmp_path / "cells", format="bioimageio")
    with pytest.raises(ValueError, match=r"license must be an SPDX identifier.*Received: 'mine'"):
        export_model(trained, tmp_path / "b.zip", license="mine", format="bioimageio")
    (tmp_path / "a.zip").touch()
    with pytest.raises(FileExistsError, match="expected a file that does not exist yet"):
        export_model(trained, tmp_path / "a.zip", format="bioimageio")
    with pytest.raises(ValueError, match='expected a model without norm_layer="group"'):
        export_model(
            grouped(trained, tmp_path / "grouped"), tmp_path / "b.zip", format="bioimageio"
        )
    monkeypatch.setattr(job, "_PACKAGES", ("no_such_package",))
    with pytest.raises(ModuleNotFoundError, match=r"extra bioimageio\. .* no_such_package; pip"):
        export_model(trained, tmp_path / "b.zip", format="bioimageio")
    assert not (tmp_path / "b.zip").exists()


def grouped(run, folder):
    """A copy of a run that says its network normalizes groups."""
    shutil.copytree(run, folder)
    values = json.loads((folder / "run.json").read_text())
    values["architecture"]["norm_layer"] = "group"
    (folder / "run.json").write_text(json.dumps(values))
    return folder


def test_an_option_of_another_format_is_refused(trained, tmp_path):
    words = ["export", str(trained), str(tmp_path / "a.zip"), "--format", "bioimageio"]
    result = CliRunner().invoke(main, [*words, "--tile", "60"])
    assert result.exit_code == 2
    assert "takes --author, --license. Received --tile" in result.output
