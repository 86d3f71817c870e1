"""Job of a contender: train on a folder, then predict images. The same code for all peers.

A peer is a module with a function `train(job, samples, clock)`. It is started as a process of its
own, in its own environment, and gets a JSON file with the fields of `Job`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.encoding import Kind
from keras_unet.data.images import image_files, read_planes, smallest_unsigned, write_tiff
from keras_unet.data.samples import Sample, read_samples
from keras_unet.files import make_folder, write_json
from keras_unet.system import installed_version

VALIDATION = 0.15  # of the training images, as in StarDist's examples


@dataclass(frozen=True)
class Job:
    """What a contender is given.

    Attributes:
        training: Folder with the training images and their labels, `images/` and `labels/`.
        images: Folder with the held-out images.
        out: Folder for the predictions.
        record: JSON file for steps, seconds and versions.
        work: Folder for files of the contender's own.
        kind: Kind of the labels, "instances" or "classes".
        minutes: Length of the training loop.
        seed: Seed of the random numbers.
        started: Time at which the process was started, in seconds since the epoch.
        options: Options of the contender.
    """

    training: Path
    images: Path
    out: Path
    record: Path
    work: Path
    kind: Kind
    minutes: float
    seed: int
    started: float
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes the job to a JSON file."""
        values = asdict(self).items()
        plain = {key: str(one) if isinstance(one, Path) else one for key, one in values}
        write_json(path, plain)

    @classmethod
    def read(cls, path: Path) -> Job:
        """Reads a job that `write` wrote."""
        values = json.loads(path.read_text())
        folders = ("training", "images", "out", "record", "work")
        return cls(**values | {name: Path(values[name]) for name in folders})


class Clock:
    """Clock of a training loop, which starts before the first step and its compilation."""

    def __init__(self, minutes: float) -> None:
        self.limit = 60 * minutes
        self.started = time.monotonic()

    def start(self) -> None:
        """Starts the training loop."""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start of the loop."""
        return time.monotonic() - self.started

    @property
    def share(self) -> float:
        """Share of the time that has passed, 0 to 1."""
        return min(1.0, self.seconds / self.limit)

    @property
    def is_over(self) -> bool:
        """Whether no further step may be taken."""
        return self.seconds >= self.limit


@dataclass(frozen=True)
class Prediction:
    """Prediction of an image.

    Attributes:
        labels: Label image of instances or classes, `(height, width)`.
        probabilities: Class probabilities, `(classes, height, width)`, background first; or None.
    """

    labels: NDArray[Any]
    probabilities: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Trained:
    """A trained contender.

    Attributes:
        predict: Predicts a grey image, `(height, width)`, float32, with grey values as in the file.
        steps: Number of updates.
        seconds: Seconds of the training loop, with its validations.
        about: Further numbers of the training, such as the batch size.
    """

    predict: Callable[[NDArray[np.float32]], Prediction]
    steps: int
    seconds: float
    about: Mapping[str, Any]


Train = Callable[[Job, Sequence[Sample], Clock], Trained]


def run(train: Train, packages: Sequence[str]) -> None:
    """Trains, predicts all images and writes the record, for the job file on the command line."""
    job = Job.read(Path(sys.argv[1]))
    samples = read_samples(job.training, labels=job.kind).samples
    trained = train(job, samples, Clock(job.minutes))
    in_all = time.time() - job.started
    began = time.monotonic()
    make_folder(job.out)
    for path in image_files(job.images):
        found = trained.predict(grey(read_planes(path)[0]))
        labels = smallest_unsigned(found.labels)
        write_tiff(job.out / f"{path.stem}.tif", labels, axes="YX")
        if found.probabilities is not None:
            probabilities = found.probabilities.astype(np.float32)
            write_tiff(job.out / f"{path.stem}_probabilities.tif", probabilities, axes="CYX")
    write_json(
        job.record,
        {
            "steps": trained.steps,
            "seconds": {
                "loop": round(trained.seconds, 1),
                "training": round(in_all, 1),
                "prediction": round(time.monotonic() - began, 1),
            },
            "about": dict(trained.about),
            "versions": {name: installed_version(name) for name in packages},
        },
    )


def grey(image: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the mean of the channels of an image `(height, width, channels)`."""
    return image.astype(np.float32).mean(axis=-1)


def split(samples: Sequence[Sample], seed: int) -> tuple[list[Sample], list[Sample]]:
    """Splits the training images at random into those for training and those for validation."""
    number = max(1, round(VALIDATION * len(samples)))
    order = np.random.default_rng(seed).permutation(len(samples))
    shuffled = [samples[index] for index in order]
    return shuffled[number:], shuffled[:number]
