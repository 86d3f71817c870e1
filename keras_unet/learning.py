"""The command that trains: a run or an ensemble, anew, gone on with, or as another was."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_unet.choices import FROM_DATA, given_of, options_of_data
from keras_unet.console import quiet_tensorflow, show_progress

if TYPE_CHECKING:
    from keras_unet.runs import Run

_PATH = click.Path(path_type=Path)


@click.command("train")
@click.argument("data", type=_PATH)
@click.option("--run", "run_folder", type=_PATH, required=True, help="Folder to write.")
@click.option("--steps", type=int, help=f"Updates {FROM_DATA}")
@click.option("--epochs", type=float, help="Length in passes over the training pixels.")
@click.option("--max-minutes", type=float, help="Length in minutes.")
@click.option("--patience", type=int, help="Validations without a better score to end after.")
@click.option("--dropout", type=float, help="Rate at the end of the contracting path (0.5).")
@click.option("--folds", type=int, help="Cross-validation: train so many networks, an ensemble.")
@click.option("--learning-rate", type=float, help="The highest rate (0.01).")
@click.option("--momentum", type=float, help="Of the gradient (0.99, as in the paper).")
@options_of_data
@click.option(
    "--histograms", is_flag=True, default=None, help="Log histograms of weights for TensorBoard."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, as it was started.")
@click.option("--like", type=_PATH, help="Repeat a run: its options, seed, length and data.")
@click.option(
    "--distribute",
    type=click.Choice(["auto", "mirrored", "multiworker"]),
    help="Over the GPUs of this machine, or the machines that TF_CONFIG names.",
)
@click.option("--quiet", is_flag=True, help="Print warnings and the result only.")
def train_command(
    data: Path,
    run_folder: Path,
    resume: bool,
    like: Path | None,
    distribute: Any,
    quiet: bool,
    **choices: Any,
) -> None:
    """Train on DATA: a folder with images/ and labels/, or a Cell Tracking Challenge data set."""
    given = given_of(choices)
    _check_contradictions(resume, like, given)
    with show_progress(quiet=quiet):
        runs = _train(data, run_folder, resume, like, distribute, given)
    if not runs:
        return
    for run in runs:
        _print_outcome(run)
    _print_next(run_folder, data, complete=all(run.record["outcome"]["complete"] for run in runs))


def _check_contradictions(resume: bool, like: Path | None, given: dict[str, Any]) -> None:
    names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    if resume and like is not None:
        raise ValueError("--resume goes on with a run, --like begins one. Received both")
    if resume and given:
        raise ValueError(f"--resume goes on as the run was started. Received also {names}")
    if like is not None and given:
        raise ValueError(f"--like repeats a run as it was. Received also {names}")
    if "folds" in given and "validation" in given:
        raise ValueError(
            "--folds holds every image out once, so --validation has nothing to say. Received both"
        )


def _train(
    data: Path,
    folder: Path,
    resume: bool,
    like: Path | None,
    distribute: Any,
    given: dict[str, Any],
) -> list[Run]:
    """Returns the runs to tell of; none where another worker, the chief, tells of them."""
    from keras_unet.ensembles import is_ensemble

    followed = folder if resume else like
    if "folds" not in given and not (followed and is_ensemble(followed)):
        with quiet_tensorflow():
            from keras_unet.training.distribute import join
            from keras_unet.training.options import TrainingOptions
            from keras_unet.training.train import train_folder

        cluster = join(distribute)
        options = None if followed else TrainingOptions(**given)
        run = train_folder(data, folder, options, resume=resume, like=like, cluster=cluster)
        return [run] if cluster.is_chief else []
    if distribute is not None:
        raise ValueError(
            "--distribute trains one network on several devices. Received it for an ensemble; "
            "leave it out"
        )
    with quiet_tensorflow():
        from keras_unet.training import folds
        from keras_unet.training.options import TrainingOptions

    if resume:
        return folds.resume_folds(data, folder)
    if like is not None:
        return folds.repeat_folds(data, folder, like)
    number = given.pop("folds")
    return folds.train_folds(data, folder, TrainingOptions(**given), number)


def _print_outcome(run: Run) -> None:
    from keras_unet.runs import REPORT

    outcome = run.record["outcome"]
    score, skipped = outcome["best_score"], outcome["skipped_updates"]
    best = "none" if score is None else f"{outcome['score_name']} {score:.4f}"
    click.echo(
        f"{outcome['steps']} steps in {outcome['seconds'] / 60:.1f} minutes; "
        f"best validation score: {best}; report: {run.folder / REPORT}"
    )
    if skipped:
        click.echo(f"{skipped} updates with a non-finite gradient were not applied")


def _print_next(run_folder: Path, data: Path, *, complete: bool) -> None:
    folder = shlex.quote(str(run_folder))
    if not complete:
        click.echo(f"to go on: keras-unet train {shlex.quote(str(data))} --run {folder} --resume")
    click.echo(f"next: keras-unet predict {folder} IMAGES... --out FOLDER")
