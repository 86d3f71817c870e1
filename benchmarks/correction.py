"""Rounds of corrections, and all labels at once: `python -m benchmarks.correction --model MODEL`.

The correction loop of the napari plugin, with the true labels in place of a person. In each round
the field of Usiigaci on which the eight symmetries of the model disagree most is added, and
training goes on from the model of the round before, on all fields added so far. For comparison, the
model is trained on all four fields at once, for as many minutes as all rounds together. Held-out
fields are scored after each round. A row is written to `benchmarks/results/correction.json`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.experiment import TASKS, Experiment
from benchmarks.recipes import numbers
from benchmarks.record import RESULTS, origin
from keras_unet.data.images import read_planes
from keras_unet.files import make_folder, write_json
from keras_unet.napari_plugin.tasks import CORRECTION_OPTIONS
from keras_unet.prediction.load import load

FILE = RESULTS / "correction.json"
TASK = "usiigaci"
SCORES = "ap_50", "seg"


@click.command()
@click.option("--model", default="nuclei", show_default=True, help="Name or run to start from.")
@click.option("--minutes", type=float, default=5, show_default=True, help="Length of a round.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(model: str, minutes: float, rounds: int, seed: int, work: Path) -> None:
    """Train in rounds and at once, and print the table."""
    work = work / "correction"
    shutil.rmtree(work, ignore_errors=True)
    names, _ = TASKS[TASK].copy(work / "all", work / "held_out")
    experiment = Experiment(TASKS[TASK], work, ())
    scores = {"before": _score(experiment, model, "before")}
    current, added = model, list[str]()
    for number in range(1, rounds + 1):
        added.append(_proposed(current, work, [name for name in names if name not in added]))
        _copy(work / "all", work / f"data-{number}", added)
        _train(experiment, f"data-{number}", f"round-{number}", current, minutes, seed)
        current = f"{(work / f'round-{number}').absolute()}"
        scores[f"round {number}: {', '.join(added)}"] = _score(experiment, current, f"{number}")
    _train(experiment, "all", "at-once", model, rounds * minutes, seed)
    scores["all at once"] = _score(experiment, "at-once", "at-once")
    command = f"python -m benchmarks.correction --model {model} --minutes {minutes:g}"
    row = {"command": command, "rounds": rounds, "seed": seed, **origin(), "scores": scores}
    rows = json.loads(FILE.read_text())["rows"] if FILE.exists() else []
    rows.append(row)
    write_json(make_folder(RESULTS) / FILE.name, {"rows": rows, "table": table(rows)})
    click.echo("\n".join(table(rows)))


def _proposed(model: str, work: Path, left: Sequence[str]) -> str:
    """Returns the image on which the symmetries of a model disagree most."""
    segmenter = load(model)
    images = {path.stem: path for path in (work / "all" / "images").iterdir()}
    return max(left, key=lambda name: segmenter.disagreement(read_planes(images[name])[0]))


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for path in source.rglob("*.*"):
        if path.stem in names:
            shutil.copy(path, make_folder(target / path.parent.name))


def _train(
    experiment: Experiment, data: str, run: str, model: str, minutes: float, seed: int
) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in CORRECTION_OPTIONS.items()]
    length = ["--max-minutes", f"{minutes:g}", "--seed", f"{seed}"]
    experiment.run(["train", data, "--run", run, "--from", model, *length, *options])


def _score(experiment: Experiment, model: str, name: str) -> dict[str, float]:
    """Predicts and scores the held-out images."""
    out, file = f"predictions-{name}", f"scores-{name}.json"
    experiment.run(["predict", model, "held_out/images", "--out", out, "--save", "instances"])
    score = ["--metrics", "pixels,ctc,matching", "--json", file]
    experiment.run(["evaluate", out, "held_out/labels", *score])
    return numbers(json.loads((experiment.work / file).read_text())["overall"])


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a Markdown table: a row for each state of the model."""
    lines = ["| command | seed | model | " + " | ".join(SCORES) + " |"]
    lines.append("|" + " --- |" * (3 + len(SCORES)))
    for row in rows:
        for state, scores in row["scores"].items():
            values = " | ".join(f"{scores[name]:.4f}" for name in SCORES)
            lines.append(f"| `{row['command']}` | {row['seed']} | {state} | {values} |")
    return lines


if __name__ == "__main__":
    main()
