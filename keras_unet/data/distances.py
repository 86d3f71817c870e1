"""Distances from every pixel to the two nearest instances, and gaps between touching instances.

Border weights and the closing of gaps need exact distances up to a limit. The distance transform of
each instance is therefore computed in its bounding box extended by the limit: the cost depends on
the size of the cells, not of the image.
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
    """Computes the distances of each pixel to the nearest and the second nearest instance.

    Distances are Euclidean, in pixels, between pixel centers, and 0 within the instance. They are
    exact up to `limit` and infinite beyond it. An instance may consist of several pieces. Of two
    instances at the same distance, the one with the smaller id is the nearest.

    Args:
        instances: Integer label image, `(height, width)`; 0 is background. Ids need not be
            consecutive.
        limit: Largest distance in pixels to compute; may be infinite.

    Returns:
        `d1` and `d2`, the distances to the nearest and the second nearest instance, float32, and
        `nearest`, the id of the nearest instance, int32 and 0 where `d1` is infinite; each
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
    smallest = _infinite_squares(instances.shape)
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
    """Computes `d1` and `d2` of `nearest_two` without the nearest instance.

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
    smallest = _infinite_squares(instances.shape)
    for _, box, squared in _squared_distances(instances, limit):
        _keep_smallest(smallest, box, squared)
    d1, d2 = (_distances(squared, limit) for squared in smallest)
    return d1, d2


def separate_touching(instances: NDArray[np.integer]) -> NDArray[np.integer]:
    """Inserts background between touching instances (section 3 of the paper, "separation borders").

    Each cell pixel with a pixel of another cell among its 8 neighbors becomes background. Both
    cells lose pixels, so the gap is two pixels wide, four along a diagonal, and independent of the
    numbering. A cell that touches no other is unchanged; a cell that is nowhere wider than its loss
    vanishes.

    Args:
        instances: Integer label image, `(height, width)`; 0 is background.

    Returns:
        The label image with gaps, `(height, width)`, of the type of `instances`.

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
    is_interior = (largest == instances) & (smallest == instances)
    return np.where(is_interior, instances, 0).astype(instances.dtype, copy=False)


def _squared_distances(
    instances: NDArray[np.integer], limit: float
) -> Iterator[tuple[int, _Box, NDArray[Any]]]:
    """Yields each id, its extended bounding box, and the squared distances to it in the box."""
    dtype = _square_dtype(instances.shape)
    reach = math.floor(min(limit, sum(instances.shape)))
    for identity, tight in _bounding_boxes(instances):
        box = tuple(slice(max(axis.start - reach, 0), axis.stop + reach) for axis in tight)
        nearest = ndimage.distance_transform_edt(
            instances[box] != identity, return_distances=False, return_indices=True
        ).astype(dtype, copy=False)
        down, across = nearest
        down -= np.arange(len(down), dtype=dtype)[:, None]
        across -= np.arange(across.shape[1], dtype=dtype)
        nearest *= nearest
        down += across
        yield identity, box, down


def _infinite_squares(shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns two arrays of the largest integer, which stands for infinity."""
    dtype = _square_dtype(shape)
    infinite = np.full(shape, np.iinfo(dtype).max, dtype)
    return infinite, infinite.copy()


def _square_dtype(shape: tuple[int, ...]) -> type[np.signedinteger[Any]]:
    """Returns the dtype of squared distances; int32 holds those of sides up to 2**15 pixels."""
    return np.int32 if max(shape) <= 2**15 else np.int64


def _keep_smallest(
    smallest: tuple[NDArray[Any], NDArray[Any]], box: _Box, squared: NDArray[Any]
) -> None:
    first, second = (squares[box] for squares in smallest)
    np.minimum(second, np.maximum(first, squared), out=second)
    np.minimum(first, squared, out=first)


def _distances(squared: NDArray[Any], limit: float) -> NDArray[np.float32]:
    distances: NDArray[np.float32] = np.sqrt(squared, dtype=np.float32)
    beyond = distances > np.float32(limit)  # rounded as the distances are
    distances[beyond | (squared == np.iinfo(squared.dtype).max)] = np.inf
    return distances


def _bounding_boxes(instances: NDArray[np.integer]) -> Iterator[tuple[int, _Box]]:
    """Yields each id, in ascending order, and its bounding box."""
    largest = int(instances.max())
    ids: Sequence[int] = range(1, largest + 1)
    if largest > instances.size:  # find_objects allocates an entry for every number
        ids = np.unique(instances[instances > 0]).tolist()
        instances = np.searchsorted(ids, instances, side="right")  # background stays 0
    for identity, box in zip(ids, ndimage.find_objects(instances), strict=True):
        if box is not None:
            yield identity, box


def _over_neighbors(extreme: np.ufunc, image: NDArray[np.integer]) -> NDArray[np.integer]:
    """Computes the minimum or maximum over 3 x 3 pixels, exact for integers of any size."""
    rows = image.copy()
    extreme(rows[1:], image[:-1], out=rows[1:])
    extreme(rows[:-1], image[1:], out=rows[:-1])
    columns = rows.copy()
    extreme(columns[:, 1:], rows[:, :-1], out=columns[:, 1:])
    extreme(columns[:, :-1], rows[:, 1:], out=columns[:, :-1])
    return columns


def check_instances(instances: NDArray[np.integer]) -> None:
    """Checks a label image.

    Args:
        instances: Integers, `(height, width)`, 0 for background.

    Raises:
        ValueError: If it is not a label image.
    """
    if instances.ndim != 2 or instances.size == 0:
        raise ValueError(
            "instances must be one image of shape (height, width). "
            f"Received shape {instances.shape}; pass single images without a channel axis."
        )
    if not np.issubdtype(instances.dtype, np.integer):
        raise ValueError(
            "instances must be integers, 0 for background. "
            f"Received {instances.dtype}; number the cells of a mask by scipy.ndimage.label."
        )
    if instances.min() < 0 or instances.max() > _LARGEST_ID:
        raise ValueError(
            f"instances must lie in 0 ... {_LARGEST_ID}. "
            f"Received {instances.min()} ... {instances.max()}; "
            "set negative ids to 0 and renumber the rest, np.unique(..., return_inverse=True)."
        )


def _check_limit(limit: float) -> None:
    if not limit >= 0:
        raise ValueError(f"limit must be a distance in pixels, 0 or more. Received: limit={limit}")
