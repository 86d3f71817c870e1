"""One experiment on real images: train, predict held-out images, score, each in its own process.

The data lies in `../shared/data`, or in the folder that
KERAS_UNET_DATA names. Training sees a folder that holds the training images alone, and the commands
are those that a user types.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from benchmarks.record import ROOT, origin
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.files import make_folder
from keras_unet.report.pictures import difference_picture, grey_picture, label_picture, montage

DATA = Path(os.environ.get("KERAS_UNET_DATA", ROOT.parent / "shared" / "data"))
SHOWN = 5  # held-out images in a figure


class ImageSet(Protocol):
    """Images for training, images held out, and what is predicted and scored of them."""

    @property
    def save(self) -> str:
        """Outputs of `keras-unet predict`."""

    @property
    def metrics(self) -> str:
        """Metrics of `keras-unet evaluate`."""

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Writes the images and labels of both parts, and returns the names of the images."""


@dataclass(frozen=True)
class Task:
    """Images of a data set, split into training and held-out images by name.

    Attributes:
        folder: Folder in DATA, with `images/` and `labels/`.
        held_out: Number of held-out images, the last by name.
        save: Outputs of `keras-unet predict`.
        metrics: Metrics of `keras-unet evaluate`.
        unused: Number of images after the held-out ones, by name, that are not used at all.
        mixed: Whether the held-out images are spread evenly over the names, for a data set whose
            names begin with the source of the image.
    """

    folder: str
    held_out: int
    save: str = "instances,probabilities"
    metrics: str = "pixels,ctc,matching"
    unused: int = 0
    mixed: bool = False

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Copies the images and labels of both parts, and returns the names of the images."""
        source = DATA / self.folder
        images = sorted((source / "images").iterdir())
        images = images[: len(images) - self.unused]
        step = len(images) // self.held_out
        last = images[step - 1 :: step] if self.mixed else images[-self.held_out :]
        parts = [path for path in images if path not in last], last
        for part, folder in zip(parts, (training, held_out), strict=True):
            for image in part:
                label = _of_stem(source / "labels", image.stem)
                shutil.copy(image, make_folder(folder / "images"))
                shutil.copy(label, make_folder(folder / "labels"))
        return [path.stem for path in parts[0]], [path.stem for path in parts[1]]


@dataclass(frozen=True)
class Frames:
    """Annotated frames of a sequence of the Cell Tracking Challenge.

    Attributes:
        sequence: Name of the sequence, such as "01".
        truth: Folder of the label files, such as "01_GT/SEG".
        numbers: Numbers of the frames; those without a label file are left out.
    """

    sequence: str
    truth: str
    numbers: range = range(10_000)

    def files(self, folder: Path) -> Iterator[tuple[int, Path, Path]]:
        """Yields number, image and label file of each frame."""
        for label in sorted((folder / self.truth).glob("man_seg*.tif")):
            number = int(label.stem.removeprefix("man_seg"))
            if number in self.numbers:
                yield number, folder / self.sequence / f"t{number:03}.tif", label


@dataclass(frozen=True)
class FilmTask:
    """Frames of a film for training, and frames of the same or another film held out.

    Attributes:
        folder: Folder in DATA, in the layout of the Cell Tracking Challenge.
        training: Frames for training.
        scored: Held-out frames.
        save: Outputs of `keras-unet predict`.
        metrics: Metrics of `keras-unet evaluate`.
    """

    folder: str
    training: Frames
    scored: Frames
    save: str = "instances,probabilities"
    metrics: str = "pixels,ctc,matching"

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Copies the frames of both parts, and returns the names of the images."""
        source = DATA / self.folder
        names: tuple[list[str], list[str]] = ([], [])
        for number, image, label in self.training.files(source):
            sequence = self.training.sequence
            shutil.copy(image, make_folder(training / sequence))
            truth = make_folder(training / f"{sequence}_GT" / "SEG")
            shutil.copy(label, truth / f"man_seg{number:03}.tif")
            names[0].append(f"{sequence}_{image.stem}")
        for _, image, label in self.scored.files(source):
            shutil.copy(image, make_folder(held_out / "images"))
            shutil.copy(label, make_folder(held_out / "labels") / image.name)
            names[1].append(f"{self.scored.sequence}_{image.stem}")
        return names


TASKS: dict[str, Task | FilmTask] = {
    "isbi2012": Task("isbi2012", 5, "classes,probabilities", "pixels,isbi2012"),
    "usiigaci": Task("usiigaci", 2),
    "dsb2018": Task("dsb2018", 20),
    "nuclei": Task("nuclei", 40, mixed=True),
    "phase": Task("phase", 4, mixed=True),
    "axons": Task("axons", 2, "classes,probabilities", "pixels"),
    "hela": FilmTask(
        "tracking/Fluo-N2DL-HeLa",
        Frames("01", "01_ST/SEG", range(20)),
        Frames("01", "01_GT/SEG", range(20, 30)),
        metrics="pixels,ctc",  # the gold truth does not annotate every cell
    ),
    "psc": FilmTask("films/PhC-C2DL-PSC", Frames("01", "01_GT/SEG"), Frames("02", "02_GT/SEG")),
}


Planes = list[NDArray[Any]]
"""Images or labels, `(height, width, channels)` each."""

PERCENTILES = 1, 99.8
"""Percentiles of an image that `scale_by_percentiles` maps to 0 and 1."""


def scale_by_percentiles(images: Planes, labels: Planes) -> tuple[Planes, Planes]:
    """Scales the grey values of each image, so that its percentiles become 0 and 1."""
    scaled = []
    for image in images:
        low, high = np.percentile(image, PERCENTILES, axis=(0, 1))
        scaled.append(((image - low) / (high - low)).astype(np.float32))
    return scaled, labels


def add_neighbors(images: Planes, labels: Planes) -> tuple[Planes, Planes]:
    """Adds the slices before and after as channels; the first and last slice are repeated."""
    last = len(images) - 1
    stacked = [
        np.concatenate([images[max(n - 1, 0)], image, images[min(n + 1, last)]], axis=-1)
        for n, image in enumerate(images)
    ]
    return stacked, labels


def crop(images: Planes, labels: Planes) -> tuple[Planes, Planes]:
    """Crops the first quarter of each image."""
    quarters = [
        [plane[: plane.shape[0] // 2, : plane.shape[1] // 2] for plane in planes]
        for planes in (images, labels)
    ]
    return quarters[0], quarters[1]


def enlarge(images: Planes, labels: Planes) -> tuple[Planes, Planes]:
    """Enlarges the first quarter of each image to the size of the image."""
    return _scaled(*crop(images, labels), 2)


def halve(images: Planes, labels: Planes) -> tuple[Planes, Planes]:
    """Reduces each image to half the height and width."""
    return _scaled(images, labels, 0.5)


def _scaled(images: Planes, labels: Planes, factor: float) -> tuple[Planes, Planes]:
    grey = [_resized(image, factor, order=1) for image in images]
    return grey, [_resized(label, factor, order=0) for label in labels]


def _resized(plane: NDArray[Any], factor: float, order: int) -> NDArray[Any]:
    size = tuple(round(factor * length) for length in plane.shape[:2])
    resized = resize(
        plane, size, order=order, preserve_range=True, anti_aliasing=order > 0 and factor < 1
    )
    return np.asarray(resized.round(), plane.dtype)


PREPARATIONS: Mapping[str, Callable[[Planes, Planes], tuple[Planes, Planes]]] = {
    "percentiles": scale_by_percentiles,
    "neighbors": add_neighbors,
    "quarter": crop,
    "enlarged": enlarge,
    "halved": halve,
}


@dataclass(frozen=True)
class OfTask:
    """Images of a task, to be changed or selected.

    Attributes:
        task: The task.
    """

    task: Task

    @property
    def save(self) -> str:
        """Outputs of `keras-unet predict`."""
        return self.task.save

    @property
    def metrics(self) -> str:
        """Metrics of `keras-unet evaluate`."""
        return self.task.metrics


@dataclass(frozen=True)
class Prepared(OfTask):
    """A task whose images are changed before training and prediction.

    Attributes:
        preparation: Name in `PREPARATIONS`.
    """

    preparation: str

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Writes the changed images and labels, and returns the names of the images."""
        names = self.task.copy(training, held_out)
        for part in (training, held_out):
            paths = [sorted((part / folder).iterdir()) for folder in ("images", "labels")]
            planes = [[read_planes(path)[0] for path in of_folder] for of_folder in paths]
            changed = PREPARATIONS[self.preparation](planes[0], planes[1])
            for of_folder, arrays in zip(paths, changed, strict=True):
                for path, array in zip(of_folder, arrays, strict=True):
                    path.unlink()
                    write_tiff(path.with_suffix(".tif"), np.moveaxis(array, -1, 0), axes="CYX")
        return names


def image_set(name: str) -> ImageSet:
    """Returns the task NAME, or NAME+PREPARATION, such as "isbi2012+neighbors"."""
    task, _, preparation = name.partition("+")
    return Prepared(TASKS[task], preparation) if preparation else TASKS[task]


@dataclass(frozen=True)
class Experiment:
    """Training, prediction and scoring of a task.

    Attributes:
        task: The images, see `Task`.
        work: Working folder; emptied first.
        train: Options of `keras-unet train`.
        predict: Options of `keras-unet predict`, one tuple for each prediction.
        program: Module to run, `keras_unet` or a variation of it.
    """

    task: ImageSet
    work: Path
    train: tuple[str, ...]
    predict: tuple[tuple[str, ...], ...] = ((), ("--tta",))
    program: str = "keras_unet"

    def result(self) -> dict[str, Any]:
        """Runs all commands; returns commands, origin and scores."""
        shutil.rmtree(self.work, ignore_errors=True)
        training, held_out = self.task.copy(self.work / "train", self.work / "held_out")
        commands = [["train", "train", "--run", "run", *self.train]]
        for options in self.predict:
            out = _name("predictions", options)
            save = ["--out", out, "--save", self.task.save, *options]
            score = ["--metrics", self.task.metrics, "--json", f"{_name('scores', options)}.json"]
            commands.append(["predict", "run", "held_out/images", *save])
            commands.append(["evaluate", out, "held_out/labels", *score])
        for command in commands:
            self.run(command)
        records = [
            json.loads(path.read_text()) for path in sorted(self.work.glob("run/**/run.json"))
        ]
        return {
            "commands": [" ".join(["keras-unet", *command]) for command in commands],
            **origin(),
            "training_images": training,
            "held_out_images": held_out,
            "trainings": [one["record"]["outcome"] for one in records],  # one a fold
            **{_name("scores", one): self._scores(one) for one in self.predict},
        }

    def picture(self) -> NDArray[np.uint8]:
        """Plots the first held-out images: image, truth, prediction and difference, one a row."""
        held_out = self.work / "held_out"
        rows = []
        for path in sorted((held_out / "images").iterdir())[:SHOWN]:
            truth = read_planes(_of_stem(held_out / "labels", path.stem))[0, ..., 0]
            found = read_planes(self.work / "predictions" / f"{path.stem}.tif")[0, ..., 0]
            pictures = [label_picture(labels.astype(int)) for labels in (truth, found)]
            pictures.append(difference_picture(truth > 0, found > 0))
            rows.append([grey_picture(read_planes(path)[0]), *pictures])
        return montage(rows, ["held-out image", "truth", "prediction", "difference"])

    def run(self, arguments: Sequence[str]) -> None:
        """Runs a command in the folder of the experiment."""
        command = [sys.executable, "-m", self.program, *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(  # noqa: S603 - of the commands above
            command, cwd=self.work, env=environment, check=True
        )

    def _scores(self, options: Sequence[str]) -> Any:
        return json.loads((self.work / f"{_name('scores', options)}.json").read_text())


def _name(base: str, options: Sequence[str]) -> str:
    return "_".join([base, *(option.strip("-") for option in options)])


def _of_stem(folder: Path, stem: str) -> Path:
    return next(folder.glob(f"{stem}.*"))
