"""Train on real images, predict held-out ones, score them: `python -m benchmarks.accuracy NAME`.

The data (ISBI 2012, Usiigaci, DSB 2018) lies in `../shared/data`, or in the folder that
KERAS_UNET_DATA names. Training sees a folder that holds the training images alone; the three
commands are those a user types, each in its own process. Scores go to
`benchmarks/results/NAME.json` with the commands, commit, processor and date, and a montage of
held-out predictions beside them.
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

import click
import numpy as np
from PIL import Image

from benchmarks.record import RESULTS, ROOT, origin
from keras_unet.data.images import read_planes
from keras_unet.data.labels import detect_scheme
from keras_unet.files import make_folder, write_json
from keras_unet.report import difference_picture, grey_picture, label_picture, montage, write_png

DATA = Path(os.environ.get("KERAS_UNET_DATA", ROOT.parent / "shared" / "data"))
SHOWN, WIDTH = 5, 1200  # held-out images in the picture, and its width in pixels


@dataclass(frozen=True)
class Task:
    """A data set and how many of its images, the last ones by name, are held out.

    Attributes:
        folder: Folder in DATA.
        held_out: Images that training never sees.
        metrics: What `keras-unet evaluate` scores.
        options: Options of `keras-unet train` besides length and seed.
    """

    folder: str
    held_out: int
    metrics: str = "pixels,ctc,matching"
    options: tuple[str, ...] = ()


TASKS = {
    "isbi2012": Task("isbi2012", 5, metrics="pixels,isbi2012"),
    "usiigaci": Task("usiigaci", 2),
    "dsb2018": Task("dsb2018", 20),
}


@click.command()
@click.argument("name", type=click.Choice(sorted(TASKS)))
@click.option("--minutes", type=float, help="Length of the training in minutes.")
@click.option("--steps", type=int, help="Length of the training in steps.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--tag", default="", help="Added to the names of the results.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
@click.option("--picture/--no-picture", default=True, show_default=True)
@click.option("--option", "options", multiple=True, help="Passed on to keras-unet train.")
def main(
    name: str,
    minutes: float | None,
    steps: int | None,
    seed: int,
    tag: str,
    work: Path,
    picture: bool,
    options: tuple[str, ...],
) -> None:
    """Runs one data set and writes its results."""
    task = TASKS[name]
    title = name + tag
    work = work / title
    shutil.rmtree(work, ignore_errors=True)
    training, held_out = _split(task, work)
    length = ["--steps", str(steps)] if steps else ["--max-minutes", str(minutes or 30)]
    scored = ["--metrics", task.metrics]
    commands = [
        ["train", "train", "--run", "run", "--seed", str(seed), *length, *task.options, *options],
        ["predict", "run", "held_out/images", "--out", "predictions", "--save", _outputs(task)],
        ["evaluate", "predictions", "held_out/labels", "--json", "scores.json", *scored],
    ]
    for command in commands:
        _keras_unet(command, work)
    result = {
        "benchmark": f"python -m benchmarks.accuracy {' '.join(sys.argv[1:])}",
        "commands": [" ".join(["keras-unet", *command]) for command in commands],
        **origin(),
        "seed": seed,
        "training_images": training,
        "held_out_images": held_out,
        "training": json.loads((work / "run" / "run.json").read_text())["record"]["outcome"],
        "scores": json.loads((work / "scores.json").read_text()),
    }
    write_json(make_folder(RESULTS) / f"{title}.json", result)
    if picture:
        drawn = Image.fromarray(_picture(work, held_out[:SHOWN]))
        drawn.thumbnail((WIDTH, 2 * WIDTH))
        write_png(RESULTS / f"{title}.png", np.asarray(drawn))
    click.echo(json.dumps(result["scores"]["overall"], indent=2))


def _split(task: Task, work: Path) -> tuple[list[str], list[str]]:
    """Copies the training images and the held-out ones into two folders."""
    images = sorted((DATA / task.folder / "images").iterdir())
    parts = images[: -task.held_out], images[-task.held_out :]
    for part, folder in zip(parts, ("train", "held_out"), strict=True):
        for image in part:
            label = next((DATA / task.folder / "labels").glob(f"{image.stem}.*"))
            shutil.copy(image, make_folder(work / folder / "images"))
            shutil.copy(label, make_folder(work / folder / "labels"))
    return [path.stem for path in parts[0]], [path.stem for path in parts[1]]


def _outputs(task: Task) -> str:
    paths = sorted((DATA / task.folder / "labels").iterdir())
    scheme = detect_scheme([(path.name, read_planes(path)[0, ..., 0]) for path in paths])
    return f"{scheme.kind},probabilities"


def _keras_unet(arguments: Sequence[str], folder: Path) -> None:
    command = [sys.executable, "-m", "keras_unet", *arguments]
    subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - of the table above


def _picture(work: Path, names: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rows = []
    for name in names:
        image = read_planes(next((work / "held_out" / "images").glob(f"{name}.*")))[0]
        truth = read_planes(next((work / "held_out" / "labels").glob(f"{name}.*")))[0, ..., 0]
        found = read_planes(work / "predictions" / f"{name}.tif")[0, ..., 0]
        pictures = [label_picture(truth.astype(int)), label_picture(found.astype(int))]
        rows.append([grey_picture(image), *pictures, difference_picture(truth > 0, found > 0)])
    return montage(rows, ["held-out image", "truth", "prediction", "difference"])


if __name__ == "__main__":
    main()
