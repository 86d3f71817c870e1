"""How the files are called that predicting writes and scoring reads.

`<stem>.tif` holds labels of the kind that the run was trained on, `<stem>_classes.tif`,
`<stem>_instances.tif` and `<stem>_probabilities.tif` what else was asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from keras_unet.data.schemes import Kind

Output = Literal["instances", "classes", "probabilities"]


def output_path(out: Path, stem: str, output: str, kind: Kind) -> Path:
    """Returns where an output of an image is written.

    Args:
        out: Folder of the outputs.
        stem: Stem of the image.
        output: "instances", "classes" or "probabilities".
        kind: Kind of labels that the run was trained on.

    Example:
        >>> output_path(Path(), "a", "classes", kind="classes").name
        'a.tif'
        >>> output_path(Path(), "a", "instances", kind="classes").name
        'a_instances.tif'
    """
    return out / (f"{stem}.tif" if output == kind else f"{stem}_{output}.tif")


def owner_of(stem: str) -> str | None:
    """Returns the stem of the image that an output with an ending of its own belongs to, or None.

    Example:
        >>> owner_of("a_probabilities"), owner_of("a"), owner_of("a_b")
        ('a', None, None)
    """
    image, _, ending = stem.rpartition("_")
    return image if image and ending in get_args(Output) else None
