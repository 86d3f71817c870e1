"""One experiment on real images: train, predict held-out images, score, each in its own process.

The data (ISBI 2012, Usiigaci, DSB 2018) lies in `../shared/data`, or in the folder that
KERAS_UNET_DATA names. Training sees a folder that holds the training images alone, and the commands
are those that a user types.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import ROOT, origin
from keras_unet.data.images import read_planes
from keras_unet.files import make_folder
from keras_unet.report.pictures import difference_picture, grey_picture, label_picture, montage

DATA = Path(os.environ.get("KERAS_UNET_DATA", ROOT.parent / "shared" / "data"))
SHOWN = 5  # held-out images in a figure


@dataclass(frozen=True)
class Task:
    """A data set and its split into training and held-out images, by name.

    Attributes:
        folder: Folder in DATA.
        held_out: Number of held-out images, the last ones.
        save: Outputs of `keras-unet predict`.
        metrics: Metrics of `keras-unet evaluate`.
        unused: Number of images after the held-out ones that are not used at all.
    """

    folder: str
    held_out: int
    save: str = "instances,probabilities"
    metrics: str = "pixels,ctc,matching"
    unused: int = 0


TASKS = {
    "isbi2012": Task("isbi2012", 5, "classes,probabilities", "pixels,isbi2012"),
    "usiigaci": Task("usiigaci", 2),
    "dsb2018": Task("dsb2018", 20),
}


@dataclass(frozen=True)
class Experiment:
    """Training, prediction and scoring of a task.

    Attributes:
        task: The data set.
        work: Working folder; emptied first.
        train: Options of `keras-unet train`.
        predict: Options of `keras-unet predict`, one tuple for each prediction.
        program: Module to run, `keras_unet` or a variation of it.
    """

    task: Task
    work: Path
    train: tuple[str, ...]
    predict: tuple[tuple[str, ...], ...] = ((), ("--tta",))
    program: str = "keras_unet"

    def result(self) -> dict[str, Any]:
        """Runs all commands; returns commands, origin and scores."""
        shutil.rmtree(self.work, ignore_errors=True)
        training, held_out = self._split()
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

    def _split(self) -> tuple[list[str], list[str]]:
        """Copies the training and the held-out images into two folders."""
        source = DATA / self.task.folder
        images = sorted((source / "images").iterdir())
        images = images[: len(images) - self.task.unused]
        parts = images[: -self.task.held_out], images[-self.task.held_out :]
        for part, folder in zip(parts, ("train", "held_out"), strict=True):
            for image in part:
                label = _of_stem(source / "labels", image.stem)
                shutil.copy(image, make_folder(self.work / folder / "images"))
                shutil.copy(label, make_folder(self.work / folder / "labels"))
        return [path.stem for path in parts[0]], [path.stem for path in parts[1]]

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
