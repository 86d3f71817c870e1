"""Memory and time of images larger than memory: `python -m benchmarks.large 2000 4000 8000`.

For each side, a square image of synthetic cells is written as a tiled BigTIFF and predicted tile by
tile in its own process, by a network with random weights. Measured are the time, and the peak
resident memory before and after. Slopes are memory and seconds per million pixels, by a linear fit.
The results are printed and written to `benchmarks/results/large.json`. The goal is less than 3 GB
for a side of 30000, which takes hours on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.record import RESULTS, ROOT, origin
from keras_unet.architecture import Architecture
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.data.synthetic import draw_cells
from keras_unet.files import make_folder, write_json
from keras_unet.instances.label import InstanceOptions
from keras_unet.runs import Run

PICTURE, CELLS = 512, 40  # side of the synthetic image that is repeated, and its cells
TILE = 512  # tile of the TIFF


def main() -> None:
    """Measures every side, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sides", type=int, nargs="+", help="sides of the images, in pixels")
    parser.add_argument("--depth", type=int, default=4, help="poolings")
    parser.add_argument("--filters", type=int, default=2, help="features of the first level")
    parser.add_argument("--markers", default="distance", help="markers of the watershed")
    parser.add_argument("--alone", type=Path, help="folder to predict in this process")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(predict(given.alone, given.depth, given.filters, given.markers)))
        return
    network = ["--depth", str(given.depth), "--filters", str(given.filters)]
    measured = [
        measured_alone(side, [*network, "--markers", given.markers]) for side in given.sides
    ]
    result = {
        "benchmark": f"python -m benchmarks.large {' '.join(sys.argv[1:])}",
        **origin(),
        "sides": measured,
        "slopes": slopes(measured),
    }
    write_json(make_folder(RESULTS) / "large.json", result)
    print(json.dumps(result, indent=2))


def measured_alone(side: int, options: Sequence[str]) -> dict[str, Any]:
    """Writes an image, and predicts it in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        write_image(Path(folder) / "large.tif", side)
        command = [sys.executable, "-m", "benchmarks.large", str(side), *options, "--alone", folder]
        answer = subprocess.run(  # noqa: S603 - this very program
            command, cwd=ROOT, capture_output=True, text=True, check=True
        )
    return {"side": side, **json.loads(answer.stdout.splitlines()[-1])}


def write_image(path: Path, side: int) -> None:
    """Writes a synthetic image, repeated with different noise."""
    picture, _ = draw_cells(0, size=(PICTURE, PICTURE), cells=CELLS)

    def tiles() -> Iterator[NDArray[np.uint16]]:
        random = np.random.default_rng(0)
        for _ in range((-(-side // TILE)) ** 2):
            noise = random.integers(-5, 6, picture.shape)
            yield (picture.astype(int) + noise).clip(0).astype(np.uint16)

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            tiles(),
            shape=(side, side),
            dtype=np.uint16,
            tile=(TILE, TILE),
            photometric="minisblack",
            compression="zlib",
        )


def predict(folder: Path, depth: int, filters: int, markers: Any) -> dict[str, Any]:
    """Predicts the image of a folder, and returns what that took."""
    from keras_unet.prediction.blockwise import Blockwise, Plan, measure, predict_locally
    from keras_unet.prediction.outputs import OutputPlan

    run = Run(
        folder=folder,
        architecture=Architecture(depth=depth, base_filters=filters),
        encoding=LabelEncoding("instances", (0, 1)),
        normalization=Normalization("image"),
        precision="float32",
        record={},
        instances=InstanceOptions(markers=markers),
    )
    path, out = folder / "large.tif", make_folder(folder / "out")
    order = OutputPlan.of(run, [path], out, [], None)
    plan = Plan((run,), ((None, None),))
    blockwise = Blockwise(order, plan, partial(predict_locally, [drawn(run)]))
    before, started = resident(), time.perf_counter()
    made = blockwise.predict_image(path, measure(run, path))
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "megabytes_before": before,
        "megabytes": resident(),
        "cells": int(max(page.asarray().max() for page in tifffile.TiffFile(made.files[0]).pages)),
    }


def drawn(run: Run) -> Any:
    """Returns a network with random weights whose brightest pixels are cells.

    Random weights alone would give one cell of all pixels, or none.
    """
    from keras_unet.model import unet_of

    model = unet_of(run.architecture)
    lost = run.architecture.margin

    def logits(tile: NDArray[np.float32]) -> NDArray[np.float32]:
        answer = np.asarray(model.predict_on_batch(tile))
        inner = tile[:, lost:-lost, lost:-lost]
        height = inner - 1  # in standard deviations above the mean
        return np.concatenate([-height, height], axis=-1) + 1e-6 * answer

    return logits


def resident() -> float:
    """Returns the peak resident memory in megabytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def slopes(measured: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns memory and seconds per million pixels, by a linear fit; empty for a single side."""
    if len(measured) < 2:
        return {}
    millions = [one["side"] ** 2 / 1e6 for one in measured]
    return {
        f"{what}_per_million_pixels": round(
            float(np.polyfit(millions, [one[what] for one in measured], 1)[0]), 4
        )
        for what in ("megabytes", "seconds")
    }


if __name__ == "__main__":
    main()
