"""Elastic deformation by other libraries: image and weights (linear), labels (nearest)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.contenders import Work
from benchmarks.peers import inputs

_LINEAR_AND_NEAREST = 1, 0, 1
_SMOOTH = 25.0  # standard deviation in pixels of the Gaussian that smooths the noise


def by_elasticdeform(side: int, amplitude: float, times: int) -> Work:
    """The library elasticdeform on the same grids."""
    from elasticdeform import deform_grid

    images, grids = inputs.deformable(side, amplitude, times)
    options: dict[str, Any] = {"order": list(_LINEAR_AND_NEAREST), "mode": "mirror"}
    return lambda: [deform_grid(images, grid, **options) for grid in grids][-1]


def by_scipy(side: int, amplitude: float, times: int) -> Work:
    """SciPy on the same grids: cubic zoom of the grid, then interpolation of each image."""
    images, grids = inputs.deformable(side, amplitude, times)
    pixels = np.indices((side, side), np.float32)

    def deform(grid: Any) -> list[Any]:
        field = [ndimage.zoom(one, side / len(one), order=3, mode="mirror") for one in grid]
        places = pixels + np.stack(field)
        return [
            ndimage.map_coordinates(image, places, order=order, mode="mirror", prefilter=False)
            for image, order in zip(images, _LINEAR_AND_NEAREST, strict=True)
        ]

    return lambda: [deform(grid) for grid in grids][-1]


def by_albumentations(side: int, amplitude: float, times: int) -> Work:
    """ElasticTransform of albumentations, in its approximate mode.

    Its displacement field is smoothed noise, so its result cannot equal that of the others.
    """
    import albumentations
    import cv2

    cv2.setNumThreads(int(os.environ["OMP_NUM_THREADS"]))
    (image, labels, weighed), _ = inputs.deformable(side, amplitude, times)
    transform = albumentations.Compose(
        [
            albumentations.ElasticTransform(
                alpha=amplitude,
                sigma=_SMOOTH,
                approximate=True,
                border_mode=cv2.BORDER_REFLECT_101,
                p=1,
            )
        ],
        additional_targets={"weights": "image"},
        seed=0,
    )

    def deform() -> list[Any]:
        deformed = transform(image=image[..., None], mask=labels, weights=weighed[..., None])
        return [deformed["image"], deformed["mask"], deformed["weights"]]

    return lambda: [deform() for _ in range(times)][-1]
