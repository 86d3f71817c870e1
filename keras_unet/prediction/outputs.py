"""How the files are called that predicting writes and scoring reads.

`<stem>.tif` holds labels of the kind that the run was trained on, `<stem>_classes.tif`,
`<stem>_instances.tif` and `<stem>_probabilities.tif` what else was asked for. OME-Zarr images end
in `.ome.zarr` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from keras_unet.data.schemes import Kind

Output = Literal["instances", "classes", "probabilities"]
Form = Literal["tiff", "ome-zarr"]

ENDINGS: Mapping[str, str] = {"tiff": ".tif", "ome-zarr": ".ome.zarr"}


@dataclass(frozen=True)
class Storage:
    """How outputs are stored, and images held.

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
