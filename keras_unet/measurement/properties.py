"""Measurements of objects: size, shape, position and intensity, in columns of a table.

Shapes are those of `skimage.measure.regionprops`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops_table

from keras_unet.measurement.windows import ObjectWindow, object_windows

Columns = dict[str, NDArray[Any]]
"""Columns of a table by name, one value for each object."""

_SHAPE = ("bbox", "area", "perimeter", "solidity")
_STATISTICS = ("mean", "median", "std", "sum")


def measure_objects(
    labels: Any,
    image: Any = None,
    *,
    probabilities: Any = None,
    pixel_size: float | tuple[float, float] | None = None,
    channels: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Columns:
    """Measures the objects of a label image.

    `labels`, `image` and `probabilities` are arrays, or objects that are indexed by a window of
    rows and columns like one, for images larger than memory; the result is the same.

    Args:
        labels: Integers `(height, width)`, 0 for background.
        image: Grey values `(height, width)` or `(height, width, channels)`; None for no
            intensities.
        probabilities: Class probabilities `(height, width, classes)`, background first; None for no
            classes.
        pixel_size: Height and width of a pixel in micrometers, or one number for both; None if
            unknown.
        channels: Names of the channels; empty to number them from 1.
        classes: Names of the classes, background first; empty for their numbers.

    Returns:
        Columns, sorted by `number`, the label:

        - `class`, the one with the highest mean probability besides the background; empty without
          probabilities.
        - `centroid_y_px`, `centroid_x_px`: mean row and column, 0 at the center of the first pixel.
        - `area_px`, `perimeter_px`, `major_axis_px`, `minor_axis_px`: number of pixels, length of
          the border, and lengths of the axes of the ellipse with the same second moments.
        - `orientation_deg`: angle from the vertical axis to the major axis, counterclockwise, from
          -90 to 90.
        - `circularity`: 4 pi area / perimeter², at most 1; NaN for a perimeter of 0.
        - `solidity`: area divided by that of the convex hull.
        - `touches_border`: whether it has a pixel at the border of the image.
        - With a pixel size, `centroid_y_um`, `centroid_x_um`, `area_um2`, `perimeter_um` (NaN if
          pixels are not square), `major_axis_um` and `minor_axis_um`.
        - With an image, `intensity_mean`, `intensity_median`, `intensity_std` and `intensity_sum`,
          followed by the name of the channel if there are several.
        - With probabilities, `mean_probability`, that of all classes but the background.

    Raises:
        ValueError: If `labels` is no two-dimensional image of integers of 0 or more, the other
            arguments have other sizes, or there are more or fewer names than channels or classes.

    Example:
        >>> columns = measure_objects(np.array([[0, 7, 7, 0], [0, 7, 7, 0]]), pixel_size=0.5)
        >>> {name: columns[name].item() for name in ("number", "area_px", "area_um2")}
        {'number': 7, 'area_px': 4, 'area_um2': 1.0}
        >>> columns["centroid_y_px"].item(), columns["centroid_x_px"].item()
        (0.5, 1.5)
    """
    labels, image, probabilities = map(_indexed, (labels, image, probabilities))
    _check(labels, image, probabilities)
    _check_names(channels, image, classes, probabilities)
    sizes = _pixel_size(pixel_size)
    parts = [
        dict(_columns(found, labels.shape, image, probabilities, sizes, channels, classes))
        for found in object_windows(labels)
    ]
    if not parts:
        return _no_objects(image, probabilities, sizes, channels, classes)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["number"])
    return {name: column[order] for name, column in columns.items()}


def _columns(
    found: ObjectWindow,
    size: tuple[int, int],
    image: Any,
    probabilities: Any,
    pixel_size: tuple[float, float] | None,
    channels: Sequence[str],
    classes: Sequence[str],
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields the columns of the objects of a window."""
    top, left = (part.start for part in found.window)
    shape = regionprops_table(found.labels, properties=_SHAPE) | _ellipses(found.labels)
    probability = None if probabilities is None else _mean_probabilities(found, probabilities)
    yield "number", found.numbers.astype(np.int64)
    yield "class", _classes_of(probability, classes, len(found.numbers))
    yield from _shape(shape, (top, left), size)
    if pixel_size is not None:
        yield from _in_micrometers(found, shape, (top, left), pixel_size)
    if image is not None:
        yield from _intensities(found, np.asarray(image[found.window]), channels)
    if probability is not None:
        yield "mean_probability", 1 - probability[:, 0]


def classes_of_objects(labels: Any, probabilities: Any, classes: Sequence[str]) -> dict[int, str]:
    """Returns the class of each object by its number, see the column `class` of `measure_objects`.

    Args:
        labels: See `measure_objects`.
        probabilities: See `measure_objects`.
        classes: Names of the classes, background first.

    Example:
        >>> probabilities = np.array([[[0.1, 0.7, 0.2], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]]])
        >>> classes_of_objects(np.array([[1, 1, 2]]), probabilities, ("background", "a", "b"))
        {1: 'a', 2: 'b'}
    """
    found: dict[int, str] = {}
    for window in object_windows(labels):
        means, numbers = _mean_probabilities(window, probabilities), window.numbers.tolist()
        names = _classes_of(means, classes, len(numbers)).tolist()
        found |= dict(zip(numbers, names, strict=True))
    return dict(sorted(found.items()))


def _ellipses(labels: NDArray[np.integer], pixel_size: tuple[float, float] = (1.0, 1.0)) -> Columns:
    """Returns centroids, and axes and orientation of the ellipses of the same second moments.

    They are those of `regionprops`, computed for all objects at once, in a fifth of the time.

    Args:
        labels: Objects 1 ... n, `(rows, columns)`.
        pixel_size: Height and width of a pixel; the centroids are in pixels.
    """
    pixels = np.nonzero(labels)
    objects = labels[pixels].astype(np.intp) - 1
    area = np.bincount(objects)
    centers = [np.bincount(objects, weights=place) / area for place in pixels]
    y, x = (
        (place - center[objects]) * side
        for place, center, side in zip(pixels, centers, pixel_size, strict=True)
    )
    yy, xx, yx = (np.bincount(objects, weights=one) / area for one in (y * y, x * x, y * x))
    mean, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    # A circle has no orientation; that of regionprops is -45 degrees.
    angle = np.where((yy == xx) & (yx == 0), -np.pi / 4, np.arctan2(2 * yx, yy - xx) / 2)
    return {
        "centroid-0": centers[0],
        "centroid-1": centers[1],
        "axis_major_length": 4 * np.sqrt(mean + spread),
        "axis_minor_length": 4 * np.sqrt(np.maximum(0, mean - spread)),
        "orientation": angle,
    }


def _shape(
    shape: Columns, start: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[str, NDArray[Any]]]:
    area, perimeter = shape["area"], shape["perimeter"]
    with np.errstate(divide="ignore"):
        circularity = np.minimum(1, 4 * math.pi * area / perimeter**2)
    yield "centroid_y_px", shape["centroid-0"] + start[0]
    yield "centroid_x_px", shape["centroid-1"] + start[1]
    yield "area_px", area.astype(np.int64)
    yield "perimeter_px", perimeter
    yield "major_axis_px", shape["axis_major_length"]
    yield "minor_axis_px", shape["axis_minor_length"]
    yield "orientation_deg", np.degrees(shape["orientation"])
    yield "circularity", np.where(perimeter > 0, circularity, np.nan)
    yield "solidity", shape["solidity"]
    yield (
        "touches_border",
        (shape["bbox-0"] + start[0] == 0)
        | (shape["bbox-1"] + start[1] == 0)
        | (shape["bbox-2"] + start[0] == size[0])
        | (shape["bbox-3"] + start[1] == size[1]),
    )


def _in_micrometers(
    found: ObjectWindow, shape: Columns, start: tuple[int, int], pixel_size: tuple[float, float]
) -> Iterator[tuple[str, NDArray[Any]]]:
    height, width = pixel_size
    axes = {name: shape[f"axis_{name}_length"] * height for name in ("major", "minor")}
    perimeter = shape["perimeter"] * height
    if height != width:
        scaled = _ellipses(found.labels, pixel_size)
        axes = {name: scaled[f"axis_{name}_length"] for name in axes}
        perimeter = np.full(len(perimeter), np.nan)
    yield "centroid_y_um", (shape["centroid-0"] + start[0]) * height
    yield "centroid_x_um", (shape["centroid-1"] + start[1]) * width
    yield "area_um2", shape["area"] * height * width
    yield "perimeter_um", perimeter
    yield "major_axis_um", axes["major"]
    yield "minor_axis_um", axes["minor"]


def _intensities(
    found: ObjectWindow, pixels: NDArray[Any], channels: Sequence[str]
) -> Iterator[tuple[str, NDArray[Any]]]:
    pixels = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    number = pixels.shape[-1]
    names = channels or [str(channel + 1) for channel in range(number)]
    table = regionprops_table(found.labels, pixels, properties=(), extra_properties=(_statistics,))
    for channel, name in enumerate(names):
        for position, statistic in enumerate(_STATISTICS):
            suffix = "" if number == 1 else f"_{name}"
            yield f"intensity_{statistic}{suffix}", table[f"_statistics-{position}-{channel}"]


def _statistics(mask: NDArray[np.bool_], pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Returns mean, median, standard deviation and sum of the pixels of an object."""
    values = pixels[mask].astype(np.float64)
    return np.array([values.mean(), np.median(values), values.std(), values.sum()])


def _mean_probabilities(found: ObjectWindow, probabilities: Any) -> NDArray[np.float64]:
    """Returns the mean probability of each class in each object, `(objects, classes)`."""
    pixels = np.asarray(probabilities[found.window])
    index = np.arange(1, len(found.numbers) + 1)
    means = [
        ndimage.mean(pixels[..., number], found.labels, index) for number in range(pixels.shape[-1])
    ]
    return np.stack(means, axis=-1)


def _classes_of(
    probability: NDArray[np.float64] | None, classes: Sequence[str], objects: int
) -> NDArray[np.str_]:
    if probability is None:
        return np.full(objects, "", dtype=np.str_)
    names = np.array(classes or [str(number) for number in range(probability.shape[1])], np.str_)
    likeliest: NDArray[np.str_] = names[1 + probability[:, 1:].argmax(axis=1)]
    return likeliest


def _no_objects(
    image: Any,
    probabilities: Any,
    pixel_size: tuple[float, float] | None,
    channels: Sequence[str],
    classes: Sequence[str],
) -> Columns:
    """Returns empty columns, of the names and types of those of an object."""
    pixel = slice(0, 1), slice(0, 1)
    found = ObjectWindow(pixel, np.ones((1, 1), np.int32), np.ones(1, np.int32))
    columns = _columns(found, (1, 1), image, probabilities, pixel_size, channels, classes)
    return {name: column[:0] for name, column in columns}


def _pixel_size(pixel_size: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if pixel_size is None:
        return None
    sizes = tuple(np.broadcast_to(pixel_size, 2).tolist())
    if not all(0 < size < math.inf for size in sizes):
        raise ValueError(
            "pixel_size must be one or two numbers above 0, in micrometers. Received: "
            f"pixel_size={pixel_size}"
        )
    return sizes


def _indexed(pixels: Any) -> Any:
    """Returns an object that is indexed like an array; lists become arrays."""
    return pixels if pixels is None or hasattr(pixels, "shape") else np.asarray(pixels)


def _check_names(
    channels: Sequence[str], image: Any, classes: Sequence[str], probabilities: Any
) -> None:
    for name, names, pixels in (
        ("channels", channels, image),
        ("classes", classes, probabilities),
    ):
        if names and pixels is not None:
            expected = pixels.shape[2] if len(pixels.shape) == 3 else 1
            if len(names) != expected:
                raise ValueError(
                    f"{name} must be {expected} names, or empty. Received: {name}={tuple(names)}"
                )


def _check(labels: Any, image: Any, probabilities: Any) -> None:
    if len(labels.shape) != 2 or not all(labels.shape):
        raise ValueError(
            "labels must be one image of shape (height, width). Received: "
            f"shape={tuple(labels.shape)}"
        )
    if isinstance(labels, np.ndarray) and (labels.dtype.kind not in "iu" or labels.min() < 0):
        raise ValueError(
            "labels must be integers, 0 for background and 1 or more for objects. Received "
            f"{labels.dtype} from {labels.min()} to {labels.max()}"
        )
    for name, pixels in (("image", image), ("probabilities", probabilities)):
        if pixels is not None and tuple(pixels.shape[:2]) != tuple(labels.shape):
            raise ValueError(
                f"{name} must have the height and width of labels, {tuple(labels.shape)}. "
                f"Received: shape={tuple(pixels.shape)}"
            )
