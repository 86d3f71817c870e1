"""Files and folders written whole or not at all, checked, locked, and marked by who wrote them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PathLike = str | os.PathLike[str]
"""A path, as text or as `pathlib.Path`."""

SOFTWARE = "keras_unet"
"""Name of this program in the files that it writes."""

_START = 4096  # bytes of a file, among which it says so
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MARKS = {
    kind: re.compile(before + SOFTWARE.encode(), re.DOTALL)
    for kind, before in (
        ("json", rb'\s*\{\s*"software": "'),
        ("html", rb'\s*<!DOCTYPE html>.*<meta name="generator" content="'),
        ("png", rb"\x89PNG\r\n\x1a\n.*tEXtSoftware\0"),
    )
}

_LEFTOVER = re.compile(r"\.[0-9a-f]{8}-.+")  # as `atomic` names its temporary files


def paths_of(files: PathLike | Iterable[PathLike]) -> list[Path]:
    """Lists one path, or several, as `pathlib.Path`.

    Example:
        >>> paths_of("images") == paths_of(["images"]) == [Path("images")]
        True
    """
    return [Path(files)] if isinstance(files, str | os.PathLike) else [Path(one) for one in files]


def printable(name: PathLike) -> str:
    """Escapes the bytes of a name that are not UTF-8, for a message."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and moves the file written there onto `path`.

    The temporary file is hidden and keeps the ending of the name. Where the body raises, it is
    removed and whatever stood at `path` before stays as it was. Where the process is killed, it
    stays: see `remove_leftovers`. No folder is created.

    Args:
        path: Final path of the file.

    Yields:
        The path to write to.

    Raises:
        OSError: The disk is full, say, or the folder is not to be written to.
    """
    temporary = path.with_name(f".{os.urandom(4).hex()}-{path.name}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        if _is_of_writing(error, temporary):
            raise type(error)(_not_written(path, error)) from error
        raise
    finally:
        with suppress(OSError):  # on a disk that is out of order it stays
            temporary.unlink()


def leftovers(folder: Path) -> Iterator[Path]:
    """Yields the temporary files of `atomic` in a folder and below it.

    They are being written, or were when the process was killed.

    Args:
        folder: The folder, which may be missing.
    """
    hidden = folder.rglob(".*")
    return (path for path in hidden if _LEFTOVER.fullmatch(path.name) and path.is_file())


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of `atomic` from a folder to which nobody writes any more."""
    for path in list(leftovers(folder)):
        path.unlink()


@contextmanager
def atomic_folder(path: Path, *, replaces: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path` and moves the folder written there onto `path`.

    What stood at `path` before, file or folder, is removed when the new one is complete; where the
    body raises, it stays as it was.

    Args:
        path: Final path of the folder; the one above exists.
        replaces: Whether whatever stands there is removed, rather than an empty folder alone.

    Yields:
        The path to write to.

    Raises:
        OSError: Something stands there that is not to be removed.
    """
    token = os.urandom(4).hex()
    temporary, before = (path.with_name(f".{token}-{part}{path.name}") for part in ("", "old-"))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        if path.exists() and replaces:
            path.replace(before)
        elif path.exists():
            _remove_empty(path)
        temporary.replace(path)
        _remove(before)
    finally:
        _remove(temporary)


@contextmanager
def write_then_move(path: Path) -> Iterator[Path]:
    """Yields a path of the same name in a temporary folder, and copies what was written there.

    For a file that takes minutes and is looked at before it gets its name. Where the body raises,
    nothing is left, nor is a folder made for it.

    Args:
        path: Final path of the file; its folder is created where missing.

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

    NumPy values become plain ones. NaN and infinities, which JSON lacks, become `null`. Bytes of a
    file's name that are no text become JSON's escapes, and are read as they were.

    Args:
        path: Path of the file; its folder exists.
        value: Nested dictionaries, lists, tuples, strings and numbers.
    """
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def is_own(path: Path) -> bool:
    """Tells whether a result, a file or the folder of an OME-Zarr image, is of this program.

    TIFF and PNG files say so in their Software tag, OME-Zarr images in their attributes, scores
    and reports at their beginning. What is missing, damaged or unreadable is not; nor are images
    and labels to learn from, which say nothing of who has written them.

    Args:
        path: The file or folder.
    """
    return own_kind(path) is not None


def own_kind(path: Path) -> str | None:
    """Returns the kind of a result of this program, see `is_own`; None for all else.

    Args:
        path: The file or folder.

    Returns:
        "tiff", "ome-zarr", "png", "json" or "html".
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
        return next((kind for kind, mark in _MARKS.items() if mark.match(start)), None)
    except Exception:  # noqa: BLE001 - of a damaged file, readers raise whatever they like
        return None


def make_folder(path: Path) -> Path:
    """Makes sure that `path` is a folder to which files can be written.

    Args:
        path: Folder; it and its parents are created where missing.

    Returns:
        The same path.

    Raises:
        OSError: The folder cannot be created or is not writable.
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
    """Makes a folder; if the body fails before it has put anything there, takes it away again.

    Args:
        path: The folder; it may exist, and then stays.

    Raises:
        OSError: As `make_folder`.
    """
    is_new = not path.exists()
    make_folder(path)
    try:
        yield path
    except BaseException:
        if is_new:
            with suppress(OSError):  # it is not empty
                path.rmdir()
        raise


def check_name(path: Path, advice: str = "rename it") -> None:
    """Refuses a file whose name cannot be written into a record.

    Args:
        path: The file, which need not exist.
        advice: The way out, for the message.

    Raises:
        ValueError: A byte of its name, or of a folder's above, is not UTF-8.
    """
    name = os.fsencode(path)
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        shown = name.decode("utf-8", "backslashreplace")
        raise ValueError(f"{shown}: the file's name is not UTF-8; {advice}") from None


def _software_of_tiff(path: Path) -> str:
    import tifffile  # here, as --help reads no TIFF

    with tifffile.TiffFile(path) as file:
        return file.pages.first.software


def _is_of_writing(error: OSError, temporary: Path) -> bool:
    """Tells what the system has said of a file from what names another, or says all in words."""
    named = error.filename
    return error.errno is not None and (named is None or str(named) == str(temporary))


def _not_written(path: Path, error: OSError) -> str:
    return (
        f"{path}: expected a place that can be written to, with room for the file. The system "
        f"said: {error.strerror}. What stood there before is as it was; see to that, and go on."
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
    except OSError as error:  # with which the system refuses what is not empty
        raise FileExistsError(
            f"{folder}: expected a new or empty folder. Received one to which files have come "
            "meanwhile, and left it as it is; choose another"
        ) from error


def _plain(value: Any) -> Any:
    """Replaces NumPy values by Python's and numbers that JSON lacks by None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's, which is not imported for it: --help writes no JSON
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


LOCK = ".lock"
"""File in a folder that is locked; it stays there, and says nothing of itself."""

_LISTED = 3
_NAMES = {
    "json": "a JSON file",
    "html": "a report",
    "png": "a picture",
    "tiff": "a TIFF image",
    "ome-zarr": "an OME-Zarr image",
}


@contextmanager
def locked(folder: Path, work: str = "training") -> Iterator[None]:
    """Keeps a folder for one piece of work while the body runs.

    The system holds the lock for the process and drops it with the process, however that ends, so
    none is ever stale. Where a file system has no locks, filelock puts a file in their place.

    Args:
        folder: The folder, which exists.
        work: What is done there, for the message.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(
            f"{folder}: expected a folder for this {work} alone. Received one that another "
            f"{work} is writing to at this moment; choose another folder, or wait for its end"
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_writable(folder: Path) -> None:
    """Makes sure that files can be written to a folder, or that it can be created.

    Raises:
        OSError: The folder, or the nearest one above that exists, cannot be written to.
    """
    places = (folder, *folder.absolute().parents)
    make_folder(next(path for path in places if path.exists() or path.is_symlink()))


def check_new(folder: Path, purpose: str, *, is_removed: bool = False) -> None:
    """Makes sure that a folder is empty or missing, and can be written to.

    Args:
        folder: The folder; hidden files in it do not count.
        purpose: What it is for, for the message.
        is_removed: Whether it is taken away later, so that hidden files count as well.

    Raises:
        ValueError: Its name is not UTF-8, which TensorFlow cannot write to.
        OSError: The folder holds files, or cannot be written to.
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
    """Lists the names in a folder by the alphabet, hidden ones apart; none where it is missing."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def check_new_file(path: Path, ending: str) -> None:
    """Makes sure that a file can be written that is not there yet.

    Args:
        path: The file.
        ending: What its name must end in, such as `.zip`.

    Raises:
        ValueError: The name ends in something else, or is not UTF-8.
        OSError: The file is there, or its folder cannot be written to.
    """
    check_name(path, "choose another name")
    if path.suffix != ending:
        raise ValueError(f"{path}: expected the name of a file to write that ends in {ending}")
    if path.exists():
        raise FileExistsError(
            f"{path}: expected a file that is not there yet. Received one that is; choose another "
            "name, or remove it first"
        )
    check_writable(path.parent)


def check_replaceable(path: Path | None, kind: str, *, overwrite: bool) -> None:
    """Makes sure that a file to write is missing, or such a file that this program has written.

    Args:
        path: The file; None for none.
        kind: Kind of the file, see `own_kind`.
        overwrite: Whether a person has asked to replace it whatever it is.

    Raises:
        ValueError: It is another's, or a file of another kind.
    """
    if path is None or overwrite or not path.exists():
        return
    found = own_kind(path)
    if found != kind:
        received = f"{_NAMES[found]} that it has written" if found else "another"
        raise ValueError(
            f"{path}: expected no file, or {_NAMES[kind]} that keras-unet has written. Received "
            f"{received}; choose another name, or replace it by --overwrite"
        )
