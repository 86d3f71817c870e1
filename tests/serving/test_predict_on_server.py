"""Predicting files by a server: the same files as by the run, from the command line on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from logs import logged
from PIL import Image

from keras_unet.cli import main
from keras_unet.client import Client
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.outputs import OutputOptions

SAVE = ("instances", "classes", "probabilities")


def quiet(job, *arguments, **options):
    return job(*arguments, **options)


@pytest.fixture
def images(cells, tmp_path):
    """A cell picture in many formats."""
    folder = tmp_path / "images"
    folder.mkdir()
    picture = tifffile.imread(cells / "images" / "c3.tif")
    grey = (picture / picture.max() * 255).astype(np.uint8)
    shutil.copy(cells / "images" / "c3.tif", folder / "tiff.tif")
    tifffile.imwrite(folder / "deep.tif", picture.astype(np.uint16) * 100)
    tifffile.imwrite(folder / "stack.tif", np.stack([picture, picture[::-1]]))
    Image.fromarray(grey).save(folder / "png.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep_png.png")
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    Image.fromarray(grey > 99).save(folder / "bits.png")
    Image.fromarray(grey).save(folder / "jpeg.jpg", quality=90)
    Image.fromarray(grey).convert("RGB").save(folder / "colours.bmp")
    return folder


def contents(folder):
    return {path.name: tifffile.imread(path) for path in sorted(folder.iterdir())}


def test_all_outputs_are_those_of_the_run(served, transport, trained, images, tmp_path):
    address = served.address(transport, "1")
    with logged() as said:
        written = predict_files(address, [images], tmp_path / "server", save=SAVE)
    local = quiet(predict_files, trained, [images], tmp_path / "local", save=SAVE)
    assert [path.name for path in written] == [path.name for path in local]
    said = [line for line in said if not line.startswith("Warning")]
    assert said[1:] == [str(path) for path in sorted(images.iterdir())]
    assert said[0].startswith("cells: probability above ")
    answered, expected = contents(tmp_path / "server"), contents(tmp_path / "local")
    for name, array in expected.items():
        assert (answered[name].dtype, answered[name].shape) == (array.dtype, array.shape)
        if name.endswith("_probabilities.tif"):
            np.testing.assert_allclose(answered[name], array, atol=1e-5)
        else:  # a pixel at the threshold may be rounded to either side
            assert np.mean(answered[name] != array) < 1e-3


def test_classes_alone_travel_as_classes(
    served, transport, run_of_classes, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(Client, "probabilities", lambda *_: pytest.fail("they were asked for"))
    quiet(predict_files, served.address(transport, "canary"), [images], tmp_path / "server")
    quiet(predict_files, run_of_classes, [images], tmp_path / "local")
    answered, expected = contents(tmp_path / "server"), contents(tmp_path / "local")
    assert list(answered) == list(expected)
    for name, array in expected.items():
        assert set(np.unique(answered[name])) <= {0, 255}
        assert answered[name].dtype == array.dtype
        assert np.mean(answered[name] != array) < 1e-3


def test_symmetries_and_numbers_of_the_rule(served, trained, cells, tmp_path):
    options = {"tta": True, "instances": {"threshold": 0.7, "gap": 0}, "save": SAVE}
    image = [cells / "images" / "c3.tif"]
    quiet(predict_files, served.address("grpc", "1"), image, tmp_path / "server", **options)
    quiet(predict_files, trained, image, tmp_path / "local", **options)
    answered, expected = contents(tmp_path / "server"), contents(tmp_path / "local")
    np.testing.assert_allclose(
        answered["c3_probabilities.tif"], expected["c3_probabilities.tif"], atol=1e-5
    )
    assert np.mean(answered["c3.tif"] != expected["c3.tif"]) < 1e-3


def test_files_that_are_too_large_go_as_pixels(served, images, tmp_path, monkeypatch):
    about = Client.about
    monkeypatch.setattr(Client, "about", lambda client: about(client) | {"most_pixels": 99})
    monkeypatch.setattr(Client, "probabilities", lambda *_: pytest.fail("it went as a file"))
    files = [images / "png.png", images / "jpeg.jpg"]
    written = quiet(predict_files, served.address("grpc", "1"), files, tmp_path / "out")
    assert [path.name for path in written] == ["png.tif", "jpeg.tif"]


@pytest.mark.parametrize("storage", [OutputOptions("ome-zarr"), OutputOptions(stream=True)])
def test_images_are_whole_for_a_server(served, cells, tmp_path, storage):
    with pytest.raises(ValueError, match="Zarr and stream need a model in this process"):
        predict_files(
            served.address("grpc", "1"), cells / "images", tmp_path / "out", storage=storage
        )
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_say_what_it_is(served, images, tmp_path, monkeypatch):
    monkeypatch.setattr(Client, "about", lambda _: {"run": "other"})
    with pytest.raises(ValueError, match=r"without valid metadata \('format'\); export it again"):
        quiet(predict_files, served.address("grpc"), [images], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run(*arguments):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def test_the_command(served, transport, cells, tmp_path):
    files = sorted((cells / "images").iterdir())[:2]
    server = "--server", served.address(transport, "stable")
    result = run(*server, *files, "--out", tmp_path / "out", "--save", "classes,instances")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"4 files written to {tmp_path / 'out'}\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "c0.tif",
        "c0_classes.tif",
        "c1.tif",
        "c1_classes.tif",
    ]


REFUSED = {
    "address": ("--server cells {i}", "server must be grpc://"),
    "nobody there": ("--server http://127.0.0.1:1/v1/models/cells {i}", "UNAVAILABLE, .*is it run"),
    "tile": ("--server {s} {i} --tile 60", "--tile: fixed when the model was exported"),
    "precision": ("--server {s} {i} --precision float32", "--precision: fixed when the model"),
    "timeout": ("{r} {i} --timeout 5", "--timeout: of no effect without --server"),
    "parts": (
        "--server {s} {i} --stream --as tiff",
        "--as, --stream or --in-memory: of no effect with --server; leave out",
    ),
    "late": ("--server {s} {i} --timeout 1e-9", "DEADLINE_EXCEEDED, .*allow more time"),
    "version": ("--server {s}@7 {i}", "cells@7: NOT_FOUND, .*check the name and the version"),
    "file": ("--server {s} {i} nowhere.png", "nowhere.png: no such file"),
    "outputs": ("--server {s} {i} --save masks", "save must be of .*Received: masks"),
    "onto itself": ("--server {s} {i} --out {i}", "does not replace an image"),
    "labels": ("--server {s} {c}/images --out {i}", "images/c0.tif: expected no file, or one"),
    "rule": ("--server {s} {i} --save probabilities --gap 1", "gap: options for instances"),
    "no file": ("--server {s}", "Missing argument 'RUN FILES...'"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    served, trained, cells, tmp_path, monkeypatch, words, message
):
    monkeypatch.setattr("keras_unet.client.PAUSE_SECONDS", 0.01)
    folder = shutil.copytree(cells / "images", tmp_path / "images")
    places = {"s": served.address("grpc"), "r": trained, "i": folder, "c": cells}
    before = set(tmp_path.rglob("*"))
    arguments = words.format(**places).split()
    out = [] if "--out" in arguments else ["--out", tmp_path / "out"]
    result = run(*arguments, *out)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert re.search(message, line), line
    assert set(tmp_path.rglob("*")) == before


def test_tensorflow_is_not_imported(served, cells, tmp_path):
    program = (
        "import sys\n"
        "from keras_unet.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    words = ["predict", "--server", served.address("grpc"), cells / "images", "--out", tmp_path]
    command = [sys.executable, "-c", program, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_client_of_the_kit_writes_a_class_image_for_each_file(
    served, transport, images, tmp_path
):
    from keras_unet.client import main as client

    files = [images / "png.png", images / "jpeg.jpg"]
    out = tmp_path / "out"
    assert client([served.address(transport), *map(str, files), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["jpeg_classes.png", "png_classes.png"]
    assert np.asarray(Image.open(out / "png_classes.png")).max() <= 1


def test_the_client_of_the_kit_tells_what_is_served(served, transport, capsys):
    from keras_unet.client import main as client

    assert client([served.address(transport, "1")]) == 0
    shown = capsys.readouterr().out
    assert "version 1: AVAILABLE" in shown
    assert "class 1: label value 1, cell" in shown


def test_the_client_of_the_kit_names_a_file_that_is_refused(served, tmp_path, capsys):
    from keras_unet.client import main as client

    (tmp_path / "text.png").write_text("no image")
    words = [served.address("grpc"), str(tmp_path / "text.png"), "--out", str(tmp_path / "out")]
    assert client(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "text.png: " in line
    assert "PNG or JPEG files" in line
