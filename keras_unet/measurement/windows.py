"""Windows of a label image that hold whole objects, for images larger than memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import relabel_sequential

Window = tuple[slice, slice]

SIDE = 2048
"""Height and width in pixels of the windows that are searched for objects."""


@dataclass(frozen=True, eq=False)
class ObjectWindow:
    """A window of a label image with some of its objects, each of which is whole.

    Attributes:
        window: Rows and columns.
        labels: Objects 1 ... n of the window, `(rows, columns)`; 0 for all else.
        numbers: Labels of these objects in the image, `(n,)`.
    """

    window: Window
    labels: NDArray[np.integer]
    numbers: NDArray[np.integer]


def object_windows(labels: Any) -> Iterator[ObjectWindow]:
    """Yields windows that together hold every object once.

    Args:
        labels: Integers `(height, width)`, 0 for background: an array, which is one window; or an
            object that is indexed by a window of rows and columns like one, of which about a window
            and its largest object are read at a time.

    Yields:
        Windows with at least one object.
    """
    height, width = labels.shape
    if isinstance(labels, np.ndarray):
        whole = slice(0, height), slice(0, width)
        if labels.any():
            yield _compact(whole, labels)
        return
    groups: dict[tuple[int, int], list[tuple[int, Window]]] = defaultdict(list)
    for number, box in _bounding_boxes(labels).items():
        groups[box[0].start // SIDE, box[1].start // SIDE].append((number, box))
    for members in groups.values():
        window = _union([box for _, box in members])
        pixels = np.asarray(labels[window])
        inside = np.isin(pixels, [number for number, _ in members])
        yield _compact(window, np.where(inside, pixels, 0))


def _compact(window: Window, labels: NDArray[Any]) -> ObjectWindow:
    compact, _, numbers = relabel_sequential(labels)
    return ObjectWindow(window, compact, np.asarray(numbers)[1:])


def _bounding_boxes(labels: Any) -> dict[int, Window]:
    """Returns the bounding box of each object, from one pass over the windows."""
    boxes: dict[int, Window] = {}
    rows, columns = (range(0, length, SIDE) for length in labels.shape)
    for top, left in product(rows, columns):
        pixels = np.asarray(labels[top : top + SIDE, left : left + SIDE])
        if not pixels.any():
            continue
        found = _compact((slice(0), slice(0)), pixels)
        parts = ndimage.find_objects(found.labels)
        for number, part in zip(found.numbers.tolist(), parts, strict=True):
            box = _shifted(part[0], top), _shifted(part[1], left)
            boxes[number] = _union([boxes[number], box]) if number in boxes else box
    return boxes


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start + start, part.stop + start)


def _union(boxes: list[Window]) -> Window:
    rows, columns = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )
    return rows, columns
