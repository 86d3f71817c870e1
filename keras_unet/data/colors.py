"""Samples of a TIFF's pixels: colors that are read or not, alpha, numbers of bits."""

from __future__ import annotations

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

_COLORS: frozenset[int] = frozenset({PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR})
_OTHER_COLORS: dict[int, str] = {
    PHOTOMETRIC.SEPARATED: "CMYK",
    PHOTOMETRIC.CIELAB: "L*a*b*",
    PHOTOMETRIC.ICCLAB: "L*a*b*",
    PHOTOMETRIC.ITULAB: "L*a*b*",
    PHOTOMETRIC.LOGLUV: "LogLuv",
    PHOTOMETRIC.YCBCR: "YCbCr",
    PHOTOMETRIC.CFA: "those of a filter array (raw)",
}
_AS_STORED: frozenset[int] = frozenset(  # compressions; JPEG and its like decode YCbCr to RGB
    COMPRESSION[name]
    for name in ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA", "ZSTD")
)
_ALPHAS: frozenset[int] = frozenset({EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA})
_COLORS_WITH_ALPHA = 4
_NUMBER_WITH_ALPHA = 2
_BITS_OF_A_TYPE = (16, 32, 64, 128)


def check_colors(page: tifffile.TiffPage) -> None:
    """Refuses colors that would be taken for red, green and blue, or for channels.

    Args:
        page: The page that says what the pixels mean.

    Raises:
        ValueError: The message names the color space.
    """
    name = _OTHER_COLORS.get(page.photometric)
    if name is None or (name == "YCbCr" and page.compression not in _AS_STORED):
        return
    raise ValueError(f"its colors are {name}, which are not read; save it as RGB or grey")


def check_bits(page: tifffile.TiffPage) -> None:
    """Refuses numbers of bits that programs store in different orders of bytes.

    Args:
        page: The page that says what the pixels mean.

    Raises:
        ValueError: The message has the number of bits.
    """
    bits = page.bitspersample
    if bits <= 8 or bits in _BITS_OF_A_TYPE:
        return
    is_swapped = page.parent.byteorder == ">" and str(page.software).startswith("tifffile")
    if bits > 16 or is_swapped:
        raise ValueError(
            f"its samples have {bits} bits, whose order differs between programs; save it with "
            f"{16 if bits < 16 else 32} bits a sample"
        )


def place_of_alpha(page: tifffile.TiffPage, axes: str) -> int | None:
    """Finds which sample of a TIFF's pixels is alpha; None where none is.

    The one is that the file says is, wherever it stands. Where it says nothing, the fourth beside
    colors is, and the second beside the numbers of a palette; the second beside grey is not. A
    sample of unspecified meaning is a further channel, as writers state those of a microscope.

    Args:
        page: The page that says what the pixels mean.
        axes: A letter for each dimension of the image; samples are S.
    """
    if "S" not in axes or "C" in axes:
        return None
    first = page.samplesperpixel - len(page.extrasamples)
    for place, meaning in enumerate(page.extrasamples, first):
        if meaning in _ALPHAS:
            return place
    is_stated = EXTRASAMPLE.UNSPECIFIED in page.extrasamples
    is_fourth = page.photometric in _COLORS and page.samplesperpixel == _COLORS_WITH_ALPHA
    is_number = page.photometric == PHOTOMETRIC.PALETTE
    is_second = is_number and page.samplesperpixel == _NUMBER_WITH_ALPHA
    return page.samplesperpixel - 1 if (is_fourth or is_second) and not is_stated else None


_SMOOTH = 32  # of 255, from one color of a table of intensities to the next
_MOSTLY = 0.9


def table_of(colors: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """Returns what to take in place of each number of an image; None where it is the intensity.

    Args:
        colors: Red, green and blue of each number, `(numbers, 3)`, or None without a palette.

    Returns:
        Grey values `(numbers, 1)` or colors `(numbers, 3)`.

    Examples:
        >>> ramp = np.arange(256, dtype=np.uint8)
        >>> table_of(np.stack([0 * ramp, ramp, 0 * ramp], axis=-1)) is None
        True
        >>> table_of(np.array([[255, 255, 255], [0, 0, 0]], np.uint8)).tolist()
        [[255], [0]]
    """
    if colors is None:
        return None
    if (colors == colors[:, :1]).all():
        is_itself = bool((colors[:, 0] == np.arange(len(colors))).all())
        return None if is_itself else colors[:, :1]
    steps = np.abs(np.diff(_used(colors).astype(int), axis=0)).max(axis=1)
    is_ramp = steps.size >= _SMOOTH and np.mean(steps <= _SMOOTH) >= _MOSTLY
    return None if is_ramp else colors


def _used(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cuts off what only fills the table: the last color, again and again."""
    differs = np.flatnonzero((colors != colors[-1]).any(axis=1))
    return colors[: differs[-1] + 2] if differs.size else colors[:1]
