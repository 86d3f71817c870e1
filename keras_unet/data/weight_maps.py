"""Weight maps of the loss, equation 2 of the paper: w(x) = w_c(x) + border term.

`w_c` balances the classes. The border term, w0 exp(-(d1 + d2)^2 / (2 sigma^2)), weighs background
between cells that are close to each other, where a missed membrane would merge them. As in the
authors' later tool it counts on background pixels only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.distances import check_instances, separate_touching, two_distances

_NEGLIGIBLE = 1e-6  # the border term is 0 where it would be smaller
_MARGINS_A_BAND = 8


def border_weight_map(
    instances: NDArray[np.integer], *, w0: float = 10.0, sigma: float = 5.0
) -> NDArray[np.float32]:
    """Computes the border term of equation 2, on background pixels.

    Touching instances are first parted by a gap (`separate_touching`); the gap counts as
    background and carries the largest weights. Cells weigh 0, and so does everything in an image
    of fewer than two cells.

    Args:
        instances: Integer label image, `(height, width)`; 0 is background.
        w0: The weight that two cells at distance 0 would give. The paper takes 10.
        sigma: The distance over which it falls off, in pixels. The paper takes about 5.

    Returns:
        The weights, `(height, width)`, float32.

    Raises:
        ValueError: If `instances` is not a label image, `w0` is negative or `sigma` not positive.

    Example:
        Background one pixel wide has d1 = d2 = 1, hence weighs 10 exp(-2^2 / 50):

        >>> border_weight_map(np.array([[1, 0, 2]])).round(3)
        array([[0.   , 9.231, 0.   ]], dtype=float32)
    """
    _check_border(w0, sigma)
    check_instances(instances)
    reach = _reach(w0, sigma)

    def weigh(rows: NDArray[np.integer]) -> NDArray[np.float32]:
        parted = separate_touching(rows)
        d1, d2 = two_distances(parted, reach)
        weights = w0 * np.exp(-(((d1 + d2) / sigma) ** 2) / 2)
        return np.where(parted == 0, weights, 0).astype(np.float32)

    return _by_bands(weigh, instances, math.floor(min(reach, len(instances))) + 1)


def class_balance(
    class_maps: Sequence[NDArray[Any]],
    classes: int,
    ignored: Sequence[NDArray[Any]] | None = None,
) -> NDArray[np.float64]:
    """Computes the weight of each class, w_c of equation 2, over a whole data set.

    A class weighs 1 / (number of classes present * its share of the pixels): over the data set the
    weights of each class add up to the same sum, and the mean weight of a pixel is 1. The mean is
    a choice made here, which keeps `w0` comparable between data sets; the paper leaves it open. A
    class that occurs nowhere weighs 0.

    Args:
        class_maps: Classes of the pixels, one `(height, width)` an image, 0 ... classes - 1.
        classes: Number of classes.
        ignored: Pixels that do not count, one `(height, width)` an image, true where ignored.

    Returns:
        The weights, `(classes,)`, float64.

    Raises:
        ValueError: If a class lies outside 0 ... classes - 1, a map holds no whole numbers, shapes
            or numbers of images disagree, or no pixel counts.

    Example:
        Three pixels of background weigh as much as one of cell:

        >>> class_balance([np.array([[0, 0, 0, 1]])], classes=2).round(3).tolist()
        [0.667, 2.0]
    """
    masks = [None] * len(class_maps) if ignored is None else ignored
    if len(masks) != len(class_maps):
        raise ValueError(
            f"ignored must hold one mask an image. Received {len(masks)} for {len(class_maps)} "
            "images; pass an empty mask for an image that counts fully."
        )
    counts = np.zeros(classes, np.int64)
    for class_map, mask in zip(class_maps, masks, strict=True):
        counts += _count(class_map, classes, mask)
    return _balance(counts)


def class_weight_map(
    classes: NDArray[Any],
    balance: NDArray[np.float64] | None = None,
    *,
    ignored: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Gives each pixel the weight of its class, w_c(x) of equation 2.

    Args:
        classes: Classes of the pixels, `(height, width)`.
        balance: Weight of each class, from `class_balance` over the data set; None balances this
            map by itself.
        ignored: True at pixels that weigh 0 and do not count, `(height, width)`.

    Returns:
        The weights, `(height, width)`, float32.

    Raises:
        ValueError: If a class has no weight, or as `class_balance`.

    Example:
        >>> class_weight_map(np.array([[0, 0, 0, 1]]), np.array([0.5, 4.0])).tolist()
        [[0.5, 0.5, 0.5, 4.0]]
    """
    counting = _counting(classes, ignored)
    counted = classes[counting].astype(np.intp)
    if balance is None:
        balance = class_balance([counted], int(counted.max(initial=0)) + 1)
    _check_range(counted, len(balance))
    weights = np.zeros(classes.shape, np.float32)
    weights[counting] = balance[counted]
    return weights


def weight_map(
    classes: NDArray[Any],
    instances: NDArray[np.integer],
    *,
    balance: NDArray[np.float64] | None = None,
    ignored: NDArray[Any] | None = None,
    w0: float = 10.0,
    sigma: float = 5.0,
) -> NDArray[np.float32]:
    """Computes equation 2: the class weights plus the border term, and 0 where ignored.

    The gap between touching cells weighs as its class says, so `classes` should already be
    background there: `separate_touching(instances) > 0` for cell and background.

    Args:
        classes: Classes of the pixels, `(height, width)`.
        instances: Integer label image, `(height, width)`; 0 is background.
        balance: Weight of each class, from `class_balance` over the data set; None balances this
            map by itself.
        ignored: True at pixels that weigh 0 and do not count, `(height, width)`.
        w0: The border term's weight at distance 0. The paper takes 10.
        sigma: The border term's fall-off in pixels. The paper takes about 5.

    Returns:
        The weights, `(height, width)`, float32.

    Raises:
        ValueError: If the shapes differ, or as `class_weight_map` and `border_weight_map`.

    Example:
        >>> instances = np.array([[1, 0, 2]])
        >>> weight_map((instances > 0).astype(int), instances).round(3)
        array([[ 0.75 , 10.731,  0.75 ]], dtype=float32)
    """
    if classes.shape != instances.shape:
        raise ValueError(
            f"classes and instances must have one shape. Received {classes.shape} and "
            f"{instances.shape}; pass the class numbers of the same image, not one-hot."
        )
    border = border_weight_map(instances, w0=w0, sigma=sigma)
    border[~_counting(classes, ignored)] = 0
    return class_weight_map(classes, balance, ignored=ignored) + border


def _by_bands(
    function: Callable[[NDArray[np.integer]], NDArray[np.float32]],
    image: NDArray[np.integer],
    margin: int,
) -> NDArray[np.float32]:
    """Computes an image from another in bands of rows, a thread and a core each.

    Args:
        function: Computes the one from the other, or from some of its rows.
        image: The other, `(height, width)`.
        margin: How many rows away a pixel looks. Bands are at least 8 times as high, since what
            lies so far around them is looked at twice.
    """
    height = len(image)
    bands = max(1, min(os.cpu_count() or 1, height // (_MARGINS_A_BAND * margin)))
    if bands == 1:
        return function(image)
    edges = [height * band // bands for band in range(bands + 1)]

    def compute(first: int, last: int) -> NDArray[np.float32]:
        top = max(first - margin, 0)
        return function(image[top : last + margin])[first - top : last - top]

    with ThreadPoolExecutor(bands) as threads:  # SciPy and NumPy let each other work
        return np.concatenate(list(threads.map(compute, edges[:-1], edges[1:])))


def _reach(w0: float, sigma: float) -> float:
    """Returns the distance in pixels beyond which the border term is negligible."""
    return sigma * math.sqrt(2 * math.log(max(w0 / _NEGLIGIBLE, 1)))


def _counting(class_map: NDArray[Any], ignored: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Returns where pixels count: everywhere but where they are ignored."""
    if class_map.dtype.kind not in "biu":
        raise ValueError(
            "classes must be whole numbers of an integer type. "
            f"Received {class_map.dtype}; convert scores with `scores.argmax(axis=-1)`."
        )
    if ignored is None:
        return np.ones(class_map.shape, np.bool_)
    if ignored.shape != class_map.shape:
        raise ValueError(
            f"ignored must have the shape of its classes, {class_map.shape}. "
            f"Received {ignored.shape}; pass one mask of the image's height and width."
        )
    return ~ignored.astype(np.bool_)


def _count(
    class_map: NDArray[Any], classes: int, ignored: NDArray[Any] | None
) -> NDArray[np.int64]:
    """Counts the pixels of each class that are not ignored."""
    counted = class_map[_counting(class_map, ignored)].astype(np.intp)
    _check_range(counted, classes)
    return np.bincount(counted, minlength=classes)


def _balance(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Turns the pixels of each class into its weight."""
    present = counts > 0
    if not present.any():
        raise ValueError(
            "class_maps must hold at least one pixel that is not ignored. Received none; "
            "look at the ignored masks, which are true where a pixel does not count."
        )
    balance = np.zeros(len(counts))
    balance[present] = counts.sum() / (present.sum() * counts[present])
    return balance


def _check_range(counted: NDArray[np.intp], classes: int) -> None:
    """Refuses classes that have no place among the first `classes` numbers."""
    lowest, highest = counted.min(initial=0), counted.max(initial=0)
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"classes must lie in 0 ... {classes - 1}. Received {lowest} ... {highest}; "
            "turn a mask of 0 and 255 into classes by `mask > 0`."
        )


def _check_border(w0: float, sigma: float) -> None:
    """Refuses a border term that is no weight."""
    if not 0 <= w0 < math.inf:
        raise ValueError(f"w0 must be a weight, 0 or more. Received {w0}; the paper takes 10.")
    if not 0 < sigma < math.inf:
        raise ValueError(
            f"sigma must be a positive number of pixels. Received {sigma}; the paper takes 5."
        )
