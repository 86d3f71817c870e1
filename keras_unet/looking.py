"""Commands that look and change nothing: at the environment, at data, at a run."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_unet.choices import given_of, options_of_data
from keras_unet.console import quiet_tensorflow, show_progress, status
from keras_unet.files import make_folder, printable, write_json

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from keras_unet.doctor import Diagnosis

_PATH = click.Path(path_type=Path)


@click.command("doctor")
@click.option("--json", type=_PATH, help="Write what was found to a file.")
@click.option(
    "--overwrite", is_flag=True, help="Also replace a file that keras-unet has not written."
)
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


@click.command("inspect")
@click.argument("data", type=_PATH)
@click.option(
    "--out",
    type=_PATH,
    default=Path("keras-unet-inspect"),
    show_default=True,
    help="Folder to write the pictures to.",
)
@options_of_data
@click.option("--quiet", is_flag=True, help="Print warnings only.")
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


@click.command("report")
@click.argument("run_folder", metavar="RUN", type=_PATH)
@click.option("--out", type=_PATH, help="File to write [default: RUN/report.html]")
@click.option("--data", type=_PATH, help="The training images, if they have moved.")
@click.option(
    "--overwrite", is_flag=True, help="Also replace a file that keras-unet has not written."
)
@click.option("--quiet", is_flag=True, help="Print warnings only.")
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
