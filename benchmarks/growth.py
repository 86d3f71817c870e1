"""Scaling of time and memory with the size of images and the number of cells.

A slope is that of the logarithm of the time against the logarithm of the size: 1 is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks import large
from benchmarks.contenders import Contender, ready
from benchmarks.timing import seconds
from keras_unet.architecture import Architecture

NARROW = Architecture(base_filters=16, dropout=0)  # the largest image takes minutes


@dataclass(frozen=True, kw_only=True)
class Range:
    """Sizes to measure.

    Attributes:
        network: The network.
        precision: Precision of the prediction.
        sides: Sides of the images to predict, in pixels.
        tile: Input tile; None for the default of `predict`.
        maps: Sides of the label images, with a cell on every 1,300 pixels.
        crowd: Side of the label image in which the number of cells varies.
        cells: Cells across and down in it.
        on_disk: Sides of images that are predicted from disk to disk.
    """

    network: Architecture = NARROW
    precision: str = "bfloat16"
    sides: Sequence[int] = (512, 1024, 2048, 4096, 8192, 16384)
    tile: int | None = None
    maps: Sequence[int] = (512, 1024, 2048, 4096)
    crowd: int = 2048
    cells: Sequence[tuple[int, int]] = ((10, 10), (20, 20), (40, 25), (50, 40), (80, 50))
    on_disk: Sequence[int] = (2000, 4000, 8000)


QUICK = Range(
    network=Architecture(depth=2, base_filters=2, dropout=0),
    sides=(64, 128),
    tile=76,
    maps=(128, 256),
    crowd=128,
    cells=((3, 3), (5, 5)),
    on_disk=(256, 512),
)

PREDICTION, MAPS = "0.95 to 1.05", "at most 1.1"


def growth(sizes: Range, device: str, calls: int) -> dict[str, Any]:
    """Measures all sizes.

    Args:
        sizes: The sizes.
        device: "cpu" or "gpu".
        calls: Number of calls for each size, of which the median is taken.
    """
    predictions = [_prediction(sizes, side, device, calls) for side in sizes.sides]
    by_pixels = [_weight_map(side, *_lattice(side), calls) for side in sizes.maps]
    radius = sizes.crowd / max(across for across, _ in sizes.cells) * 0.4
    by_cells = [_weight_map(sizes.crowd, *cells, calls, radius) for cells in sizes.cells]
    on_disk = [large.measure(side, ["--depth", "4", "--filters", "2"]) for side in sizes.on_disk]
    slope, map_slope = slope_of(predictions, "pixels"), slope_of(by_pixels, "pixels")
    crowd_slope = slope_of(by_cells, "cells")
    return {
        "prediction": {
            "against": "pixels",
            "slope": slope,
            "goal": PREDICTION,
            "met": 0.95 <= slope <= 1.05,
            "measured": predictions,
        },
        "weight_maps": {
            "against": "pixels",
            "slope": map_slope,
            "goal": MAPS,
            "met": map_slope <= 1.1,
            "measured": by_pixels,
        },
        "weight_maps_of_many_cells": {
            "against": "cells",
            "slope": crowd_slope,
            "goal": MAPS,
            "met": crowd_slope <= 1.1,
            "measured": by_cells,
        },
        "from_disk_to_disk": {"measured": on_disk, "slopes": large.slopes(on_disk)},
    }


def slope_of(measured: Sequence[dict[str, float]], what: str) -> float:
    """Returns the slope of log time against the logarithm of a size.

    >>> slope_of([{"pixels": 10, "seconds": 2}, {"pixels": 20, "seconds": 8}], "pixels")
    2.0
    """
    size, time = (np.log([one[name] for one in measured]) for name in (what, "seconds"))
    return round(float(np.polyfit(size, time, 1)[0]), 3)


def _prediction(sizes: Range, side: int, device: str, calls: int) -> dict[str, float]:
    options = {
        "network": sizes.network,
        "side": side,
        "tile": sizes.tile,
        "precision": sizes.precision,
        "device": device,
    }
    found = _measured(Contender("this", "in_keras.prediction", options), calls)
    return {"pixels": side**2, **found}


def _weight_map(
    side: int, across: int, down: int, calls: int, radius: float | None = None
) -> dict[str, float]:
    options = {"side": side, "across": across, "down": down, "radius": radius}
    found = _measured(Contender("this", "bordering.here", options), calls)
    return {"pixels": side**2, "cells": across * down, **found}


def _lattice(side: int) -> tuple[int, int]:
    """Returns cells across and down, at the density of 20 x 10 in 512 x 512."""
    return max(2, round(side * 20 / 512)), max(2, round(side * 10 / 512))


def _measured(contender: Contender, calls: int) -> dict[str, float]:
    """Returns the median time of calls after a warm-up, and the peak memory of the process."""
    with ready(contender) as worker:
        worker.run()
        took = median(seconds(worker.run) for _ in range(calls))
        return {"seconds": round(took, 4), "megabytes": worker.most_memory()}
