"""Command-line interface: each command parses its options, calls one function, and prints."""

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
    given_options,
    instance_options,
    none_if_absent,
    parse_channels,
    parse_versions,
    split_names,
    training_data_options,
    training_length_options,
)
from keras_unet.console import (
    counted,
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
    """Group of the commands; an error of any of them is printed in one line."""

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
    """Segment biomedical images with U-Net: train on a few annotated images, predict, evaluate.

    Start with: keras-unet demo
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the exception has the message


@main.command("train")
@click.argument("data", type=PATH)
@click.option("--run", "run_folder", type=PATH, required=True, help="Folder to write.")
@training_length_options
@training_data_options
@click.option(
    "--histograms", is_flag=True, default=None, help="Log histograms of the weights to TensorBoard."
)
@click.option("--resume", is_flag=True, help="Resume an interrupted training.")
@click.option(
    "--repeat",
    type=PATH,
    help="Train again with the options, seed, length and data of another run.",
)
@click.option(
    "--from",
    "initial",
    type=PATH,
    help="Fine-tune: start from a run, a fold of an ensemble, a .keras file, or a model of the "
    "package, see keras-unet models.",
)
@click.option(
    "--distribute",
    type=click.Choice(["auto", "mirrored", "multiworker"]),
    help="Train on all GPUs of this machine, or on the machines in TF_CONFIG.",
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
    given = given_options(choices)
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
        raise ValueError("--resume continues a run, --repeat starts a new one. Received both")
    if resume and given:
        raise ValueError(
            f"--resume uses the options the run was started with. Received also {names}"
        )
    if repeat is not None and given:
        raise ValueError(f"--repeat uses the options of the other run. Received also {names}")
    if "folds" in given and "validation" in given:
        raise ValueError(
            "--folds holds out every image once and takes no --validation. Received both"
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
    """Trains and returns the runs to print; none on workers other than the chief."""
    from keras_unet.runs import is_ensemble

    template = folder if resume else repeat
    if "folds" not in given and not (template and is_ensemble(template)):
        with quiet_tensorflow():
            from keras_unet.training.distribute import join
            from keras_unet.training.initial import Initial
            from keras_unet.training.options import TrainingOptions
            from keras_unet.training.train import train_folder

        cluster = join(distribute)
        start = None if initial is None else Initial.of(initial)
        options = None if template else TrainingOptions(**given)
        options = start.options(options, given) if start and options else options
        how: dict[str, Any] = {"resume": resume, "repeat": repeat, "initial": start}
        run = train_folder(data, folder, options, cluster=cluster, **how)
        return [run] if cluster.is_chief else []
    if distribute is not None:
        raise ValueError(
            "--distribute trains one network on several devices, not an ensemble; leave it out"
        )
    with quiet_tensorflow():
        from keras_unet.training import folds
        from keras_unet.training.initial import Initial
        from keras_unet.training.options import TrainingOptions

    if resume:
        return folds.resume_folds(data, folder)
    if repeat is not None:
        return folds.repeat_folds(data, folder, repeat)
    number = given.pop("folds")
    options = TrainingOptions(**given)
    if initial is None:
        return folds.train_folds(data, folder, options, number)
    start = Initial.of(initial)
    options = start.options(options, given)
    return folds.train_folds(data, folder, options, number, initial=start)


def _print_outcome(run: Run) -> None:
    from keras_unet.runs import REPORT, describe_score

    outcome = run.record["outcome"]
    skipped = outcome["skipped_updates"]
    click.echo(
        f"{outcome['steps']} steps in {outcome['seconds'] / 60:.1f} minutes; "
        f"report: {run.folder / REPORT}\n"
        f"validation score: {describe_score(outcome) or 'none'}"
    )
    if skipped:
        click.echo(f"{skipped} updates with a non-finite gradient were not applied")


def _print_next(run_folder: Path, data: Path, *, complete: bool) -> None:
    folder = shlex.quote(str(run_folder))
    if not complete:
        click.echo(
            f"resume with: keras-unet train {shlex.quote(str(data))} --run {folder} --resume"
        )
    click.echo(f"next: keras-unet predict {folder} IMAGES... --out FOLDER")


@main.command("doctor")
@click.option("--json", type=PATH, help="Write the report to a JSON file.")
@OVERWRITE
@click.option("--issue", is_flag=True, help="Print the report as Markdown to paste into an issue.")
@click.pass_context
def doctor_command(context: click.Context, json: Path | None, issue: bool, overwrite: bool) -> None:
    """Report versions, device, precision and speed, and problems of the installation.

    The report contains no user name and no path. The exit code is 1 if a problem must be solved
    before anything works.
    """
    from keras_unet.doctor import diagnose
    from keras_unet.files import check_replaceable

    check_replaceable(json, "json", overwrite=overwrite)
    with show_progress(quiet=not sys.stdout.isatty()), status("checking TensorFlow"):
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
        click.echo("no problems found")
    click.echo("for an issue report: keras-unet doctor --issue")


@main.command("inspect")
@click.argument("data", type=PATH)
@click.option(
    "--out",
    type=PATH,
    default=Path("keras-unet-inspect"),
    show_default=True,
    help="Folder to write the pictures to.",
)
@training_data_options
@QUIET
def inspect_command(data: Path, out: Path, quiet: bool, **choices: Any) -> None:
    """Check DATA before training: statistics, warnings, pictures of labels, weights and tiles.

    Takes the options of train. Data that train refuses are refused in the same words.
    """
    with show_progress(quiet=quiet):
        with quiet_tensorflow():
            from keras_unet.training.inspect import inspect_folder
            from keras_unet.training.options import TrainingOptions

        inspect_folder(data, out, TrainingOptions(**given_options(choices)))
        folder = shlex.quote(str(data))
        _log.info(f"next: keras-unet train {folder} --run RUN, with the same options")


@main.command("report")
@RUN
@click.option("--out", type=PATH, help="File to write [default: RUN/report.html]")
@click.option("--data", type=PATH, help="Folder of the training images, if it has moved.")
@OVERWRITE
@QUIET
def report_command(
    run_folder: Path, out: Path | None, data: Path | None, overwrite: bool, quiet: bool
) -> None:
    """Write the report of RUN, a run or an ensemble, as one HTML file.

    It shows the validation images with truth and prediction, the cells with the lowest and highest
    IoU, scores, training curves, data and network. Training writes it too.
    """
    with show_progress(quiet=quiet):
        with quiet_tensorflow():
            from keras_unet.training.report import report_run

        written = report_run(run_folder, out, data=data, overwrite=overwrite)
        _log.info(f"written: {printable(written)}")


@main.command("predict")
@click.argument("paths", metavar="RUN FILES...", nargs=-1, required=True, type=PATH)
@click.option(
    "--server",
    help="Address of a model server: grpc://HOST:PORT/MODEL or http://HOST:PORT/v1/models/MODEL.",
)
@click.option(
    "--timeout", type=float, help="Seconds to wait for each response of the server [default: 300]"
)
@click.option("--out", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--save",
    default="",
    help="Outputs: any of instances,classes,probabilities,table,rois,geojson [default: kind of the "
    "training labels]",
)
@click.option(
    "--tile", type=int, help="Size of the input tile, in pixels; the result does not depend on it."
)
@AS_TRAINED
@click.option("--axes", help="Axes of FILES without axes metadata, such as YXC or CYX.")
@click.option(
    "--channels",
    help="Channels of FILES: numbers from 0, or names, such as 0,2 or DAPI [default: as trained]",
)
@click.option(
    "--tta",
    is_flag=True,
    help="Test-time augmentation: average over 8 rotated and mirrored versions.",
)
@instance_options
@click.option(
    "--link",
    type=click.Choice(["z", "t"]),
    help="Give cells one number in all planes of a volume (z), or frames of a film (t).",
)
@click.option(
    "--scale",
    metavar="auto|off|FACTOR",
    default="off",
    help="Resample images before the prediction, and the result back: by FACTOR, 2 if objects are "
    "half as wide as in training, or auto, by pixel sizes or by the objects found [default: off]",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(["tiff", "ome-zarr"]),
    help="Format of the outputs [default: that of FILES]",
)
@click.option(
    "--stream/--in-memory",
    default=None,
    help="Process images window by window [default: for more than 2^26 pixels, and Zarr]",
)
@click.option(
    "--dask", help="Address of a Dask scheduler, tcp://HOST:PORT, to predict on its workers."
)
@click.option("--workers", type=int, help="Number of local processes to predict in, by Dask.")
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
    """Segment image FILES, or folders of them, into label images of the same size.

    RUN is a run, an ensemble, an exported .tflite file, or the name of a model of the package, see
    keras-unet models. With --server, leave RUN out; MODEL may be followed by @VERSION or @LABEL.
    """
    asked = _prediction(choices)
    spread = {"--dask": dask, "--workers": workers}
    with show_progress(quiet=quiet):
        if server is not None:
            _refuse({"--tile": tile, "--precision": precision}, "fixed when the model was exported")
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
                _refuse(
                    {"--in-memory": stream is False or None},
                    "Dask processes images window by window",
                )
                with quiet_tensorflow():
                    from keras_unet.prediction.distributed import Cluster, predict_files_distributed

                predict = partial(
                    predict_files_distributed,
                    paths[0],
                    paths[1:],
                    cluster=Cluster(dask, workers),
                    form=form,
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
    """Separates the options of the outputs from those of the instances."""
    names = ("out", "tta", "link", "scale", "axes", "overwrite")
    given = {name: choices.pop(name) for name in names} | {"save": split_names(choices.pop("save"))}
    channels = choices.pop("channels")
    given |= {"channels": None if channels is None else parse_channels(channels)}
    instances = {name: value for name, value in choices.items() if value is not None}
    return given | {"instances": instances}


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
    help="Any of pixels,isbi2012,ctc,matching [default: pixels; for instances pixels,ctc,matching]",
)
@click.option("--json", type=PATH, help="Write the scores to a JSON file.")
@click.option("--report", type=PATH, help="Write scores and pictures to an HTML file.")
@click.option(
    "--labels-hold",
    type=click.Choice(["auto", "classes", "instances"]),
    default="auto",
    help="Kind of labels: classes, or instances without classes [default: auto, from the files]",
)
@click.option("--ignore", type=int, help="Label value of pixels to leave out.")
@click.option(
    "--unlabelled",
    "--unlabeled",
    type=int,
    help="Label value of pixels that nobody has labelled, for images labelled in part.",
)
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
    unlabelled: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Score PREDICTIONS against LABELS, two folders of files paired by name.

    \b
    pixels    IoU, Dice, pixel error; for several classes also by class
    isbi2012  ISBI 2012 membrane challenge: V_Rand, V_Info, warping, Rand and pixel error
    ctc       SEG of the Cell Tracking Challenge; with tracks in both folders also DET and TRA
    matching  AP, F1, PQ and counts of cells at an IoU of 0.5 ... 0.9, mean AP
    """  # noqa: D301 - click takes this backspace for lines to be left as they are
    from keras_unet.evaluation.evaluate import evaluate_folders

    with show_progress(quiet=quiet):
        evaluation = evaluate_folders(
            predictions,
            labels,
            metrics=split_names(metrics),
            kind=labels_hold,
            ignore=ignore,
            unlabelled=unlabelled,
            json=json,
            report=report,
            overwrite=overwrite,
        )
    print_tables(evaluation.tables)


@main.command("measure")
@click.argument("labels", type=PATH)
@click.option("--images", type=PATH, help="The images, for intensities.")
@click.option("--out", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--save",
    default="table",
    show_default=True,
    help="Outputs: any of table,rois,geojson",
)
@click.option(
    "--pixel-size", type=float, help="Pixel size in micrometers [default: that in the files]"
)
@click.option(
    "--labels-hold",
    type=click.Choice(["auto", "classes", "instances"]),
    default="auto",
    help="Kind of labels: classes, or instances without classes [default: auto, from the files]",
)
@OVERWRITE
@QUIET
def measure_command(
    labels: Path,
    images: Path | None,
    out: Path,
    save: str,
    pixel_size: float | None,
    labels_hold: Any,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Measure the objects of LABELS, a label image or a folder of them.

    \b
    table    objects.csv, a row for each object: position, size, shape, and intensity in IMAGES
    rois     NAME_rois.zip, outlines for ImageJ and Fiji
    geojson  NAME.geojson, outlines and measurements for QuPath
    """  # noqa: D301 - click takes this backspace for lines to be left as they are
    from keras_unet.evaluation.measure import measure_files

    with show_progress(quiet=quiet):
        written = measure_files(
            labels,
            out,
            images=images,
            save=split_names(save),
            kind=labels_hold,
            pixel_size=pixel_size,
            overwrite=overwrite,
        )
        _log.info(f"{counted(len(written), 'file')} written to {printable(out)}")


@main.command("link")
@click.argument("labels", type=PATH)
@click.option(
    "--along",
    type=click.Choice(["z", "t"]),
    required=True,
    help="z: planes of a volume. t: frames of a film, in which objects move and divide.",
)
@click.option("--out", type=PATH, required=True, help="Folder to write.")
@OVERWRITE
@QUIET
def link_command(labels: Path, along: Any, out: Path, overwrite: bool, quiet: bool) -> None:
    """Give objects the same number in all planes of LABELS.

    LABELS is a stack of label images, or a folder of stacks or of single images whose names end in
    their numbers. Writes the stack as NAME.tif, and tracks.csv, a table of the tracks with their
    parents; for a film also NAME_RES, the form of the Cell Tracking Challenge.
    """
    from keras_unet.evaluation.link import link_files

    with show_progress(quiet=quiet):
        written = link_files(labels, out, along=along, overwrite=overwrite)
        _log.info(f"written: {', '.join(printable(path) for path in written)}")


@main.command("export")
@RUN
@click.argument("out", type=PATH)
@click.option("--format", "format_", type=click.Choice(_FORMATS), required=True)
@click.option(
    "--tile",
    "tile_size",
    type=int,
    help="Size of the input tile, in pixels [default: the largest up to 512]",
)
@AS_TRAINED
@click.option(
    "--frozen", is_flag=True, default=None, help="Store the weights as constants of the graph."
)
@click.option("--version", type=int, help="Version number of the model [default: 1]")
@click.option("--quantize", help="none, float16, dynamic or int8 [default: none]")
@click.option(
    "--int8-io", is_flag=True, default=None, help="Use int8 inputs and outputs instead of float32."
)
@click.option("--data", type=PATH, help="Folder of the training images, for int8, if it has moved.")
@click.option(
    "--author",
    "authors",
    multiple=True,
    callback=none_if_absent,
    help="Name of an author; may be repeated.",
)
@click.option("--license", help="SPDX identifier of the license [default: CC-BY-4.0]")
@QUIET
def export_command(run_folder: Path, out: Path, format_: Any, quiet: bool, **choices: Any) -> None:
    """Export RUN, a run or an ensemble, to OUT.

    \b
    saved_model  folder OUT/VERSION for TensorFlow Serving: raw pixels of any size in, classes
                 of that size out. --tile, --precision, --frozen, --version
    tflite       file OUT for small devices: a network of one tile, with its tiling as metadata.
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
            "the options of other formats"
        )


@main.command("serve")
@click.argument("model", type=PATH)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=int, default=8501, show_default=True, help="Port to listen on; 0 for any."
)
@click.option("--name", help="Name of the model in the addresses [default: that of MODEL]")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL=VERSION",
    help="Name of a version, such as stable=1; may be repeated.",
)
@click.option("--max-body", type=int, help="Largest request, in MiB [default: 64]")
@click.option(
    "--max-pixels",
    type=int,
    help="Largest number of pixels of all images of a request [default: 16777216, 4096 x 4096]",
)
@click.option(
    "--queue",
    type=int,
    help="Largest number of requests that wait while others are predicted [default: 32]",
)
@click.option(
    "--timeout",
    type=float,
    help="Seconds from the start of a request to its answer [default: 300]",
)
@click.option(
    "--workers", type=int, help="Number of requests that are predicted at a time [default: 1]"
)
@QUIET
def serve_command(
    model: Path,
    host: str,
    port: int,
    name: str | None,
    labels: tuple[str, ...],
    quiet: bool,
    **bounds: Any,
) -> None:
    """Serve MODEL on this machine: REST as of TensorFlow Serving, and a page for a browser.

    MODEL is a run, an ensemble, the name of a model of the package, or a SavedModel that keras-unet
    export wrote. Ctrl-C stops the server once running requests are answered.
    """
    from keras_unet.system import require

    require("serve", "starlette", "uvicorn")
    from keras_unet.serving.queue import Limits
    from keras_unet.serving.server import Server, bind, is_loopback, url_of

    limits = Limits(**{key: value for key, value in bounds.items() if value is not None})
    versions = parse_versions(labels)
    with bind(host, port) as listener:
        with show_progress(quiet=quiet):
            with quiet_tensorflow():
                from keras_unet.serving.models import Model

            served = Model.load(model, name, versions)
            if not is_loopback(listener):
                _log.warning(
                    f"--host {host}: the server is open to other machines, without authentication "
                    "and encryption; use a proxy with both, or a tunnel"
                )
        url = url_of(listener)
        lines = f"{url}/v1/models/{served.name}\npage: {url}/\nstop: Ctrl-C"
        Server(served, listener, limits, on_start=lambda: click.echo(lines)).run()


@main.command("models")
@click.argument("name", required=False)
def models_command(name: str | None) -> None:
    """List the models of the package, or print the card of the model NAME.

    A card states images, license, scores on held-out images, and what the model fails on. predict,
    export and train --from take the names.
    """
    from keras_unet import shipped

    if name is not None:
        click.echo(shipped.card(name))
        return
    for model in shipped.names():
        record = shipped.record(model)["record"]
        click.echo(f"{model:8} {record['description']} ({record['license']})")
    click.echo("card: keras-unet models NAME; use: keras-unet predict NAME IMAGES... --out FOLDER")


class _DataCommands(click.Group):
    """Group of the commands that make training data; a name alone is that of a data set."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] not in self.commands:
            arguments = ["download", *arguments]
        return super().resolve_command(context, arguments)


@main.group("data", cls=_DataCommands)
def data_commands() -> None:
    """Make training data: download a public data set, or import annotations.

    keras-unet data NAME downloads a data set: dsb2018, isbi2012, PhC-C2DH-U373, DIC-C2DH-HeLa.
    """


@data_commands.command("import")
@click.argument("annotations", type=PATH)
@click.option("--images", type=PATH, required=True, help="The images that were annotated.")
@click.option("--out", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--labels",
    "kind",
    type=click.Choice(["instances", "classes"]),
    default="instances",
    show_default=True,
    help="A number for each object, with a table of their classes, or for each class.",
)
@QUIET
def import_command(annotations: Path, images: Path, out: Path, kind: Any, quiet: bool) -> None:
    """Convert ANNOTATIONS, a file or a folder of them, to images and labels for train.

    \b
    .roi, .zip  ROIs of ImageJ and Fiji, one file for each image
    .geojson    objects of QuPath, one file for each image
    .json       COCO, or LabelMe

    Files belong to the images of their names; COCO and LabelMe name the images.
    """  # noqa: D301 - click takes this backspace for lines to be left as they are
    from keras_unet.data.importing import import_annotations

    with show_progress(quiet=quiet):
        import_annotations(annotations, images, out, kind=kind)
        _log.info(f"next: keras-unet inspect {shlex.quote(str(out))}")


@data_commands.command("download")
@click.argument("name", metavar="NAME", type=click.Choice(list(DATASETS), case_sensitive=False))
@click.option("--out", type=PATH, help="Folder to write [default: NAME]")
@QUIET
def data_command(name: str, out: Path | None, quiet: bool) -> None:
    """Download a public data set, verify its checksum, and unpack it into folders for train.

    \b
    dsb2018        nuclei in fluorescence: train/ and test/
    isbi2012       membranes in electron microscopy: train/, and test/ without labels
    PhC-C2DH-U373  cells in phase contrast, Cell Tracking Challenge: 01/, 01_GT/SEG/, 02/ ...
    DIC-C2DH-HeLa  cells in differential interference contrast, Cell Tracking Challenge

    The archive is cached: a second download needs no network.
    """  # noqa: D301 - click takes this backspace for lines to be left as they are
    from keras_unet.data.download import download

    with show_progress(quiet=quiet):
        folder = download(name, out)
        _log.info(f"next: keras-unet inspect {shlex.quote(str(folder))}")


@main.command("demo")
@click.argument("model", required=False)
@click.option("--out", type=PATH, default=Path("keras-unet-demo"), help="Folder to write.")
@click.option("--steps", type=int, help="Training steps [default: 1000]")
@click.option("--seed", type=int, help="Seed of the random numbers [default: 0]")
@click.option(
    "--border-weight",
    type=float,
    help="w0 of the weight map, equation 2; 0 for none [default: 10]",
)
@click.option("--quiet", is_flag=True, help="Print warnings and the scores only.")
def demo_command(model: str | None, out: Path, quiet: bool, **choices: Any) -> None:
    """Train on drawn touching cells, and score the prediction of new ones.

    With MODEL, nuclei: segment an image that comes with scikit-image, without training.
    """
    with show_progress(quiet=quiet):
        with quiet_tensorflow():
            from keras_unet.demo import next_steps, run_demo, run_model_demo

        if model is not None:
            flags = {f"--{name.replace('_', '-')}": value for name, value in choices.items()}
            _refuse(flags, "for the demo that trains")
            found = run_model_demo(model, out)
        else:
            evaluation = run_demo(out, **given_options(choices))
    if model is not None:
        click.echo(
            f"{found} objects found, written to {out}:\n"
            "  demo.png     image, prediction, outlines\n"
            "  predictions/ label image\n"
            f"on your images: keras-unet predict {model} IMAGES... --out FOLDER"
        )
        return
    print_tables(evaluation.tables)
    if not quiet:
        click.echo(next_steps(out))
