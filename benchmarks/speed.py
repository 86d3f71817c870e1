"""Two hot spots against the obvious way to do them: `python -m benchmarks.speed`.

The elastic deformation of a 572 x 572 image with its labels and weights, compiled in the graph,
against elasticdeform on the same grids; and the border weights of 200 cells in 512 x 512 pixels
against one distance transform of the whole image a cell. Both ways take turns; what counts is the
median of the five ratios. That they compute the same is checked here too. The figures are printed
and written to `benchmarks/results/speed.json`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from elasticdeform import deform_grid
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.record import RESULTS, origin
from benchmarks.timing import compare
from keras_unet.backend import tf
from keras_unet.data.deformation import displacement_field, warp
from keras_unet.data.weights import border_weight_map
from keras_unet.distances import separate_touching
from keras_unet.files import make_folder, write_json

CALLS = 10  # a measurement of the deformation
TILE, AMPLITUDE = 572, 10.0
SIZE, CELLS_ACROSS, CELLS_DOWN = 512, 20, 10
W0, SIGMA = 10.0, 5.0


def main() -> None:
    """Measures both and writes the figures."""
    result = {
        "benchmark": "python -m benchmarks.speed",
        **origin(),
        "deformation": deformation(),
        "border_weights": border_weights(),
    }
    write_json(make_folder(RESULTS) / "speed.json", result)
    print(json.dumps(result, indent=2))


def deformation() -> dict[str, Any]:
    """Deforms image (linear), labels (nearest) and weights (linear) of 572 x 572 pixels."""
    random = np.random.default_rng(0)
    image, weights = random.random((2, TILE, TILE), np.float32)
    labels = random.integers(0, 2, (TILE, TILE)).astype(np.uint8)
    grids = AMPLITUDE * random.standard_normal((CALLS, 2, 3, 3)).astype(np.float32)
    flat = [tf.constant(part.ravel()) for part in (image, labels, weights)]

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def compiled(grid: Any) -> tuple[Any, Any, Any]:
        pixel = tf.range(TILE, dtype=tf.float32)
        field = displacement_field(grid, (TILE, TILE))
        place = (0, TILE, TILE), pixel[:, None] + field[0], pixel + field[1]
        return warp(flat[0], *place), warp(flat[1], *place, nearest=True), warp(flat[2], *place)

    def in_graph() -> list[NDArray[Any]]:
        deformed = [[part.numpy() for part in compiled(tf.constant(grid))] for grid in grids]
        return deformed[-1]

    def by_elasticdeform() -> list[NDArray[Any]]:
        options: dict[str, Any] = {"order": [1, 0, 1], "mode": "mirror"}
        deformed = [deform_grid([image, labels, weights], grid, **options) for grid in grids]
        return list(deformed[-1])

    mine, theirs = in_graph(), by_elasticdeform()
    differences = [np.abs(one - other).max() for one, other in zip(mine, theirs, strict=True)][::2]
    return {
        **compare(in_graph, by_elasticdeform, calls=CALLS),
        "largest_difference": float(max(differences)),
        "share_of_labels_that_differ": float((mine[1] != theirs[1]).mean()),
    }


def border_weights() -> dict[str, Any]:
    """Computes equation 2's border term for 200 cells in 512 x 512 pixels."""
    instances = _cells()

    def restricted() -> NDArray[np.float32]:
        return border_weight_map(instances, w0=W0, sigma=SIGMA)

    def whole_images() -> NDArray[np.float64]:
        parted = separate_touching(instances)
        cells = np.setdiff1d(parted, 0)
        distances = np.stack([ndimage.distance_transform_edt(parted != cell) for cell in cells])
        nearest = np.partition(distances, 1, axis=0)[:2].sum(axis=0)
        return np.asarray(np.where(parted == 0, W0 * np.exp(-((nearest / SIGMA) ** 2) / 2), 0))

    difference = np.abs(restricted() - whole_images()).max()
    return {
        **compare(restricted, whole_images),
        "cells": int(instances.max()),
        "largest_difference": float(difference),
    }


def _cells() -> NDArray[np.int32]:
    """Draws 200 discs on a shaken lattice, of which neighbours touch now and then."""
    rows, columns = np.indices((CELLS_DOWN, CELLS_ACROSS))
    spacing = np.array([SIZE / CELLS_DOWN, SIZE / CELLS_ACROSS])
    centres = (np.stack([rows.ravel(), columns.ravel()], axis=-1) + 0.5) * spacing
    centres += np.random.default_rng(0).uniform(-4, 4, centres.shape)
    seeds = np.zeros((SIZE, SIZE), np.int32)
    seeds[tuple(centres.astype(int).T)] = np.arange(1, len(centres) + 1)
    distance, place = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return np.where(distance < 12, seeds[tuple(place)], 0)


if __name__ == "__main__":
    main()
