"""Pictures for people: images, labels, weight maps, differences, and a montage of them.

A function `..._picture` takes arrays and returns an RGB picture, (height, width, 3) in uint8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from scipy.ndimage import maximum_filter
from skimage.color import gray2rgb, hsv2rgb
from skimage.segmentation import find_boundaries

from keras_unet.files import SOFTWARE, atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

Picture: TypeAlias = "NDArray[np.uint8]"
T = TypeVar("T", bound=np.generic)

DARK = 24  # grey value of background
FONT_SIZE = 16  # pixels
GUTTER = 8  # pixels
LEGIBLE = 160  # pixels; smaller pictures are enlarged in a montage
OPACITY = 0.45  # of labels over an image
# Hues that far apart on the circle stay distinct for any number. Colors of skimage's label2rgb
# depend on what else is in the image, and repeat after ten.
GOLDEN = 0.618033988749895
ONLY_REFERENCE = 230, 159, 0  # orange and sky blue: told apart in every color vision
ONLY_RESULT = 86, 180, 233


def grey_picture(image: ArrayLike) -> Picture:
    """Draws an image in grey, its contrast stretched between the percentiles 0.5 and 99.5.

    Args:
        image: (height, width) or (height, width, channels), of any range. Channels are averaged.

    Raises:
        ValueError: If `image` has another number of axes.

    Example:
        >>> grey_picture([[0, 1000], [2000, 4000]])[..., 0].tolist()
        [[0, 63], [127, 255]]
    """
    values = np.asarray(image, np.float32)
    if values.ndim not in {2, 3}:
        raise ValueError(
            "image must be (height, width) or (height, width, channels). "
            f"Received shape {values.shape}; draw one image at a time."
        )
    grey = values if values.ndim == 2 else values.mean(axis=2)
    low, high = np.percentile(grey, [0.5, 99.5])
    stretched = np.clip((grey - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    return np.asarray(gray2rgb((255 * stretched).astype(np.uint8)))


def label_picture(labels: ArrayLike, image: ArrayLike | None = None) -> Picture:
    """Draws labels, each number in a color of its own; 0 is dark. A black line parts neighbors.

    A number has the same color in every picture. Instances and classes are drawn alike.

    Args:
        labels: (height, width), integers.
        image: Lies underneath, if given: (height, width) or (height, width, channels).

    Raises:
        ValueError: If the two differ in size.

    Example:
        >>> picture = label_picture([[0, 7, 7]])
        >>> bool((picture[0, 1] == picture[0, 2]).all()), picture[0, 0].tolist()
        (True, [24, 24, 24])
    """
    numbers = _flat("labels", labels)
    present, where = np.unique(numbers, return_inverse=True)
    colors = _colors(present)[where.reshape(numbers.shape)]
    colors[_lines(numbers)] = 0
    if image is None:
        return np.where((numbers == 0)[..., None], DARK, colors).astype(np.uint8)
    below = grey_picture(image)
    _require_equal_sizes("labels", numbers, "image", below)
    above = (1 - OPACITY) * below + OPACITY * colors
    return np.where((numbers == 0)[..., None], below, above).astype(np.uint8)


def heat_picture(values: ArrayLike) -> Picture:
    """Draws a map from 0 to its maximum, such as a weight map, in the colors of "inferno".

    Args:
        values: (height, width). Values below 0 are drawn as 0.

    Example:
        >>> heat_picture([[0.0, 12.0]]).tolist()
        [[[0, 0, 3], [252, 254, 164]]]
    """
    from matplotlib import colormaps  # takes half a second

    heat = np.clip(_flat("values", values).astype(np.float64), 0, None)
    relative = heat / max(heat.max(initial=0), np.finfo(np.float64).tiny)
    return np.asarray(colormaps["inferno"](relative, bytes=True)[..., :3])


def probability_picture(values: ArrayLike) -> Picture:
    """Draws probabilities from black, 0, to white, 1.

    Args:
        values: (height, width), each 0 to 1.

    Example:
        >>> probability_picture([[0.0, 0.5, 1.0]])[0].tolist()
        [[0, 0, 0], [127, 127, 127], [255, 255, 255]]
    """
    return np.asarray(gray2rgb((255 * _flat("values", values)).astype(np.uint8)))


def difference_picture(reference: ArrayLike, result: ArrayLike) -> Picture:
    """Draws where two label images differ in foreground, that is in what is not 0.

    Agreement is grey (light on foreground, dark on background), foreground of the reference alone
    orange, foreground of the result alone sky blue.

    Args:
        reference: (height, width), the truth.
        result: (height, width), the prediction.

    Raises:
        ValueError: If the two differ in size.

    Example:
        >>> difference_picture([[0, 1, 1]], [[2, 0, 2]])[0].tolist()
        [[86, 180, 233], [230, 159, 0], [150, 150, 150]]
    """
    truth, found = _flat("reference", reference) != 0, _flat("result", result) != 0
    _require_equal_sizes("reference", truth, "result", found)
    picture = np.asarray(gray2rgb(np.where(truth, 150, DARK).astype(np.uint8)))
    picture[truth & ~found] = ONLY_REFERENCE
    picture[found & ~truth] = ONLY_RESULT
    return picture


def outline_picture(
    picture: Picture,
    reference: ArrayLike,
    result: ArrayLike,
    *,
    factor: int = 1,
    width: int = 2,
) -> Picture:
    """Draws the outlines of the truth in orange and of the prediction in sky blue on a picture.

    Where both have an outline, the prediction's is seen.

    Args:
        picture: (height, width, 3), such as a grey picture.
        reference: (height, width), the truth.
        result: (height, width), the prediction.
        factor: How often a pixel is repeated.
        width: Width of an outline in pixels of what is drawn, an even number.

    Raises:
        ValueError: If the three differ in size.

    Example:
        >>> truth = np.repeat([[0, 0, 1, 1]], 4, axis=0)
        >>> picture = outline_picture(grey_picture(truth * 0), truth, truth * 0)
        >>> picture[0, :, 0].tolist()  # red
        [0, 230, 230, 0]
    """
    drawn = _enlarged(picture, factor)
    for name, labels, color in (
        ("reference", reference, ONLY_REFERENCE),
        ("result", result, ONLY_RESULT),
    ):
        enlarged = _enlarged(_flat(name, labels), factor)
        _require_equal_sizes("picture", drawn, name, enlarged)
        lines = find_boundaries(enlarged, mode="thick")
        drawn[maximum_filter(lines, width - 1)] = color
    return drawn


def middle(array: NDArray[T], side: int) -> NDArray[T]:
    """Takes the middle of what is too large to be drawn pixel for pixel.

    Args:
        array: (height, width) or (height, width, channels).
        side: Its largest height and width in pixels.

    Example:
        >>> middle(np.arange(12).reshape(2, 6), 3).tolist()
        [[1, 2, 3], [7, 8, 9]]
    """
    top, left = (max(0, (length - side) // 2) for length in array.shape[:2])
    return array[top : top + side, left : left + side]


def montage(rows: Sequence[Sequence[Picture]], titles: Sequence[str]) -> Picture:
    """Lays pictures out in rows and columns on white, a title above each column.

    The pictures of a row are enlarged by one whole factor where all are smaller than 160 pixels,
    so that a person sees their pixels; otherwise they are shown pixel for pixel.

    Args:
        rows: Rows of pictures, as many a row as there are titles.
        titles: One a column.

    Raises:
        ValueError: If there is no row, no title, or a row that does not fit the titles.
    """
    _require_grid(rows, titles)
    grid = [[_written(title) for title in titles], *map(_legible, rows)]
    widths = [max(len(picture[0]) for picture in column) for column in zip(*grid, strict=True)]
    bands = []
    for row in grid:
        height = max(map(len, row))
        padded = map(_padded, row, [height] * len(row), widths)
        bands.append(np.hstack(list(padded)))
    return np.pad(np.vstack(bands), ((GUTTER, 0), (GUTTER, 0), (0, 0)), constant_values=255)


def write_png(path: Path, picture: Picture) -> None:
    """Writes a picture as a PNG file, whole or not at all."""
    about = PngInfo()
    about.add_text("Software", SOFTWARE)
    with atomic(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", pnginfo=about)


def _flat(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(
            f"{name} must be (height, width). Received shape {array.shape}; draw one channel."
        )
    return array


def _require_equal_sizes(first: str, one: NDArray[Any], second: str, other: NDArray[Any]) -> None:
    if one.shape[:2] != other.shape[:2]:
        raise ValueError(
            f"{first} and {second} must have one size. "
            f"Received {one.shape[:2]} and {other.shape[:2]}; draw what belongs together."
        )


def _colors(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Gives each number a color, (numbers, 3): hues by the golden ratio, three brightnesses."""
    hsv = numbers * GOLDEN % 1, np.full(len(numbers), 0.75), np.choose(numbers % 3, [1, 0.84, 0.69])
    return 255 * np.asarray(hsv2rgb(np.stack(hsv, axis=-1)))


def _lines(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Marks labelled pixels whose lower or right neighbor has another label than 0 or theirs."""
    labelled = numbers != 0
    lines = np.zeros(numbers.shape, bool)
    lines[:-1] = labelled[:-1] & labelled[1:] & (numbers[:-1] != numbers[1:])
    lines[:, :-1] |= labelled[:, :-1] & labelled[:, 1:] & (numbers[:, :-1] != numbers[:, 1:])
    return lines


def _require_grid(rows: Sequence[Sequence[Picture]], titles: Sequence[str]) -> None:
    counts = [len(row) for row in rows]
    if not counts or not titles or set(counts) != {len(titles)}:
        raise ValueError(
            "rows must hold at least one row, with as many pictures as there are titles. "
            f"Received rows of {counts} and {len(titles)} titles; add or drop a title."
        )


def _legible(row: Sequence[Picture]) -> list[Picture]:
    longest = max(max(picture.shape[:2]) for picture in row)
    factor = -(-LEGIBLE // max(longest, 1)) if longest < LEGIBLE else 1
    return [_enlarged(picture, factor) for picture in row]


def _enlarged(array: NDArray[Any], factor: int) -> NDArray[Any]:
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def _written(title: str) -> Picture:
    """Draws a title in black on white."""
    font = ImageFont.load_default(size=FONT_SIZE)
    sheet = Image.new("RGB", (round(font.getlength(title)) + 1, FONT_SIZE + 4), "white")
    ImageDraw.Draw(sheet).text((0, 0), title, fill="black", font=font)
    return np.asarray(sheet)


def _padded(picture: Picture, height: int, width: int) -> Picture:
    """Pads a picture with white to a size, and with a gutter below and beside it."""
    missing = height - len(picture) + GUTTER, width - len(picture[0]) + GUTTER
    return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), constant_values=255)
