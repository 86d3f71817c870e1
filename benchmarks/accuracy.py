"""Accuracy on held-out images of a public data set: `python -m benchmarks.accuracy NAME`.

Trains, predicts and scores, without and with test-time augmentation (`scores_tta`). Scores go to
`benchmarks/results/NAME.json` with the commands, commit, processor and date; a montage of
predictions is written beside them.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.experiment import TASKS, Experiment
from benchmarks.record import RESULTS
from keras_unet.files import make_folder, write_json
from keras_unet.report.pictures import write_png

WIDTH = 1200  # of the picture, in pixels


@click.command()
@click.argument("name", type=click.Choice(sorted(TASKS)))
@click.option("--minutes", type=float, default=60, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--tag", default="", help="Added to the names of the results.")
@click.option("--picture/--no-picture", default=True, show_default=True)
@click.option("--option", "options", multiple=True, help="Passed on to keras-unet train.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(
    name: str,
    minutes: float,
    seed: int,
    tag: str,
    picture: bool,
    options: tuple[str, ...],
    work: Path,
) -> None:
    """Trains and scores on one data set, and writes the results."""
    title = name + tag
    given = ["--minutes", f"{minutes:g}", "--seed", str(seed), *([f"--tag={tag}"] if tag else [])]
    given += [] if picture else ["--no-picture"]
    given += [f"--option={option}" for option in options]
    train = ("--seed", str(seed), "--max-minutes", f"{minutes:g}", *options)
    experiment = Experiment(TASKS[name], work / title, train)
    result = {
        "benchmark": " ".join(["python -m benchmarks.accuracy", name, *given]),
        "seed": seed,
        **experiment.result(),
    }
    write_json(make_folder(RESULTS) / f"{title}.json", result)
    if picture:
        drawn = Image.fromarray(experiment.picture())
        drawn.thumbnail((WIDTH, 2 * WIDTH))
        write_png(RESULTS / f"{title}.png", np.asarray(drawn))
    overall = {key: result[key]["overall"] for key in result if key.startswith("scores")}
    click.echo(json.dumps(overall, indent=2))


if __name__ == "__main__":
    main()
