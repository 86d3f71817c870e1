"""Headers of image files: sizes and notes without decoding of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import tifffile
from PIL import Image

from keras_unet.data import lazy, microscopes, pngs
from keras_unet.data.calibration import Spacing
from keras_unet.data.channels import Selection, with_channels
from keras_unet.data.images import (
    PILLOW_FORMATS,
    check_some_pixels,
    first_bytes,
    large_images_allowed,
    readable,
)
from keras_unet.data.lazy import OpenImage, describe_tiff, is_tiff, is_zarr, open_large
from keras_unet.data.stacks import Stack, stack_of

_CHANNELS_OF_PNG = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # by color type, without alpha
_GREY_MODES = ("1", "L", "LA", "I", "F", "I;16")


@dataclass(frozen=True)
class Header:
    """Size of an image, and notes on its file.

    Attributes:
        shape: Planes, height, width and channels, before an EXIF orientation is applied.
        stack: Letter and size of each plane axis.
        notes: Notes on content that is not read, as far as the header states it.
        spacing: Calibration of the file.
    """

    shape: tuple[int, int, int, int]
    stack: Stack = ()
    notes: tuple[str, ...] = ()
    spacing: Spacing = field(default_factory=Spacing)

    @property
    def numbers(self) -> int:
        """Number of pixels of all planes, times channels."""
        return math.prod(self.shape)

    @property
    def is_large(self) -> bool:
        """True if the image should be read window by window, see `LARGE`."""
        return self.is_large_at(1.0)

    def is_large_at(self, factor: float) -> bool:
        """Returns whether the image is large, or is so once it is enlarged by a factor."""
        return self.numbers * max(1.0, factor) ** 2 > lazy.LARGE


def read_header(
    path: Path, *, axes: str | None = None, channels: Selection | None = None
) -> Header:
    """Reads the header of an image file, in agreement with `read_image`.

    Args:
        path: TIFF, Zarr, PNG, JPEG, BMP, GIF, CZI, LIF or ND2 file, or the path of a scene.
        axes: Axes of a TIFF that states none or wrong ones, such as "YXC".
        channels: Channels to read; None for all.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If the library that reads the file is not installed.
        ValueError: If it is not an image, has no pixel, lacks a channel, or is a TIFF with missing
            pixels.
    """
    header = _read_header(path, axes)
    indices = channels and channels.indices(header.spacing.channels, header.shape[-1], path)
    if not indices:
        return header
    spacing = with_channels(header.spacing, indices)
    return replace(header, shape=(*header.shape[:3], len(indices)), spacing=spacing)


def _read_header(path: Path, axes: str | None) -> Header:
    if is_zarr(path):
        with open_large(path, axes) as image:
            return _header_of_open_image(image)
    if microscopes.holds_scenes(path):
        return _header_of_scene(path)
    with readable(path):
        if not is_tiff(path):
            return _header_of_picture(path)
        with tifffile.TiffFile(path) as file:
            header = _header_of_open_image(describe_tiff(path, file, axes))
    check_some_pixels(path, header.shape)
    return header


def _header_of_open_image(image: OpenImage) -> Header:
    return Header(image.shape, image.stack, image.notes, image.spacing)


def _header_of_scene(path: Path) -> Header:
    scene = microscopes.find_scene(path)
    sizes = dict(zip(scene.axes, scene.shape, strict=True))
    stack = stack_of(scene.axes, scene.shape)
    channels = math.prod(n for a, n in zip(scene.axes, scene.shape, strict=True) if a in "CS")
    shape = (math.prod(size for _, size in stack), sizes["Y"], sizes["X"], channels)
    check_some_pixels(path, shape)
    return Header(shape, stack, scene.notes, scene.spacing)


def _header_of_picture(path: Path) -> Header:
    start = first_bytes(path)
    if start.startswith(pngs.SIGNATURE) and len(start) == pngs.HEADER:
        pngs.check_size(start)
        width, height = int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
        return Header((1, height, width, _CHANNELS_OF_PNG.get(start[25], 1)))
    with large_images_allowed(), Image.open(path, formats=PILLOW_FORMATS) as image:
        return Header((1, image.height, image.width, 1 if image.mode in _GREY_MODES else 3))
