"""Border term of equation 2: this package, and straightforward implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.contenders import Work
from benchmarks.peers.inputs import lattice_cells
from keras_unet.data.distances import separate_touching
from keras_unet.data.weight_maps import border_weight_map

W0, SIGMA = 10.0, 5.0
REACH = 6 * SIGMA  # distance in pixels beyond which the term is below 1e-6

Distances = Callable[[NDArray[np.bool_]], NDArray[Any]]


def here(side: int, across: int, down: int, radius: float | None = None) -> Work:
    """This package."""
    instances = lattice_cells(side, across, down, radius)
    return lambda: [border_weight_map(instances, w0=W0, sigma=SIGMA)]


def by_whole_images(side: int, across: int, down: int, every: int = 1) -> Work:
    """One distance transform of the whole image for each cell, or each n-th of them.

    Only the two smallest distances are kept; all would not fit in memory.
    """
    instances = lattice_cells(side, across, down)

    def weigh() -> list[Any]:
        parted = separate_touching(instances)
        nearest, second = np.full((2, *parted.shape), np.inf)
        for cell in np.setdiff1d(parted, 0)[::every]:
            distance = ndimage.distance_transform_edt(parted != cell)
            np.minimum(second, np.maximum(nearest, distance), out=second)
            np.minimum(nearest, distance, out=nearest)
        return [_weights(parted, nearest + second)]

    return weigh


def by_boxes_of_scipy(side: int, across: int, down: int) -> Work:
    """SciPy's distance transform in the bounding box of each cell, padded by REACH."""
    return _by_boxes(lattice_cells(side, across, down), ndimage.distance_transform_edt)


def by_boxes_of_edt(side: int, across: int, down: int) -> Work:
    """The same with edt; the boxes are too small to benefit from several threads."""
    import edt

    return _by_boxes(lattice_cells(side, across, down), lambda mask: edt.edt(mask, parallel=1))


def _by_boxes(instances: NDArray[np.int32], transform: Distances) -> Work:
    def weigh() -> list[Any]:
        parted = separate_touching(instances)
        nearest, second = np.full((2, *parted.shape), np.inf, np.float32)
        reach = math.ceil(REACH)
        for cell, tight in enumerate(ndimage.find_objects(parted), 1):
            if tight is None:
                continue
            box = tuple(slice(max(axis.start - reach, 0), axis.stop + reach) for axis in tight)
            distance = transform(parted[box] != cell).astype(np.float32)
            np.minimum(second[box], np.maximum(nearest[box], distance), out=second[box])
            np.minimum(nearest[box], distance, out=nearest[box])
        return [_weights(parted, nearest + second)]

    return weigh


def _weights(parted: NDArray[Any], both: NDArray[Any]) -> NDArray[np.float32]:
    term = W0 * np.exp(-((both / SIGMA) ** 2) / 2)
    return np.where(parted == 0, term, 0).astype(np.float32)
