"""Conversion of napari's layers to arrays and files, and of results to layers.

A layer is a 2D image, or a stack of them along its first axes; colors of an RGB layer are its last
axis.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import read_planes, smallest_unsigned, write_tiff
from keras_unet.data.pairs import plane_name
from keras_unet.data.synthetic import draw_cells
from keras_unet.files import make_folder
from keras_unet.instances.link import Along

LayerData = tuple[NDArray[Any], dict[str, Any], str]
"""Array, attributes and type of a layer, the tuple of napari."""

_TRANSFORM = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
_COLORS = 3
_MAX_NAME = 60
_SAMPLES = 8


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Content of a layer at one time.

    Attributes:
        name: Name of the layer.
        data: Array of the layer, also a lazy one, as of Dask.
        rgb: Whether the last axis is the colors.
        transform: Attributes that place a layer of this shape in the world.
    """

    name: str
    data: Any
    rgb: bool = False
    transform: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, layer: Any) -> Self:
        """Takes the array of a layer, the finest of several scales.

        Arrays of labels are copied, since the user may edit them during the job.
        """
        data = layer.data[0] if layer.multiscale else layer.data
        rgb = getattr(layer, "rgb", None)
        array = np.array(data) if rgb is None else data
        transform = {name: getattr(layer, name) for name in _TRANSFORM if hasattr(layer, name)}
        return cls(layer.name, array, bool(rgb), transform)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without colors: axes of the stack, height, width.

        Raises:
            ValueError: If the layer has fewer than two axes, or no pixels.
        """
        sizes = tuple(self.data.shape)
        sizes = sizes[:-1] if self.rgb else sizes
        if len(sizes) < 2 or 0 in sizes:
            raise ValueError(
                f"{self.name}: expected a layer of 2D images, at least one pixel. "
                f"Received one of shape {sizes}"
            )
        return sizes

    @property
    def planes(self) -> NDArray[Any]:
        """Planes of the array, `(planes, height, width, channels)`, without alpha."""
        pixels = np.asarray(self.data)[..., :_COLORS] if self.rgb else np.asarray(self.data)
        channels = pixels.shape[-1] if self.rgb else 1
        return pixels.reshape(-1, *self.shape[-2:], channels)

    @property
    def file_name(self) -> str:
        """Stem of a file name, made of the name of the layer.

        >>> Snapshot("my cells [1]", np.zeros((2, 2))).file_name
        'my_cells_1'
        """
        return re.sub(r"\W+", "_", self.name).strip("_")[:_MAX_NAME] or "layer"


def write_image(
    image: Snapshot, folder: Path, planes: Sequence[int] | None = None, *, along: Along = "z"
) -> Path:
    """Writes an image to predict.

    Args:
        image: The layer.
        folder: Folder to write to, which exists.
        planes: Numbers of the planes to write; None for all.
        along: Axis of the planes, "z" or "t".

    Returns:
        Path of the file, named after the layer.
    """
    path = folder / f"{image.file_name}.tif"
    chosen = image.planes if planes is None else image.planes[list(planes)]
    pixels = np.moveaxis(chosen, -1, 1)
    write_tiff(path, pixels, axes=f"{along.upper()}CYX")
    return path


def write_pairs(
    pairs: Sequence[tuple[Snapshot, Snapshot]],
    folder: Path,
    *,
    empty: bool = False,
    planes: Sequence[Collection[int]] | None = None,
) -> int:
    """Writes images and labels for a training, one file per plane.

    Args:
        pairs: Pairs of image and labels.
        folder: Folder in which `images/` and `labels/` are created.
        empty: Whether planes without labels are background; otherwise they are left out, as not
            annotated yet.
        planes: Numbers of the planes of each pair to write, with labels or without; None for all.

    Returns:
        Number of planes written.

    Raises:
        ValueError: If there is no pair, or the layers of a pair differ in shape or have no labels.
    """
    if not pairs:
        raise ValueError(
            "image and labels must be chosen, at least one pair. Received none; open an image, "
            "and add a labels layer for it"
        )
    for image, labels in pairs:
        _check_pair(image, labels)
    image_folder, label_folder = make_folder(folder / "images"), make_folder(folder / "labels")
    written = 0
    for number, (image, labels) in enumerate(pairs, start=1):
        name = image.file_name if len(pairs) == 1 else f"{number}_{image.file_name}"
        chosen = None if planes is None else planes[number - 1]
        pixels_and_labels = zip(image.planes, labels.planes[..., 0], strict=True)
        for index, (pixels, plane_labels) in enumerate(pixels_and_labels):
            is_annotated = empty or plane_labels.any() if chosen is None else index in chosen
            if not is_annotated:
                continue
            file = f"{plane_name(name, index) if len(image.planes) > 1 else name}.tif"
            _write_plane(image_folder / file, pixels)
            write_tiff(
                label_folder / file, smallest_unsigned(plane_labels), axes="YX", is_data=True
            )
            written += 1
    return written


def result_layers(
    image: Snapshot, encoding: LabelEncoding, files: Sequence[Path]
) -> list[LayerData]:
    """Makes layers of the files of a prediction.

    Args:
        image: The predicted layer, which the others are aligned to.
        encoding: Meaning of the labels.
        files: Label image and, if requested, probabilities.

    Returns:
        Labels, and the probabilities of each class except the background.
    """
    labels = read_planes(files[0])[..., 0].reshape(image.shape)
    layers: list[LayerData] = [
        (labels, {"name": f"{image.name} labels", **image.transform}, "labels")
    ]
    for path in files[1:]:
        probabilities = read_planes(path)
        for number in range(1, encoding.classes):
            probability = probabilities[..., number].reshape(image.shape)
            name = f"{image.name} probability of {_class_name(encoding, number)}"
            attributes = {"contrast_limits": (0, 1), "colormap": "magma", "visible": False}
            layers.append((probability, {"name": name, **attributes, **image.transform}, "image"))
    return layers


def tracks_layer(image: Snapshot, labels: NDArray[Any], table: Path) -> LayerData:
    """Makes a layer of tracks, with their divisions.

    Args:
        image: The predicted layer, which the tracks are aligned to.
        labels: Label images `(frames, height, width)` with the numbers of the tracks.
        table: Table of the tracks, see `link_files`.

    Returns:
        Points of number, frame, row and column, and the parent of each daughter.
    """
    points = []
    for frame, plane in enumerate(labels):
        found = regionprops_table(plane, properties=("label", "centroid"))
        columns = found["label"], found["centroid-0"], found["centroid-1"]
        points += [(number, frame, *center) for number, *center in zip(*columns, strict=True)]
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    graph = {int(row["number"]): [int(row["parent"])] for row in rows if row["parent"] != "0"}
    data = np.array(sorted(points), float).reshape(-1, 4)
    return data, {"name": f"{image.name} tracks", "graph": graph, **image.transform}, "tracks"


def _write_plane(path: Path, pixels: NDArray[Any]) -> None:
    if pixels.shape[-1] == 1:
        write_tiff(path, pixels[..., 0], axes="YX", is_data=True)
    else:
        write_tiff(path, np.moveaxis(pixels, -1, 0), axes="CYX", is_data=True)


def _class_name(encoding: LabelEncoding, number: int) -> str:
    if encoding.class_names:
        return encoding.names[number]
    return "cells" if encoding.kind == "instances" else str(encoding.values[number])


def _check_pair(image: Snapshot, labels: Snapshot) -> None:
    if image.shape != labels.shape:
        raise ValueError(
            f"{labels.name}: expected labels of shape {image.shape}, like {image.name}. "
            f"Received {labels.shape}; choose the labels that were painted on this image"
        )
    if not np.any(labels.data):
        raise ValueError(
            f"{labels.name}: expected labels of at least one cell. Received background only; "
            "paint some first"
        )


def drawn_cells() -> list[LayerData]:
    """Draws a stack of images of touching cells, with their labels."""
    drawn = [draw_cells(seed) for seed in range(_SAMPLES)]
    images, labels = (np.stack(part) for part in zip(*drawn, strict=True))
    return [(images, {"name": "cells"}, "image"), (labels, {"name": "cells truth"}, "labels")]
