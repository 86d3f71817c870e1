"""Labelling of a large image by bands and in one piece: `python -m benchmarks.stitched 10000`.

Probabilities of a square image are synthetic: cells, repeated at random offsets, with noise.
`BlockwiseLabeler` labels them by bands, as `predict` does for an image larger than memory, and
`label_instances` in one piece, with each kind of markers. The two label images must be equal.
Results are printed and written to `benchmarks/results/stitched.json`; a side of 10000 takes some
15 GB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import RESULTS, origin
from keras_unet.data.synthetic import draw_cells
from keras_unet.files import make_folder, write_json
from keras_unet.instances.blockwise import BAND, BlockwiseLabeler
from keras_unet.instances.label import InstanceOptions, Markers, label_instances

PICTURE, CELLS = 512, 40  # side of the synthetic image that is repeated, and its cells
NOISE = 0.05  # standard deviation of the probabilities


def main() -> None:
    """Labels the image in both ways, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", type=int, help="side of the image, in pixels")
    parser.add_argument("--band", type=int, default=BAND, help="pixels of a band, approximately")
    given = parser.parse_args()
    probability = drawn(given.side)
    result = {
        "benchmark": f"python -m benchmarks.stitched {' '.join(sys.argv[1:])}",
        **origin(),
        "pixels_of_a_band": given.band,
        "markers": {
            markers: compare(probability, markers, given.band) for markers in get_args(Markers)
        },
    }
    write_json(make_folder(RESULTS) / "stitched.json", result)
    print(json.dumps(result, indent=2))


def drawn(side: int) -> NDArray[np.float32]:
    """Draws cell probabilities, `(side, side)`."""
    random = np.random.default_rng(0)
    _, cells = draw_cells(0, size=(PICTURE, PICTURE), cells=CELLS)
    picture = np.where(cells > 0, np.float32(0.7), np.float32(0.2))
    probability = np.empty((side, side), np.float32)
    for row in range(0, side, PICTURE):
        for column in range(0, side, PICTURE):
            place = probability[row : row + PICTURE, column : column + PICTURE]
            moved = np.roll(picture, random.integers(PICTURE, size=2), (0, 1))
            noise = NOISE * random.standard_normal(picture.shape, np.float32)
            place[:] = (moved + noise).clip(0, 1)[: place.shape[0], : place.shape[1]]
    return probability


def compare(probability: NDArray[np.float32], markers: Markers, band: int) -> dict[str, Any]:
    """Labels an image in one piece and by bands."""
    rule = InstanceOptions(markers=markers, minimum_size=20)
    labels, drafts = np.zeros((2, *probability.shape), np.int32)
    by_bands, _ = timed(
        lambda: BlockwiseLabeler(rule, band=band).label(probability, labels, drafts)
    )
    at_once, whole = timed(lambda: label_instances(probability, rule))
    return {
        "cells": int(whole.max()),
        "pixels_that_differ": int(np.count_nonzero(labels != whole)),
        "seconds_by_bands": by_bands,
        "seconds_in_one_piece": at_once,
    }


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the seconds and the result of a call."""
    started = time.perf_counter()
    result = call()
    return round(time.perf_counter() - started, 1), result


if __name__ == "__main__":
    main()
