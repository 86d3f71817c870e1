"""Distances from every pixel to the two nearest instances, and the gap between touching instances.

Border weights ask how near the two nearest cells are, label images grow back to the nearest cell.
Both need exact distances, but only up to a limit, so each instance's distance transform is taken
in its bounding box grown by that limit: the cost follows the cells' size, not the image's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_Box = tuple[slice, ...]

_LARGEST_ID = np.iinfo(np.int32).max


def nearest_two(
    instances: NDArray[np.integer], limit: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Computes each pixel's distances to the nearest and the second nearest instance.

    Distances are Euclidean, in pixels, from center to center of pixels, and 0 inside the instance
    itself. They are exact up to `limit` and infinite beyond it. An instance in several pieces is
    one instance. Of two instances equally near, the one with the smaller id counts as the nearest.

    Args:
        instances: Integer label image, `(height, width)`; 0 is background. Ids need not be
            consecutive.
        limit: Distance in pixels up to which the result is wanted; may be infinite.

    Returns:
        `d1` and `d2`, the distances to the nearest and the second nearest instance, float32, and
        `nearest`, the nearest instance's id, int32 and 0 where `d1` is infinite; each
        `(height, width)`.

    Raises:
        ValueError: If `instances` is not a label image, an id exceeds the range of int32, or
            `limit` is negative.

    Example:
        >>> d1, d2, nearest = nearest_two(np.array([[7, 0, 0, 0, 2]]), limit=3)
        >>> d1.tolist(), d2.tolist(), nearest.tolist()
        ([[0.0, 1.0, 2.0, 1.0, 0.0]], [[inf, 3.0, 2.0, 3.0, inf]], [[7, 7, 2, 2, 2]])
    """
    check_instances(instances)
    _check_limit(limit)
    smallest = _two_of_infinite(instances.shape)
    nearest = np.zeros(instances.shape, np.int32)
    for identity, box, squared in _squared_distances(instances, limit):
        np.copyto(nearest[box], identity, where=squared < smallest[0][box])
        _keep_smallest(smallest, box, squared)
    d1, d2 = (_distances(squared, limit) for squared in smallest)
    nearest[np.isinf(d1)] = 0
    return d1, d2, nearest


def two_distances(
    instances: NDArray[np.integer], limit: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Computes `d1` and `d2` of `nearest_two` alone: which instance is the nearest is not asked.

    Args:
        instances: As `nearest_two`.
        limit: As `nearest_two`.

    Returns:
        The distances to the nearest and the second nearest instance, float32, each
        `(height, width)`.

    Raises:
        ValueError: As `nearest_two`.

    Example:
        >>> d1, d2 = two_distances(np.array([[7, 0, 0, 0, 2]]), limit=3)
        >>> d2.tolist()
        [[inf, 3.0, 2.0, 3.0, inf]]
    """
    check_instances(instances)
    _check_limit(limit)
    smallest = _two_of_infinite(instances.shape)
    for _, box, squared in _squared_distances(instances, limit):
        _keep_smallest(smallest, box, squared)
    d1, d2 = (_distances(squared, limit) for squared in smallest)
    return d1, d2


def separate_touching(instances: NDArray[np.integer]) -> NDArray[np.integer]:
    """Puts background between touching instances (section 3 of the paper, "separation borders").

    Every cell pixel that has a pixel of another cell among its 8 neighbors becomes background.
    Both sides give way alike, so that the gap is two pixels wide, four along a diagonal, and does
    not depend on how the cells are numbered. A cell that touches no other keeps all its pixels; one
    that is nowhere wider than what it has to give vanishes.

    Args:
        instances: Integer label image, `(height, width)`; 0 is background.

    Returns:
        The label image with the gaps, `(height, width)`, of the type of `instances`.

    Raises:
        ValueError: If `instances` is not a label image.

    Example:
        >>> separate_touching(np.array([[1, 1, 1, 2, 2, 2, 0, 3]])).tolist()
        [[1, 1, 0, 0, 2, 2, 0, 3]]
    """
    check_instances(instances)
    largest = _over_neighbors(np.maximum, instances)
    unlike_background = np.where(instances == 0, np.iinfo(instances.dtype).max, instances)
    smallest = _over_neighbors(np.minimum, unlike_background)
    alone = (largest == instances) & (smallest == instances)
    return np.where(alone, instances, 0).astype(instances.dtype, copy=False)


def _squared_distances(
    instances: NDArray[np.integer], limit: float
) -> Iterator[tuple[int, _Box, NDArray[Any]]]:
    """Yields each id, its box grown by the limit, and the squared distances to it there.

    Squares of whole numbers of pixels are whole: exact, and the root is left to who needs it.
    """
    kind = _kind_of_squares(instances.shape)
    reach = math.floor(min(limit, sum(instances.shape)))
    for identity, tight in _bounding_boxes(instances):
        box = tuple(slice(max(axis.start - reach, 0), axis.stop + reach) for axis in tight)
        place = ndimage.distance_transform_edt(
            instances[box] != identity, return_distances=False, return_indices=True
        ).astype(kind, copy=False)
        down, across = place
        down -= np.arange(len(down), dtype=kind)[:, None]
        across -= np.arange(across.shape[1], dtype=kind)
        place *= place
        down += across
        yield identity, box, down


def _two_of_infinite(shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns the two smallest squared distances of each pixel before there is any."""
    kind = _kind_of_squares(shape)
    infinite = np.full(shape, np.iinfo(kind).max, kind)
    return infinite, infinite.copy()


def _kind_of_squares(shape: tuple[int, ...]) -> type[np.signedinteger[Any]]:
    """Returns the integers that hold squared distances: of sides of up to 2**15 pixels, int32."""
    return np.int32 if max(shape) <= 2**15 else np.int64


def _keep_smallest(
    smallest: tuple[NDArray[Any], NDArray[Any]], box: _Box, squared: NDArray[Any]
) -> None:
    first, second = (one[box] for one in smallest)
    np.minimum(second, np.maximum(first, squared), out=second)
    np.minimum(first, squared, out=first)


def _distances(squared: NDArray[Any], limit: float) -> NDArray[np.float32]:
    distances: NDArray[np.float32] = np.sqrt(squared, dtype=np.float32)
    beyond = distances > np.float32(limit)  # rounded as the distances are
    distances[beyond | (squared == np.iinfo(squared.dtype).max)] = np.inf
    return distances


def _bounding_boxes(instances: NDArray[np.integer]) -> Iterator[tuple[int, _Box]]:
    """Yields each id, in rising order, and the box of its pixels."""
    largest = int(instances.max())
    ids: Sequence[int] = range(1, largest + 1)
    if largest > instances.size:  # find_objects keeps a place for every number up to the largest
        ids = np.unique(instances[instances > 0]).tolist()
        instances = np.searchsorted(ids, instances, side="right")  # background stays 0
    for identity, box in zip(ids, ndimage.find_objects(instances), strict=True):
        if box is not None:
            yield identity, box


def _over_neighbors(extreme: np.ufunc, image: NDArray[np.integer]) -> NDArray[np.integer]:
    """Returns the extreme over each pixel's 3 x 3 neighborhood, exact for integers of any size."""
    rows = image.copy()
    extreme(rows[1:], image[:-1], out=rows[1:])
    extreme(rows[:-1], image[1:], out=rows[:-1])
    columns = rows.copy()
    extreme(columns[:, 1:], rows[:, :-1], out=columns[:, 1:])
    extreme(columns[:, :-1], rows[:, 1:], out=columns[:, :-1])
    return columns


def check_instances(instances: NDArray[np.integer]) -> None:
    """Refuses what is not a label image, and says how to make it one.

    Args:
        instances: What is to be one: integers, `(height, width)`, 0 for background.

    Raises:
        ValueError: It is not.
    """
    if instances.ndim != 2 or instances.size == 0:
        raise ValueError(
            "instances must be one image of shape (height, width). "
            f"Received shape {instances.shape}; pass images one by one, without a channel axis."
        )
    if not np.issubdtype(instances.dtype, np.integer):
        raise ValueError(
            "instances must be integers, 0 for background. "
            f"Received {instances.dtype}; scipy.ndimage.label numbers the cells of a mask."
        )
    if instances.min() < 0 or instances.max() > _LARGEST_ID:
        raise ValueError(
            f"instances must lie in 0 ... {_LARGEST_ID}. "
            f"Received {instances.min()} ... {instances.max()}; "
            "set negative ids to 0 and renumber the rest, np.unique(..., return_inverse=True)."
        )


def _check_limit(limit: float) -> None:
    if not limit >= 0:
        raise ValueError(f"limit must be a distance in pixels, 0 or more. Received {limit}.")
