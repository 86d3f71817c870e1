"""Ablation study: `python -m benchmarks.ablation NAME --steps N`.

Each row removes one element of the paper. Images, seeds and the number of steps stay the same;
steps, unlike minutes, do not depend on other programs. Scores are those of the held-out images.
Each row is written to `benchmarks/results/ablation-NAME.json` as soon as it is done; rows that are
there from the same command are not computed again.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click

from benchmarks.experiment import TASKS, Experiment
from benchmarks.record import RESULTS
from keras_unet.files import make_folder, write_json

SEEDS = (0, 1, 2)
EVERYTHING, AVERAGING_OFF = "everything", "test-time averaging off"
ROWS = {  # options of keras-unet train, and the program
    EVERYTHING: ((), "keras_unet"),
    "border weights off": (("--border-weight", "0"), "keras_unet"),
    "deformation off": (("--amplitude", "0"), "keras_unet"),
    "zeros for mirroring": ((), "benchmarks.without_mirroring"),
    "momentum 0.9": (("--momentum", "0.9"), "keras_unet"),
    'padding "same"': (("--padding", "same"), "keras_unet"),
}


@click.command()
@click.argument("name", type=click.Choice(sorted(TASKS)))
@click.option("--steps", type=int, default=600, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(name: str, steps: int, work: Path) -> None:
    """Runs all rows with all seeds, and prints the table."""
    path = make_folder(RESULTS) / f"ablation-{name}.json"
    benchmark = f"python -m benchmarks.ablation {name} --steps {steps}"
    done = json.loads(path.read_text()) if path.exists() else {}
    runs = done["runs"] if done.get("benchmark") == benchmark else {}
    for row, (options, program) in ROWS.items():
        for seed in SEEDS:
            title = f"{row}, seed {seed}"
            if title not in runs:
                train = ("--seed", str(seed), "--steps", str(steps), *options)
                folder = work / f"ablation-{name}"
                runs[title] = Experiment(TASKS[name], folder, train, program=program).result()
                write_json(path, {"benchmark": benchmark, "table": _table(runs), "runs": runs})
    click.echo(json.dumps(_table(runs), indent=2))


def _table(runs: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Returns mean and standard deviation over the seeds, for each complete row."""
    table = {}
    for row in (*ROWS, AVERAGING_OFF):
        kind = "scores" if row == AVERAGING_OFF else "scores_tta"
        titles = [f"{EVERYTHING if row == AVERAGING_OFF else row}, seed {seed}" for seed in SEEDS]
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
    return {name: f"{mean(values):.4f} +- {stdev(values):.4f}" for name, values in columns.items()}


if __name__ == "__main__":
    main()
