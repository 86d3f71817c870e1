"""Outputs of a prediction: their forms, and what they may replace."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from keras_unet.console import track
from keras_unet.data.images import image_files, is_hidden
from keras_unet.data.large import is_zarr
from keras_unet.data.schemes import Kind
from keras_unet.files import is_own, own_kind

Output = Literal["instances", "classes", "probabilities"]
Form = Literal["tiff", "ome-zarr"]

ENDINGS: Mapping[str, str] = {"tiff": ".tif", "ome-zarr": ".ome.zarr"}


@dataclass(frozen=True)
class Storage:
    """Form in which outputs are stored, and images held.

    Attributes:
        form: "tiff", or "ome-zarr" for OME-Zarr images with a pyramid; None for OME-Zarr of what is
            Zarr, and TIFF of all else.
        stream: Whether images are read, predicted and written by parts, with the same result, so
            that they may be larger than memory; TIFF and Zarr alone. None: those of more than
            2**26 pixels, and Zarr.
    """

    form: Form | None = None
    stream: bool | None = None


def output_path(out: Path, stem: str, output: str, kind: Kind, form: str = "tiff") -> Path:
    """Returns where an output of an image is written.

    Args:
        out: Folder of the outputs.
        stem: Stem of the image.
        output: "instances", "classes" or "probabilities".
        kind: Kind of labels that the run was trained on.
        form: "tiff" or "ome-zarr".

    Example:
        >>> output_path(Path(), "a", "classes", kind="classes").name
        'a.tif'
        >>> output_path(Path(), "a", "instances", kind="classes").name
        'a_instances.tif'
    """
    return out / f"{stem}{'' if output == kind else f'_{output}'}{ENDINGS[form]}"


def owner_of(stem: str) -> str | None:
    """Returns the stem of the image that an output with an ending of its own belongs to, or None.

    Example:
        >>> owner_of("a_probabilities"), owner_of("a"), owner_of("a_b")
        ('a', None, None)
    """
    image, _, ending = stem.rpartition("_")
    return image if image and ending in get_args(Output) else None


PARTS_OF_DATA_SETS = ("images", "labels", "masks", "SEG")
"""Names of the folders that data sets consist of."""

_RESULTS = ("_GT", "_ST")  # of the Cell Tracking Challenge: 01_GT/SEG stands beside 01


def check_outputs(out: Path, targets: Sequence[Path], images: Sequence[Path]) -> None:
    """Makes sure that outputs replace no file of a person, nor come to lie among such files.

    Args:
        out: Folder to write to; it may be missing.
        targets: The files to write there.
        images: The files that are predicted.

    Raises:
        ValueError: A target is there that this program has not written, or the folder is one of
            images or labels: it holds such files of others, is called so beside another part of a
            data set or beside the images, or is the folder of one of the images.
    """
    for path in track(targets, "checking outputs"):
        if path.exists() and own_kind(path) != ("ome-zarr" if path.suffix == ".zarr" else "tiff"):
            raise ValueError(
                f"{path}: expected no file, or one that keras-unet has written. Received another; "
                "choose another --out, or replace it by --overwrite"
            )
    reason = _reason_against(out.resolve(), set(targets), images)
    if reason:
        raise ValueError(
            f"{out}: expected a folder for predictions alone. Received one {reason}; choose "
            "another --out, or write there by --overwrite"
        )


def _reason_against(out: Path, known: Collection[Path], images: Sequence[Path]) -> str:
    """Says why a folder looks like one of images or labels; nothing where it does not."""
    folders = {folder.resolve() for folder in {path.parent for path in images}}
    if out in folders:
        return "that holds an image to predict"
    beside = _parts_beside(out) or _images_beside(out, folders)
    if beside:
        return f"that is called {out.name} beside {beside}, as in a data set"
    names = {path.name for path in known}
    foreign = next((path for path in _images_in(out, names) if not is_own(path)), None)
    return f"with {foreign.name}, which keras-unet has not written" if foreign else ""


def _parts_beside(out: Path) -> str:
    """Names another part of the data set that a folder is called a part of, if there is one."""
    names = {name.lower(): name for name in PARTS_OF_DATA_SETS}
    if out.name.lower() not in names:
        return ""
    above = out.parent
    if above.name.endswith(_RESULTS) and (above.parent / above.name[:-3]).is_dir():
        return above.name[:-3]
    folders = (path.name for path in above.iterdir() if path.is_dir()) if above.is_dir() else ()
    return next((one for one in folders if one.lower() in names and one != out.name), "")


def _images_beside(out: Path, folders: Collection[Path]) -> str:
    """Names a folder of images that a folder called a part of a data set lies beside, or in."""
    if out.name.lower() not in {name.lower() for name in PARTS_OF_DATA_SETS}:
        return ""
    return next((one.name for one in folders if out.parent in (one, one.parent)), "")


def _images_in(folder: Path, besides: Collection[str]) -> Iterator[Path]:
    """Yields the images of a folder, Zarr among them, apart from those of some names."""
    if folder.is_dir():
        arrays = [path for path in folder.iterdir() if not is_hidden(path) and is_zarr(path)]
        for path in (*image_files(folder), *arrays):
            if path.name not in besides:
                yield path
