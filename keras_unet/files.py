"""Atomic writes, checks before writing, locks, and recognition of files of this program."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PathLike = str | os.PathLike[str]
"""A path, as text or as `pathlib.Path`."""

SOFTWARE = "keras_unet"
"""Name of this program in the files that it writes."""

_START = 4096  # bytes at the start of a file that hold the name
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MARKS = {
    kind: re.compile(before + SOFTWARE.encode(), re.DOTALL)
    for kind, before in (
        ("json", rb'\s*\{\s*"software": "'),
        ("html", rb'\s*<!DOCTYPE html>.*<meta name="generator" content="'),
        ("png", rb"\x89PNG\r\n\x1a\n.*tEXtSoftware\0"),
    )
}

_TABLE_HEADERS = (
    b"file,plane,number,class",
    b"file,number,class",
    b"file,number,begin,end,parent",
)
_ZIP_SIGNATURES = (b"PK\3\4", b"PK\5\6")

_LEFTOVER = re.compile(r"\.[0-9a-f]{8}-.+")  # temporary files of `atomic`

LOCK = ".lock"
"""Empty file in a locked folder, which stays there."""

_LISTED = 3
_NAMES = {
    "json": "a JSON file",
    "html": "a report",
    "png": "a picture",
    "tiff": "a TIFF image",
    "ome-zarr": "an OME-Zarr image",
    "csv": "a table of objects",
    "zip": "an archive of ROIs",
}


def paths_of(files: PathLike | Iterable[PathLike]) -> list[Path]:
    """Returns one path or several as a list of `pathlib.Path`.

    Example:
        >>> paths_of("images") == paths_of(["images"]) == [Path("images")]
        True
    """
    return [Path(files)] if isinstance(files, str | os.PathLike) else list(map(Path, files))


def printable(name: PathLike) -> str:
    """Escapes the bytes of a name that are not UTF-8, for a message."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and moves the file written there to `path`.

    The temporary file is hidden and keeps the suffix of the name. If the body raises, it is removed
    and a previous file at `path` is unchanged. If the process is killed, it remains, see
    `remove_leftovers`.

    Args:
        path: Final path of the file; its folder exists.

    Yields:
        The path to write to.

    Raises:
        OSError: If the file cannot be written, such as on a full disk.
    """
    temporary = path.with_name(f".{os.urandom(4).hex()}-{path.name}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        if _is_write_error(error, temporary):
            raise type(error)(_write_message(path, error)) from error
        raise
    finally:
        with suppress(OSError):  # a broken disk
            temporary.unlink()


def leftovers(folder: Path) -> Iterator[Path]:
    """Yields the temporary files of `atomic` in a folder and its subfolders.

    Args:
        folder: The folder; it may be missing.
    """
    hidden = folder.rglob(".*")
    return (path for path in hidden if _LEFTOVER.fullmatch(path.name) and path.is_file())


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of `atomic` from a folder, which no process is writing to."""
    for path in list(leftovers(folder)):
        path.unlink()


@contextmanager
def atomic_folder(path: Path, *, replaces: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and moves the folder written there to `path`.

    A previous file or folder at `path` is removed when the new one is complete; if the body raises,
    it is unchanged.

    Args:
        path: Final path of the folder; its parent exists.
        replaces: Whether to replace any file or folder, rather than only an empty folder.

    Yields:
        The path to write to.

    Raises:
        OSError: If `path` exists and must not be replaced.
    """
    token = os.urandom(4).hex()
    temporary, previous = (path.with_name(f".{token}-{part}{path.name}") for part in ("", "old-"))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        if path.exists() and replaces:
            path.replace(previous)
        elif path.exists():
            _remove_empty(path)
        temporary.replace(path)
        _remove(previous)
    finally:
        _remove(temporary)


@contextmanager
def write_then_move(path: Path) -> Iterator[Path]:
    """Yields a path of the same name in a temporary folder, and copies the file written there.

    For files that are checked before they get their name. If the body raises, neither the file nor
    a folder for it is created.

    Args:
        path: Final path of the file; its folder is created if missing.

    Yields:
        The path to write to.
    """
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        yield draft
        make_folder(path.parent)
        with atomic(path) as temporary:
            shutil.copyfile(draft, temporary)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all.

    NumPy values are converted to plain ones, NaN and infinities to `null`. Bytes of a file name
    that are not UTF-8 are written as escapes, and restored when read.

    Args:
        path: Path of the file; its folder exists.
        value: Nested dictionaries, lists, tuples, strings and numbers.
    """
    text = json.dumps(_to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def is_own(path: Path) -> bool:
    """Returns whether this program has written a result, a file or the folder of an OME-Zarr image.

    TIFF and PNG files are recognized by their Software tag, OME-Zarr images by their attributes,
    JSON files, reports and tables by their first lines, ROI archives by their comment. False for
    missing and damaged files, and for images and labels of training data, which have no such mark.

    Args:
        path: Path of the file or folder.
    """
    return own_kind(path) is not None


def own_kind(path: Path) -> str | None:
    """Returns the kind of a result of this program, see `is_own`; None for other files.

    Args:
        path: Path of the file or folder.

    Returns:
        "tiff", "ome-zarr", "png", "json", "html", "csv" or "zip".
    """
    try:
        if path.is_dir():
            record = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
            software = str(record["attributes"]["ome"]["_creator"]["name"])
            return "ome-zarr" if software.startswith(SOFTWARE) else None
        with path.open("rb") as file:
            start = file.read(_START)
        if start.startswith(_TIFF_SIGNATURES):
            return "tiff" if _software_of_tiff(path).startswith(SOFTWARE) else None
        if start.startswith(_ZIP_SIGNATURES):
            with zipfile.ZipFile(path) as archive:
                return "zip" if archive.comment == SOFTWARE.encode() else None
        if start.startswith(_TABLE_HEADERS):
            return "csv"
        return next((kind for kind, mark in _MARKS.items() if mark.match(start)), None)
    except Exception:  # noqa: BLE001 - readers raise any error on damaged files
        return None


def make_folder(path: Path) -> Path:
    """Creates a folder if it is missing, and checks that files can be written to it.

    Args:
        path: The folder; its parents are created too.

    Returns:
        The same path.

    Raises:
        OSError: If the folder cannot be created or is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"{path}: expected a writable folder, or a place where one can be created. "
            f"The system said: {reason}. Choose another folder."
        ) from error


@contextmanager
def created_folder(path: Path) -> Iterator[Path]:
    """Creates a folder, and removes it if the body fails before it has written anything there.

    Args:
        path: The folder; an existing one is not removed.

    Raises:
        OSError: See `make_folder`.
    """
    is_new = not path.exists()
    make_folder(path)
    try:
        yield path
    except BaseException:
        if is_new:
            with suppress(OSError):  # the folder is not empty
                path.rmdir()
        raise


def check_name(path: Path, advice: str = "rename it") -> None:
    """Checks that a path is UTF-8, so that it can be written to a record.

    Args:
        path: Path of a file or folder, which need not exist.
        advice: Way out, for the message.

    Raises:
        ValueError: If the path is not UTF-8.
    """
    name = os.fsencode(path)
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        escaped = name.decode("utf-8", "backslashreplace")
        raise ValueError(f"{escaped}: the file's name is not UTF-8; {advice}") from None


def _software_of_tiff(path: Path) -> str:
    import tifffile  # slow, and not needed for --help

    with tifffile.TiffFile(path) as file:
        return file.pages.first.software


def _is_write_error(error: OSError, temporary: Path) -> bool:
    """Returns whether the system raised an error on the temporary file, or without a name."""
    name = error.filename
    return error.errno is not None and (name is None or str(name) == str(temporary))


def _write_message(path: Path, error: OSError) -> str:
    return (
        f"{path}: expected a place that can be written to, with room for the file. The system "
        f"said: {error.strerror}. A previous file is unchanged; solve this, and try again."
    )


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:  # the folder is not empty
        raise FileExistsError(
            f"{folder}: expected a new or empty folder. Received one to which files were written "
            "meanwhile; it is unchanged; choose another"
        ) from error


def _to_plain(value: Any) -> Any:
    """Converts NumPy values to Python's, and NaN and infinities to None."""
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a NumPy value, recognized without importing NumPy
        return _to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def locked(folder: Path, work: str = "training") -> Iterator[None]:
    """Locks a folder for this process while the body runs.

    The system releases the lock when the process ends in any way, so that no lock is stale. On a
    file system without locks, filelock uses a file instead.

    Args:
        folder: The folder, which exists.
        work: Name of the work, for the message.

    Raises:
        BlockingIOError: If another process has locked it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(
            f"{folder}: expected a folder for this {work} only. Received one that another "
            f"{work} is writing to; choose another folder, or wait until it has ended"
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_writable(folder: Path) -> None:
    """Checks that files can be written to a folder, or that it can be created.

    Raises:
        OSError: If the folder, or its nearest existing parent, is not writable.
    """
    folders = (folder, *folder.absolute().parents)
    make_folder(next(path for path in folders if path.exists() or path.is_symlink()))


def check_new(folder: Path, purpose: str, *, is_removed: bool = False) -> None:
    """Checks that a folder is empty or missing, and can be written to.

    Args:
        folder: The folder; hidden files in it are ignored.
        purpose: Purpose of the folder, for the message.
        is_removed: Whether it is removed later, so that hidden files count as well.

    Raises:
        ValueError: If its path is not UTF-8, which TensorFlow cannot write to.
        OSError: If the folder holds files, or cannot be written to.
    """
    check_name(folder, "choose another folder")
    check_writable(folder)
    entries = visible(folder)
    if is_removed and folder.is_dir():
        entries = sorted(path.name for path in folder.iterdir())
    if entries:
        more = ", ..." if len(entries) > _LISTED else ""
        raise FileExistsError(
            f"{folder}: expected a new or empty folder for {purpose}. Received one with "
            f"{', '.join(entries[:_LISTED])}{more}; choose another, or remove it first"
        )


def visible(folder: Path) -> list[str]:
    """Returns the sorted names of the visible files in a folder; none if it is missing."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def check_new_file(path: Path, ending: str) -> None:
    """Checks that a new file can be written.

    Args:
        path: Path of the file.
        ending: Required suffix of its name, such as `.zip`.

    Raises:
        ValueError: If the name has another suffix, or is not UTF-8.
        OSError: If the file exists, or its folder cannot be written to.
    """
    check_name(path, "choose another name")
    if path.suffix != ending:
        raise ValueError(f"{path}: expected the name of a file to write that ends in {ending}")
    if path.exists():
        raise FileExistsError(
            f"{path}: expected a file that does not exist yet. Received one that does; choose "
            "another name, or remove it first"
        )
    check_writable(path.parent)


def check_replaceable(path: Path | None, kind: str, *, overwrite: bool) -> None:
    """Checks that a file to write is missing, or of the same kind and written by this program.

    Args:
        path: Path of the file; None for no file.
        kind: Kind of the file, see `own_kind`.
        overwrite: Whether any file may be replaced.

    Raises:
        ValueError: If it must not be replaced.
    """
    if path is None or overwrite or not path.exists():
        return
    actual = own_kind(path)
    if actual != kind:
        received = f"{_NAMES[actual]} that it has written" if actual else "another"
        raise ValueError(
            f"{path}: expected no file, or {_NAMES[kind]} that keras-unet has written. Received "
            f"{received}; choose another name, or replace it by --overwrite"
        )
