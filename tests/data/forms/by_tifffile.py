"""Files as tifffile writes them, and turned ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from .drawing import HEIGHT, WIDTH, Form, drawn


def pages(path: Path) -> NDArray[Any]:
    planes = drawn(3)
    for plane in planes[..., 0]:
        tifffile.imwrite(path, plane, append=path.exists())
    return planes


def appended_stacks(path: Path) -> NDArray[Any]:
    planes = drawn(6)
    for half in (planes[:3, ..., 0], planes[3:, ..., 0]):
        tifffile.imwrite(path, half, append=path.exists(), photometric="minisblack")
    return planes


def compressions(path: Path) -> NDArray[Any]:
    planes = drawn(4)
    with tifffile.TiffWriter(path) as file:
        for plane, compression in zip(planes[..., 0], ("lzw", None, "zlib", "lzw"), strict=True):
            file.write(plane, compression=compression, metadata=None)
    return planes


def thumbnail(path: Path) -> NDArray[Any]:
    planes = drawn()[None]
    with tifffile.TiffWriter(path) as file:
        file.write(planes[0, ..., 0], metadata=None)
        file.write(planes[0, :7, :9, 0], metadata=None, subfiletype=1)
    return planes


def positions(path: Path) -> NDArray[Any]:
    planes = drawn(2, 3)
    with tifffile.TiffWriter(path, ome=True) as file:
        for position in planes[..., 0]:
            file.write(position, metadata={"axes": "ZYX"}, photometric="minisblack")
    return planes.reshape(-1, HEIGHT, WIDTH, 1)


def imagej(path: Path) -> NDArray[Any]:
    planes = drawn(3, 2, channels=2)
    stored = np.moveaxis(planes, -1, 2)
    tifffile.imwrite(path, stored, imagej=True, metadata={"axes": "TZCYX"})
    return planes.reshape(-1, HEIGHT, WIDTH, 2)


def white_is_zero(path: Path) -> NDArray[Any]:
    planes = drawn()[None]
    tifffile.imwrite(path, 255 - planes[0, ..., 0], photometric="miniswhite")
    return planes


def white_is_zero_16(path: Path) -> NDArray[Any]:
    planes = 100 * drawn()[None].astype(np.uint16)
    stored = 65_535 - planes[0, ..., 0]
    tifffile.imwrite(path, stored, photometric="miniswhite", compression="zlib")
    return planes


def fourth_channel(path: Path) -> NDArray[Any]:
    planes = drawn(channels=4)[None]
    options = {"photometric": "rgb", "extrasamples": ["unspecified"]}
    tifffile.imwrite(path, planes[0], **options)
    return planes


def alpha(path: Path) -> NDArray[Any]:
    planes = drawn(channels=4)[None]
    Image.fromarray(planes[0], "RGBA").save(path)
    return planes[..., :3]


def turned(orientation: int) -> Callable[[Path], NDArray[Any]]:
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


def few_bits(bits: int) -> Callable[[Path], NDArray[Any]]:
    def written(path: Path) -> NDArray[Any]:
        planes = drawn()[None] % 2**bits
        Image.fromarray(planes[0, ..., 0]).save(path, bits=bits)
        return planes

    return written


def _tiff_few_bits(path: Path) -> NDArray[Any]:
    planes = drawn()[None] % 16
    tifffile.imwrite(path, planes[0, ..., 0], bitspersample=4, compression="packints")
    return planes


def false_colors(path: Path) -> NDArray[Any]:
    planes = drawn(1)
    ramp = np.arange(256)
    lut = 257 * np.stack([np.minimum(3 * ramp, 255), ramp, ramp // 2]).astype(np.uint16)
    tifffile.imwrite(path, planes[0, ..., 0], photometric="palette", colormap=lut)
    return planes


def pyramid(**options: Any) -> Callable[[Path], NDArray[Any]]:
    def written(path: Path) -> NDArray[Any]:
        planes = drawn(2)
        with tifffile.TiffWriter(path, **options) as file:
            axes = {"axes": "ZYX"}
            file.write(planes[..., 0], subifds=1, metadata=axes, photometric="minisblack")
            file.write(planes[:, ::2, ::2, 0], subfiletype=1, photometric="minisblack")
        return planes

    return written


def behind_one_page(path: Path) -> NDArray[Any]:
    planes = drawn(3)
    text = "ImageJ=1.54f\nimages=3\nslices=3\n"
    tifffile.imwrite(path, planes[0, ..., 0], description=text, metadata=None)
    with path.open("ab") as file:
        file.write(planes[1:].tobytes())
    return planes


def alpha_in_between(path: Path) -> NDArray[Any]:
    planes = drawn(channels=5)[None]
    options = {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}
    tifffile.imwrite(path, planes[0], **options)
    return np.delete(planes, 3, axis=-1)


def typed(planes: NDArray[Any], **options: Any) -> Form:
    def written(path: Path) -> NDArray[Any]:
        tifffile.imwrite(path, planes[..., 0], photometric="minisblack", **options)
        return planes

    return Form(written, ".tif", "the numbers")


def of_bits(bits: int) -> Form:
    def written(path: Path) -> NDArray[Any]:
        numbers = np.random.default_rng(0).integers(0, 2**bits, (1, HEIGHT, WIDTH, 1))
        planes = numbers.astype(np.uint8 if bits <= 8 else np.uint16)
        tifffile.imwrite(path, planes[0, ..., 0], bitspersample=bits, photometric="minisblack")
        return planes

    return Form(written, ".tif", f"the numbers, 0 to {2**bits - 1:,}")
