"""Ablation study: `python -m benchmarks.ablation NAME --steps N` or `--minutes M`.

Each row changes one element of the recipe. Images, seeds and the length stay the same; steps,
unlike minutes, do not depend on other programs. Scores are those of the held-out images. Each row
is written to `benchmarks/results/ablation-NAME.json` as soon as it is done; rows that are there
from the same command are not computed again.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.experiment import TASKS, Experiment
from benchmarks.recipes import spread
from benchmarks.record import RESULTS
from keras_unet.files import make_folder, write_json

EVERYTHING, AVERAGING_OFF = "everything", "test-time averaging off"
ROWS = {  # options of keras-unet train, and the program
    EVERYTHING: ((), "keras_unet"),
    "border weights off": (("--border-weight", "0"), "keras_unet"),
    "deformation off": (("--amplitude", "0"), "keras_unet"),
    "zeros for mirroring": ((), "benchmarks.without_mirroring"),
    "SGD, momentum 0.99": (("--optimizer", "sgd"), "keras_unet"),
    "SGD, momentum 0.9": (("--optimizer", "sgd", "--momentum", "0.9"), "keras_unet"),
    "kernels not normalized": (("--no-normalize-kernels",), "keras_unet"),
    "classes balanced": (("--class-balance",), "keras_unet"),
    "affinities on": (("--affinities",), "keras_unet"),  # the default for tissue
    "affinities off": (("--no-affinities",), "keras_unet"),
    'padding "same"': (("--padding", "same"), "keras_unet"),
}


@click.command()
@click.argument("name", type=click.Choice(sorted(TASKS)))
@click.option("--steps", type=int, help="Training steps of each row.")
@click.option("--minutes", type=float, help="Training minutes of each row.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--options", default="", help="Options of `keras-unet train` for all rows.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(
    name: str, steps: int | None, minutes: float | None, seeds: str, options: str, work: Path
) -> None:
    """Runs all rows with all seeds, and prints the table."""
    if (steps is None) == (minutes is None):
        raise click.UsageError("expected either --steps or --minutes")
    length = ("--steps", str(steps)) if minutes is None else ("--max-minutes", f"{minutes:g}")
    given = f"--steps {steps}" if minutes is None else f"--minutes {minutes:g}"
    common = f" --options {shlex.quote(options)}" if options else ""
    path = make_folder(RESULTS) / f"ablation-{name}.json"
    benchmark = f"python -m benchmarks.ablation {name} {given} --seeds {seeds}{common}"
    done = json.loads(path.read_text()) if path.exists() else {}
    runs = done["runs"] if done.get("benchmark") == benchmark else {}
    numbers = seeds.split(",")
    for seed in numbers:
        for row, (of_row, program) in ROWS.items():
            title = f"{row}, seed {seed}"
            if title not in runs:
                train = ("--seed", seed, *length, *shlex.split(options), *of_row)
                folder = work / f"ablation-{name}"
                runs[title] = Experiment(TASKS[name], folder, train, program=program).result()
                table = _table(runs, numbers)
                write_json(path, {"benchmark": benchmark, "table": table, "runs": runs})
    click.echo(json.dumps(_table(runs, numbers), indent=2))


def _table(runs: dict[str, Any], seeds: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns mean and standard deviation over the seeds, for each complete row."""
    table = {}
    for row in (*ROWS, AVERAGING_OFF):
        kind = "scores" if row == AVERAGING_OFF else "scores_tta"
        titles = [f"{EVERYTHING if row == AVERAGING_OFF else row}, seed {seed}" for seed in seeds]
        if all(title in runs for title in titles):
            table[row] = _spread([runs[title][kind]["overall"] for title in titles])
    return table


def _spread(scores: list[dict[str, Any]]) -> dict[str, str]:
    names = [
        name
        for name, value in scores[0].items()
        if isinstance(value, float) and not name.endswith("_threshold")
    ]
    columns = {name: [one[name] for one in scores] for name in names}
    if "matching" in scores[0]:
        columns["ap_50"] = [one["matching"][0]["ap"] for one in scores]
    return {name: spread(values) for name, values in columns.items()}


if __name__ == "__main__":
    main()
