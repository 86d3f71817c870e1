"""Task of a Dask worker: it predicts some tiles of an image, and writes their probabilities.

The worker opens image and networks itself, at the paths of the process that asks, and refuses them
if they are not the same there. The networks stay loaded until others are asked for.
"""

from __future__ import annotations

import hashlib
import signal
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import quiet_stderr
from keras_unet.data.large import LargePlane, open_large
from keras_unet.data.standardisation import Standardisation
from keras_unet.prediction.ledger import write_part
from keras_unet.prediction.sweeps import Standardised, Sweep, Window
from keras_unet.runs import Run

_ONE_AT_A_TIME = Lock()
"""Keras does not promise that a network can be called by several threads."""


@dataclass(frozen=True)
class Networks:
    """Networks, as a worker is told of them.

    Attributes:
        folder: The run, ensemble or .tflite file.
        precision: Precision to predict in; None for those that they were trained in.
        checksums: SHA-256 of each one's weights.
    """

    folder: Path
    precision: str | None
    checksums: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """Tiles to predict.

    Attributes:
        networks: The networks.
        member: Which of them predicts.
        image: The file.
        axes: Its axes where it states none, or others.
        shape: Planes, height, width and channels of it.
        plane: Which of its planes.
        standardisation: With the numbers that hold for this plane.
        sweep: The tiles.
        numbers: Which of them.
        part: The file to write.
    """

    networks: Networks
    member: int
    image: Path
    axes: str | None
    shape: tuple[int, int, int, int]
    plane: int
    standardisation: Standardisation
    sweep: Sweep
    numbers: range
    part: Path


def predict_part(task: Task) -> tuple[str, str]:
    """Predicts tiles, and writes them one after the other, float32, upright.

    Returns:
        The name of the file, and its checksum.

    Raises:
        ValueError: If image or networks cannot be read, or differ from those of who asks.
        OSError: If the part cannot be written.
    """
    with _ONE_AT_A_TIME, open_large(task.image, task.axes) as image:
        if image.shape != task.shape:
            raise ValueError(
                f"{task.image}: expected the image of {task.shape} (planes, height, width, "
                f"channels) that was measured. Received {image.shape}; all workers must see the "
                "same files"
            )
        run, model = _loaded(task.networks)[task.member]
        tiles = [task.sweep.tiles[number] for number in task.numbers]
        standardised = Standardised(
            run.architecture, task.standardisation, LargePlane(image, task.plane)
        )
        held = _Held.of(standardised, task.sweep.reads(tiles))
        predicted = [pixels.tobytes() for _, pixels in task.sweep.predict(model, held, tiles)]
    return task.part.name, write_part(task.part, b"".join(predicted))


def dask_setup(worker: object) -> None:  # noqa: ARG001 - Dask calls it so in workers started here
    """Leaves Ctrl-C, which a terminal sends to workers as well, to the process that started them.

    Args:
        worker: The worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def checksum_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _loaded(networks: Networks) -> tuple[tuple[Run, Any], ...]:
    """Loads networks, and keeps them until others are asked for."""
    with quiet_stderr():
        from keras_unet.prediction.networks import load_network, load_runs, weights_of

    runs = load_runs(networks.folder)
    found = tuple(checksum_of_file(weights_of(run)) for run in runs)
    if found != networks.checksums:
        raise ValueError(
            f"{networks.folder}: expected the weights that the prediction was started with. "
            "Received others; all workers must see the same files, and nobody train meanwhile"
        )
    return tuple((run, load_network(run, networks.precision)) for run in runs)


@dataclass(frozen=True, eq=False)
class _Held:
    """A window of a plane in memory, read by windows of the plane that lie in it."""

    shape: tuple[int, int, int]
    window: Window
    pixels: NDArray[np.float32]

    @classmethod
    def of(cls, plane: Standardised, window: Window) -> _Held:
        return cls(plane.shape, window, plane[window])

    def __getitem__(self, window: Window) -> NDArray[np.float32]:
        rows, columns = (
            slice(part.start - held.start, part.stop - held.start)
            for part, held in zip(window, self.window, strict=True)
        )
        return self.pixels[rows, columns]
