"""Comparison of training options: `python -m benchmarks.recipes NAME=OPTIONS ... --steps N`.

Each variant is a set of options of `keras-unet train`, and can begin with `-m MODULE` for a
variation of the program. Every variant is trained on every data set with every seed, at equal steps
(`--steps`) or equal minutes (`--minutes`), and scored on the held-out images. Images can be changed
before: `usiigaci+percentiles` scales grey values by percentiles, `isbi2012+neighbors` adds the
neighboring slices as channels, `usiigaci+halved`, `+quarter` and `+enlarged` change size and scale.
The training images of `isbi2012+strokes` and `dsb2018+few` are labelled in part, see
`benchmarks.in_part`. A row is written to `benchmarks/results/recipes.json` as soon as it is done;
rows that exist are not repeated. The table lists mean and standard deviation over the seeds.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click

from benchmarks.experiment import TASKS, Experiment, ImageSet
from benchmarks.experiment import image_set as complete_set
from benchmarks.in_part import DRAWN, InPart
from benchmarks.record import RESULTS
from keras_unet.files import make_folder, write_json

FILE = RESULTS / "recipes.json"
DEFAULT = "default"
PROGRAM = "keras_unet"
SETS = ("isbi2012", "usiigaci", "dsb2018", "axons", "psc")
MAIN_SCORES: Mapping[str, Sequence[str]] = {
    "isbi2012": ("pixel_error", "v_rand", "v_info", "rand_error"),
    "axons": ("mean_iou", "iou"),
    "hela": ("seg", "iou"),
}
CELL_SCORES = ("seg", "ap_50", "ap_mean")


@click.command()
@click.argument("variants", nargs=-1, metavar="[NAME=OPTIONS ...]")
@click.option("--sets", default=",".join(SETS), show_default=True, help="Data sets.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--steps", type=int, help="Training steps of each.")
@click.option("--minutes", type=float, help="Training minutes of each.")
@click.option("--tta/--no-tta", default=False, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
def main(
    variants: tuple[str, ...],
    sets: str,
    seeds: str,
    steps: int | None,
    minutes: float | None,
    tta: bool,
    work: Path,
) -> None:
    """Train and score each variant, such as `narrow="--base-filters 16"`; print the table.

    The variant `default` has no options. Without variants, only the table is printed.
    """
    rows = json.loads(FILE.read_text())["rows"] if FILE.exists() else []
    if variants and (steps is None) == (minutes is None):
        raise click.UsageError("expected either --steps or --minutes")
    budget = f"{minutes:g} minutes" if minutes is not None else f"{steps} steps"
    length = ("--steps", str(steps)) if minutes is None else ("--max-minutes", f"{minutes:g}")
    todo = product(seeds.split(","), sets.split(","), _parse(variants))
    for seed, name, (variant, options) in todo:  # all variants of a seed before the next seed
        key = {"variant": variant, "set": name, "seed": int(seed), "budget": budget}
        if any(key.items() <= row.items() for row in rows):
            continue
        program, given = (options[1], options[2:]) if options[:1] == ["-m"] else (PROGRAM, options)
        train = ("--seed", seed, *length, *given)
        predict = ((), ("--tta",)) if tta else ((),)
        folder = work / "recipes"
        result = Experiment(image_set(name), folder, train, predict, program).result()
        (training,) = result["trainings"]
        rows.append(
            {
                **key,
                "options": shlex.join(options),
                **{name: result[name] for name in ("date", "commit", "processor", "cores")},
                **{name: training[name] for name in ("steps", "seconds", "best_score")},
                **{
                    kind: numbers(scores["overall"])
                    for kind, scores in result.items()
                    if kind.startswith("scores")
                },
            }
        )
        write_json(make_folder(RESULTS) / FILE.name, {"rows": rows, "table": table(rows)})
    click.echo("\n".join(table(rows)))


def image_set(name: str) -> ImageSet:
    """Returns a task by its name, with a change of its images or of its labels, if there is one."""
    task, _, change = name.partition("+")
    if change in DRAWN:
        return InPart(TASKS[task], change)  # type: ignore[arg-type]
    return complete_set(name)


def _parse(variants: Iterable[str]) -> list[tuple[str, list[str]]]:
    parsed = []
    for variant in variants:
        name, _, options = variant.partition("=")
        if not options and name != DEFAULT:
            raise click.UsageError(f"expected NAME=OPTIONS or {DEFAULT}. Received: {variant}")
        parsed.append((name, shlex.split(options)))
    return parsed


def numbers(overall: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scores, with AP at an IoU of 0.5."""
    numbers = {name: value for name, value in overall.items() if isinstance(value, float)}
    matching = overall.get("matching")
    if matching:
        numbers["ap_50"] = matching[0]["ap"]
    return numbers


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a Markdown table: a row for each data set, budget and variant."""
    lines = ["| data | budget | variant | seeds | steps | minutes | scores |", "|" + " --- |" * 7]
    return lines + [line for group in _groups(rows) for line in _lines(group)]


def _groups(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    names = ("set", "budget", "variant")
    for key in sorted({tuple(row[name] for name in names) for row in rows}):
        yield [row for row in rows if tuple(row[name] for name in names) == key]


def _lines(group: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    first = group[0]
    main_scores = MAIN_SCORES.get(first["set"].partition("+")[0], CELL_SCORES)
    scores = ", ".join(
        f"{name} {spread([row['scores'][name] for row in group])}" for name in main_scores
    )
    steps = round(mean(row["steps"] for row in group))
    minutes = mean(row["seconds"] for row in group) / 60
    yield (
        f"| {first['set']} | {first['budget']} | {first['variant']} | {len(group)} | {steps} | "
        f"{minutes:.1f} | {scores} |"
    )


def spread(values: Sequence[float]) -> str:
    """Returns the mean, and the standard deviation of more than one value, as text."""
    deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean(values):.4f}{deviation}"


if __name__ == "__main__":
    main()
