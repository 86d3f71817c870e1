"""Files are called what people call them: each name works, or is refused in one line."""

from __future__ import annotations

import os
import shutil

import pytest
from click.testing import CliRunner

from keras_unet.cli import main

LATIN = os.fsdecode("gr\u00fcn".encode("latin-1"))
ODD = [
    *("two  words", "50%d #1", "a\nb", "-n", "\U0001f52c cells", "[a-z]*?", "dots..", "~"),
    *("C:\\images\\a", "$HOME `id`", "a'b\"c", "{0}"),
]
EXPORTS = {"saved_model": "", "tflite": ".tflite", "onnx": ".onnx", "bioimageio": ".zip"}


def call(*words):
    """Calls the command, and sees that it works or ends in one line."""
    result = CliRunner().invoke(main, [*map(str, words)])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code in (0, 2), result.output
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 0 or len(lines) == 1, lines
    return result


def refused(*words):
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "not UTF-8" in result.stderr or "must be UTF-8" in result.stderr
    assert "gr\\xfcn" in result.stderr


@pytest.fixture
def latin(cells, tmp_path):
    """Data whose files are named in Latin-1."""
    folder = tmp_path / "data"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        shutil.copy(cells / part / "c3.tif", folder / part / f"{LATIN}.tif")
    return folder


def test_a_name_that_is_not_utf8_is_predicted(trained, latin, tmp_path):
    out = tmp_path / LATIN
    assert call("predict", trained, latin / "images", "--out", out, "--quiet").exit_code == 0
    assert (out / f"{LATIN}.tif").is_file()


def test_a_run_in_a_folder_that_is_not_utf8_predicts_and_reports(trained, cells, tmp_path):
    run = tmp_path / LATIN / "run"
    shutil.copytree(trained, run)
    image = cells / "images" / "c3.tif"
    assert call("predict", run, image, "--out", tmp_path / "out", "--quiet").exit_code == 0
    assert call("report", run, "--overwrite", "--quiet").exit_code == 0
    assert call("report", run, "--out", tmp_path / f"{LATIN}.html", "--quiet").exit_code == 0


def test_what_would_be_recorded_by_a_name_that_is_not_utf8_is_refused(
    trained, cells, latin, tmp_path
):
    refused("evaluate", latin / "labels", latin / "labels")
    refused("inspect", latin, "--out", tmp_path / "seen")
    refused("train", latin, "--run", tmp_path / "run")
    refused("train", cells, "--run", tmp_path / LATIN)
    refused("demo", "--out", tmp_path / LATIN)
    author = ["--format", "bioimageio", "--author", LATIN]
    refused("export", trained, tmp_path / "a.zip", *author)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("form", EXPORTS)
def test_exports_are_not_called_by_names_that_are_not_utf8(trained, tmp_path, form):
    refused("export", trained, tmp_path / f"{LATIN}{EXPORTS[form]}", "--format", form)
    assert not list(tmp_path.iterdir())


def write_odd(folder, cells):
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        for name in ODD:
            shutil.copy(cells / part / "c3.tif", folder / part / f"{name}.tif")


def test_odd_names_are_predicted_and_scored(trained, cells, tmp_path):
    data, out = tmp_path / "[odd] # 5%\n", tmp_path / "*out*"
    write_odd(data, cells)
    files = [data / "images" / f"{name}.tif" for name in ODD]
    assert call("predict", trained, *files, "--out", out, "--quiet").exit_code == 0
    assert {path.name for path in out.iterdir()} == {f"{name}.tif" for name in ODD}
    scores, page = tmp_path / "scores?.json", tmp_path / "[page].html"
    words = ["--json", scores, "--report", page, "--quiet"]
    found = call("evaluate", out, data / "labels", *words)
    assert (found.exit_code, "no prediction" in found.output) == (0, False)
    assert scores.is_file()
    assert page.is_file()


def test_odd_names_are_looked_at(cells, tmp_path):
    data, out = tmp_path / "[odd] # 5%\n", tmp_path / "[seen] {}"
    write_odd(data, cells)
    assert call("inspect", data, "--out", out, "--quiet").exit_code == 0
    assert list(out.glob("*.png"))


def test_links_in_a_circle_are_passed_over(trained, cells, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(cells / "images" / "c3.tif", folder / "a.tif")
    (folder / "loop").symlink_to(folder)
    (folder / "self.tif").symlink_to(folder / "self.tif")
    out = tmp_path / "out"
    assert call("predict", trained, folder, "--out", out, "--quiet").exit_code == 0
    assert [path.name for path in out.iterdir()] == ["a.tif"]
