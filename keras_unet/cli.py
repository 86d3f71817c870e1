"""The command line: parse, call one function, print. TensorFlow is imported by the jobs alone."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_unet.choices import names_of
from keras_unet.console import one_line_errors, prepare_process, quiet_tensorflow, show_progress
from keras_unet.data.datasets import DATASETS
from keras_unet.files import printable
from keras_unet.learning import train_command
from keras_unet.looking import doctor_command, inspect_command, report_command
from keras_unet.scoreboard import print_scores

if TYPE_CHECKING:
    from keras_unet.prediction.outputs import Form

_log = logging.getLogger(__name__)

_PATH = click.Path(path_type=Path)
_AS_CHOSEN = "[default: as chosen in training]"
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


for command in (train_command, doctor_command, inspect_command, report_command):
    main.add_command(command)


@main.command("predict")
@click.argument("paths", metavar="RUN FILES...", nargs=-1, required=True, type=_PATH)
@click.option("--server", help="grpc://HOST:PORT/MODEL or http://HOST:PORT/v1/models/MODEL.")
@click.option("--timeout", type=float, help="Seconds to wait for each of its answers (300).")
@click.option("--out", type=_PATH, required=True, help="Folder to write.")
@click.option("--save", default="", help="Of instances,classes,probabilities.")
@click.option("--tile", type=int, help="Input tile in pixels; the scores do not depend on it.")
@click.option("--precision", help="auto, float32, bfloat16 or float16; as trained if not given.")
@click.option("--axes", help="Axes of FILES that do not state them, such as YXC or CYX.")
@click.option("--tta", is_flag=True, help="Average over 8 rotated and mirrored versions.")
@click.option("--threshold", type=float, help=f"Probability that cells are above {_AS_CHOSEN}")
@click.option(
    "--seeds",
    type=click.Choice(["components", "probability", "distance"]),
    help=f"By what cells are told apart that touch {_AS_CHOSEN}",
)
@click.option("--neck", type=float, help=f"Share of the width to part them at {_AS_CHOSEN}")
@click.option("--minimum-size", type=int, help=f"Pixels of the smallest cell {_AS_CHOSEN}")
@click.option("--gap", type=float, help=f"Width in pixels of gaps to close {_AS_CHOSEN}")
@click.option("--fill-holes/--keep-holes", default=None, help=f"In cells {_AS_CHOSEN}")
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
@click.option(
    "--overwrite", is_flag=True, help="Also replace files that keras-unet has not written."
)
@click.option("--quiet", is_flag=True, help="Print warnings only.")
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
            given: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
            from keras_unet.prediction.server import predict_files_on_server

            predict = partial(predict_files_on_server, server, paths, **given)
        else:
            _refuse({"--timeout": timeout}, "of no effect without --server")
            if len(paths) == 1:
                raise click.UsageError("Missing argument 'FILES...'.", click.get_current_context())
            asked |= {"tile_size": tile, "precision": precision}
            if dask is not None or workers is not None:
                _refuse({"--in-memory": stream is False or None}, "Dask predicts by parts")
                with quiet_tensorflow():
                    from keras_unet.prediction.clusters import Cluster
                    from keras_unet.prediction.distributed import spread_files

                predict = partial(
                    spread_files, paths[0], paths[1:], cluster=Cluster(dask, workers), form=form
                )
            else:
                with quiet_tensorflow():
                    from keras_unet.prediction.folder import predict_files
                    from keras_unet.prediction.outputs import Storage

                storage = Storage(form, stream)
                predict = partial(predict_files, paths[0], paths[1:], storage=storage)
        written = predict(**asked)
        _log.info(f"{len(written)} files written to {printable(asked['out'])}")


def _prediction(choices: dict[str, Any]) -> dict[str, Any]:
    """Parts what to write from the numbers of the rule."""
    names = ("out", "save", "tta", "axes", "overwrite")
    out, save, tta, axes, overwrite = (choices.pop(name) for name in names)
    rule = {name: value for name, value in choices.items() if value is not None}
    given = {"out": out, "save": names_of(save), "symmetries": tta, "rule": rule}
    return given | {"axes": axes, "overwrite": overwrite}


def _refuse(options: dict[str, Any], reason: str) -> None:
    given = [flag for flag, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: {reason}; leave out")


@main.command("evaluate")
@click.argument("predictions", type=_PATH)
@click.argument("labels", type=_PATH)
@click.option(
    "--metrics",
    default="",
    help="Of pixels,isbi2012,ctc,matching; else pixels or, of instances, pixels,ctc,matching.",
)
@click.option("--json", type=_PATH, help="Write the scores to a file.")
@click.option("--report", type=_PATH, help="Write scores and pictures to an HTML file.")
@click.option("--labels-hold", type=click.Choice(["auto", "classes", "instances"]), default="auto")
@click.option("--ignore", type=int, help="Label value of pixels that are not to count.")
@click.option(
    "--overwrite", is_flag=True, help="Also replace a file that keras-unet has not written."
)
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
    print_scores(evaluation)


def _none_for_nothing(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Tells an option that was not given from one that was, as `None` does where none repeats."""
    return values or None


@main.command("export")
@click.argument("run_folder", metavar="RUN", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--format", "format_", type=click.Choice(_FORMATS), required=True)
@click.option("--tile", "tile_size", type=int, help="Input tile in pixels [default: fills 512]")
@click.option("--precision", help="auto, float32, bfloat16 or float16; as trained if not given.")
@click.option("--frozen", is_flag=True, default=None, help="Weights as constants.")
@click.option("--version", type=int, help="Number of the version (1).")
@click.option("--quantize", help="none, float16, dynamic or int8 (none).")
@click.option("--int8-io", is_flag=True, default=None, help="Take and give int8, not float32.")
@click.option("--data", type=_PATH, help="The training images, for int8, if they have moved.")
@click.option(
    "--author", "authors", multiple=True, callback=_none_for_nothing, help="Name; may be repeated."
)
@click.option("--license", "licence", help="SPDX identifier (CC-BY-4.0).")
@click.option("--quiet", is_flag=True, help="Print warnings only.")
def export_command(run_folder: Path, out: Path, format_: str, quiet: bool, **choices: Any) -> None:
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
            from keras_unet.export.bioimageio import export_bioimageio
            from keras_unet.export.onnx import export_onnx
            from keras_unet.export.saved_model import export_saved_model
            from keras_unet.export.tflite import export_tflite

        exports: dict[str, Callable[..., Path]] = {
            "saved_model": export_saved_model,
            "tflite": export_tflite,
            "bioimageio": export_bioimageio,
            "onnx": export_onnx,
        }
        export = exports[format_]
        _refuse_of_other_formats(given, signature(export).parameters, format_)
        _log.info(f"written: {printable(export(run_folder, out, **given))}")


def _refuse_of_other_formats(given: Iterable[str], taken: Iterable[str], name: str) -> None:
    """Refuses options that are not among the arguments of a format's function."""
    flags = {str(one.name): one.opts[0] for one in click.get_current_context().command.params}
    others = [flags[option] for option in given if option not in taken]
    if others:
        known = [
            flag for option, flag in flags.items() if option in set(taken) - {"run_folder", "out"}
        ]
        raise ValueError(
            f"--format {name} takes {', '.join(known)}. Received {', '.join(others)}; leave out "
            "what belongs to other formats"
        )


@main.command("data")
@click.argument("name", metavar="NAME", type=click.Choice(list(DATASETS), case_sensitive=False))
@click.option("--out", type=_PATH, help="Folder to write [default: NAME]")
@click.option("--quiet", is_flag=True, help="Print warnings only.")
def data_command(name: str, out: Path | None, quiet: bool) -> None:
    """Download a public data set, verify it, and unpack it into folders that train takes.

    \b
    dsb2018        nuclei in fluorescence: train/ and test/
    isbi2012       membranes in electron microscopy: train/, and test/ without labels
    PhC-C2DH-U373  cells in phase contrast, Cell Tracking Challenge: 01/, 01_GT/SEG/, 02/ ...
    DIC-C2DH-HeLa  the same, cells in differential interference contrast

    The archive is kept in a cache, so a second time needs no network.
    """  # noqa: D301 - click takes this backspace for lines to be left as they are
    from keras_unet.data.download import fetch_dataset

    with show_progress(quiet=quiet):
        folder = fetch_dataset(name, out or Path(name))
        _log.info(f"next: keras-unet inspect {shlex.quote(str(folder))}")


@main.command("demo")
@click.option("--out", type=_PATH, default=Path("keras-unet-demo"), help="Folder to write.")
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
    print_scores(evaluation)
    if not quiet:
        click.echo(what_next(out))
