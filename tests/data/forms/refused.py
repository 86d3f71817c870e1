"""Forms of files that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from .drawing import drawn
from .zarrs import write_ome_zarr


def _animation(path: Path) -> None:
    first, *others = (Image.fromarray(plane) for plane in drawn(3)[..., 0])
    first.save(path, save_all=True, append_images=others)


def _of_mode(mode: str) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        Image.fromarray(drawn(channels=3)).convert(mode).save(path)

    return written


def _of_odd_bits(bits: int, byteorder: Any) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        plane = drawn()[..., 0].astype(np.uint32 if bits > 16 else np.uint16)
        options = {"bitspersample": bits, "photometric": "minisblack", "byteorder": byteorder}
        tifffile.imwrite(path, plane, **options)

    return written


def _channels_last(*shape: int) -> Callable[[Path], None]:
    """Lets scikit-image write channels last, which it states in no way."""

    def written(path: Path) -> None:
        import skimage.io

        skimage.io.imsave(path, np.zeros(shape, np.uint8), check_contrast=False)

    return written


def _raw(path: Path) -> None:
    tifffile.imwrite(path, drawn()[..., 0], photometric="cfa")


def _cut_imagej(path: Path) -> None:
    text = "ImageJ=1.54f\nimages=6\nframes=6\n"
    tifffile.imwrite(path, drawn()[..., 0], description=text, metadata=None)


def _two_sizes(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((9, 9), np.uint8), metadata=None)
        file.write(np.zeros((5, 7), np.uint8), metadata=None)


def _collection(path: Path) -> None:
    import zarr

    zarr.create_group(path, attributes={"ome": {"bioformats2raw.layout": 3}})
    for name in ("0", "1"):
        write_ome_zarr(path / name, drawn()[..., 0], "yx", "0.5")


def _plate(path: Path) -> None:
    import zarr

    zarr.create_group(path, attributes={"ome": {"version": "0.5", "plate": {}}})


class Refusal(NamedTuple):
    """A form of file that is refused.

    Attributes:
        written: Writes it to a path.
        ending: Ending of the file.
        message: What the message says, and the way out, as a regular expression.
    """

    written: Callable[[Path], None]
    ending: str
    message: str


_FRAMES = "animation of 3 frames; save them as the pages of a TIFF"

REFUSED = {
    "animated GIF": Refusal(_animation, ".gif", _FRAMES),
    "animated PNG": Refusal(_animation, ".png", _FRAMES),
    "TIFF in CMYK": Refusal(_of_mode("CMYK"), ".tif", "colors are CMYK, .* save it as RGB"),
    "TIFF in L*a*b*": Refusal(_of_mode("LAB"), ".tif", r"are L\*a\*b\*, .* save it as RGB"),
    "TIFF in YCbCr": Refusal(_of_mode("YCbCr"), ".tif", "are YCbCr, .* save it as RGB"),
    "TIFF of a filter array (raw)": Refusal(_raw, ".tif", r"filter array \(raw\), .* save it as"),
    "ImageJ, planes missing": Refusal(
        _cut_imagej,
        ".tif",
        r"states 6 planes \(ImageJ\) and holds 1: it was truncated.*save it again",
    ),
    "TIFF of 24 bits": Refusal(
        _of_odd_bits(24, "<"),
        ".tif",
        "have 24 bits, whose order differs .* with 32 bits per sample",
    ),
    "TIFF of 12 bits by tifffile, big end first": Refusal(
        _of_odd_bits(12, ">"),
        ".tif",
        "have 12 bits, whose order differs .* with 16 bits per sample",
    ),
    "TIFF, channels last and not stated": Refusal(
        _channels_last(40, 50, 2), ".tif", r"\(40, 50, 2\) without stated axes .* --axes YXC"
    ),
    "TIFF, planes of channels last, not stated": Refusal(
        _channels_last(5, 40, 50, 2), ".tif", r"\(5, 40, 50, 2\) without .* --axes ZYXC"
    ),
    "TIFF, three planes of colors last, not stated": Refusal(
        _channels_last(3, 40, 50, 3), ".tif", r"\(3, 40, 50, 3\) without .* --axes ZYXC"
    ),
    "TIFF, pages of two sizes": Refusal(
        _two_sizes, ".tif", "9 x 9, 5 x 7; save each in a separate file"
    ),
    "OME-Zarr, several images": Refusal(
        _collection, ".zarr", r"holds 2 images \(0, 1\); pass one of them, such as .*zarr/0"
    ),
    "OME-Zarr, a plate": Refusal(
        _plate, ".zarr", "no OME-Zarr image; pass the array or image within it"
    ),
}
"""Forms that are refused in one line, which says the way out."""
