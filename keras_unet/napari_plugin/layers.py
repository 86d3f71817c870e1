"""Layers to arrays and files, and layers made of the results.

A layer is a 2D image, or a stack of them along its first axes. Colours are its last axis where
napari shows them as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import read_planes, smallest_unsigned, write_tiff
from keras_unet.data.pairs import plane_name
from keras_unet.data.synthetic import draw_cells
from keras_unet.files import make_folder

LayerData = tuple[NDArray[Any], dict[str, Any], str]
"""Array, attributes and kind of a layer, as napari takes it."""

_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
_COLOURS = 3
_LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Content of a layer at one time.

    Attributes:
        name: Name of the layer.
        data: Its numbers, or what gives them when they are asked for, as Dask arrays do.
        rgb: Whether the last axis is colours.
        place: Where the layer lies in the world, as the attributes of another of its shape.
    """

    name: str
    data: Any
    rgb: bool = False
    place: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, layer: Any) -> Self:
        """Takes the numbers of a layer; of several scales, the finest.

        Those of labels are copied, for a person may go on painting.
        """
        data = layer.data[0] if layer.multiscale else layer.data
        rgb = getattr(layer, "rgb", None)
        kept = np.array(data) if rgb is None else data
        place = {name: getattr(layer, name) for name in _PLACE if hasattr(layer, name)}
        return cls(layer.name, kept, bool(rgb), place)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes without colours: of the axes of the stack, height, width.

        Raises:
            ValueError: There is no height or no width.
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
        """The numbers as planes, `(planes, height, width, channels)`, without transparency."""
        pixels = np.asarray(self.data)[..., :_COLOURS] if self.rgb else np.asarray(self.data)
        channels = pixels.shape[-1] if self.rgb else 1
        return pixels.reshape(-1, *self.shape[-2:], channels)

    @property
    def file_name(self) -> str:
        """The name as that of a file, without its ending.

        >>> Snapshot("my cells [1]", np.zeros((2, 2))).file_name
        'my_cells_1'
        """
        return re.sub(r"\W+", "_", self.name).strip("_")[:_LONGEST_NAME] or "layer"


def write_image(image: Snapshot, folder: Path) -> Path:
    """Writes an image for the prediction.

    Args:
        image: The layer.
        folder: Where to; it exists.

    Returns:
        The file, named after the layer.
    """
    path = folder / f"{image.file_name}.tif"
    pixels = np.moveaxis(image.planes, -1, 1)
    write_tiff(path, pixels, axes="ZCYX")
    return path


def write_pairs(
    pairs: Sequence[tuple[Snapshot, Snapshot]], folder: Path, *, empty: bool = False
) -> int:
    """Writes images and labels for the training, each plane to a file of its own.

    Args:
        pairs: Image and labels.
        folder: Where to; `images/` and `labels/` are created in it.
        empty: Whether planes without any label are background throughout; else they are left out,
            as not annotated yet.

    Returns:
        Number of planes written.

    Raises:
        ValueError: There is no pair, a pair is of two shapes, or holds no label at all.
    """
    if not pairs:
        raise ValueError(
            "image and labels must be chosen, at least one pair. Received none; open an image, "
            "and add a labels layer for it"
        )
    for image, labels in pairs:
        _check_pair(image, labels)
    images, truths = make_folder(folder / "images"), make_folder(folder / "labels")
    written = 0
    for number, (image, labels) in enumerate(pairs, start=1):
        name = image.file_name if len(pairs) == 1 else f"{number}_{image.file_name}"
        planes = zip(image.planes, labels.planes[..., 0], strict=True)
        for place, (pixels, truth) in enumerate(planes):
            if not empty and not truth.any():
                continue
            file = f"{plane_name(name, place) if len(image.planes) > 1 else name}.tif"
            _write_plane(images / file, pixels)
            write_tiff(truths / file, smallest_unsigned(truth), axes="YX", is_data=True)
            written += 1
    return written


def result_layers(
    image: Snapshot, encoding: LabelEncoding, files: Sequence[Path]
) -> list[LayerData]:
    """Reads what a prediction has written, labels first, and makes layers of it.

    Args:
        image: The layer that was predicted, on which the others are to lie.
        encoding: What the labels mean.
        files: Labels and, where they were asked for, probabilities.

    Returns:
        Labels, and the probabilities of each class but the background.
    """
    labels = read_planes(files[0])[..., 0].reshape(image.shape)
    layers: list[LayerData] = [(labels, {"name": f"{image.name} labels", **image.place}, "labels")]
    for path in files[1:]:
        probabilities = read_planes(path)
        for number in range(1, encoding.classes):
            found = probabilities[..., number].reshape(image.shape)
            name = f"{image.name} probability of {_class_name(encoding, number)}"
            shown = {"contrast_limits": (0, 1), "colormap": "magma", "visible": False}
            layers.append((found, {"name": name, **shown, **image.place}, "image"))
    return layers


def _write_plane(path: Path, pixels: NDArray[Any]) -> None:
    if pixels.shape[-1] == 1:
        write_tiff(path, pixels[..., 0], axes="YX", is_data=True)
    else:
        write_tiff(path, np.moveaxis(pixels, -1, 0), axes="CYX", is_data=True)


def _class_name(encoding: LabelEncoding, number: int) -> str:
    return "cells" if encoding.kind == "instances" else str(encoding.values[number])


def _check_pair(image: Snapshot, labels: Snapshot) -> None:
    if image.shape != labels.shape:
        raise ValueError(
            f"{labels.name}: expected labels of shape {image.shape}, as {image.name} is. "
            f"Received {labels.shape}; choose the labels that were painted on this image"
        )
    if not np.any(labels.data):
        raise ValueError(
            f"{labels.name}: expected labels of at least one cell. Received background alone; "
            "paint some first"
        )


_PICTURES = 8


def drawn_cells() -> list[LayerData]:
    """Draws a stack of pictures of touching cells, and the labels of all of them."""
    drawn = [draw_cells(seed) for seed in range(_PICTURES)]
    images, labels = (np.stack(part) for part in zip(*drawn, strict=True))
    return [(images, {"name": "cells"}, "image"), (labels, {"name": "cells truth"}, "labels")]
