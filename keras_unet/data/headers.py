"""Headers of image files: what is known of an image before its pixels are decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import tifffile
from PIL import Image

from keras_unet.data import lazy, pngs
from keras_unet.data.images import (
    PILLOW_FORMATS,
    check_some_pixels,
    first_bytes,
    large_images_allowed,
    readable,
)
from keras_unet.data.lazy import OpenImage, described_tiff, is_tiff, is_zarr, open_large
from keras_unet.data.stacks import Stack

_CHANNELS_OF_PNG = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # by kind of colors, without alpha
_GREY_MODES = ("1", "L", "LA", "I", "F", "I;16")


@dataclass(frozen=True)
class Header:
    """Size of an image, and what of its file is not read.

    Attributes:
        shape: Planes, height, width and channels. Height and width of a picture that notes an
            orientation are those stored.
        stack: Letter and size of each axis that counts planes.
        notes: What of the file is not read, as far as the header tells.
    """

    shape: tuple[int, int, int, int]
    stack: Stack = ()
    notes: tuple[str, ...] = ()

    @property
    def numbers(self) -> int:
        """Pixels of all planes times channels."""
        return math.prod(self.shape)

    @property
    def is_large(self) -> bool:
        """Tells whether the image is better read window by window, see `LARGE`."""
        return self.numbers > lazy.LARGE


def read_header(path: Path, *, axes: str | None = None) -> Header:
    """Reads the header of an image file, as `read_image` would decode it.

    Args:
        path: TIFF, Zarr, PNG, JPEG, BMP or GIF.
        axes: Axes of a TIFF that states none, or others, such as "YXC".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image, pixels are missing in a TIFF, or it holds no pixel.
    """
    if is_zarr(path):
        with open_large(path, axes) as image:
            return _of_large(image)
    with readable(path):
        if not is_tiff(path):
            return _of_picture(path)
        with tifffile.TiffFile(path) as file:
            header = _of_large(described_tiff(path, file, axes))
    check_some_pixels(path, header.shape)
    return header


def _of_large(image: OpenImage) -> Header:
    return Header(image.shape, image.stack, image.notes)


def _of_picture(path: Path) -> Header:
    start = first_bytes(path)
    if start.startswith(pngs.SIGNATURE) and len(start) == pngs.HEADER:
        pngs.check_size(start)
        width, height = int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
        return Header((1, height, width, _CHANNELS_OF_PNG.get(start[25], 1)))
    with large_images_allowed(), Image.open(path, formats=PILLOW_FORMATS) as image:
        return Header((1, image.height, image.width, 1 if image.mode in _GREY_MODES else 3))
