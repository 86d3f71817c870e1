"""RGB pictures of images, labels, weight maps and differences, and their montage.

A function `..._picture` takes arrays and returns a uint8 array `(height, width, 3)`.
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
MIN_SIDE = 160  # pixels; smaller pictures are enlarged in a montage
OPACITY = 0.45  # of labels over an image
# Hues at this distance on the circle stay distinct for any number of labels. The colors of
# skimage's label2rgb depend on the other labels in the image, and repeat after ten.
GOLDEN = 0.618033988749895
ONLY_REFERENCE = 230, 159, 0  # orange and sky blue: distinct in every color vision
ONLY_RESULT = 86, 180, 233


def grey_picture(image: ArrayLike) -> Picture:
    """Draws an image in grey, with its contrast stretched between the percentiles 0.5 and 99.5.

    Args:
        image: Image, `(height, width)` or `(height, width, channels)`, of any range. Channels are
            averaged.

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
    """Draws labels in distinct colors, with black lines between neighbors; 0 is dark.

    A label value has the same color in every picture, for instances and classes alike.

    Args:
        labels: Label image, `(height, width)`, integers.
        image: Image below the labels, `(height, width)` or `(height, width, channels)`, or None.

    Raises:
        ValueError: If the two differ in size.

    Example:
        >>> picture = label_picture([[0, 7, 7]])
        >>> bool((picture[0, 1] == picture[0, 2]).all()), picture[0, 0].tolist()
        (True, [24, 24, 24])
    """
    numbers = _check_flat("labels", labels)
    values, inverse = np.unique(numbers, return_inverse=True)
    colors = _colors(values)[inverse.reshape(numbers.shape)]
    colors[_borders(numbers)] = 0
    if image is None:
        return np.where((numbers == 0)[..., None], DARK, colors).astype(np.uint8)
    background = grey_picture(image)
    _check_equal_sizes("labels", numbers, "image", background)
    overlay = (1 - OPACITY) * background + OPACITY * colors
    return np.where((numbers == 0)[..., None], background, overlay).astype(np.uint8)


def heat_picture(values: ArrayLike) -> Picture:
    """Draws a map such as a weight map in the colormap "inferno", from 0 to its maximum.

    Args:
        values: Map, `(height, width)`. Values below 0 are drawn as 0.

    Example:
        >>> heat_picture([[0.0, 12.0]]).tolist()
        [[[0, 0, 3], [252, 254, 164]]]
    """
    from matplotlib import colormaps  # here, as it takes half a second

    heat = np.clip(_check_flat("values", values).astype(np.float64), 0, None)
    relative = heat / max(heat.max(initial=0), np.finfo(np.float64).tiny)
    return np.asarray(colormaps["inferno"](relative, bytes=True)[..., :3])


def probability_picture(values: ArrayLike) -> Picture:
    """Draws probabilities from black (0) to white (1).

    Args:
        values: Probabilities, `(height, width)`.

    Example:
        >>> probability_picture([[0.0, 0.5, 1.0]])[0].tolist()
        [[0, 0, 0], [127, 127, 127], [255, 255, 255]]
    """
    return np.asarray(gray2rgb((255 * _check_flat("values", values)).astype(np.uint8)))


def difference_picture(reference: ArrayLike, result: ArrayLike) -> Picture:
    """Draws the differences between the foregrounds of two label images.

    Foreground is every label except 0. Common foreground is light grey, common background dark
    grey, foreground of the reference alone orange, and of the result alone sky blue.

    Args:
        reference: True labels, `(height, width)`.
        result: Predicted labels, `(height, width)`.

    Raises:
        ValueError: If the two differ in size.

    Example:
        >>> difference_picture([[0, 1, 1]], [[2, 0, 2]])[0].tolist()
        [[86, 180, 233], [230, 159, 0], [150, 150, 150]]
    """
    truth, predicted = _check_flat("reference", reference) != 0, _check_flat("result", result) != 0
    _check_equal_sizes("reference", truth, "result", predicted)
    picture = np.asarray(gray2rgb(np.where(truth, 150, DARK).astype(np.uint8)))
    picture[truth & ~predicted] = ONLY_REFERENCE
    picture[predicted & ~truth] = ONLY_RESULT
    return picture


def outline_picture(
    picture: Picture,
    reference: ArrayLike,
    result: ArrayLike,
    *,
    factor: int = 1,
    width: int = 2,
) -> Picture:
    """Draws the outlines of true labels in orange and of predicted ones in sky blue on a picture.

    Outlines of predicted labels are drawn last.

    Args:
        picture: Picture, `(height, width, 3)`, such as a grey picture.
        reference: True labels, `(height, width)`.
        result: Predicted labels, `(height, width)`.
        factor: Factor by which the picture is enlarged.
        width: Width of an outline in pixels of the enlarged picture, an even number.

    Raises:
        ValueError: If the three differ in size.

    Example:
        >>> truth = np.repeat([[0, 0, 1, 1]], 4, axis=0)
        >>> picture = outline_picture(grey_picture(truth * 0), truth, truth * 0)
        >>> picture[0, :, 0].tolist()  # red
        [0, 230, 230, 0]
    """
    drawn = _enlarge(picture, factor)
    for name, labels, color in (
        ("reference", reference, ONLY_REFERENCE),
        ("result", result, ONLY_RESULT),
    ):
        enlarged = _enlarge(_check_flat(name, labels), factor)
        _check_equal_sizes("picture", drawn, name, enlarged)
        lines = find_boundaries(enlarged, mode="thick")
        drawn[maximum_filter(lines, width - 1)] = color
    return drawn


def center_crop(array: NDArray[T], side: int) -> NDArray[T]:
    """Crops an array to its center, if it is larger than `side`.

    Args:
        array: Array, `(height, width)` or `(height, width, channels)`.
        side: Largest height and width of the result in pixels.

    Example:
        >>> center_crop(np.arange(12).reshape(2, 6), 3).tolist()
        [[1, 2, 3], [7, 8, 9]]
    """
    top, left = (max(0, (length - side) // 2) for length in array.shape[:2])
    return array[top : top + side, left : left + side]


def montage(rows: Sequence[Sequence[Picture]], titles: Sequence[str]) -> Picture:
    """Arranges pictures in rows and columns on white, with a title above each column.

    If all pictures of a row are smaller than `MIN_SIDE`, they are enlarged by the same integer.

    Args:
        rows: Rows of pictures, each with a picture per title.
        titles: Titles of the columns.

    Raises:
        ValueError: If there is no row, no title, or a row of another length than the titles.
    """
    _check_grid(rows, titles)
    grid = [[_draw_title(title) for title in titles], *map(_enlarge_small, rows)]
    widths = [max(len(picture[0]) for picture in column) for column in zip(*grid, strict=True)]
    bands = []
    for row in grid:
        height = max(map(len, row))
        padded = map(_pad, row, [height] * len(row), widths)
        bands.append(np.hstack(list(padded)))
    return np.pad(np.vstack(bands), ((GUTTER, 0), (GUTTER, 0), (0, 0)), constant_values=255)


def write_png(path: Path, picture: Picture) -> None:
    """Writes a picture as a PNG file, whole or not at all."""
    metadata = PngInfo()
    metadata.add_text("Software", SOFTWARE)
    with atomic(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", pnginfo=metadata)


def _check_flat(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(
            f"{name} must be (height, width). Received shape {array.shape}; draw one channel."
        )
    return array


def _check_equal_sizes(
    first_name: str, first: NDArray[Any], second_name: str, second: NDArray[Any]
) -> None:
    if first.shape[:2] != second.shape[:2]:
        raise ValueError(
            f"{first_name} and {second_name} must have one size. "
            f"Received {first.shape[:2]} and {second.shape[:2]}; draw arrays of the same image."
        )


def _colors(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Returns a color for each label value, with hues by the golden ratio and 3 brightnesses."""
    hsv = numbers * GOLDEN % 1, np.full(len(numbers), 0.75), np.choose(numbers % 3, [1, 0.84, 0.69])
    return 255 * np.asarray(hsv2rgb(np.stack(hsv, axis=-1)))


def _borders(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Marks labeled pixels whose lower or right neighbor has another label except 0."""
    labeled = numbers != 0
    borders = np.zeros(numbers.shape, bool)
    borders[:-1] = labeled[:-1] & labeled[1:] & (numbers[:-1] != numbers[1:])
    borders[:, :-1] |= labeled[:, :-1] & labeled[:, 1:] & (numbers[:, :-1] != numbers[:, 1:])
    return borders


def _check_grid(rows: Sequence[Sequence[Picture]], titles: Sequence[str]) -> None:
    counts = [len(row) for row in rows]
    if not counts or not titles or set(counts) != {len(titles)}:
        raise ValueError(
            "rows must hold at least one row, with as many pictures as there are titles. "
            f"Received rows of {counts} and {len(titles)} titles; add or remove a title."
        )


def _enlarge_small(row: Sequence[Picture]) -> list[Picture]:
    longest = max(max(picture.shape[:2]) for picture in row)
    factor = -(-MIN_SIDE // max(longest, 1)) if longest < MIN_SIDE else 1
    return [_enlarge(picture, factor) for picture in row]


def _enlarge(array: NDArray[Any], factor: int) -> NDArray[Any]:
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def _draw_title(title: str) -> Picture:
    """Draws a title in black on white."""
    font = ImageFont.load_default(size=FONT_SIZE)
    sheet = Image.new("RGB", (round(font.getlength(title)) + 1, FONT_SIZE + 4), "white")
    ImageDraw.Draw(sheet).text((0, 0), title, fill="black", font=font)
    return np.asarray(sheet)


def _pad(picture: Picture, height: int, width: int) -> Picture:
    """Pads a picture with white to a size, and with a gutter below and beside it."""
    missing = height - len(picture) + GUTTER, width - len(picture[0]) + GUTTER
    return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), constant_values=255)
