"""Scale of an image: the factor by which its objects become as wide as in training.

The factor is given, or follows from the pixel sizes of the image and of the training images, or
from the widths of the objects that the network finds at three scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, some
from keras_unet.data.fingerprint import Percentiles
from keras_unet.files import printable
from keras_unet.runs import ModelInfo

Scale = float | Literal["auto", "off"]

SMALLEST, LARGEST = 1 / 8, 8.0
"""Limits of a factor."""

TRIED = (2 / 3, 1.0, 3 / 2)
"""Factors at which objects are looked for."""

PIXELS = 2**20
"""Pixels of the part of an image that is looked at, after resampling."""

_NOTED = 1.25  # ratio of widths from which an image is named as different
_ADJUSTED = 1.15  # ratio of widths from which an image is resampled
_DISTANCE = 0.25  # preference for the scales near 1, at which networks are more reliable
_SAME = 1.01  # ratio of pixel sizes that differ by rounding alone
_REFINED = 2.0  # largest factor between the result and the scale that was looked at
_FEWEST = 5  # objects whose median width is used
_BAND = 2**22  # pixels that are measured at a time


def as_scale(scale: Scale | str) -> float | Literal["auto"]:
    """Returns a factor, 1 for "off", or "auto".

    Args:
        scale: "auto", "off", or a factor, which may be written as text.

    Raises:
        ValueError: If it is none of these, or the factor is out of range.

    Example:
        >>> as_scale("off"), as_scale("auto"), as_scale("1.5")
        (1.0, 'auto', 1.5)
    """
    if scale == "auto":
        return "auto"
    try:
        factor = 1.0 if scale == "off" else float(scale)
    except ValueError:
        factor = math.nan
    if not SMALLEST <= factor <= LARGEST:
        raise ValueError(
            f"scale must be auto, off, or a factor from {SMALLEST:g} to {LARGEST:g}, such as 2 for "
            f"images whose objects are half as wide as in training. Received: {scale}"
        )
    return factor


@dataclass(frozen=True)
class Choice:
    """Factor for an image, and its reason."""

    factor: float
    reason: str

    def __str__(self) -> str:
        """Returns both in a line."""
        return f"scale {self.factor:.3g}: {self.reason}"


def scale_of_pixels(
    info: ModelInfo, pixel_size: tuple[float, float] | None, path: Path
) -> Choice | None:
    """Returns the factor by the pixel sizes, the image's divided by that of the training.

    Args:
        info: Metadata of the model.
        pixel_size: Height and width of a pixel of the image in micrometers, or None.
        path: Path of the image, for messages.

    Returns:
        The choice; None if one of the sizes is unknown.

    Raises:
        ValueError: If the factor is out of range.
    """
    if pixel_size is None or info.pixel_size is None:
        return None
    factor = _ratio(pixel_size, info.pixel_size)
    reason = _pixels_differ(pixel_size, info.pixel_size)
    if not SMALLEST <= factor <= LARGEST:
        raise ValueError(
            f"{path}: scale auto takes images with pixels of {SMALLEST:g} to {LARGEST:g} times "
            f"the size of those in training. Received: {reason}; set scale to a factor or to off "
            "if the file states a wrong size"
        )
    return Choice(1.0 if _is_near(factor, _SAME) else factor, reason)


def scale_of_objects(
    label: Callable[[float], NDArray[Any]], diameters: Percentiles | None
) -> Choice:
    """Returns the factor at which the objects found are as wide as in training.

    Of three scales, the one whose median width is closest to that of the training, with the factor
    that remains between the two widths, up to 2. Since objects fall apart or merge far from the
    scale of the training, the logarithm of the ratio of the widths counts with a quarter of that of
    the scale. An image is left as it is if its objects are less than 15 % wider or narrower than in
    training, or fewer than five are found.

    Args:
        label: Function from a factor to the label image of a part of the image, resampled by it.
        diameters: Diameters of the training cells in pixels; None if they are unknown.

    Example:
        >>> def squares(factor):  # four times ten of 8 x 8 pixels
        ...     side = round(8 * factor)
        ...     numbers = np.pad(np.arange(1, 41).reshape(4, 10), 1)
        ...     return np.kron(numbers, np.ones((side, side), int))
        >>> str(scale_of_objects(squares, Percentiles(12, 13.5, 15)))
        'scale 1.5: objects are 9.03 pixels wide in the median, 13.5 in training'
    """
    if diameters is None:
        return Choice(1.0, "the model states no width of objects to look for")
    widths = {factor: object_diameters(label(factor)) for factor in TRIED}
    medians = {
        factor: float(np.median(found)) for factor, found in widths.items() if len(found) >= _FEWEST
    }
    if not medians:
        tried = ", ".join(f"{factor:.2g}" for factor in TRIED)
        return Choice(1.0, f"fewer than {_FEWEST} whole objects found at the scales {tried}")
    ratios = {factor: diameters.median / median for factor, median in medians.items()}
    nearest = min(ratios, key=lambda factor: _distance(factor, ratios[factor]))
    factor = nearest * min(max(ratios[nearest], 1 / _REFINED), _REFINED)
    reason = _objects_differ(medians[nearest] / nearest, diameters.median)
    return Choice(1.0 if _is_near(factor, _ADJUSTED) else factor, reason)


def _distance(factor: float, ratio: float) -> float:
    return abs(math.log(ratio)) + _DISTANCE * abs(math.log(factor))


def middle_window(size: tuple[int, ...], factor: float) -> tuple[slice, slice]:
    """Returns the middle of an image that has at most `PIXELS` pixels after resampling.

    >>> middle_window((3000, 100), 1.0)
    (slice(988, 2012, None), slice(0, 100, None))
    """
    side = max(1, round(math.sqrt(PIXELS) / factor))
    rows, columns = (slice(max(0, (n - side) // 2), min(n, (n + side) // 2)) for n in size[:2])
    return rows, columns


def object_diameters(labels: Any) -> NDArray[np.float64]:
    """Computes the equivalent diameters, in pixels, of the objects that the border does not cut.

    Args:
        labels: Integer label image `(height, width)`: an array, or an object that is indexed by a
            window of rows and columns like one.

    Example:
        >>> object_diameters(np.pad([[1, 1, 0, 2], [1, 1, 0, 0]], 1)).round(2).tolist()
        [2.26, 1.13]
    """
    height, width = labels.shape
    rows = max(1, _BAND // width)
    areas = np.zeros(1, np.int64)
    for start in range(0, height, rows):
        band = np.asarray(labels[start : min(start + rows, height), 0:width])
        counts = np.bincount(band.ravel(), minlength=len(areas))
        counts[: len(areas)] += areas
        areas = counts
    edges = labels[0:1, 0:width], labels[height - 1 : height, 0:width]
    sides = labels[0:height, 0:1], labels[0:height, width - 1 : width]
    areas[np.unique(np.concatenate([np.ravel(edge) for edge in (*edges, *sides)]))] = 0
    areas[0] = 0
    diameters: NDArray[np.float64] = 2 * np.sqrt(areas[areas > 0] / np.pi)
    return diameters


@dataclass(frozen=True)
class Sizes:
    """Sizes of the pixels and the objects of an image, as far as known.

    Attributes:
        pixel_size: Height and width of a pixel in micrometers.
        diameter: Median diameter of the objects in pixels.
        objects: Number of objects.
    """

    pixel_size: tuple[float, float] | None = None
    diameter: float | None = None
    objects: int = 0

    @classmethod
    def of(cls, pixel_size: tuple[float, float] | None, labels: Any) -> Self:
        """Measures the label images of the planes of an image, see `object_diameters`."""
        found = [object_diameters(plane) for plane in labels]
        diameters = np.concatenate(found) if found else np.empty(0)
        median = float(np.median(diameters)) if len(diameters) else None
        return cls(pixel_size, median, len(diameters))


def advice(info: ModelInfo, images: Mapping[Path, Sizes]) -> str:
    """Compares images with those of the training.

    Args:
        info: Metadata of the model.
        images: Sizes of each image, predicted as it is.

    Returns:
        A line that names the images whose pixels or objects differ by more than 25 %, and the way
        out; empty if there are none.
    """
    found = {path: _difference(info, sizes) for path, sizes in images.items()}
    differing = {path: text for path, text in found.items() if text}
    if not differing:
        return ""
    path, text = next(iter(differing.items()))
    others = [printable(other.name) for other in list(differing)[1:]]
    also = f" (also {some(others)})" if others else ""
    return f"{printable(path.name)}{also}: {text}"


def _difference(info: ModelInfo, sizes: Sizes) -> str:
    """Returns how an image differs from the training images, and the way out; empty if it fits."""
    both = sizes.pixel_size is not None and info.pixel_size is not None
    if sizes.pixel_size is not None and info.pixel_size is not None:
        factor = _ratio(sizes.pixel_size, info.pixel_size)
        if not _is_near(factor, _NOTED):
            return f"{_pixels_differ(sizes.pixel_size, info.pixel_size)}; --scale auto resamples it"
    if sizes.diameter is None or info.diameters is None or sizes.objects < _FEWEST:
        return ""
    factor = info.diameters.median / sizes.diameter
    if _is_near(factor, _NOTED):
        return ""
    way = f"--scale {factor:.2g}" if both else "--scale auto"
    objects = counted(sizes.objects, "object")
    return f"{_objects_differ(sizes.diameter, info.diameters.median, objects)}; {way} resamples it"


def _ratio(size: tuple[float, float], other: tuple[float, float]) -> float:
    return math.sqrt(math.prod(size) / math.prod(other))


def _is_near(factor: float, ratio: float) -> bool:
    return 1 / ratio <= factor <= ratio


def _pixels_differ(size: tuple[float, float], training: tuple[float, float]) -> str:
    here, there = (f"{math.sqrt(math.prod(pair)):.3g}" for pair in (size, training))
    return f"pixels are {here} micrometers wide, {there} in training"


def _objects_differ(width: float, training: float, objects: str = "objects") -> str:
    return f"{objects} are {width:.3g} pixels wide in the median, {training:.3g} in training"
