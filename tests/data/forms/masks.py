"""Conventions of a mask of two values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from .drawing import run

Marked = NDArray[np.bool_]


def _palette(colors: list[int], low: int, high: int) -> Callable[[Path, Marked], None]:
    def written(path: Path, marked: Marked) -> None:
        picture = Image.fromarray(np.where(marked, high, low).astype(np.uint8))
        picture = picture.convert("P") if picture.mode != "P" else picture
        picture.putpalette(colors)
        picture.save(path)

    return written


def _grey(
    low: int, high: int, dtype: str = "uint8", **options: Any
) -> Callable[[Path, Marked], None]:
    def written(path: Path, marked: Marked) -> None:
        tifffile.imwrite(path, np.where(marked, high, low).astype(dtype), **options)

    return written


def _saved(mode: str, **options: Any) -> Callable[[Path, Marked], None]:
    """Lets Pillow save a mask as an image of a mode."""

    def written(path: Path, marked: Marked) -> None:
        picture = Image.fromarray(marked if mode == "1" else np.uint8(255 * marked))
        picture.convert(mode).save(path, **options)

    return written


def _few_bits_marked(bits: int, high: int) -> Callable[[Path, Marked], None]:
    def written(path: Path, marked: Marked) -> None:
        Image.fromarray(np.uint8(high * marked)).save(path, bits=bits)

    return written


def _in_alpha(path: Path, marked: Marked) -> None:
    layer = np.zeros((*marked.shape, 4), np.uint8)
    layer[..., 3] = 255 * marked
    Image.fromarray(layer, "RGBA").save(path)


def _by_cv2(*options: str) -> Callable[[Path, Marked], None]:
    def written(path: Path, marked: Marked) -> None:
        import cv2

        stated = [number for name in options for number in (getattr(cv2, name), 1)]
        cv2.imwrite(str(path), np.uint8(255 * marked), stated)

    return written


def _bool_by_imageio(path: Path, marked: Marked) -> None:
    import imageio.v3

    imageio.v3.imwrite(path, marked)


def _bool_by_skimage(path: Path, marked: Marked) -> None:
    import skimage.io

    with warnings.catch_warnings():  # that it writes 0 and 255
        warnings.simplefilter("ignore", UserWarning)
        skimage.io.imsave(path, marked, check_contrast=False)


def _by_tiffcp(path: Path, marked: Marked) -> None:
    source = path.with_name("source")
    Image.fromarray(marked).save(source, "TIFF")
    run("tiffcp", "-c", "g4", source, path)


def _by_raw2tiff(path: Path, marked: Marked) -> None:
    source = path.with_name("source")
    source.write_bytes(np.uint8(255 * ~marked).tobytes())
    height, width = marked.shape
    run("raw2tiff", "-w", width, "-l", height, "-p", "miniswhite", source, path)


class Convention(NamedTuple):
    """A convention of a mask of two values.

    Attributes:
        written: Writes a mask, `(height, width)`, to a path.
        ending: Ending of the file.
        needs: Debian's program that the test needs.
    """

    written: Callable[[Path, Marked], None]
    ending: str
    needs: str | None = None


_WHITE_FIRST = [255, 255, 255, 0, 0, 0]

MASKS = {
    "0 and 1": Convention(_grey(0, 1), ".tif"),
    "0 and 255": Convention(_grey(0, 255), ".tif"),
    "0 and 255, compressed": Convention(_grey(0, 255, compression="zlib"), ".tif"),
    "0 and 255, 0 is white": Convention(_grey(255, 0, photometric="miniswhite"), ".tif"),
    "0 and 65,535": Convention(_grey(0, 65_535, "uint16"), ".tif"),
    "0 and 65,535, 0 is white": Convention(
        _grey(65_535, 0, "uint16", photometric="miniswhite"), ".tif"
    ),
    **{f"0 and 1, {dtype}": Convention(_grey(0, 1, dtype), ".tif") for dtype in ("int8", "int64")},
    **{f"0 and 1, {d}": Convention(_grey(0, 1, d), ".tif") for d in ("float16", "float32")},
    "0 and 255, float32": Convention(_grey(0, 255, "float32"), ".tif"),
    "0 and 1, ImageJ": Convention(_grey(0, 1, imagej=True), ".tif"),
    "0 and 255, BMP": Convention(_saved("L"), ".bmp"),
    "0 and 255, PNG by OpenCV": Convention(_by_cv2(), ".png"),
    "0 and 255, TIFF by OpenCV": Convention(_by_cv2(), ".tif"),
    "0 and 255, 0 is white, raw2tiff": Convention(_by_raw2tiff, ".tif", "raw2tiff"),
    "bool of tifffile": Convention(tifffile.imwrite, ".tif"),
    "bool of imageio, PNG": Convention(_bool_by_imageio, ".png"),
    "bool of imageio, TIFF": Convention(_bool_by_imageio, ".tif"),
    "bool of scikit-image, PNG": Convention(_bool_by_skimage, ".png"),
    "bool of scikit-image, TIFF": Convention(_bool_by_skimage, ".tif"),
    "1 bit": Convention(_saved("1"), ".png"),
    "1 bit, PNG by OpenCV": Convention(_by_cv2("IMWRITE_PNG_BILEVEL"), ".png"),
    "1 bit, TIFF by Pillow": Convention(_saved("1"), ".tif"),
    "1 bit, fax (group 4)": Convention(_saved("1", compression="group4"), ".tif"),
    "1 bit, fax (group 4) by tiffcp": Convention(_by_tiffcp, ".tif", "tiffcp"),
    "1 bit, BMP": Convention(_saved("1"), ".bmp"),
    "2 bits": Convention(_few_bits_marked(2, 1), ".png"),
    "2 bits, 0 and 3": Convention(_few_bits_marked(2, 3), ".png"),
    "4 bits, 0 and 15": Convention(_few_bits_marked(4, 15), ".png"),
    "palette, 1 is white": Convention(_palette([0, 0, 0, 255, 255, 255], 0, 1), ".png"),
    "palette, 0 is white": Convention(_palette(_WHITE_FIRST, 1, 0), ".png"),
    "palette, 0 is white, GIF": Convention(_palette(_WHITE_FIRST, 1, 0), ".gif"),
    "palette, 0 is white, BMP": Convention(_palette(_WHITE_FIRST, 1, 0), ".bmp"),
    "palette, 0 is white, TIFF": Convention(_palette(_WHITE_FIRST, 1, 0), ".tif"),
    "palette, 1 is red": Convention(_palette([0, 0, 0, 255, 0, 0], 0, 1), ".png"),
    "in the alpha channel": Convention(_in_alpha, ".png"),
    "grey with alpha": Convention(_saved("LA"), ".png"),
    "RGB": Convention(_saved("RGB"), ".png"),
    "RGB, TIFF": Convention(_saved("RGB"), ".tif"),
    "RGBA": Convention(_saved("RGBA"), ".png"),
}
"""Conventions of a mask of two values, each of which gives the pixels that were marked."""
