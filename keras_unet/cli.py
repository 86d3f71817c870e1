"""The command line: parse, call one function, print. TensorFlow is imported by the jobs alone."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from keras_unet.jobs.evaluate import Evaluation
    from keras_unet.training import Progress, TrainingPlan

_DATA = click.Path(path_type=Path)


class _OneLineErrors(click.Group):
    """Turns what went wrong into one line and exit code 2, in one place."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (ValueError, OSError, ImportError) as error:
            failure = click.ClickException(" ".join(str(error).split()))
            failure.exit_code = 2
            raise failure from error


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-unet-biomedical")
def main() -> None:
    """U-Net for biomedical images: train on a few annotated images, predict, evaluate.

    Start with: keras-unet demo
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@main.command("train")
@click.argument("data", type=_DATA)
@click.option("--run", "run_folder", type=_DATA, required=True, help="Folder to write.")
@click.option("--steps", type=int, help="Updates; 2500 where no length is given.")
@click.option("--epochs", type=float, help="Length in passes over the training pixels.")
@click.option("--max-minutes", type=float, help="Length in minutes.")
@click.option("--patience", type=int, help="Validations without a better score to end after.")
@click.option("--base-filters", type=int, help="Features of the first level (paper: 64).")
@click.option("--depth", type=int, help="Number of poolings (paper: 4).")
@click.option("--padding", type=click.Choice(["valid", "same"]), help='Paper: "valid".')
@click.option("--normalization", type=click.Choice(["batch", "group"]), help="Paper: none.")
@click.option("--dropout", type=float, help="Rate at the end of the contracting path.")
@click.option("--tile", type=int, help="Input tile in pixels (paper: 572).")
@click.option("--batch-size", type=int, help="Tiles a batch (paper: 1).")
@click.option("--validation", help="Share of images held out, or their names: a,b,c.")
@click.option("--seed", type=int, help="Makes the run reproducible.")
@click.option("--precision", help="auto, float32, bfloat16 or float16.")
@click.option(
    "--labels", type=click.Choice(["auto", "classes", "instances"]), help="What labels hold."
)
@click.option("--ignore", type=int, help="Label value of pixels that are not to count.")
@click.option("--allow-empty", is_flag=True, default=None, help="Keep labels without foreground.")
@click.option("--standardise", type=click.Choice(["image", "dataset"]), help="Grey values by.")
@click.option("--border-weight", type=float, help="w0 of equation 2 (paper: 10; 0: none).")
@click.option("--sigma", type=float, help="sigma of equation 2 in pixels (paper: 5).")
@click.option("--amplitude", type=float, help="Elastic deformation in pixels (paper: 10).")
@click.option("--engine", type=click.Choice(["graph", "elasticdeform"]), help="Who deforms.")
@click.option("--learning-rate", type=float, help="The highest rate.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, as it was started.")
@click.option("--quiet", is_flag=True, help="Print warnings and the result only.")
def train_command(
    data: Path, run_folder: Path, resume: bool, quiet: bool, **choices: Any
) -> None:
    """Train on DATA: a folder with images/ and labels/, or a Cell Tracking Challenge data set."""
    from keras_unet.jobs.train import TrainingOptions, train_folder

    given = {name: value for name, value in choices.items() if value is not None}
    if resume and given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"--resume goes on as the run was started. Received also {names}")
    if "validation" in given:
        given["validation"] = _share_or_names(given["validation"])
    with _progress(quiet) as (on_start, on_step, say):
        run = train_folder(
            data,
            run_folder,
            None if resume else TrainingOptions(**given),
            resume=resume,
            on_start=on_start,
            on_step=on_step,
            say=say,
        )
    outcome = run.record["outcome"]
    score = outcome["best_score"]
    click.echo(
        f"{outcome['steps']} steps in {outcome['seconds'] / 60:.1f} minutes; best validation score "
        f"(mean IoU) {'none' if score is None else f'{score:.4f}'}; see {run_folder}/pictures"
    )
    click.echo(f"next: keras-unet predict {_quoted(run_folder)} IMAGES... --out FOLDER")


@main.command("predict")
@click.argument("run_folder", metavar="RUN", type=_DATA)
@click.argument("files", nargs=-1, required=True, type=_DATA)
@click.option("--out", type=_DATA, required=True, help="Folder to write.")
@click.option("--save", default="", help="Of instances,classes,probabilities.")
@click.option("--tile", type=int, help="Input tile in pixels; the scores do not depend on it.")
@click.option("--precision", help="auto, float32, bfloat16 or float16; as trained if not given.")
@click.option("--quiet", is_flag=True, help="Print warnings only.")
def predict_command(
    run_folder: Path,
    files: tuple[Path, ...],
    out: Path,
    save: str,
    tile: int | None,
    precision: str | None,
    quiet: bool,
) -> None:
    """Predict image FILES (or folders of them) with RUN; outputs have the images' own size."""
    from keras_unet.jobs.predict import predict_files

    written = predict_files(
        run_folder,
        files,
        out,
        save=[name for name in save.split(",") if name],
        tile_size=tile,
        precision=precision,
        on_file=_nothing if quiet else lambda path: click.echo(str(path)),
        say=lambda line: click.echo(line, err=True),
    )
    if not quiet:
        click.echo(f"{len(written)} files written to {out}")


@main.command("evaluate")
@click.argument("predictions", type=_DATA)
@click.argument("labels", type=_DATA)
@click.option("--json", type=_DATA, help="Write the scores to a file.")
@click.option("--labels-hold", type=click.Choice(["auto", "classes", "instances"]), default="auto")
@click.option("--ignore", type=int, help="Label value of pixels that are not to count.")
def evaluate_command(
    predictions: Path, labels: Path, json: Path | None, labels_hold: Any, ignore: int | None
) -> None:
    """Score PREDICTIONS against LABELS, two folders, paired by file stem."""
    from keras_unet.jobs.evaluate import evaluate_folders

    evaluation = evaluate_folders(
        predictions, labels, kind=labels_hold, ignore=ignore, json=json
    )
    _print_scores(evaluation)


@main.command("demo")
@click.option("--out", type=_DATA, default=Path("keras-unet-demo"), help="Folder to write.")
@click.option("--steps", type=int, default=300, show_default=True, help="Training steps.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--border-weight", type=float, default=10.0, show_default=True, help="w0; 0: none.")
def demo_command(out: Path, steps: int, seed: int, border_weight: float) -> None:
    """Draw touching cells, train on them, and score pictures that training has not seen."""
    from keras_unet.demo import run_demo

    with _progress(quiet=False) as (on_start, on_step, say):
        evaluation = run_demo(
            out,
            steps=steps,
            seed=seed,
            border_weight=border_weight,
            on_start=on_start,
            on_step=on_step,
            say=say,
        )
    _print_scores(evaluation)
    click.echo(f"pictures: {out / 'demo.png'}")
    click.echo(
        "next, on your own data: put images into DATA/images and labels of the same names into "
        "DATA/labels, then: keras-unet train DATA --run RUN"
    )


def _share_or_names(text: str) -> float | list[str]:
    try:
        return float(text)
    except ValueError:
        return [name.strip() for name in text.split(",") if name.strip()]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _nothing(*_: Any) -> None:
    """Takes anything and prints nothing."""


_Listeners = tuple[
    "Callable[[TrainingPlan], None]", "Callable[[Progress], None]", "Callable[[str], None]"
]


@contextmanager
def _progress(quiet: bool) -> Iterator[_Listeners]:
    """Shows a bar with loss, score and time left, or a line now and then without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=False)
    plan: TrainingPlan
    if quiet or not sys.stdout.isatty():
        lines = _Lines(quiet)
        yield lines.on_start, lines.on_step, lines.say
        return
    columns = (
        TextColumn("step {task.fields[step]}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]}  score {task.fields[score]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:
        task = bars.add_task("", total=1.0, start=False, visible=False, step=0, loss="-", score="-")

        def on_start(started: TrainingPlan) -> None:
            nonlocal plan
            plan = started
            bars.update(task, visible=True)
            bars.start_task(task)

        def on_step(progress: Progress) -> None:
            score = "-" if progress.score is None else f"{progress.score:.4f}"
            done = plan.progress(progress.step, progress.seconds)
            loss = f"{progress.loss:.4f}"
            bars.update(task, completed=done, step=progress.step, loss=loss, score=score)

        yield on_start, on_step, lambda line: console.print(line, highlight=False, markup=False)


class _Lines:
    """Plain lines for a log: one a validation, or none."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.validations = 0
        self.plan: TrainingPlan | None = None

    def on_start(self, plan: TrainingPlan) -> None:
        self.plan = plan

    def on_step(self, progress: Progress) -> None:
        if self.quiet or len(progress.rows) == self.validations or self.plan is None:
            return
        self.validations = len(progress.rows)
        row = progress.rows[-1]
        done = self.plan.progress(progress.step, progress.seconds)
        left = progress.seconds * (1 - done) / max(done, 1e-9) / 60
        loss, score = (
            "-" if row[name] is None else f"{row[name]:.4f}" for name in ("loss", "score")
        )
        click.echo(f"step {row['step']}: loss {loss}, score {score}, {left:.1f} minutes left")

    def say(self, line: str) -> None:
        if not self.quiet or line.startswith("Warning"):
            click.echo(line)


def _print_scores(evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("image", *(name.replace("_", " ") for name in evaluation.overall))
    for name, row in evaluation.rows.items():
        table.add_row(name, *map(_score, row.values()))
    table.add_section()
    table.add_row("all", *map(_score, evaluation.overall.values()))
    Console().print(table)
    source = "probabilities" if evaluation.from_probabilities else "label images"
    click.echo(f"pixel error from {source}, threshold {evaluation.threshold:.1f}")
    if evaluation.missing:
        click.echo(f"no prediction for: {', '.join(evaluation.missing)}", err=True)


def _score(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"  # noqa: PLR0124 - nan is no score
