"""Checks that outputs of a prediction replace neither images nor files of other programs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from keras_unet.console import track
from keras_unet.data.images import image_files, is_hidden
from keras_unet.data.lazy import is_zarr
from keras_unet.files import is_own, own_kind

_KINDS: Mapping[str, str] = {  # of a file of this program, by suffix, see `own_kind`
    ".tif": "tiff",
    ".zarr": "ome-zarr",
    ".csv": "csv",
    ".zip": "zip",
    ".geojson": "json",
}

DATA_SET_FOLDERS = ("images", "labels", "masks", "SEG")
"""Names of the folders of a data set."""

_RESULTS = ("_GT", "_ST")  # of the Cell Tracking Challenge: 01_GT/SEG has the masks of 01


def check_outputs(out: Path, targets: Sequence[Path], images: Sequence[Path]) -> None:
    """Checks that outputs replace only files of this program, in a folder of predictions.

    Args:
        out: Folder to write to; it may be missing.
        targets: Files to write there.
        images: Image files to predict.

    Raises:
        ValueError: If a target exists that this program did not write; or if the folder holds one
            of the images, or images that this program did not write, or is named like a folder of
            a data set and lies beside another one or beside the images.
    """
    check_only_own(targets)
    reason = _data_set_reason(out.resolve(), set(targets), images)
    if reason:
        raise ValueError(
            f"{out}: expected a folder for predictions only. Received one {reason}; choose "
            "another --out, or write there by --overwrite"
        )


def check_only_own(targets: Iterable[Path]) -> None:
    """Checks that outputs replace only files that this program has written.

    Args:
        targets: Files to write.

    Raises:
        ValueError: If one exists that this program has not written.
    """
    for path in track(list(targets), "checking outputs"):
        if path.exists() and own_kind(path) != _KINDS[path.suffix]:
            raise ValueError(
                f"{path}: expected no file, or one that keras-unet has written. Received another; "
                "choose another --out, or replace it by --overwrite"
            )


def _data_set_reason(out: Path, targets: Collection[Path], images: Sequence[Path]) -> str:
    """Returns why a folder seems to hold images or labels; empty if it does not."""
    folders = {folder.resolve() for folder in {path.parent for path in images}}
    if out in folders:
        return "that holds an image to predict"
    neighbor = _data_set_neighbor(out) or _image_neighbor(out, folders)
    if neighbor:
        return f"that is named {out.name} and lies beside {neighbor}, as in a data set"
    names = {path.name for path in targets}
    foreign = next((path for path in _other_images(out, names) if not is_own(path)), None)
    return f"with {foreign.name}, which keras-unet has not written" if foreign else ""


def _data_set_neighbor(out: Path) -> str:
    """Returns the name of another folder of the data set that a folder is named after, or ""."""
    names = {name.lower() for name in DATA_SET_FOLDERS}
    if out.name.lower() not in names:
        return ""
    parent = out.parent
    if parent.name.endswith(_RESULTS) and (parent.parent / parent.name[:-3]).is_dir():
        return parent.name[:-3]
    folders = (path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else ()
    return next((name for name in folders if name.lower() in names and name != out.name), "")


def _image_neighbor(out: Path, folders: Collection[Path]) -> str:
    """Returns the name of the images' folder that a folder of a data set lies beside, or in."""
    if out.name.lower() not in {name.lower() for name in DATA_SET_FOLDERS}:
        return ""
    return next((path.name for path in folders if out.parent in (path, path.parent)), "")


def _other_images(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """Yields the images of a folder, with Zarr, except those of the given names."""
    if folder.is_dir():
        arrays = [path for path in folder.iterdir() if not is_hidden(path) and is_zarr(path)]
        for path in (*image_files(folder), *arrays):
            if path.name not in names:
                yield path
