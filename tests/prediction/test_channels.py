"""Channels chosen for training and prediction."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from microscope_files import write_czi

from keras_unet.cli import main
from keras_unet.export.parity import example_image
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.outputs import OutputOptions
from keras_unet.runs import Run
from keras_unet.training.dataset import TrainingData
from keras_unet.training.options import ResolvedOptions, TrainingOptions

NAMES = ("noise", "cells", "dark")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def channels_of(cells):
    """Three channels, of which the second one shows cells."""
    noise = np.random.default_rng(0).integers(0, 3000, cells.shape).astype(np.uint16)
    return np.stack([noise, cells, noise // 9])


def write(path, cells, order=(0, 1, 2)):
    metadata = {"axes": "CYX", "Channel": {"Name": [NAMES[index] for index in order]}}
    pixels = channels_of(cells)[list(order)]
    tifffile.imwrite(path, pixels, metadata=metadata, photometric="minisblack")
    return path


@pytest.fixture
def grey(cells):
    return tifffile.imread(cells / "images" / "c3.tif")


@pytest.fixture
def expected(trained, cells, tmp_path):
    predict_files(trained, cells / "images" / "c3.tif", tmp_path / "expected")
    labels = tifffile.imread(tmp_path / "expected" / "c3.tif")
    assert labels.any()
    return labels


@pytest.fixture
def recorded(trained, tmp_path):
    """The small run, as if it had been trained on the channel of the cells."""

    def record(*channels):
        folder = shutil.copytree(trained, tmp_path / "recorded", dirs_exist_ok=True)
        values = json.loads((folder / "run.json").read_text()) | {"channels": list(channels)}
        (folder / "run.json").write_text(json.dumps(values))
        return folder

    return record


@pytest.mark.parametrize("channels", [["cells"], [1]])
@pytest.mark.parametrize("stream", [False, True])
def test_a_channel_is_predicted_like_an_image_of_it_alone(
    trained, grey, expected, tmp_path, channels, stream
):
    path, storage = write(tmp_path / "a.ome.tif", grey), OutputOptions(stream=stream)
    save = ["instances", "table"]
    options = {"channels": channels, "storage": storage, "save": save}
    predict_files(trained, path, tmp_path / "out", **options)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), expected)
    predict_files(trained, path, tmp_path / "noise", **options | {"channels": [0]})
    other = tifffile.imread(tmp_path / "noise" / "a.tif")
    assert not np.array_equal(other, expected)


def test_the_channel_of_the_training_is_read_of_images_that_have_more(
    recorded, grey, expected, tmp_path
):
    model = recorded("cells")
    write(tmp_path / "a.ome.tif", grey)
    write(tmp_path / "b.ome.tif", grey, (2, 0, 1))
    write_czi(tmp_path / "c.czi", [channels_of(grey)[None, None]], names=NAMES)
    tifffile.imwrite(tmp_path / "d.tif", grey)
    files = [tmp_path / name for name in ("a.ome.tif", "b.ome.tif", "c.czi", "d.tif")]
    predict_files(model, files, tmp_path / "out")
    for name in "abcd":
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / f"{name}.tif"), expected)


def test_a_choice_takes_the_place_of_that_of_the_training(recorded, grey, expected, tmp_path):
    model = recorded("noise")
    result = run(
        *("predict", model, write(tmp_path / "a.ome.tif", grey)),
        *("--out", tmp_path / "out", "--channels", "cells"),
    )
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), expected)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ("RFP", "a.ome.tif: expected a channel RFP. Received 3 channels: 0 noise, 1 cells, 2 dark"),
        ("3", "a.ome.tif: expected a channel 3. Received 3 channels: 0 noise, 1 cells, 2 dark"),
        ("0,1", "a.ome.tif: expected 1 channel or 3 equal ones, received 2"),
        (",", "channels must be different numbers of at least 0, or names. Received: channels=()"),
    ],
)
def test_channels_that_are_not_there_are_refused_before_anything_is_written(
    trained, grey, tmp_path, channels, message
):
    path = write(tmp_path / "a.ome.tif", grey)
    result = run("predict", trained, path, "--out", tmp_path / "out", "--channels", channels)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_other_numbers_of_channels_are_refused_with_the_option(trained, grey, tmp_path):
    with pytest.raises(ValueError, match=r"received 3. Convert .* choose channels by --channels"):
        predict_files(trained, write(tmp_path / "a.ome.tif", grey), tmp_path / "out")


@pytest.fixture
def data(cells, tmp_path):
    """The small data set with two channels more, in different order."""
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number, order in enumerate([(0, 1, 2), (1, 2, 0), (2, 0, 1)]):
        path = tmp_path / "data" / "images" / f"c{number}.ome.tif"
        write(path, tifffile.imread(cells / "images" / f"c{number}.tif"), order)
        shutil.copy(cells / "labels" / f"c{number}.tif", tmp_path / "data" / "labels")
    return tmp_path / "data"


def test_a_training_records_its_channels(data, cells, tmp_path):
    options = ("--channels", "cells", "--depth", "1", "--base-filters", "4", "--tile", "60")
    length = ("--steps", "1", "--precision", "float32", "--quiet")
    result = run("train", data, "--run", tmp_path / "run", *options, *length)
    assert result.exit_code == 0, result.output
    trained = Run.load(tmp_path / "run")
    assert trained.channels == ("cells",)
    assert trained.architecture.channels == 1
    assert ResolvedOptions.from_dict(trained.record["options"]).channels == ("cells",)
    image, name = example_image(trained, 96)
    assert name == "c0.ome.tif"
    np.testing.assert_array_equal(image[..., 0], tifffile.imread(cells / "images" / "c0.tif"))


def test_an_inspection_takes_the_channels_of_a_training(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("inspect", data, "--channels", "cells", "--depth", "1", "--tile", "60")
    assert result.exit_code == 0, result.output
    assert "1 channel" in result.output
    result = run("inspect", data, "--channels", "RFP")
    assert result.exit_code == 2
    assert "expected a channel RFP. Received 3 channels: 0 noise, 1 cells, 2 dark" in result.output


def test_arrays_are_indexed(grey):
    options = TrainingOptions(channels=(0,))
    with pytest.raises(ValueError, match=r"channels must be None for arrays.* index the last axis"):
        TrainingData.of([grey], [grey], options)
    with pytest.raises(
        ValueError, match=r"channels must be different numbers of at least 0, or na"
    ):
        TrainingOptions(channels=(-1,))
