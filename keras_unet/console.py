"""Terminal, log or notebook: progress, messages, one-line errors, and no chatter of compiled code.

The display is chosen around the work, `with show_progress():`, and not handed down through every
function. A notebook shows progress without being asked for it, a script does not. rich is imported
where something is drawn.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Item = TypeVar("Item")

LATE = 1.0
"""Seconds that a task takes before a bar shows it: what is quicker needs none."""

_FIRST, _PAUSE = 20, 60  # seconds to a task's first line in a log, and between lines
_OFTEN = 0.25  # seconds between two states of a notebook's display
_MOST_ROWS = 8  # of finished tasks, in a notebook's display
_PRE = '<pre style="line-height: normal; white-space: pre">{code}</pre>'
_STDERR = 2
_OUT_OF_MEMORY = re.compile(  # in the page that TensorFlow writes, without device and operation
    r"\b(OOM when|out of memory|unable to allocate|failed to allocate|could not create).*?"
    r"(?= on /job:| \[Op:| *\[\[|, in file|$)",
    re.IGNORECASE | re.MULTILINE,
)


class Task:
    """Work under way: what it is, how far it has come, and how long it will take.

    It is shown between `start` and `end`, or within `with`.

    Attributes:
        description: What is done.
        total: Number of steps; None or 1 where progress is unknown.
        completed: Number of steps that are done.
        counts: Text of these two, which `str.format` puts in.
        logged: Whether a log tells of it now and then.
        started: When it was started, by the monotonic clock.
        ended: When it ended; None while it goes on.
        told: When a log last told of it.
    """

    def __init__(
        self,
        description: str,
        total: float | None = None,
        *,
        completed: float = 0,
        counts: str = "{:,} of {:,}",
        logged: bool = True,
    ) -> None:
        """Takes what is to be done, some of which may have been done before."""
        self.description, self.total, self.counts = description, total, counts
        self.before = self.completed = completed
        self.logged = logged
        self.display: Display | None = None
        self.ended: float | None = None
        self.started = self.told = time.monotonic()

    def start(self) -> Self:
        """Shows the task, on the display of this context."""
        self.started = self.told = time.monotonic()
        self.display = current_display()
        self.display.update(self)
        return self

    def advance(self, steps: float = 1) -> None:
        """Adds steps that are done; the last one ends the task."""
        self.completed += steps
        if self.completed == self.total:
            self.end()
        elif self.display:
            self.display.update(self)

    def update(self, completed: float, counts: str | None = None) -> None:
        """Sets how many steps are done, and the text that says so."""
        self.completed = completed
        self.counts = self.counts if counts is None else counts
        if self.display:
            self.display.update(self)

    def end(self) -> None:
        """Ends the task, be it by an error; once it has ended, nothing happens."""
        if self.ended is None:
            self.ended = time.monotonic()
            if self.display:
                self.display.update(self)

    def __enter__(self) -> Self:
        """Starts it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self.end()

    @property
    def seconds(self) -> float:
        """Time that it has taken."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def share(self) -> float | None:
        """Share that is done, 0 to 1; None where unknown."""
        return None if self.total in (None, 0, 1) else self.completed / self.total

    @property
    def left(self) -> str:
        """Time that the steps to come will take."""
        made = self.completed - self.before
        if self.total is None or made <= 0:
            return "-:--"
        return duration(self.seconds * (self.total - self.completed) / made)

    def describe(self) -> str:
        """Says how far it is and how long it will take or, once it has ended, has taken.

        >>> Task("reading images", 4).describe()
        'reading images: 0 of 4, -:-- left'
        """
        if self.share is None:
            return self.description + ("" if self.ended is None else f": {duration(self.seconds)}")
        counts = self.counts.format(self.completed, self.total)
        left = f"{self.left} left" if self.ended is None else duration(self.seconds)
        return f"{self.description}: {counts}, {left}"


class Display(logging.Handler):
    """Progress and messages; here warnings alone, printed to standard error."""

    lowest = logging.WARNING

    def __init__(self) -> None:
        """Prints messages from the lowest level on."""
        super().__init__(self.lowest)

    def update(self, task: Task) -> None:
        """Takes in that a task has started, gone on or ended."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message."""
        click.echo(message_of(record), err=record.levelno >= logging.WARNING)


class LogDisplay(Display):
    """Lines for a log: of tasks whose steps take longer than some seconds, then every minute."""

    lowest = logging.INFO

    def update(self, task: Task) -> None:
        """Prints a line now and then, and when a task ends of which one was printed."""
        now, is_told = time.monotonic(), task.told > task.started
        pause = _PAUSE if is_told or task.total is None else _FIRST
        if task.logged and (now - task.told >= pause or (task.ended is not None and is_told)):
            task.told = now
            click.echo(task.describe())


class TerminalDisplay(Display):
    """A bar for each task, for `rich.live.Live` to draw, and messages above them."""

    lowest = logging.INFO

    def __init__(self, console: Console) -> None:
        """Takes the terminal."""
        super().__init__()
        self.console = console
        self.tasks: list[Task] = []

    def update(self, task: Task) -> None:
        """Adds a bar, or takes it away."""
        if task.ended is not None:
            self.tasks.remove(task)
        elif task not in self.tasks:
            self.tasks.append(task)

    def __rich__(self) -> Table:
        """Draws the bars of tasks that take long."""
        late = (task for task in tuple(self.tasks) if task.seconds >= LATE)
        return _bars((task.share, task.describe()) for task in late)

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message above the bars."""
        style = "yellow" if record.levelno >= logging.WARNING else None
        line = message_of(record)
        self.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


class NotebookDisplay(Display):
    """One display a cell, renewed in place, that stays as text when the notebook is saved.

    Tasks within others are shown while they last. What is quick is not shown, but for tasks without
    steps, which are shown at once: there is no other moment.
    """

    lowest = logging.INFO

    def __init__(self, shell: Any) -> None:
        """Takes IPython's shell, which counts the cells."""
        super().__init__()
        self.shell = shell
        self.cell: int | None = None
        self.shown: Any = None
        self.renewed = 0.0
        self.tasks: list[Task] = []
        self.finished: dict[str, str] = {}

    def update(self, task: Task) -> None:
        """Shows a task, renews it, and keeps a line of it when it has ended."""
        if self.cell != self.shell.execution_count:
            self.cell, self.shown = self.shell.execution_count, None
            self.tasks, self.finished = [], {}
        self.tasks = [other for other in self.tasks if other is not task]
        late, whole = task.seconds >= LATE, task.total is None
        if task.ended is None:
            self.tasks.append(task)
        elif late and not self.tasks:
            self._keep(task)
        if late or whole:
            self._show(now=whole or task.ended is not None)

    def _keep(self, task: Task) -> None:
        """Keeps a line, in the place of one on the same, though not of another training."""
        name = task.description if task.logged else f"{task.description} {len(self.finished)}"
        self.finished.pop(name, None)
        self.finished[name] = task.describe()
        if len(self.finished) > _MOST_ROWS:
            del self.finished[next(iter(self.finished))]

    def _show(self, *, now: bool) -> None:
        from IPython.display import display

        if not now and time.monotonic() - self.renewed < _OFTEN:
            return
        finished = ((1.0, text) for text in self.finished.values())
        tasks = ((task.share, task.describe()) for task in self.tasks)
        bundle = _bundle(_bars([*finished, *tasks]))
        if self.shown is None:
            self.shown = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self.shown.update(bundle, raw=True)
        self.renewed = time.monotonic()


def _bars(rows: Iterable[tuple[float | None, str]]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for share, text in rows:
        bar = ProgressBar(total=1, completed=share or 0, width=30, pulse=share is None)
        percentage = "" if share is None else f"{share:4.0%}"
        table.add_row(bar, percentage, Text(text, no_wrap=True, overflow="ellipsis"))
    return table


def _bundle(table: Table) -> dict[str, str]:
    """Renders a table for a notebook; rich's own way needs ipywidgets and leaves nothing."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(), record=True, width=100, force_jupyter=False, color_system="truecolor"
    )
    console.print(table)
    return {
        "text/html": console.export_html(clear=False, inline_styles=True, code_format=_PRE),
        "text/plain": console.export_text(),
    }


def message_of(record: logging.LogRecord) -> str:
    """Returns what is logged as it is printed."""
    warning = "Warning: " if record.levelno >= logging.WARNING else ""
    return warning + record.getMessage()


_CHOSEN: ContextVar[Display | None] = ContextVar("display", default=None)
_NONE = Display()
_STARTING: ContextVar[bool] = ContextVar("starting TensorFlow", default=False)


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[None]:
    """Shows the progress of all that is done in the body, and what is logged.

    In a terminal by bars, in a notebook by one display a cell, elsewhere by a line now and then.
    Messages are those of the logger "keras_unet", from the level INFO on; warnings go to standard
    error.

    Args:
        quiet: Whether to show warnings alone.

    Example:
        >>> from keras_unet import show_progress
        >>> with show_progress(quiet=True):
        ...     pass  # train_folder(...), predict_files(...)
    """
    shell = _notebook()
    if quiet:
        with use_display(Display()):
            yield
    elif shell is not None:
        with use_display(_display_of(shell)):
            yield
    elif _is_terminal():
        from rich.console import Console
        from rich.live import Live

        bars = TerminalDisplay(Console())
        with (
            Live(bars, console=bars.console, refresh_per_second=10, transient=True),
            use_display(bars),
        ):
            yield
    else:
        with use_display(LogDisplay()):
            yield


@contextmanager
def use_display(display: Display) -> Iterator[None]:
    """Shows the progress of all that is done in the body, and what is logged, by a display."""
    token, logger = _CHOSEN.set(display), logging.getLogger("keras_unet")
    handlers, level = logger.handlers, logger.level
    logger.handlers = [*(one for one in handlers if not isinstance(one, Display)), display]
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
        _CHOSEN.reset(token)


def current_display() -> Display:
    """Returns the display of this context."""
    chosen, shell = _CHOSEN.get(), _notebook()
    if chosen is not None:
        return chosen
    return _NONE if shell is None else _display_of(shell)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields items, and shows how many are done.

    Args:
        items: What is worked on.
        description: What is done with them.
        total: Their number; None for `len(items)`.

    Example:
        >>> list(track("abc", "reading letters"))
        ['a', 'b', 'c']
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Task(description, total) as task:
        for item in items:
            yield item
            task.advance()


def status(description: str) -> Task:
    """Makes a task without steps, for `with`.

    Args:
        description: What is done.
    """
    return Task(description)


def _is_terminal() -> bool:
    """Tells whether lines can be written over: not in a file, nor in a terminal that cannot."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    return not Console().is_dumb_terminal


def _notebook() -> Any | None:
    """Returns IPython's shell where this is the main thread of a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    if ipython is None or threading.current_thread() is not threading.main_thread():
        return None
    shell = ipython.get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


@cache
def _display_of(shell: Any) -> NotebookDisplay:
    return NotebookDisplay(shell)


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
        if not is_out_of_memory(error):
            raise
        found = _OUT_OF_MEMORY.search(str(error))
        reason = f" ({found[0]})" if found else ""
        raise _Failure(
            f"not enough memory{reason}; take a smaller --tile, or train with fewer --base-filters "
            "or a smaller --batch-size"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Tells whether memory ran out: in Python, in TensorFlow, or in oneDNN, which says status 1.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError())
    (True, False)
    """
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)  # not imported for this
    if errors is None or isinstance(error, MemoryError):
        return isinstance(error, MemoryError)
    in_onednn = isinstance(error, errors.AbortedError) and "Status: 1," in str(error)
    return in_onednn or isinstance(error, errors.ResourceExhaustedError)


def prepare_process() -> dict[str, str]:
    """Makes this process, and those that it starts, independent of a terminal's settings.

    Nothing is drawn on a screen, so matplotlib's backend is Agg, whatever a notebook's kernel has
    handed on; what the encoding of the terminal lacks is written as an escape.

    Returns:
        The environment as it was before.
    """
    before = dict(os.environ)
    os.environ["MPLBACKEND"] = "Agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return before


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow from greeting while the body imports it.

    The greetings are written to standard error by compiled code, before it knows how much to say.
    They are shown if the import fails.

    `keras_unet.backend` does it for whoever imports the package; the command line does it around
    imports of modules that take as long.

    Example:
        >>> with quiet_tensorflow():
        ...     import keras
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules or _STARTING.get():
        yield
        return
    token = _STARTING.set(True)
    try:
        with status("starting TensorFlow"), quiet_stderr():
            yield
    finally:
        _STARTING.reset(token)


@contextmanager
def quiet_stderr(*, shown_on_error: bool = True) -> Iterator[None]:
    """Keeps the body, compiled code included, from writing to standard error.

    Args:
        shown_on_error: Whether what it wrote is shown if it raises an exception. Ctrl-C needs no
            explanation.
    """
    with tempfile.TemporaryFile() if shown_on_error else Path(os.devnull).open("wb") as held_back:
        try:
            with _stderr_to(held_back.fileno()):
                yield
        except Exception:
            if shown_on_error:
                held_back.seek(0)
                sys.stderr.write(held_back.read().decode(errors="replace"))
            raise


@contextmanager
def _stderr_to(descriptor: int) -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    os.dup2(descriptor, _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)


def duration(seconds: float) -> str:
    """Writes a time.

    >>> duration(3725.2)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


def counted(number: int, noun: str) -> str:
    """Writes how many there are of something.

    >>> counted(1, "plane"), counted(1200, "plane")
    ('1 plane', '1,200 planes')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """Lists the first of many names, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shortened(name: str, room: int) -> str:
    """Leaves out the middle of a name that is too long: names differ at either end.

    >>> shortened("abcdefgh", 5), shortened("abc", 5)
    ('ab…gh', 'abc')
    """
    if len(name) <= room:
        return name
    end = (room - 1) // 2
    return f"{name[: room - 1 - end]}…{name[-end:]}"
