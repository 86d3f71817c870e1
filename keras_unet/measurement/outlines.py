"""Outlines of objects along the edges of their pixels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.measurement.windows import object_windows

Outline = shapely.Polygon | shapely.MultiPolygon


def outlines_of(labels: Any) -> dict[int, Outline]:
    """Computes the outline of each object of a label image.

    Corners are corners of pixels: x and y of 0 are the upper left corner of the image, as in ImageJ
    and QuPath, so that filled outlines are the objects again, pixel by pixel.

    Args:
        labels: See `measure_objects`.

    Returns:
        The outline of each label, in ascending order, with coordinates `(x, y)`: a polygon, with
        holes; or several, if the object consists of pieces that share no edge of a pixel.

    Example:
        >>> outline = outlines_of(np.array([[3, 3, 0], [3, 3, 0]]))[3]
        >>> outline.area, outline.bounds
        (4.0, (0.0, 0.0, 2.0, 2.0))
    """
    outlines: dict[int, Outline] = {}
    for found in object_windows(labels):
        top, left = (part.start for part in found.window)
        boxes = ndimage.find_objects(found.labels)
        for index, (number, box) in enumerate(zip(found.numbers.tolist(), boxes, strict=True), 1):
            corner = top + box[0].start, left + box[1].start
            outlines[number] = _outline(found.labels[box] == index, *corner)
    return dict(sorted(outlines.items()))


def _outline(mask: NDArray[np.bool_], top: int, left: int) -> Outline:
    """Unites the runs of pixels of the rows."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps > 0)
    stops = np.nonzero(steps < 0)[1]
    runs = shapely.box(starts + left, rows + top, stops + left, rows + top + 1)
    union = shapely.union_all(runs)
    return cast("Outline", shapely.simplify(union, 0))  # without corners on straight lines


def polygons_of(outline: Outline) -> list[list[NDArray[np.int64]]]:
    """Returns the polygons of an outline as lists of rings, first the exterior, then the holes.

    A ring has the shape `(corners, 2)`, x and y; the last corner is the first one.
    """
    return [
        [
            shapely.get_coordinates(ring).astype(np.int64)
            for ring in (polygon.exterior, *polygon.interiors)
        ]
        for polygon in shapely.get_parts(outline)
    ]
