"""Models that come with the package."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import keras_unet
from keras_unet import shipped
from keras_unet.cli import main
from keras_unet.data.images import read_planes
from keras_unet.data.samples import read_samples
from keras_unet.model import build_unet
from keras_unet.prediction.load import load
from keras_unet.runs import Run
from keras_unet.training.initial import Initial
from keras_unet.training.options import TrainingOptions
from keras_unet.training.train import train_folder


@pytest.fixture
def dots(trained, tmp_path, monkeypatch):
    """A model of the name "dots", in a folder of models of its own."""
    folder = tmp_path / "models" / "dots"
    folder.mkdir(parents=True)
    shutil.copy(trained / "best.keras", folder)
    (folder / "card.md").write_text("# dots\n\nDots on paper.\n")
    checksum = Initial.of(trained).to_dict()["sha256"]
    about = {"description": "dots on paper", "license": "CC0-1.0", "sha256": checksum}
    run = Run.load(trained)
    dataclasses.replace(run, folder=folder, record={**run.record, **about}).save()
    monkeypatch.setattr(shipped, "FOLDER", folder.parent)
    return folder


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("dots")
def test_a_model_is_loaded_by_its_name(trained, cells):
    image = read_samples(cells).samples[0].image
    segmenter = keras_unet.load("dots")
    assert segmenter.info.name == "dots"
    np.testing.assert_array_equal(segmenter.segment(image), load(trained).segment(image))


def test_a_run_of_that_name_comes_first(dots, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dots").mkdir()  # such as a folder of images
    assert load("dots").members[0].weights.parent == dots
    shutil.copytree(trained, tmp_path / "dots", dirs_exist_ok=True)
    assert load("dots").members[0].weights.parent.resolve() == tmp_path / "dots"


def test_damaged_weights_are_refused(dots):
    with (dots / "best.keras").open("ab") as file:
        file.write(b"0")
    with pytest.raises(ValueError, match=r"best.keras: expected the weights of the model dots"):
        load("dots")


@pytest.mark.usefixtures("dots")
def test_other_names_are_refused_with_those_that_are_there():
    with pytest.raises(FileNotFoundError, match=r"dotz: .*a model of the package \(dots\)"):
        load("dotz")
    with pytest.raises(ValueError, match=r"must be one of dots. Received: 'dotz'"):
        shipped.card("dotz")
    result = invoke("models", "dotz")
    assert result.exit_code == 2
    assert "must be one of dots" in result.stderr


@pytest.mark.usefixtures("dots")
def test_models_are_listed_and_their_cards_printed():
    assert "dots     dots on paper (CC0-1.0)" in invoke("models").stdout
    assert invoke("models", "dots").stdout == "# dots\n\nDots on paper.\n\n"


@pytest.mark.usefixtures("dots")
def test_images_are_predicted_by_a_name(trained, cells, tmp_path):
    for model, out in (("dots", "by-name"), (trained, "by-path")):
        result = invoke("predict", model, cells / "images", "--out", tmp_path / out)
        assert result.exit_code == 0, result.output
    for path in (tmp_path / "by-name").glob("*.tif"):
        expected = read_planes(tmp_path / "by-path" / path.name)
        np.testing.assert_array_equal(read_planes(path), expected)


@pytest.mark.usefixtures("dots")
def test_a_training_starts_from_a_name_and_records_its_license(cells, tmp_path):
    options = TrainingOptions(steps=1, learning_rate=1e-9)
    run = train_folder(cells, tmp_path / "run", options, initial="dots")
    initial = run.record["initial"]
    assert (initial["name"], initial["path"], initial["license"]) == ("dots", "dots", "CC0-1.0")
    repeated = train_folder(cells, tmp_path / "again", repeat=tmp_path / "run")
    assert repeated.record["initial"] == initial


@pytest.mark.usefixtures("dots")
class TestBuildUnet:
    def test_the_weights_are_those_of_the_model(self, trained):
        model = build_unet((None, None, 1), weights="dots")
        for ours, theirs in zip(model.weights, load(trained).model.weights, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert build_unet((60, 60, 1), weights="dots", depth=1).input_shape == (None, 60, 60, 1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"depth": 2}, "depth=1. Received: depth=2; leave"),
            ({"classes": 3}, "classes=2. Received: classes=3"),
            ({"input_shape": (None, None, 3)}, "channels=1. Received: channels=3"),
        ],
    )
    def test_other_networks_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=f'weights="dots" needs {message}'):
            build_unet(**{"input_shape": (None, None, 1), **arguments}, weights="dots")

    def test_sizes_are_those_of_its_depth(self):
        with pytest.raises(ValueError, match="for depth=1"):
            build_unet((61, 60, 1), weights="dots")


@pytest.mark.parametrize("name", shipped.names())
class TestEach:
    """The models that are there."""

    def test_it_predicts_an_image(self, name):
        segmenter = load(name)
        architecture = segmenter.info.architecture
        size = architecture.fitting_size(200)
        image = np.random.default_rng(0).integers(0, 255, (size, size)).astype(np.uint8)
        assert segmenter.predict(image).shape == (size, size, architecture.classes)

    def test_its_record_names_license_and_no_path(self, name):
        record = shipped.record(name)["record"]
        assert record["license"] in ("CC0-1.0", "MIT")
        assert record["data"]["folder"] == "(arrays)"

    def test_its_card_has_scores_and_what_it_fails_on(self, name):
        card = shipped.card(name)
        assert card.startswith(f"# {name}\n")
        assert "| data | images | score | value |" in card
        assert "- **Fails on**: \n" not in card


def test_the_models_are_small():
    sizes = [path.stat().st_size for path in shipped.FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) < 12e6
