"""Comparison with other trainings at equal minutes: `python -m benchmarks.rivals`.

This package, StarDist 2D, nnU-Net v2 and a plain Keras U-Net are trained on the same images, each
in a process of its own, on the same two cores. Their predictions of the held-out images are scored
by the same commands. The minutes are those of the training loop with its compilation and
validations. The rows list the seconds until the model is ready as well, with imports, planning and
preprocessing before the loop, and thresholds that are chosen after it.

A row is written to `benchmarks/results/rivals.json` as soon as it is done; rows that exist are not
repeated. A table is printed, and curves are written to `benchmarks/results/rivals.png`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click

from benchmarks.experiment import TASKS, Experiment
from benchmarks.recipes import numbers
from benchmarks.record import RESULTS, origin
from benchmarks.rivals.contenders import (
    CONTENDERS,
    SETS,
    check_installed,
    sets_of,
    train_and_predict,
)
from benchmarks.rivals.curves import draw_curves, table
from keras_unet.files import make_folder, write_json

THREADS = 2
_ENVIRONMENT = {
    **dict.fromkeys(
        (
            *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"),
            *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
        ),
        str(THREADS),
    ),
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
}


@click.command()
@click.argument("names", metavar="[CONTENDER ...]", nargs=-1, type=click.Choice(CONTENDERS))
@click.option("--sets", default=",".join(SETS), show_default=True, help="Data sets.")
@click.option("--minutes", default="5,15,60", show_default=True, help="Minutes of the training.")
@click.option("--seeds", default="0", show_default=True)
@click.option(
    "--python",
    default=sys.executable,
    help="Interpreter of the environment of the peers [default: the current one]",
)
@click.option("--work", type=click.Path(path_type=Path), default=Path("benchmark-runs"))
@click.option(
    "--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results."
)
def main(
    names: tuple[str, ...],
    sets: str,
    minutes: str,
    seeds: str,
    python: str,
    work: Path,
    out: Path,
) -> None:
    """Train and score the contenders, all of them or those named; print the table.

    StarDist is compared on nuclei, nnU-Net on the other sets.
    """
    file = out / "rivals.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    todo = [key for key in _keys(names, sets, minutes, seeds) if not _is_done(key, rows)]
    found = shutil.which(python)
    if found is None:
        raise click.UsageError(f"--python: expected a Python interpreter. Received: {python}")
    interpreter = str(Path(found).absolute())  # each process runs in a folder of its own
    try:
        check_installed([key["contender"] for key in todo], interpreter)
    except ModuleNotFoundError as error:
        raise click.UsageError(str(error)) from None
    _limit_cores()
    failed = []
    for key in todo:
        title = " ".join(map(str, key.values()))
        click.echo(title)
        try:
            rows.append(_row(key, work / "rivals", interpreter))
        except subprocess.CalledProcessError:
            failed.append(title)  # it has said why
            continue
        write_json(make_folder(out) / file.name, {"rows": rows, "table": table(rows)})
    if rows:
        draw_curves(rows, out / "rivals.png")
        click.echo("\n".join(table(rows)))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _keys(names: Sequence[str], sets: str, minutes: str, seeds: str) -> Iterator[dict[str, Any]]:
    """Yields contender, set, minutes and seed of each row; short trainings first."""
    chosen = sets.split(",")
    unknown = set(chosen) - set(SETS)
    if unknown:
        raise click.UsageError(
            f"--sets: expected any of {','.join(SETS)}. Received: {','.join(sorted(unknown))}"
        )
    lengths = sorted(map(float, minutes.split(",")))
    for seed, length, name in product(map(int, seeds.split(",")), lengths, chosen):
        for contender in names or CONTENDERS:
            if name in sets_of(contender):
                yield {"contender": contender, "set": name, "minutes": length, "seed": seed}


def _is_done(key: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    return any(key.items() <= row.items() for row in rows)


def _row(key: dict[str, Any], work: Path, python: str) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    task = TASKS[key["set"]]
    experiment = Experiment(task, work, train=())
    _, held_out = task.copy(work / "train", work / "held_out")
    about = train_and_predict(key["contender"], experiment, key["minutes"], key["seed"], python)
    scores = {}
    for folder in ("predictions", "predictions_tta"):
        if (work / folder).exists():
            name = folder.replace("predictions", "scores")
            score = ["--metrics", task.metrics, "--json", f"{name}.json"]
            experiment.run(["evaluate", folder, "held_out/labels", *score])
            overall = json.loads((work / f"{name}.json").read_text())["overall"]
            scores[name] = numbers(overall)
    return {**key, **origin(), "threads": THREADS, "held_out": len(held_out), **about, **scores}


def _limit_cores() -> None:
    """Limits this process, and those that it starts, to two threads and two cores."""
    os.environ |= _ENVIRONMENT
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


if __name__ == "__main__":
    main()
