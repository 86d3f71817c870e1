import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from logs import logged
from PIL import Image

from keras_unet.cli import main
from keras_unet.data.normalization import Normalization
from keras_unet.report.pictures import ONLY_REFERENCE
from keras_unet.runs import ModelInfo
from keras_unet.training import inspect as inspecting
from keras_unet.training.dataset import TrainingData, weight_maps
from keras_unet.training.inspect import inspect_folder
from keras_unet.training.options import TrainingOptions
from keras_unet.training.train import train_folder

OPTIONS = TrainingOptions(
    steps=2, depth=1, base_filters=2, tile=60, validation=("c3",), precision="float32"
)


@pytest.fixture
def data(cells, tmp_path):
    return shutil.copytree(cells, tmp_path / "data")


@pytest.fixture
def montages(monkeypatch):
    """Collects the rows of pictures that are drawn."""
    drawn = {}
    original = inspecting.montage

    def collect(rows, titles):
        drawn[titles[0]] = rows
        return original(rows, titles)

    monkeypatch.setattr(inspecting, "montage", collect)
    return drawn


@pytest.fixture(scope="module")
def inspected(cells, tmp_path_factory):
    """An inspection of the cells, and the messages logged."""
    out = tmp_path_factory.mktemp("inspected") / "out"
    with logged() as messages:
        return inspect_folder(cells, out, OPTIONS), messages


def test_pictures_and_words(inspected):
    found, messages = inspected
    assert [path.name for path in found.pictures] == ["samples.png", "tiles.png"]
    for path in found.pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 160
    text = "\n".join(messages)
    assert "4 images of 96 x 96 pixels" in text
    assert "training on 3, held out for validation: 1" in text
    assert "samples.png: c0, c1, c2" in text
    assert "--sigma" in text
    assert "--depth" not in text


def test_nothing_else_is_left(inspected):
    found, _ = inspected
    folder = found.pictures[0].parent
    assert {path.name for path in folder.iterdir()} == {"samples.png", "tiles.png"}


def test_it_sees_what_train_sees(inspected, cells, tmp_path):
    found, messages = inspected
    with logged() as trained:
        run = train_folder(cells, tmp_path / "run", OPTIONS)
    assert run.architecture == found.network
    assert run.record["options"] == found.options.to_dict() | {"validation": ("c3",)}
    assert run.record["data"]["fingerprint"]["cells"] == found.fingerprint.cells
    assert run.record["data"]["warnings"] == found.warnings
    assert messages[0] in trained


def test_the_tiles_are_those_that_a_training_begins_with(cells, tmp_path, montages):
    found = inspect_folder(cells, tmp_path / "out", OPTIONS)
    read = TrainingData.of(cells, None, OPTIONS)
    targets = read.targets(read.split(OPTIONS).training)
    info = ModelInfo(
        architecture=found.network,
        encoding=read.samples.encoding,
        normalization=Normalization.of([one.sample.image for one in targets], "image"),
    )
    weights = weight_maps(tmp_path, targets, 2, found.options)
    batches = read.batches(info, targets, weights, found.options)(0)
    for row, (image, y_true) in zip(montages["tile"], batches.take(6), strict=True):
        tile = inspecting._frame_output(inspecting.grey_picture(image[0].numpy()), 8)
        np.testing.assert_array_equal(row[0], tile)
        np.testing.assert_array_equal(row[2], inspecting.heat_picture(y_true[0, ..., 1].numpy()))
    assert (montages["tile"][0][0][7, 7:53] == ONLY_REFERENCE).all()


def test_the_seed_and_the_amplitude_count(cells, tmp_path, montages):
    drawn = []
    for options in (OPTIONS, replace(OPTIONS, seed=1), replace(OPTIONS, amplitude=0.0)):
        inspect_folder(cells, tmp_path / "out", options)
        drawn.append(montages["tile"][0][0])
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_no_border_weight_is_seen_in_the_weight_map(cells, tmp_path, montages):
    for weight, values in ((10.0, 3), (0.0, 2)):
        options = replace(OPTIONS, border_weight=weight)
        inspect_folder(cells, tmp_path / "out", options)
        colours = np.unique(montages["image"][0][2].reshape(-1, 3), axis=0)
        assert (len(colours) >= 3) == (values == 3)


def test_without_a_margin_there_is_no_line(cells, tmp_path, montages):
    options = replace(OPTIONS, padding="same", tile=64)
    inspect_folder(cells, tmp_path / "out", options)
    row = montages["tile"][0]
    assert row[0].shape == row[1].shape == (64, 64, 3)
    assert not (row[0] == ONLY_REFERENCE).all(axis=2).any()


def test_of_many_images_some_from_first_to_last_are_drawn():
    assert inspecting._evenly_spaced(range(11)) == [0, 2, 4, 6, 8, 10]
    assert inspecting._evenly_spaced(range(2)) == [0, 1]


def test_warnings_are_logged_and_recorded(data, tmp_path):
    shutil.copy(data / "images" / "c0.tif", data / "images" / "c3.tif")
    tifffile.imwrite(data / "images" / "lonely.tif", np.zeros((9, 9), np.uint8))
    with logged() as messages:
        found = inspect_folder(data, tmp_path / "out", OPTIONS)
    assert [line for line in messages if line.startswith("Warning: ")] == [
        f"Warning: {line}" for line in found.warnings
    ]
    assert "images/lonely.tif" in found.warnings[0]
    assert "c0 = c3); copies in both training and validation data" in found.warnings[1]
    run = train_folder(data, tmp_path / "run", OPTIONS)
    assert run.record["data"]["warnings"] == found.warnings


def test_older_pictures_are_replaced_and_other_files_are_safe(cells, tmp_path):
    out = tmp_path / "out"
    inspect_folder(cells, out, OPTIONS)
    inspect_folder(cells, out, OPTIONS)
    shutil.copytree(out, tmp_path / "other")
    (out / "mine.txt").touch()
    (tmp_path / "other" / "tiles.png").write_text("mine")
    for folder in (out, tmp_path / "other"):
        with pytest.raises(FileExistsError, match=r"expected a new or empty folder for the pict"):
            inspect_folder(cells, folder, OPTIONS)


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_takes_the_options_of_train(cells, tmp_path):
    options = ("--depth", 1, "--tile", 60, "--validation", "c3", "--sigma", 3, "--seed", 5)
    result = invoke("inspect", cells, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "--steps" in result.output
    assert "--sigma" not in result.output
    assert f"next: keras-unet train {cells} --run RUN" in result.output
    assert (tmp_path / "out" / "tiles.png").is_file()


def test_what_train_refuses_is_refused_in_one_line(data, tmp_path):
    shutil.rmtree(data / "labels")
    result = invoke("inspect", data, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "expected images/ and labels/" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
