import subprocess
import sys

import pytest

from keras_unet.files import (
    check_new,
    check_new_file,
    check_replaceable,
    check_writable,
    locked,
    visible,
    write_json,
)


def listing(folder):
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", [".", "new", "new/and/deep"])
def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path, name):
    check_writable(tmp_path / name)
    check_new(tmp_path / name, "the run")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", ["file", "file/run", "file/run/deep"])
@pytest.mark.parametrize("check", [check_writable, lambda path: check_new(path, "the run")])
def test_a_file_in_the_way_is_named(tmp_path, name, check):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file: expected a writable folder"):
        check(tmp_path / name)


def test_a_folder_with_files_is_not_new(tmp_path):
    for name in "abcd":
        (tmp_path / name).touch()
    with pytest.raises(
        FileExistsError, match=r"empty folder for the demo\. Received.*a, b, c, \.\.\.;"
    ):
        check_new(tmp_path, "the demo")


def test_hidden_files_do_not_count(tmp_path):
    (tmp_path / ".DS_Store").touch()
    check_new(tmp_path, "the run")
    with pytest.raises(FileExistsError, match=r"the data set. Received one with \.DS_Store;"):
        check_new(tmp_path, "the data set", is_removed=True)
    assert visible(tmp_path) == visible(tmp_path / "missing") == []


def test_a_new_file_of_the_right_ending(tmp_path):
    check_new_file(tmp_path / "new" / "a.zip", ".zip")
    assert listing(tmp_path) == []
    with pytest.raises(ValueError, match=r"a\.tif: expected .* that ends in \.zip$"):
        check_new_file(tmp_path / "a.tif", ".zip")
    (tmp_path / "a.zip").touch()
    with pytest.raises(FileExistsError, match=r"a\.zip: expected a file that does not exist yet"):
        check_new_file(tmp_path / "a.zip", ".zip")
    with pytest.raises(OSError, match=r"a\.zip: expected a writable folder"):
        check_new_file(tmp_path / "a.zip" / "b.zip", ".zip")


CLAIM = """
import sys
from pathlib import Path
from keras_unet.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_for_one_process_until_that_ends_however_it_does(tmp_path):
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "locked\n"
        message = r"another training is writing to.*; choose another folder, or wait"
        with pytest.raises(BlockingIOError, match=message), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):  # no lock is left by a process that was killed
        pass
    check_new(tmp_path, "the run")


def test_a_claim_ends_with_its_block(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"), locked(tmp_path):
            raise ValueError("broken")


def test_a_file_to_write_is_missing_or_its_own(tmp_path):
    check_replaceable(None, "json", overwrite=False)
    check_replaceable(tmp_path / "a.json", "json", overwrite=False)
    write_json(tmp_path / "own.json", {"software": "keras_unet"})
    check_replaceable(tmp_path / "own.json", "json", overwrite=False)
    message = r"own.json: expected no file, or a report that.* Received a JSON file that it has"
    with pytest.raises(ValueError, match=message):
        check_replaceable(tmp_path / "own.json", "html", overwrite=False)
    write_json(tmp_path / "b.json", {})
    with pytest.raises(
        ValueError, match=r"b.json: expected no file, or a JSON file that .*it by --overwrite$"
    ):
        check_replaceable(tmp_path / "b.json", "json", overwrite=False)
    check_replaceable(tmp_path / "b.json", "json", overwrite=True)
