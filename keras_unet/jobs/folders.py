"""The folders that a person names: looked at before any work is done, and kept for one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_unet.files import check_name, make_folder, own_kind

LOCK = ".lock"
"""File in a folder that is claimed; it stays there, and says nothing of itself."""

_LISTED = 3
_NAMES = {
    "json": "a JSON file",
    "html": "a report",
    "png": "a picture",
    "tiff": "a TIFF image",
    "ome-zarr": "an OME-Zarr image",
}


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps a folder for one training while the body runs.

    The system holds the lock for the process and drops it with the process, however that ends, so
    none is ever stale. Where a file system has no locks, filelock puts a file in their place.

    Args:
        folder: The folder, which exists.

    Raises:
        BlockingIOError: Another training has claimed it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(
            f"{folder}: expected a folder for this training alone. Received one that another "
            "training is writing to at this moment; choose another folder, or wait for its end"
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
