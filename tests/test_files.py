from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_unet.data.images import write_tiff
from keras_unet.data.tiled import LazyImage, write_ome_zarr, write_tiled_tiff
from keras_unet.evaluation.comparison import Scores
from keras_unet.evaluation.evaluate import Evaluation
from keras_unet.files import (
    atomic,
    atomic_folder,
    check_name,
    created_folder,
    is_own,
    leftovers,
    make_folder,
    own_kind,
    remove_leftovers,
    write_json,
    write_then_move,
)
from keras_unet.report.page import Page, write_page
from keras_unet.report.pictures import write_png


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_atomic_moves_the_file_into_place(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    with atomic(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.name.endswith("model.weights.h5")
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["model.weights.h5"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_leaves_the_old_file_on_error(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_atomic_replaces_and_leaves_usual_permissions(tmp_path: Path) -> None:
    path, usual = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("old")
    usual.write_text("")
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_atomic_creates_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "no" / "a.txt") as temporary:
        temporary.write_text("new")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_system_says_of_a_file_names_it(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    error = OSError(code, os.strerror(code))
    with pytest.raises(type(error)) as raised, atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert str(raised.value) == (
        f"{path}: expected a place that can be written to, with room for the file. The system "
        f"said: {os.strerror(code)}. A previous file is unchanged; solve this, and try again."
    )
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "gone", "image.tif"), OSError("said in words")]
)
def test_errors_of_other_files_are_told_as_they_are(tmp_path: Path, error: OSError) -> None:
    with (
        pytest.raises(OSError, match=r"image\.tif|said in words") as raised,
        atomic(tmp_path / "a"),
    ):
        raise error
    assert raised.value is error


def test_a_folder_that_is_read_only_by_now_keeps_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file cannot be removed either, which is not what a person should be told."""

    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda path, _: refuse(path))
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(OSError, match=r"a\.txt: expected .* said: Read-only file system\."):
            write(tmp_path / "a.txt")
    assert len(list(leftovers(tmp_path))) == 1
    remove_leftovers(tmp_path)
    assert names_in(tmp_path) == []


def write(path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text("new")


def test_leftovers_are_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    (tmp_path / "fold-1").mkdir()
    (tmp_path / ".0123abcd-folder").mkdir()
    kept = [tmp_path / ".lock", tmp_path / ".0123abc-a", tmp_path / "0123abcd-a"]
    left = [tmp_path / ".0123abcd-a.txt", tmp_path / "fold-1" / ".ffffffff-best.keras"]
    for path in kept + left:
        path.touch()
    with atomic(tmp_path / "a.txt") as temporary:
        temporary.touch()
        assert set(leftovers(tmp_path)) == {*left, temporary}
    remove_leftovers(tmp_path)
    assert list(leftovers(tmp_path)) == []
    assert all(path.exists() for path in kept)
    assert list(leftovers(tmp_path / "missing")) == []


def test_json_knows_numpy_and_writes_null_for_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {
        "nan": float("nan"),
        "infinite": np.float32("inf"),
        "numbers": (1, np.int64(2), np.float64(0.5), np.bool_(True)),
        "array": np.array([[1.0, np.nan]]),
        "text": "µm",
    }
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "nan": None,
        "infinite": None,
        "numbers": [1, 2, 0.5, True],
        "array": [[1.0, None]],
        "text": "µm",
    }
    assert path.read_text(encoding="utf-8").startswith('{\n  "nan": null,\n')


def test_json_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"what": object()})
    assert names_in(tmp_path) == []


def test_make_folder_creates_parents_and_accepts_an_existing_one(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(folder) == folder
    assert names_in(folder) == []


def test_make_folder_names_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(
            OSError, match=r"expected a writable folder.*The system said: "
        ) as error:
            make_folder(folder)
        assert str(error.value).startswith(f"{folder}: ")
        assert "\n" not in str(error.value)


def test_make_folder_names_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"writable folder.*The system said: Permission denied"):
        make_folder(tmp_path)


def test_drafted_gives_the_name_when_all_is_well(tmp_path: Path) -> None:
    path = tmp_path / "models" / "cells.onnx"
    with write_then_move(path) as draft:
        assert draft.name == path.name
        draft.write_text("whole")
        assert not path.parent.exists()
    assert path.read_text() == "whole"
    assert names_in(path.parent) == ["cells.onnx"]
    assert not draft.parent.exists()


def test_drafted_leaves_nothing_on_error(tmp_path: Path) -> None:
    def write(drafts: list[Path]) -> None:
        with write_then_move(tmp_path / "models" / "cells.onnx") as draft:
            drafts.append(draft)
            draft.write_text("half")
            raise RuntimeError

    drafts: list[Path] = []
    with pytest.raises(RuntimeError):
        write(drafts)
    assert names_in(tmp_path) == []
    assert not drafts[0].parent.exists()


@pytest.mark.parametrize("before", ["nothing", "folder", "file"])
def test_atomic_folder_puts_the_new_one_in_the_place_of_the_old(
    tmp_path: Path, before: str
) -> None:
    path = tmp_path / "image"
    if before == "folder":
        path.mkdir()
        (path / "old").touch()
    if before == "file":
        path.touch()
    with atomic_folder(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert names_in(tmp_path) == ["image"]
    assert names_in(path) == ["new"]


def fill(path: Path) -> None:
    with atomic_folder(path, replaces=False) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()


def test_atomic_folder_replaces_an_empty_one_alone_if_told_so(tmp_path: Path) -> None:
    path = tmp_path / "image"
    fill(path)
    (path / "new").rename(path / ".hidden")
    with pytest.raises(FileExistsError, match="image: expected a new or empty folder"):
        fill(path)
    assert names_in(tmp_path) == ["image"]
    assert names_in(path) == [".hidden"]
    (path / ".hidden").unlink()
    fill(path)
    assert names_in(path) == ["new"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_folder_leaves_the_old_one_on_error(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "image"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(error), atomic_folder(path) as temporary:  # noqa: PT012
        temporary.mkdir()
        raise error
    assert names_in(tmp_path) == ["image"]
    assert names_in(path) == ["old"]


def _write_twice(folder):
    (folder / "a.tif").touch()
    raise OSError("twice")


class TestMadeFolder:
    def test_it_goes_where_nothing_came_of_it(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), created_folder(tmp_path / "new"):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_it_stays_with_what_is_in_it(self, tmp_path):
        with pytest.raises(OSError, match="twice"), created_folder(tmp_path / "new") as folder:
            _write_twice(folder)
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.tif"]

    def test_one_that_was_there_stays(self, tmp_path):
        with pytest.raises(ValueError, match="late"), created_folder(tmp_path):
            raise ValueError("late")
        assert tmp_path.is_dir()


def test_names_that_are_not_utf8_are_refused() -> None:
    check_name(Path("folder/grün 細胞.tif"))
    bad = Path(os.fsdecode(b"folder/gr\xfcn.tif"))
    with pytest.raises(
        ValueError, match=r"^folder/gr\\xfcn\.tif: the file's name is not UTF-8; ren"
    ):
        check_name(bad)


PIXELS = np.zeros((3, 40, 50), np.uint8)


def tiff_of_planes(path: Path) -> None:
    write_tiff(path, PIXELS, axes="ZYX")


def tiled(path: Path) -> None:
    write_tiled_tiff(path, parts())


def parts() -> LazyImage:
    def read(place: tuple[int, ...], window: tuple[slice, slice]) -> np.ndarray:
        return PIXELS[(*place, *window)]

    return LazyImage(PIXELS.shape, PIXELS.dtype, "ZYX", read)


def zarr_image(path: Path) -> None:
    write_ome_zarr(path, parts())


def picture(path: Path) -> None:
    write_png(path, np.zeros((40, 50, 3), np.uint8))


def page(path: Path) -> None:
    write_page(path, Page(title="a", summary="b"))


def scores(path: Path) -> None:
    write_json(path, Evaluation((), {}, Scores({}), from_probabilities=False, missing=()).to_dict())


OWN = {
    "tiff": tiff_of_planes,
    "tiff, tiled": tiled,
    "ome-zarr": zarr_image,
    "png": picture,
    "html": page,
    "json": scores,
}


@pytest.mark.parametrize("kind", OWN)
def test_what_this_program_writes_is_its_own(tmp_path: Path, kind: str) -> None:
    OWN[kind](tmp_path / "a")
    assert is_own(tmp_path / "a")
    assert own_kind(tmp_path / "a") == kind.split(",", maxsplit=1)[0]


@pytest.mark.parametrize("write", [tiff_of_planes, tiled])
def test_a_tiff_says_so_in_its_software_tag(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.software == "keras_unet"


def tiff_of_others(path: Path) -> None:
    tifffile.imwrite(path, PIXELS, photometric="minisblack", description="not by keras_unet")


def tiff_without_software(path: Path) -> None:
    tifffile.imwrite(path, PIXELS, photometric="minisblack", software=False)


def to_learn_from(path: Path) -> None:
    write_tiff(path, PIXELS, axes="ZYX", is_data=True)


def saved_again(path: Path) -> None:
    tiff_of_planes(path)
    tifffile.imwrite(path, tifffile.imread(path), photometric="minisblack")


def cut(path: Path) -> None:
    tiff_of_planes(path)
    path.write_bytes(path.read_bytes()[:12])


def png_of_others(path: Path) -> None:
    Image.fromarray(PIXELS[0]).save(path, format="PNG")


def zarr_of_others(path: Path) -> None:
    zarr_image(path)
    record = path / "zarr.json"
    record.write_text(record.read_text().replace("keras_unet", "another"))


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def json_that_says_it_late(path: Path) -> None:
    write_json(path, {"a": 1, "software": "keras_unet"})


def page_of_others(path: Path) -> None:
    path.write_text("<!DOCTYPE html><p>Made with keras_unet")


def missing(path: Path) -> None:
    assert not path.exists()


OF_OTHERS = [
    tiff_of_others,
    tiff_without_software,
    to_learn_from,
    saved_again,
    cut,
    png_of_others,
    zarr_of_others,
    folder,
    empty,
    json_that_says_it_late,
    page_of_others,
    missing,
]


@pytest.mark.parametrize("write", OF_OTHERS)
def test_what_others_write_or_is_damaged_is_not(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "a")
    assert not is_own(tmp_path / "a")


def test_json_keeps_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"z\xfcrich.tif")
    write_json(tmp_path / "run.json", {"name": name})
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == {"name": name}
