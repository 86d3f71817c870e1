"""Weight maps of the loss, equation 2 of the paper: w(x) = w_c(x) + border term.

`w_c` balances the classes. The border term, w0 exp(-(d1 + d2)^2 / (2 sigma^2)), increases the
weight of background between close cells, where a missed membrane would merge them. As in the
authors' later tool it is limited to background pixels.
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
_CLOSE = 0.25  # border term, in units of w0, from which on cells are close
_MARGINS_PER_BAND = 8  # a band's height is at least as many margins, whose rows are computed twice


def border_weight_map(
    instances: NDArray[np.integer], *, w0: float = 10.0, sigma: float = 5.0
) -> NDArray[np.float32]:
    """Computes the border term of equation 2, on background pixels.

    Touching instances are first separated by a gap (`separate_touching`), which becomes background
    with the largest weights. Weights are 0 in cells, and everywhere in an image of fewer than two
    cells.

    Args:
        instances: Integer label image, `(height, width)`; 0 is background.
        w0: Weight at distance 0 from two cells. The paper uses 10.
        sigma: Decay length in pixels. The paper uses about 5.

    Returns:
        The weights, `(height, width)`, float32.

    Raises:
        ValueError: If `instances` is not a label image, `w0` is negative or `sigma` not positive.

    Example:
        Background one pixel wide has d1 = d2 = 1, hence the weight 10 exp(-2^2 / 50):

        >>> border_weight_map(np.array([[1, 0, 2]])).round(3)
        array([[0.   , 9.231, 0.   ]], dtype=float32)
    """
    _check_border(w0, sigma)
    check_instances(instances)
    limit = _negligible_distance(w0, sigma)

    def border_term(rows: NDArray[np.integer]) -> NDArray[np.float32]:
        separated = separate_touching(rows)
        d1, d2 = two_distances(separated, limit)
        weights = w0 * np.exp(-(((d1 + d2) / sigma) ** 2) / 2)
        return np.where(separated == 0, weights, 0).astype(np.float32)

    return _map_bands(border_term, instances, math.floor(min(limit, len(instances))) + 1)


def close_borders(instances: NDArray[np.integer], *, sigma: float) -> NDArray[np.bool_]:
    """Marks the background between close cells: where the border term is at least w0 / 4.

    Args:
        instances: As `border_weight_map`.
        sigma: As `border_weight_map`.

    Returns:
        The mask, `(height, width)`. The distances d1 and d2 of its pixels sum to at most 1.67
        sigma.

    Raises:
        ValueError: As `border_weight_map`.

    Example:
        >>> close_borders(np.array([[1, 0, 2, 0, 0, 0, 0, 3]]), sigma=2.0).astype(int)
        array([[0, 1, 0, 0, 0, 0, 0, 0]])
    """
    return border_weight_map(instances, w0=1.0, sigma=sigma) >= _CLOSE


def class_balance(
    class_maps: Sequence[NDArray[Any]],
    classes: int,
    ignored: Sequence[NDArray[Any]] | None = None,
) -> NDArray[np.float64]:
    """Computes the weight of each class, w_c of equation 2, over a whole data set.

    The weight is 1 / (number of classes present * fraction of the pixels): over the data set the
    weights of each class have the same sum, and the mean weight of a pixel is 1. The paper leaves
    the mean open; 1 keeps `w0` comparable between data sets. The weight of a class without pixels
    is 0.

    Args:
        class_maps: Class of each pixel, `(height, width)` for each image, 0 ... classes - 1.
        classes: Number of classes.
        ignored: Masks of ignored pixels, `(height, width)` for each image.

    Returns:
        The weights, `(classes,)`, float64.

    Raises:
        ValueError: If a class lies outside 0 ... classes - 1, a map is not of an integer type,
            shapes or numbers of images differ, or all pixels are ignored.

    Example:
        Three background pixels have the same total weight as one cell pixel:

        >>> class_balance([np.array([[0, 0, 0, 1]])], classes=2).round(3).tolist()
        [0.667, 2.0]
    """
    masks = [None] * len(class_maps) if ignored is None else ignored
    if len(masks) != len(class_maps):
        raise ValueError(
            f"ignored must hold one mask for each image. Received {len(masks)} for "
            f"{len(class_maps)} images; pass a mask of False for an image without ignored pixels."
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
    """Computes the class weight of each pixel, w_c(x) of equation 2.

    Args:
        classes: Class of each pixel, `(height, width)`.
        balance: Weight of each class, from `class_balance` over the data set; None computes it from
            this map alone.
        ignored: Mask of ignored pixels, `(height, width)`; their weight is 0.

    Returns:
        The weights, `(height, width)`, float32.

    Raises:
        ValueError: If a class has no weight, or as `class_balance`.

    Example:
        >>> class_weight_map(np.array([[0, 0, 0, 1]]), np.array([0.5, 4.0])).tolist()
        [[0.5, 0.5, 0.5, 4.0]]
    """
    valid = _valid_mask(classes, ignored)
    valid_classes = classes[valid].astype(np.intp)
    if balance is None:
        balance = class_balance([valid_classes], int(valid_classes.max(initial=0)) + 1)
    _check_range(valid_classes, len(balance))
    weights = np.zeros(classes.shape, np.float32)
    weights[valid] = balance[valid_classes]
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
    """Computes equation 2: class weights plus border term, 0 at ignored pixels.

    The class weight in the gap between touching cells follows `classes`, which should therefore be
    background there: `separate_touching(instances) > 0` for cell and background.

    Args:
        classes: Class of each pixel, `(height, width)`.
        instances: Integer label image, `(height, width)`; 0 is background.
        balance: Weight of each class, from `class_balance` over the data set; None computes it from
            this map alone.
        ignored: Mask of ignored pixels, `(height, width)`; their weight is 0.
        w0: Border weight at distance 0. The paper uses 10.
        sigma: Decay length of the border weight in pixels. The paper uses about 5.

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
            f"classes and instances must have one shape. Received: {classes.shape} and "
            f"{instances.shape}; pass class numbers of the same image, not one-hot vectors."
        )
    border = border_weight_map(instances, w0=w0, sigma=sigma)
    border[~_valid_mask(classes, ignored)] = 0
    return class_weight_map(classes, balance, ignored=ignored) + border


def _map_bands(
    function: Callable[[NDArray[np.integer]], NDArray[np.float32]],
    image: NDArray[np.integer],
    margin: int,
) -> NDArray[np.float32]:
    """Applies a function, which depends on rows up to `margin` away, in bands on all cores."""
    height = len(image)
    bands = max(1, min(os.cpu_count() or 1, height // (_MARGINS_PER_BAND * margin)))
    if bands == 1:
        return function(image)
    edges = [height * band // bands for band in range(bands + 1)]

    def compute(first: int, last: int) -> NDArray[np.float32]:
        top = max(first - margin, 0)
        return function(image[top : last + margin])[first - top : last - top]

    with ThreadPoolExecutor(bands) as threads:  # SciPy and NumPy release the interpreter lock
        return np.concatenate(list(threads.map(compute, edges[:-1], edges[1:])))


def _negligible_distance(w0: float, sigma: float) -> float:
    return sigma * math.sqrt(2 * math.log(max(w0 / _NEGLIGIBLE, 1)))


def _valid_mask(class_map: NDArray[Any], ignored: NDArray[Any] | None) -> NDArray[np.bool_]:
    if class_map.dtype.kind not in "biu":
        raise ValueError(
            "classes must be whole numbers of an integer type. "
            f"Received: {class_map.dtype}; convert scores by `scores.argmax(axis=-1)`."
        )
    if ignored is None:
        return np.ones(class_map.shape, np.bool_)
    if ignored.shape != class_map.shape:
        raise ValueError(
            f"ignored must have the shape of the classes, {class_map.shape}. "
            f"Received: {ignored.shape}; pass one mask of the image's height and width."
        )
    return ~ignored.astype(np.bool_)


def _count(
    class_map: NDArray[Any], classes: int, ignored: NDArray[Any] | None
) -> NDArray[np.int64]:
    """Counts the pixels of each class that are not ignored."""
    valid_classes = class_map[_valid_mask(class_map, ignored)].astype(np.intp)
    _check_range(valid_classes, classes)
    return np.bincount(valid_classes, minlength=classes)


def _balance(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    present = counts > 0
    if not present.any():
        raise ValueError(
            "class_maps must hold at least one pixel that is not ignored. Received none; check the "
            "ignored masks, which are True at ignored pixels."
        )
    balance = np.zeros(len(counts))
    balance[present] = counts.sum() / (present.sum() * counts[present])
    return balance


def _check_range(class_map: NDArray[np.intp], classes: int) -> None:
    lowest, highest = class_map.min(initial=0), class_map.max(initial=0)
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"classes must lie in 0 ... {classes - 1}. Received: {lowest} ... {highest}; "
            "convert a mask of 0 and 255 by `mask > 0`."
        )


def _check_border(w0: float, sigma: float) -> None:
    if not 0 <= w0 < math.inf:
        raise ValueError(f"w0 must be a weight, 0 or more. Received: w0={w0}; the paper uses 10.")
    if not 0 < sigma < math.inf:
        raise ValueError(
            f"sigma must be a positive number of pixels. Received: sigma={sigma}; the paper uses 5."
        )
