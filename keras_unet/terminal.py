"""What a person at the terminal sees of a job: progress, one line for an error, and no chatter."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_unet.quiet import compiled_code_quiet
from keras_unet.shortage import is_memory_shortage

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from keras_unet.plan import Progress, TrainingPlan

_SHORTAGE = re.compile(  # in the page that TensorFlow writes, without device and operation
    r"\b(OOM when|out of memory|unable to allocate|failed to allocate|could not create).*?"
    r"(?= on /job:| \[Op:| *\[\[|, in file|$)",
    re.IGNORECASE | re.MULTILINE,
)


class _Failure(click.ClickException):
    """An error in one line; click prints it."""

    exit_code = 2

    def format_message(self) -> str:
        return " ".join(self.message.split())


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what goes wrong into one line and exit code 2, in one place."""
    try:
        yield
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "keras-unet"
        raise _Failure(f"{error.format_message()} See: {path} --help") from error
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise _Failure(str(error)) from error
    except Exception as error:
        if not is_memory_shortage(error):
            raise
        found = _SHORTAGE.search(str(error))
        reason = f" ({found[0]})" if found else ""
        raise _Failure(
            f"not enough memory{reason}; take a smaller --tile, or train with fewer --base-filters "
            "or a smaller --batch-size"
        ) from error


def import_quietly(module: str) -> Any:
    """Imports a module that imports TensorFlow, without TensorFlow's greetings.

    They are written to standard error by compiled code, before it knows how much to say. What was
    held back is shown if the import fails. Later advice to programmers, on functions traced anew
    for images of another size, is turned off as well.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" in sys.modules:
        return import_module(module)
    with compiled_code_quiet():
        return import_module(module)


class Lines:
    """Progress as plain lines, for a log: one a validation. Warnings go to standard error."""

    def __init__(self, *, quiet: bool = False, pause: float = 60) -> None:
        """Takes whether warnings alone are wanted, and the seconds between lines on tiles."""
        self.quiet = quiet
        self.pause = pause
        self.plan: TrainingPlan | None = None
        self.pace: _Pace | None = None

    def on_start(self, plan: TrainingPlan) -> None:
        """Takes in how long the training will be."""
        self.plan = plan

    def on_step(self, progress: Progress) -> None:
        """Prints a line if the step has ended in a validation."""
        if progress.rows and progress.rows[-1]["step"] == progress.step:
            self.say(f"{_validation(progress)}, {self.left(progress)} left")

    def on_tiles(self, path: Path, done: int, total: int) -> None:
        """Tells of the tiles of an image that are predicted, now and then."""
        self.on_part(path, done, total, "tile {:,} of {:,}")

    def on_bytes(self, path: Path, done: int, total: int) -> None:
        """Tells of the bytes of a file that have come, now and then."""
        self.on_part(path, done, total, "{:,} of {:,} bytes")

    def on_part(self, path: Path, done: int, total: int, words: str) -> None:
        """Prints a line on how far the work on a file is, now and then."""
        pace = self.pace_of(path, done)
        if time.monotonic() - pace.told >= self.pause:
            pace.told = time.monotonic()
            self.say(pace.describe(done, total, words))

    def pace_of(self, path: Path, done: int) -> _Pace:
        """Returns how fast a file goes, from its first part on."""
        if self.pace is None or self.pace.path != path:
            now = time.monotonic()
            self.pace = _Pace(path, done, now, now)
        return self.pace

    def say(self, line: str) -> None:
        """Prints a line."""
        is_warning = line.startswith("Warning")
        if is_warning or not self.quiet:
            click.echo(line, err=is_warning)

    def left(self, progress: Progress) -> str:
        """Estimates the time left from the share that is done, be it of steps or of minutes."""
        done = self.plan.progress(progress.step, progress.seconds) if self.plan else 0.0
        if done == 0:
            return "-:--"
        return str(timedelta(seconds=round(progress.seconds * (1 - done) / done)))


@dataclass
class _Pace:
    """How fast the parts of a file go: how many were done when, and when it was last told."""

    path: Path
    before: int
    started: float
    told: float

    def describe(self, done: int, total: int, words: str) -> str:
        seconds, made = time.monotonic() - self.started, done - self.before
        left = str(timedelta(seconds=round(seconds * (total - done) / made))) if made else "-:--"
        return f"{self.path.name}: {words.format(done, total)}, {left} left"


class BarWithLines(Lines):
    """Progress as a bar with loss, score and time left, and lines above it."""

    def __init__(self, bar: Bar) -> None:
        """Takes the bar to move."""
        super().__init__()
        self.bar = bar
        self.task = bar.add_task("", total=1.0, start=False, visible=False)

    def on_start(self, plan: TrainingPlan) -> None:
        """Shows the bar."""
        super().on_start(plan)
        self.bar.update(self.task, visible=True, description="building the network")
        self.bar.start_task(self.task)

    def on_step(self, progress: Progress) -> None:
        """Moves the bar, and prints a line above it if the step has ended in a validation."""
        super().on_step(progress)
        score = "" if progress.score is None else f"  score {progress.score:.4f}"
        self.bar.update(
            self.task,
            completed=self.plan.progress(progress.step, progress.seconds) if self.plan else 0.0,
            description=f"step {progress.step}  loss {progress.loss:.4f}{score}  "
            f"{self.left(progress)} left",
        )

    def on_part(self, path: Path, done: int, total: int, words: str) -> None:
        """Shows the bar, and moves it."""
        text = self.pace_of(path, done).describe(done, total, words)
        self.bar.start_task(self.task)
        self.bar.update(self.task, visible=True, completed=done / total, description=text)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        style = "yellow" if line.startswith("Warning") else None
        self.bar.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_shown(*, quiet: bool = False) -> Iterator[Lines]:
    """Shows progress as a bar or, without a terminal, as a line now and then."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    if quiet or not sys.stdout.isatty():
        yield Lines(quiet=quiet)
        return
    columns = BarColumn(bar_width=30), TaskProgressColumn(), TextColumn("{task.description}")
    with Progress(*columns) as bar:
        yield BarWithLines(bar)


def _validation(progress: Progress) -> str:
    """Describes a validation."""
    row = progress.rows[-1]
    loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
    if row["score"] is None:
        return f"step {row['step']}: loss {loss}"
    best = "the best so far" if progress.stale == 0 else f"best {progress.best_score:.4f}"
    return f"step {row['step']}: loss {loss}, score {row['score']:.4f} ({best})"
