"""Training of a model of the package: `python -m benchmarks.pretrain NAME`.

The images are those of `../shared/data` whose license allows to pass on a model; the held-out ones
are those of `benchmarks.experiment.TASKS`. The trained network is written to
`keras_unet/models/NAME`: its weights rounded to bfloat16 and compressed, its record, and a card
with its images, scores on the held-out ones, and pictures of three of them. `--card` scores the
model that is there, and writes its card alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, product, zip_longest
from pathlib import Path
from textwrap import fill
from typing import Any

import click
import ml_dtypes
import numpy as np

from benchmarks.experiment import TASKS
from benchmarks.recipes import numbers
from benchmarks.record import ROOT, origin
from keras_unet.console import counted
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.files import atomic, make_folder
from keras_unet.prediction.networks import load_network
from keras_unet.report.pictures import grey_picture, label_picture, montage, write_png
from keras_unet.runs import ARRAYS, BEST, Run
from keras_unet.shipped import FOLDER

GREY_VALUES = ("--contrast", "0.3", "--brightness", "0.3", "--gamma", "0.3", "--noise", "0.2")
KEPT = ("options", "data", "outcome", "versions", "started")  # entries of a record
SHOWN = 3  # held-out images in the card
SIDE = 320  # height and width in pixels of the part of an image in a picture
SCORES: Mapping[str, str] = {
    "seg": "SEG",
    "ap_50": "AP at an IoU of 0.5",
    "ap_mean": "mean AP, 0.5 to 0.95",
    "mean_iou": "mean IoU of the classes",
}


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Images and options of a model, and the text of its card.

    Attributes:
        description: What the model segments, in a line.
        license: License of the model, that of its images.
        images: Sentences on the images, with citation.
        fails: Sentences on images that the model fails on.
        tasks: Data sets, see `benchmarks.experiment.TASKS`.
        scored: Held-out images that are scored together: data set and pattern of the names.
        options: Options of `keras-unet train`.
    """

    description: str
    license: str
    images: str
    fails: str
    tasks: Sequence[str]
    scored: Mapping[str, tuple[str, str]]
    options: Sequence[str]


MODELS: Mapping[str, Pretraining] = {
    "nuclei": Pretraining(
        description="nuclei in fluorescence, as instances",
        license="CC0-1.0",
        images="BBBC039v1 (U2OS cells, Caicedo et al. 2019, Cytometry A 95:473-485) and grey "
        "images of BBBC038v1 (Data Science Bowl 2018, Caicedo et al. 2019, Nature Methods "
        "16:1247), both CC0.",
        fails="touching nuclei of some 10 pixels, which stay joined (first row of the picture); "
        "bright debris, and nuclei out of focus, which are found or not (second row); clumps whose "
        "borders do not show (third row). Images of other kinds were not in the training.",
        tasks=("dsb2018", "nuclei"),
        scored={
            "DSB 2018": ("dsb2018", "*"),
            "DSB 2018, others": ("nuclei", "dsb_*"),
            "BBBC039": ("nuclei", "bbbc039_*"),
        },
        options=("--steps", "6000", "--groups", "none", "--validation", "0.1", "--allow-empty"),
    ),
    "phase": Pretraining(
        description="cells in phase contrast, as instances",
        license="MIT",
        images="Usiigaci (T98G and NIH-3T3 cells, Tsai et al. 2019, SoftwareX 9:230-237), MIT.",
        fails="touching cells whose border does not show, which are joined (first and second row "
        "of the picture); bright, rounded cells in division, which are missed or broken (first and "
        "third row); thin protrusions. Images of other kinds were not in the training.",
        tasks=("usiigaci", "phase"),
        scored={"Usiigaci": ("usiigaci", "*"), "Usiigaci, others": ("phase", "*")},
        options=("--steps", "10000", "--groups", "none", "--validation", "0.1"),
    ),
    "axons": Pretraining(
        description="axons in scanning electron microscopy: background, myelin, axon",
        license="MIT",
        images="AxonDeepSeg, SEM data (Zaimi et al. 2018, Scientific Reports 8:3816), MIT.",
        fails="small axons with thin myelin, which are missed in part; axons that are as bright as "
        "their myelin, which have holes (first row of the picture). The training had five images.",
        tasks=("axons",),
        scored={"AxonDeepSeg": ("axons", "*")},
        options=(
            *("--steps", "5000", "--no-normalize-kernels"),
            *("--groups", "none", "--validation", "0.2"),
        ),
    ),
}


@click.command()
@click.argument("name", type=click.Choice(list(MODELS)))
@click.option("--card", is_flag=True, help="Write the card of the model that is there.")
@click.option("--steps", type=int, help="Training steps, in place of those of the model.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, help="Folder of models.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(name: str, card: bool, steps: int | None, seed: int, out: Path, work: Path) -> None:
    """Train a model, and write it and its card."""
    model, folder, work = MODELS[name], out / name, work.absolute() / f"pretrain-{name}"
    shutil.rmtree(work, ignore_errors=True)
    _write_images(model, work)
    if not card:
        length = () if steps is None else ("--steps", f"{steps}")
        options = (*model.options, *GREY_VALUES, *length, "--seed", f"{seed}")
        _run(work, "train", "train", "--run", "run", *options)
        ship(Run.load(work / "run"), folder, model)
    scores = {part: _score(part, model, folder, work) for part in model.scored}
    write_png(folder / "card.png", _picture(model, work))
    (folder / "card.md").write_text(_card(name, model, folder, work, scores), encoding="utf-8")


def _write_images(model: Pretraining, work: Path) -> None:
    """Writes the images for training, and the held-out images by part, as grey TIFF files."""
    for name in model.tasks:
        folders = work / f"{name}-training", work / f"{name}-held-out"
        TASKS[name].copy(*folders)
        parts = [part for part, (task, _) in model.scored.items() if task == name]
        for path in sorted(folders[0].rglob("*.*")):
            _write_plane(path, work / "train", f"{name}_{path.stem}")
        for part, path in product(parts, sorted(folders[1].rglob("*.*"))):
            if path.match(model.scored[part][1]):
                _write_plane(path, work / part, path.stem)


def _write_plane(path: Path, folder: Path, name: str) -> None:
    plane = read_planes(path)[0, ..., 0]
    is_image = path.parent.name == "images"
    pixels = plane.astype(np.uint16) if is_image else plane
    write_tiff(make_folder(folder / path.parent.name) / f"{name}.tif", pixels, axes="YX")


def ship(run: Run, folder: Path, model: Pretraining) -> None:
    """Writes the weights and the record of a run as a model of the package."""
    network = load_network(run, "float32")
    rounded = [
        weights.astype(ml_dtypes.bfloat16).astype(np.float32) for weights in network.get_weights()
    ]
    network.set_weights(rounded)
    make_folder(folder)
    plain = folder / f"plain-{BEST}"
    network.save(plain)
    with (
        atomic(folder / BEST) as temporary,
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
    ):
        for name in source.namelist():
            target.writestr(zipfile.ZipInfo(name), source.read(name), zipfile.ZIP_DEFLATED)
    plain.unlink()
    checksum = hashlib.sha256((folder / BEST).read_bytes()).hexdigest()
    record = {name: run.record[name] for name in KEPT}
    data = record["data"] | {"folder": ARRAYS, "digests": {}}
    about = {"description": model.description, "license": model.license, "sha256": checksum}
    about |= origin()
    replace(run, folder=folder, record={**record, "data": data, **about}).save()


def _score(part: str, model: Pretraining, folder: Path, work: Path) -> dict[str, float]:
    """Predicts and scores held-out images by the model of the package."""
    task, out = TASKS[model.scored[part][0]], work / part / "predictions"
    shutil.rmtree(out, ignore_errors=True)
    images, labels, scores = (work / part / name for name in ("images", "labels", "scores.json"))
    save = ["--out", f"{out}", "--save", task.save]
    _run(work, "predict", f"{folder.absolute()}", f"{images}", *save)
    metrics = ["--metrics", task.metrics, "--json", f"{scores}", "--overwrite"]
    _run(work, "evaluate", f"{out}", f"{labels}", *metrics)
    return numbers(json.loads(scores.read_text())["overall"])


def _picture(model: Pretraining, work: Path) -> Any:
    """Draws the middle of three held-out images, with their labels and their prediction."""
    images = [sorted((work / part / "images").iterdir()) for part in model.scored]
    chosen = list(islice(filter(None, chain(*zip_longest(*images))), SHOWN))
    rows = []
    for path in chosen:
        part = path.parents[1]
        files = path, part / "labels" / path.name, part / "predictions" / path.name
        image, truth, found = (_middle(read_planes(file)[0, ..., 0]) for file in files)
        pictures = [label_picture(labels.astype(int)) for labels in (truth, found)]
        rows.append([grey_picture(image), *pictures])
    return montage(rows, ["held-out image", "labels", "prediction"])


def _middle(plane: Any) -> Any:
    starts = [max(0, (length - SIDE) // 2) for length in plane.shape]
    return plane[starts[0] : starts[0] + SIDE, starts[1] : starts[1] + SIDE]


def _card(
    name: str,
    model: Pretraining,
    folder: Path,
    work: Path,
    scores: Mapping[str, Mapping[str, float]],
) -> str:
    run = Run.load(folder)
    record = run.record
    number = len(record["data"]["training"]) + len(record["data"]["validation"])
    low, _, high = run.diameters or (0, 0, 0)
    diameters = (
        f"**Objects in training**: {low:.0f} to {high:.0f} pixels wide (10th and 90th "
        "percentile). `--scale auto` resamples images of objects of another size."
        if run.diameters
        else "**Pixels in training**: as in the files, which state no size."
    )
    rows = [
        f"| {part} | {len(list((work / part / 'images').iterdir()))} | {SCORES[score]} | "
        f"{values[score]:.3f} |"
        for part, values in scores.items()
        for score in SCORES
        if score in values
    ]
    outcome, seed = record["outcome"], record["options"]["seed"]
    is_whole = str(outcome["steps"]) in model.options
    length = "" if is_whole else f" --steps {outcome['steps']}"
    training = (
        f"**Training**: `python -m benchmarks.pretrain {name}{length}`, {outcome['steps']:,} steps "
        "in "
        f"{outcome['seconds'] / 60:.0f} minutes, seed {seed}, commit {record['commit']}, on "
        f"{counted(record['cores'], 'core')} of {record['processor']}."
    )
    images = f"**Images**: {number}, from {model.images}"
    items = (images, diameters, training, f"**Fails on**: {model.fails}")
    listed = "\n".join(
        fill(item, 118, initial_indent="- ", subsequent_indent="  ") for item in items
    )
    return f"""# {name}

{model.description[:1].upper()}{model.description[1:]}. License: {model.license}.

{listed}

Scores on held-out images, none of which was trained on:

| data | images | score | value |
| --- | --- | --- | --- |
{chr(10).join(rows)}

![Held-out images with labels and prediction](card.png)
"""


def _run(work: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "keras_unet", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=work, env=environment, check=True)  # noqa: S603 - of this file


if __name__ == "__main__":
    main()
