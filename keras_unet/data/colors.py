"""Samples of TIFF pixels: color spaces, alpha channel, bits, palettes."""

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
_INDEX_WITH_ALPHA = 2
_BITS_OF_A_TYPE = (16, 32, 64, 128)


def check_colors(page: tifffile.TiffPage) -> None:
    """Refuses color spaces other than RGB, which would be read as RGB or as channels.

    Args:
        page: Page with the metadata of the pixels.

    Raises:
        ValueError: If the color space is another; the message names it.
    """
    name = _OTHER_COLORS.get(page.photometric)
    if name is None or (name == "YCbCr" and page.compression not in _AS_STORED):
        return
    raise ValueError(f"its colors are {name}, which are not read; save it as RGB or grey")


def check_bits(page: tifffile.TiffPage) -> None:
    """Refuses numbers of bits that programs store in different byte orders.

    Args:
        page: Page with the metadata of the pixels.

    Raises:
        ValueError: If the byte order is ambiguous.
    """
    bits = page.bitspersample
    if bits <= 8 or bits in _BITS_OF_A_TYPE:
        return
    is_swapped = page.parent.byteorder == ">" and str(page.software).startswith("tifffile")
    if bits > 16 or is_swapped:
        raise ValueError(
            f"its samples have {bits} bits, whose order differs between programs; save it with "
            f"{16 if bits < 16 else 32} bits per sample"
        )


def alpha_index(page: tifffile.TiffPage, axes: str) -> int | None:
    """Returns the index of the alpha sample of a TIFF's pixels; None if there is none.

    A sample that is declared as alpha is alpha. Otherwise it is the fourth sample of colors, and
    the second of a palette image, but not the second of a grey image. A sample of unspecified
    meaning is a channel, as of a microscope.

    Args:
        page: Page with the metadata of the pixels.
        axes: Letter of each dimension of the image; samples are S.
    """
    if "S" not in axes or "C" in axes:
        return None
    first = page.samplesperpixel - len(page.extrasamples)
    for index, meaning in enumerate(page.extrasamples, first):
        if meaning in _ALPHAS:
            return index
    is_unspecified = EXTRASAMPLE.UNSPECIFIED in page.extrasamples
    is_fourth = page.photometric in _COLORS and page.samplesperpixel == _COLORS_WITH_ALPHA
    is_palette = page.photometric == PHOTOMETRIC.PALETTE
    is_second = is_palette and page.samplesperpixel == _INDEX_WITH_ALPHA
    return page.samplesperpixel - 1 if (is_fourth or is_second) and not is_unspecified else None


_SMOOTH = 32  # of 255, from one color of a smooth palette to the next
_MOSTLY = 0.9


def color_table(colors: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """Returns the grey value or color of each number of a palette; None if numbers are intensities.

    Args:
        colors: Red, green and blue of each number, `(numbers, 3)`, or None without a palette.

    Returns:
        Grey values `(numbers, 1)` or colors `(numbers, 3)`; None for a smooth palette.

    Examples:
        >>> ramp = np.arange(256, dtype=np.uint8)
        >>> color_table(np.stack([0 * ramp, ramp, 0 * ramp], axis=-1)) is None
        True
        >>> color_table(np.array([[255, 255, 255], [0, 0, 0]], np.uint8)).tolist()
        [[255], [0]]
    """
    if colors is None:
        return None
    if (colors == colors[:, :1]).all():
        is_identity = bool((colors[:, 0] == np.arange(len(colors))).all())
        return None if is_identity else colors[:, :1]
    steps = np.abs(np.diff(_without_padding(colors).astype(int), axis=0)).max(axis=1)
    is_ramp = steps.size >= _SMOOTH and np.mean(steps <= _SMOOTH) >= _MOSTLY
    return None if is_ramp else colors


def _without_padding(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Removes repetitions of the last color at the end of the table."""
    differs = np.flatnonzero((colors != colors[-1]).any(axis=1))
    return colors[: differs[-1] + 2] if differs.size else colors[:1]
