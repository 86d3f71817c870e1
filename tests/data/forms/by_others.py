"""Files as libtiff's programs, OpenCV, imageio, scikit-image and Pillow write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from .drawing import HEIGHT, WIDTH, Form, drawn, run, wide


def copied(planes: NDArray[Any], *options: object, joined: bool = False) -> Form:
    """Lets tiffcp write a stack, of one file with all pages, or of one file a plane."""

    def written(path: Path) -> NDArray[Any]:
        photometric = "rgb" if planes.shape[-1] > 1 else "minisblack"
        stored = planes if planes.shape[-1] > 1 else planes[..., 0]
        sources = [path.with_name(f"{n}.source") for n in range(len(planes) if joined else 1)]
        for source, pages in zip(sources, stored if joined else [stored], strict=True):
            tifffile.imwrite(source, pages, photometric=photometric, metadata=None)
        run("tiffcp", *options, *sources, path)
        return planes

    return Form(written, ".tif", "all pages, in order", "libtiff's tiffcp", "tiffcp")


def copied_bits(compression: str) -> Form:
    def written(path: Path) -> NDArray[Any]:
        planes = drawn(1) % 2 == 1
        source = path.with_name("source")
        Image.fromarray(planes[0, ..., 0]).save(source, "TIFF")
        run("tiffcp", "-c", compression, source, path)
        return planes

    return Form(written, ".tif", "0 and 1", "libtiff's tiffcp", "tiffcp")


def copied_12_bits(path: Path) -> NDArray[Any]:
    planes = drawn(1).astype(np.uint16) * 16 + 5
    source = path.with_name("source")
    options = {"bitspersample": 12, "photometric": "minisblack", "software": False}
    tifffile.imwrite(source, planes[0, ..., 0], **options)
    run("tiffcp", "-B", "-c", "lzw", source, path)
    return planes


def raw(planes: NDArray[Any], kind: str, photo: str = "minisblack") -> Callable[[Path], Any]:
    """Lets raw2tiff write a plane, inverted where 0 is to be white."""

    def written(path: Path) -> NDArray[Any]:
        stored = np.iinfo(planes.dtype).max - planes if photo == "miniswhite" else planes
        source = path.with_name("source")
        source.write_bytes(stored.tobytes())
        bands = planes.shape[-1]
        sizes = ("-w", WIDTH, "-l", HEIGHT, "-b", bands, "-d", kind, "-p", photo)
        run("raw2tiff", *sizes, source, path)
        return planes

    return written


def by_opencv(planes: NDArray[Any], ending: str, what: str) -> Form:
    """Lets OpenCV write planes, whose colors it takes as blue, green, red."""

    def written(path: Path) -> NDArray[Any]:
        import cv2

        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[planes.shape[-1]]
        stored = [np.ascontiguousarray(plane[..., order]) for plane in planes]
        if len(stored) > 1:
            cv2.imwritemulti(str(path), stored)
        else:
            cv2.imwrite(str(path), stored[0])
        return planes[..., :3]

    return Form(written, ending, what, "OpenCV")


def by_imageio(planes: NDArray[Any], ending: str, plugin: str, what: str) -> Form:
    def written(path: Path) -> NDArray[Any]:
        import imageio.v3

        imageio.v3.imwrite(path, _squeezed(planes), plugin=plugin)
        return planes

    return Form(written, ending, what, f"imageio ({plugin})")


def by_skimage(planes: NDArray[Any], what: str, expected: NDArray[Any] | None = None) -> Form:
    def written(path: Path) -> NDArray[Any]:
        import skimage.io

        skimage.io.imsave(path, _squeezed(planes), check_contrast=False)
        return planes if expected is None else expected

    return Form(written, ".tif", what, "scikit-image")


def _squeezed(planes: NDArray[Any]) -> NDArray[Any]:
    """Takes off the axes of one plane and of one channel."""
    stored = planes if planes.shape[-1] > 1 else planes[..., 0]
    return stored if len(stored) > 1 else stored[0]


def pages_by_pillow(planes: NDArray[Any], compression: str | None) -> Form:
    def written(path: Path) -> NDArray[Any]:
        first, *others = (Image.fromarray(_squeezed(plane[None])) for plane in planes)
        first.save(path, save_all=True, append_images=others, compression=compression)
        return planes

    return Form(written, ".tif", "all pages, in order", "Pillow")


def mode_of_pillow(mode: str, ending: str, dtype: str, what: str) -> Form:
    def written(path: Path) -> NDArray[Any]:
        planes = wide(drawn(1), dtype) if mode[0] == "I" else drawn(1).astype(dtype)
        Image.fromarray(planes[0, ..., 0]).convert(mode).save(path)
        return planes

    return Form(written, ending, what, "Pillow")
