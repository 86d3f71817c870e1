"""The command line: parse, call one function, print. TensorFlow is imported by the jobs alone."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_unet.cli_options import (
    AS_TRAINED,
    OVERWRITE,
    PATH,
    QUIET,
    RUN,
    given_of,
    names_of,
    none_for_nothing,
    options_of_cells,
    options_of_data,
    options_of_length,
)
from keras_unet.console import (
    one_line_errors,
    prepare_process,
    quiet_tensorflow,
    show_progress,
    status,
)
from keras_unet.data.datasets import DATASETS
from keras_unet.files import make_folder, printable, write_json
from keras_unet.report.tables import print_tables

if TYPE_CHECKING:
    from keras_unet.doctor import Diagnosis
    from keras_unet.prediction.outputs import Form
    from keras_unet.runs import Run

_log = logging.getLogger(__name__)

_FORMATS = ("saved_model", "tflite", "bioimageio", "onnx")


class _Commands(click.Group):
    """The commands; what goes wrong in any of them ends in one line."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.obj = prepare_process()  # before Keras is imported, and before any message
        with one_line_errors():
            return super().parse_args(context, arguments)

    def invoke(self, context: click.Context) -> Any:
        with one_line_errors():
            return super().invoke(context)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="keras-unet-biomedical")
@click.pass_context
def main(context: click.Context) -> None:
    """U-Net for biomedical images: train on a few annotated images, predict, evaluate.

    Start with: keras-unet demo
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the error itself says it


@main.command("train")
@click.argument("data", type=PATH)
@click.option("--run", "run_folder", type=PATH, required=True, help="Folder to write.")
@options_of_length
@options_of_data
@click.option(
    "--histograms", is_flag=True, default=None, help="Log histograms of weights for TensorBoard."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, as it was started.")
@click.option("--repeat", type=PATH, help="Repeat a run: its options, seed, length and data.")
@click.option(
    "--from",
    "initial",
    type=PATH,
    help="Start from the weights of a run, of a fold of an ensemble, or of a .keras file.",
)
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
    repeat: Path | None,
    initial: Path | None,
    distribute: Any,
    quiet: bool,
    **choices: Any,
) -> None:
    """Train on DATA: a folder with images/ and labels/, or a Cell Tracking Challenge data set."""
    given = given_of(choices)
    _check_contradictions(resume, repeat, given | ({"from": initial} if initial else {}))
    with show_progress(quiet=quiet):
        runs = _train(data, run_folder, resume, repeat, initial, distribute, given)
    if not runs:
        return
    for run in runs:
        _print_outcome(run)
    _print_next(run_folder, data, complete=all(run.record["outcome"]["complete"] for run in runs))


def _check_contradictions(resume: bool, repeat: Path | None, given: dict[str, Any]) -> None:
    names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    if resume and repeat is not None:
        raise ValueError("--resume goes on with a run, --repeat begins one. Received both")
    if resume and given:
        raise ValueError(f"--resume goes on as the run was started. Received also {names}")
    if repeat is not None and given:
        raise ValueError(f"--repeat repeats a run as it was. Received also {names}")
    if "folds" in given and "validation" in given:
        raise ValueError(
            "--folds holds every image out once, so --validation has nothing to say. Received both"
        )


def _train(
    data: Path,
    folder: Path,
    resume: bool,
    repeat: Path | None,
    initial: Path | None,
    distribute: Any,
    given: dict[str, Any],
) -> list[Run]:
    """Returns the runs to tell of; none where another worker, the chief, tells of them."""
    from keras_unet.runs import is_ensemble

    followed = folder if resume else repeat
    if "folds" not in given and not (followed and is_ensemble(followed)):
        with quiet_tensorflow():
            from keras_unet.training.distribute import join
            from keras_unet.training.options import TrainingOptions
            from keras_unet.training.train import train_folder

        cluster = join(distribute)
        options = None if followed else TrainingOptions(**given)
        how: dict[str, Any] = {"resume": resume, "repeat": repeat, "initial": initial}
        run = train_folder(data, folder, options, cluster=cluster, **how)
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
    if repeat is not None:
        return folds.repeat_folds(data, folder, repeat)
    number = given.pop("folds")
    return folds.train_folds(data, folder, TrainingOptions(**given), number, initial=initial)


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


@main.command("doctor")
@click.option("--json", type=PATH, help="Write what was found to a file.")
@OVERWRITE
@click.option("--issue", is_flag=True, help="Print it as text to paste into an issue.")
@click.pass_context
def doctor_command(context: click.Context, json: Path | None, issue: bool, overwrite: bool) -> None:
    """Say what is installed, which device and precision are used and why, and how fast it is.

    What is printed names no user and no path. Exit code 1 if something must be mended before
    anything works.
    """
    from keras_unet.doctor import diagnose
    from keras_unet.files import check_replaceable

    check_replaceable(json, "json", overwrite=overwrite)
    with show_progress(quiet=not sys.stdout.isatty()), status("looking at TensorFlow"):
        found = diagnose(environment=context.obj)
    if json is not None:
        make_folder(json.parent)
        write_json(json, found.to_dict())
    if issue:
        click.echo(found.to_markdown())
    else:
        _print_diagnosis(found)
    context.exit(int(found.is_broken))


def _print_diagnosis(found: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for title, section in found.facts.items():
        table.add_section()
        table.add_row(f"[bold]{title}[/bold]", "")
        for name, value in section.items():
            table.add_row(f"  {name}", value)
    Console().print(table, markup=True)
    for problem in found.problems:
        click.echo(f"{'Broken' if problem.breaks else 'Warning'}: {problem.words}")
    if not found.problems:
        click.echo("nothing amiss")
    click.echo("to ask for help, paste what this prints: keras-unet doctor --issue")


@main.command("inspect")
@click.argument("data", type=PATH)
@click.option(
    "--out",
    type=PATH,
    default=Path("keras-unet-inspect"),
    show_default=True,
    help="Folder to write the pictures to.",
)
@options_of_data
@QUIET
def inspect_command(data: Path, out: Path, quiet: bool, **choices: Any) -> None:
    """Show what train would see of DATA, in words and pictures, without training.

    The options are those of train. Warnings name what is odd; what train would refuse is refused.
    """
    with show_progress(quiet=quiet):
        with quiet_tensorflow():
            from keras_unet.training.inspect import inspect_folder
            from keras_unet.training.options import TrainingOptions

        inspect_folder(data, out, TrainingOptions(**given_of(choices)))
        folder = shlex.quote(str(data))
        _log.info(f"next: keras-unet train {folder} --run RUN, with the same options")


@main.command("report")
@RUN
@click.option("--out", type=PATH, help="File to write [default: RUN/report.html]")
@click.option("--data", type=PATH, help="The training images, if they have moved.")
@OVERWRITE
@QUIET
def report_command(
    run_folder: Path, out: Path | None, data: Path | None, overwrite: bool, quiet: bool
) -> None:
    """Write the report of RUN, a run or an ensemble: one HTML file to open in a browser, to keep.

    It shows the images held out with truth and prediction, the cells found worst and best, scores,
    curves, data and network. Training writes it too.
    """
    with show_progress(quiet=quiet):
        with quiet_tensorflow():
            from keras_unet.training.report import report_run

        written = report_run(run_folder, out, data=data, overwrite=overwrite)
        _log.info(f"written: {printable(written)}")


@main.command("predict")
@click.argument("paths", metavar="RUN FILES...", nargs=-1, required=True, type=PATH)
@click.option("--server", help="grpc://HOST:PORT/MODEL or http://HOST:PORT/v1/models/MODEL.")
@click.option("--timeout", type=float, help="Seconds to wait for each of its answers (300).")
@click.option("--out", type=PATH, required=True, help="Folder to write.")
@click.option("--save", default="", help="Of instances,classes,probabilities.")
@click.option("--tile", type=int, help="Input tile in pixels; the scores do not depend on it.")
@AS_TRAINED
@click.option("--axes", help="Axes of FILES that do not state them, such as YXC or CYX.")
@click.option("--tta", is_flag=True, help="Average over 8 rotated and mirrored versions.")
@options_of_cells
@click.option(
    "--as", "form", type=click.Choice(["tiff", "ome-zarr"]), help="Form [default: that of FILES]"
)
@click.option(
    "--stream/--in-memory",
    default=None,
    help="By parts, for images larger than memory [default: from 2^26 pixels on, and Zarr]",
)
@click.option("--dask", help="tcp://HOST:PORT of a Dask scheduler, whose workers predict.")
@click.option("--workers", type=int, help="Processes on this machine to predict in, by Dask.")
@OVERWRITE
@QUIET
def predict_command(
    paths: tuple[Path, ...],
    server: str | None,
    timeout: float | None,
    tile: int | None,
    precision: str | None,
    form: Form | None,
    stream: bool | None,
    dask: str | None,
    workers: int | None,
    quiet: bool,
    **choices: Any,
) -> None:
    """Predict image FILES (or folders of them) at their own size.

    RUN is a run, an ensemble, or a .tflite file that a run was exported to. With --server a model
    server takes its place, and RUN is not given; @VERSION or @LABEL may follow MODEL.
    """
    asked = _prediction(choices)
    spread = {"--dask": dask, "--workers": workers}
    with show_progress(quiet=quiet):
        if server is not None:
            _refuse(
                {"--tile": tile, "--precision": precision}, "chosen when the model was exported"
            )
            of_no_effect = {"--as": form, "--stream or --in-memory": stream} | spread
            _refuse(of_no_effect, "of no effect with --server")
            from keras_unet.prediction.folder import predict_files
            from keras_unet.prediction.server import connect

            served = connect(server) if timeout is None else connect(server, timeout)
            predict = partial(predict_files, served, paths)
        else:
            _refuse({"--timeout": timeout}, "of no effect without --server")
            if len(paths) == 1:
                raise click.UsageError("Missing argument 'FILES...'.", click.get_current_context())
            asked |= {"tile_size": tile, "precision": precision}
            if dask is not None or workers is not None:
                _refuse({"--in-memory": stream is False or None}, "Dask predicts by parts")
                with quiet_tensorflow():
                    from keras_unet.prediction.distributed import Cluster, spread_files

                predict = partial(
                    spread_files, paths[0], paths[1:], cluster=Cluster(dask, workers), form=form
                )
            else:
                with quiet_tensorflow():
                    from keras_unet.prediction.folder import predict_files
                    from keras_unet.prediction.outputs import OutputOptions

                storage = OutputOptions(form, stream)
                predict = partial(predict_files, paths[0], paths[1:], storage=storage)
        written = predict(**asked)
        _log.info(f"{len(written)} files written to {printable(asked['out'])}")


def _prediction(choices: dict[str, Any]) -> dict[str, Any]:
    """Parts what to write from the numbers of the rule."""
    names = ("out", "save", "tta", "axes", "overwrite")
    out, save, tta, axes, overwrite = (choices.pop(name) for name in names)
    rule = {name: value for name, value in choices.items() if value is not None}
    given = {"out": out, "save": names_of(save), "tta": tta, "instances": rule}
    return given | {"axes": axes, "overwrite": overwrite}


def _refuse(options: dict[str, Any], reason: str) -> None:
    given = [flag for flag, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: {reason}; leave out")


@main.command("evaluate")
@click.argument("predictions", type=PATH)
@click.argument("labels", type=PATH)
@click.option(
    "--metrics",
    default="",
    help="Of pixels,isbi2012,ctc,matching; else pixels or, of instances, pixels,ctc,matching.",
)
@click.option("--json", type=PATH, help="Write the scores to a file.")
@click.option("--report", type=PATH, help="Write scores and pictures to an HTML file.")
@click.option("--labels-hold", type=click.Choice(["auto", "classes", "instances"]), default="auto")
@click.option("--ignore", type=int, help="Label value of pixels that are not to count.")
@OVERWRITE
@click.option("--quiet", is_flag=True, help="Print warnings and the scores only.")
def evaluate_command(
    predictions: Path,
    labels: Path,
    metrics: str,
    json: Path | None,
    report: Path | None,
    labels_hold: Any,
    ignore: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Score PREDICTIONS against LABELS, two folders, paired by file name.

    \b
    pixels    IoU, Dice, pixel error
    isbi2012  the challenge on membranes: V_Rand, V_Info, warping, Rand and pixel error
    ctc       SEG of the Cell Tracking Challenge
    matching  AP, F1, PQ and counts of cells at an IoU of 0.5 ... 0.9
    """  # noqa: D301 - click takes this backspace for lines to be left as they are
    from keras_unet.evaluation.evaluate import evaluate_folders

    with show_progress(quiet=quiet):
        evaluation = evaluate_folders(
            predictions,
            labels,
            metrics=names_of(metrics),
            kind=labels_hold,
            ignore=ignore,
            json=json,
            report=report,
            overwrite=overwrite,
        )
    print_tables(evaluation.tables)


@main.command("export")
@RUN
@click.argument("out", type=PATH)
@click.option("--format", "format_", type=click.Choice(_FORMATS), required=True)
@click.option("--tile", "tile_size", type=int, help="Input tile in pixels [default: fills 512]")
@AS_TRAINED
@click.option("--frozen", is_flag=True, default=None, help="Weights as constants.")
@click.option("--version", type=int, help="Number of the version (1).")
@click.option("--quantize", help="none, float16, dynamic or int8 (none).")
@click.option("--int8-io", is_flag=True, default=None, help="Take and give int8, not float32.")
@click.option("--data", type=PATH, help="The training images, for int8, if they have moved.")
@click.option(
    "--author", "authors", multiple=True, callback=none_for_nothing, help="Name; may be repeated."
)
@click.option("--license", help="SPDX identifier (CC-BY-4.0).")
@QUIET
def export_command(run_folder: Path, out: Path, format_: Any, quiet: bool, **choices: Any) -> None:
    """Export RUN, a run or an ensemble, to OUT, for others to run it.

    \b
    saved_model  folder OUT/VERSION for TensorFlow Serving: raw pixels of any size in, classes
                 of that size out. --tile, --precision, --frozen, --version
    tflite       file OUT for phones and microscopes: one tile, and how to tile with it.
                 --tile, --quantize, --int8-io, --data
    bioimageio   file OUT.zip for Fiji (deepImageJ), bioimageio.core and the BioImage Model Zoo.
                 --author, --license
    onnx         file OUT.onnx for ONNX Runtime: raw pixels of any size in, classes of that size
                 out. --tile
    """  # noqa: D301 - click takes this backspace for lines to be left as they are
    given = {name: value for name, value in choices.items() if value is not None}
    with show_progress(quiet=quiet):
        with quiet_tensorflow():
            from keras_unet.export.export import export_model, options_of

        _refuse_of_other_formats(given, options_of(format_), format_)
        written = export_model(run_folder, out, format=format_, **given)
        _log.info(f"written: {printable(written)}")


def _refuse_of_other_formats(given: Iterable[str], taken: Iterable[str], name: str) -> None:
    """Refuses options that are not among those of a format."""
    flags = {str(one.name): one.opts[0] for one in click.get_current_context().command.params}
    others = [flags[option] for option in given if option not in taken]
    if others:
        known = [flag for option, flag in flags.items() if option in taken]
        raise ValueError(
            f"--format {name} takes {', '.join(known)}. Received {', '.join(others)}; leave out "
            "what belongs to other formats"
        )


@main.command("data")
@click.argument("name", metavar="NAME", type=click.Choice(list(DATASETS), case_sensitive=False))
@click.option("--out", type=PATH, help="Folder to write [default: NAME]")
@QUIET
def data_command(name: str, out: Path | None, quiet: bool) -> None:
    """Download a public data set, verify it, and unpack it into folders that train takes.

    \b
    dsb2018        nuclei in fluorescence: train/ and test/
    isbi2012       membranes in electron microscopy: train/, and test/ without labels
    PhC-C2DH-U373  cells in phase contrast, Cell Tracking Challenge: 01/, 01_GT/SEG/, 02/ ...
    DIC-C2DH-HeLa  the same, cells in differential interference contrast

    The archive is kept in a cache, so a second time needs no network.
    """  # noqa: D301 - click takes this backspace for lines to be left as they are
    from keras_unet.data.download import download

    with show_progress(quiet=quiet):
        folder = download(name, out)
        _log.info(f"next: keras-unet inspect {shlex.quote(str(folder))}")


@main.command("demo")
@click.option("--out", type=PATH, default=Path("keras-unet-demo"), help="Folder to write.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Training steps.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--border-weight", type=float, default=10.0, show_default=True, help="w0; 0: none.")
@click.option("--quiet", is_flag=True, help="Print warnings and the scores only.")
def demo_command(out: Path, steps: int, seed: int, border_weight: float, quiet: bool) -> None:
    """Draw touching cells, train on them, and score pictures that training has not seen."""
    with show_progress(quiet=quiet):
        with quiet_tensorflow():
            from keras_unet.demo import run_demo, what_next

        evaluation = run_demo(out, steps=steps, seed=seed, border_weight=border_weight)
    print_tables(evaluation.tables)
    if not quiet:
        click.echo(what_next(out))
