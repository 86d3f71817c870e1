"""Training from a model and from scratch: `python -m benchmarks.finetuning [CASE ...] --minutes N`.

    case      model                    training images             scored
    few       nuclei without DSB 2018  5 of DSB 2018, by the seed  20 of DSB 2018
    many      the same                 80 of DSB 2018              the same
    cells     nuclei                   4 fields of Usiigaci        2 fields
    membranes phase                    15 slices of ISBI 2012      5 slices

Each case is trained from the model and, with the same images, options and length, from scratch. The
held-out images are also scored with the model as it is. A row is written to
`benchmarks/results/finetuning.json` as soon as it is done, with the score on the validation images
over the time; rows that exist are not repeated. `nuclei without DSB 2018` is trained first, on the
images of BBBC039 alone, if `--work` does not hold it.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.experiment import TASKS, Experiment, ImageSet, OfTask, Task
from benchmarks.recipes import numbers, spread
from benchmarks.record import RESULTS
from keras_unet.files import make_folder, write_json

FILE = RESULTS / "finetuning.json"
SCORES = {"membranes": ("v_rand", "pixel_error")}
CELL_SCORES = ("ap_50", "ap_mean", "seg")
WAYS = "model", "scratch"


@dataclass(frozen=True)
class Few(OfTask):
    """A task of which a part of the training images is used.

    Attributes:
        number: Number of training images.
        seed: Seed of their choice.
    """

    number: int
    seed: int

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Copies the chosen images, and returns the names of the images."""
        names, scored = self.task.copy(training, held_out)
        order = np.random.default_rng(self.seed).permutation(len(names))
        chosen = {names[number] for number in order[: self.number]}
        for path in sorted(training.rglob("*.*")):
            if path.stem not in chosen:
                path.unlink()
        return [name for name in names if name in chosen], scored


@dataclass(frozen=True)
class OneSource:
    """Images of a data set whose names begin with the name of a source; none is held out.

    Attributes:
        task: The task.
        source: Beginning of the names.
    """

    task: Task
    source: str
    save: str = "instances"
    metrics: str = "ctc,matching"

    def copy(self, training: Path, held_out: Path) -> tuple[list[str], list[str]]:
        """Copies the images, and returns the names of the images."""
        names = self.task.copy(training, held_out)
        for path in sorted(training.parent.rglob("*.png")):
            if not path.stem.startswith(self.source):
                path.unlink()
        parts = [[name for name in part if name.startswith(self.source)] for part in names]
        return parts[0], parts[1]


@dataclass(frozen=True)
class Case:
    """Model and images of a case.

    Attributes:
        model: Name of a model of the package, or `WITHOUT_DSB`.
        task: Name of the data set, in TASKS.
        images: Number of training images; None for all.
    """

    model: str
    task: str
    images: int | None = None

    def images_of(self, seed: int) -> ImageSet:
        """Returns the images of a seed."""
        task = TASKS[self.task]
        return task if self.images is None else Few(task, self.images, seed)  # type: ignore[arg-type]


WITHOUT_DSB = "nuclei-without-dsb"
CASES: Mapping[str, Case] = {
    "few": Case(WITHOUT_DSB, "dsb2018", images=5),
    "many": Case(WITHOUT_DSB, "dsb2018"),
    "cells": Case("nuclei", "usiigaci"),
    "membranes": Case("phase", "isbi2012"),
}


@click.command()
@click.argument("cases", nargs=-1, metavar="[CASE ...]", type=click.Choice(list(CASES)))
@click.option("--steps", type=int, help="Training steps of each.")
@click.option("--minutes", type=float, help="Training minutes of each.")
@click.option("--seeds", default="0", show_default=True)
@click.option("--ways", default=",".join(WAYS), show_default=True)
@click.option("--option", "options", multiple=True, help="Passed on to keras-unet train.")
@click.option("--model-steps", type=int, default=4000, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(
    cases: Sequence[str],
    steps: int | None,
    minutes: float | None,
    seeds: str,
    ways: str,
    options: tuple[str, ...],
    model_steps: int,
    work: Path,
) -> None:
    """Train and score each case with each seed, and print the table."""
    if (steps is None) == (minutes is None):
        raise click.UsageError("expected either --steps or --minutes")
    length = ("--steps", f"{steps}") if minutes is None else ("--max-minutes", f"{minutes:g}")
    rows = json.loads(FILE.read_text())["rows"] if FILE.exists() else []
    for seed, name, way in product(seeds.split(","), cases or CASES, ways.split(",")):
        key = {"case": name, "way": way, "seed": int(seed), "length": " ".join(length)}
        key |= {"options": " ".join(options)}
        if any(key.items() <= row.items() for row in rows):
            continue
        start = ("--from", _model(CASES[name].model, work, model_steps)) if way == "model" else ()
        rows.append(key | _row(CASES[name], int(seed), (*length, *options, *start), work))
        write_json(make_folder(RESULTS) / FILE.name, {"rows": rows, "table": table(rows)})
    click.echo("\n".join(table(rows)))


def _model(name: str, work: Path, steps: int) -> str:
    """Returns the name or the path of a model, after training if it is not there."""
    if name != WITHOUT_DSB:
        return name
    folder = (work / name).absolute()
    if not (folder / "run" / "report.html").exists():
        images = OneSource(TASKS["nuclei"], "bbbc039")  # type: ignore[arg-type]
        train = ("--steps", f"{steps}", "--groups", "none", "--allow-empty")
        Experiment(images, folder, train, ((),)).result()
    return str(folder / "run")


def _row(case: Case, seed: int, train: Sequence[str], work: Path) -> dict[str, Any]:
    folder = work / "finetuning"
    images = case.images_of(seed)
    result = Experiment(images, folder, ("--seed", f"{seed}", *train), ((),)).result()
    (training,) = result["trainings"]
    with (folder / "run" / "history.csv").open(newline="") as file:
        curve = [(float(row["seconds"]), row["score"]) for row in csv.DictReader(file)]
    row = {name: result[name] for name in ("date", "commit", "processor", "cores")}
    row |= {name: training[name] for name in ("steps", "seconds", "score", "start_score")}
    row |= {"weights": training["weights"], "curve": curve}
    row["scores"] = numbers(result["scores"]["overall"])
    if "--from" in train:
        row["scores_before"] = _scores_before(train[-1], images, folder)
    return row


def _scores_before(model: str, images: ImageSet, folder: Path) -> dict[str, float]:
    """Scores the held-out images with the model as it is."""
    experiment = Experiment(images, folder, ())
    shutil.rmtree(folder / "before", ignore_errors=True)
    experiment.run(["predict", model, "held_out/images", "--out", "before", "--save", images.save])
    out = ["--metrics", images.metrics, "--json", "before.json"]
    experiment.run(["evaluate", "before", "held_out/labels", *out])
    return numbers(json.loads((folder / "before.json").read_text())["overall"])


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a Markdown table: a row for each case, length, options and way."""
    lines = ["| case | length | options | from | seeds | before | after |", "|" + " --- |" * 7]
    names = ("case", "length", "options", "way")
    for key in sorted({tuple(row[name] for name in names) for row in rows}):
        group = [row for row in rows if tuple(row[name] for name in names) == key]
        scores = SCORES.get(key[0], CELL_SCORES)
        texts = [_spreads(group, kind, scores) for kind in ("scores_before", "scores")]
        lines.append("| " + " | ".join([*key, f"{len(group)}", *texts]) + " |")
    return lines


def _spreads(rows: Sequence[Mapping[str, Any]], kind: str, scores: Sequence[str]) -> str:
    values = [row[kind] for row in rows if kind in row]
    if not values:
        return ""
    return ", ".join(f"{name} {spread([one[name] for one in values])}" for name in scores)


if __name__ == "__main__":
    main()
