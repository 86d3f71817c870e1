"""Forms of image and label files that people have, each drawn, with the right values.

`FORMS` is the table by which `test_forms.py` checks the readers and the page "Supported files" is
made (`docs/site_files.py`): a form's name is a row of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 20, 26


def drawn(*stack: int, channels: int = 1, seed: int = 0) -> NDArray[Any]:
    """Draws planes, `(*stack, height, width, channels)`, uint8."""
    shape = (*stack, HEIGHT, WIDTH, channels)
    return np.random.default_rng(seed).integers(0, 250, shape).astype(np.uint8)


def mask() -> NDArray[np.bool_]:
    """Draws a mask that covers a fifth."""
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[3:11, 4:17] = True
    return found


class Form(NamedTuple):
    """A form of file.

    Attributes:
        written: Writes it to a path, and returns the planes that are right.
        ending: Ending of the file.
        what: What is read of it, in words.
    """

    written: Callable[[Path], NDArray[Any]]
    ending: str
    what: str


def _pages(path: Path) -> NDArray[Any]:
    planes = drawn(3)
    for plane in planes[..., 0]:
        tifffile.imwrite(path, plane, append=path.exists())
    return planes


def _appended_stacks(path: Path) -> NDArray[Any]:
    planes = drawn(6)
    for half in (planes[:3, ..., 0], planes[3:, ..., 0]):
        tifffile.imwrite(path, half, append=path.exists(), photometric="minisblack")
    return planes


def _compressions(path: Path) -> NDArray[Any]:
    planes = drawn(4)
    with tifffile.TiffWriter(path) as file:
        for plane, compression in zip(planes[..., 0], ("lzw", None, "zlib", "lzw"), strict=True):
            file.write(plane, compression=compression, metadata=None)
    return planes


def _thumbnail(path: Path) -> NDArray[Any]:
    planes = drawn()[None]
    with tifffile.TiffWriter(path) as file:
        file.write(planes[0, ..., 0], metadata=None)
        file.write(planes[0, :7, :9, 0], metadata=None, subfiletype=1)
    return planes


def _positions(path: Path) -> NDArray[Any]:
    planes = drawn(2, 3)
    with tifffile.TiffWriter(path, ome=True) as file:
        for position in planes[..., 0]:
            file.write(position, metadata={"axes": "ZYX"}, photometric="minisblack")
    return planes.reshape(-1, HEIGHT, WIDTH, 1)


def _imagej(path: Path) -> NDArray[Any]:
    planes = drawn(3, 2, channels=2)
    stored = np.moveaxis(planes, -1, 2)
    tifffile.imwrite(path, stored, imagej=True, metadata={"axes": "TZCYX"})
    return planes.reshape(-1, HEIGHT, WIDTH, 2)


def _white_is_zero(path: Path) -> NDArray[Any]:
    planes = drawn()[None]
    tifffile.imwrite(path, 255 - planes[0, ..., 0], photometric="miniswhite")
    return planes


def _white_is_zero_16(path: Path) -> NDArray[Any]:
    planes = 100 * drawn()[None].astype(np.uint16)
    stored = 65_535 - planes[0, ..., 0]
    tifffile.imwrite(path, stored, photometric="miniswhite", compression="zlib")
    return planes


def _fourth_channel(path: Path) -> NDArray[Any]:
    planes = drawn(channels=4)[None]
    options = {"photometric": "rgb", "extrasamples": ["unspecified"]}
    tifffile.imwrite(path, planes[0], **options)
    return planes


def _alpha(path: Path) -> NDArray[Any]:
    planes = drawn(channels=4)[None]
    Image.fromarray(planes[0], "RGBA").save(path)
    return planes[..., :3]


def _turned(orientation: int) -> Callable[[Path], NDArray[Any]]:
    def written(path: Path) -> NDArray[Any]:
        planes = drawn()[None]
        upright = planes[0, ..., 0]
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.T,
            6: np.rot90(upright, 1),
            7: upright[::-1, ::-1].T,
            8: np.rot90(upright, -1),
        }[orientation]
        note = Image.Exif()
        note[274] = orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=note)
        return planes

    return written


def _few_bits(bits: int) -> Callable[[Path], NDArray[Any]]:
    def written(path: Path) -> NDArray[Any]:
        planes = drawn()[None] % 2**bits
        Image.fromarray(planes[0, ..., 0]).save(path, bits=bits)
        return planes

    return written


def _tiff_few_bits(path: Path) -> NDArray[Any]:
    planes = drawn()[None] % 16
    tifffile.imwrite(path, planes[0, ..., 0], bitspersample=4, compression="packints")
    return planes


FORMS = {
    "TIFF, pages appended one by one": Form(_pages, ".tif", "all pages of equal size, a stack"),
    "TIFF, stacks appended": Form(_appended_stacks, ".tif", "all pages, in order"),
    "TIFF, pages compressed differently": Form(_compressions, ".tif", "all pages, in order"),
    "TIFF with a reduced copy": Form(_thumbnail, ".tif", "the image; the copy is named"),
    "OME-TIFF with positions": Form(_positions, ".ome.tif", "the planes of all positions"),
    "ImageJ hyperstack": Form(_imagej, ".tif", "T and Z as planes, C as channels"),
    "TIFF, 0 is white": Form(_white_is_zero, ".tif", "inverted, as it is seen"),
    "TIFF, 0 is white, 16 bits": Form(_white_is_zero_16, ".tif", "inverted, as it is seen"),
    "TIFF, colours and a fourth channel": Form(_fourth_channel, ".tif", "four channels"),
    "PNG with alpha": Form(_alpha, ".png", "the colours"),
    "PNG of 2 bits": Form(
        _few_bits(2), ".png", "the numbers, 0 to 3, of labels; 0 to 255 of images"
    ),
    "PNG of 4 bits": Form(
        _few_bits(4), ".png", "the numbers, 0 to 15, of labels; 0 to 255 of images"
    ),
    **{
        f"PNG with EXIF orientation {number}": Form(_turned(number), ".png", "upright")
        for number in range(1, 9)
    },
}


def _palette(colours: list[int], low: int, high: int) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        picture = Image.fromarray(np.where(mask(), high, low).astype(np.uint8))
        picture = picture.convert("P") if picture.mode != "P" else picture
        picture.putpalette(colours)
        picture.save(path)

    return written


def _grey(low: int, high: int, **options: Any) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        tifffile.imwrite(path, np.where(mask(), high, low).astype(np.uint8), **options)

    return written


def _in_alpha(path: Path) -> None:
    layer = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    layer[..., 3] = 255 * mask()
    Image.fromarray(layer, "RGBA").save(path)


def _as_rgba(path: Path) -> None:
    grey = np.uint8(255 * mask())
    Image.fromarray(np.stack([grey, grey, grey, np.full_like(grey, 255)], -1), "RGBA").save(path)


MASKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "0 and 1": (_grey(0, 1), ".tif"),
    "0 and 255": (_grey(0, 255), ".tif"),
    "0 and 255, 0 is white": (_grey(255, 0, photometric="miniswhite"), ".tif"),
    "bool of tifffile": (lambda path: tifffile.imwrite(path, mask()), ".tif"),
    "1 bit": (lambda path: Image.fromarray(mask()).save(path), ".png"),
    "1 bit, TIFF by Pillow": (lambda path: Image.fromarray(mask()).save(path), ".tif"),
    "1 bit, BMP": (lambda path: Image.fromarray(mask()).save(path), ".bmp"),
    "2 bits": (lambda path: Image.fromarray(np.uint8(mask())).save(path, bits=2), ".png"),
    "palette, 1 is white": (_palette([0, 0, 0, 255, 255, 255], 0, 1), ".png"),
    "palette, 0 is white": (_palette([255, 255, 255, 0, 0, 0], 1, 0), ".png"),
    "palette, GIF": (_palette([255, 255, 255, 0, 0, 0], 1, 0), ".gif"),
    "in the alpha channel": (_in_alpha, ".png"),
    "RGBA": (_as_rgba, ".png"),
}
"""Conventions of a mask of two values, each of which gives the pixels of `mask`."""
