"""Progress, messages and one-line errors in a terminal, a log or a notebook.

The display is a context, `with show_progress():`, rather than an argument of every function. A
notebook shows progress by default, a script does not. rich is imported only to draw.
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
"""Duration in seconds from which on a task is shown."""

_FIRST, _PAUSE = 20, 60  # seconds to a task's first line in a log, and between lines
_REFRESH = 0.25  # seconds between two updates of a notebook's display
_MOST_ROWS = 8  # of finished tasks in a notebook's display
_PRE = '<pre style="line-height: normal; white-space: pre">{code}</pre>'
_STDERR = 2
_OUT_OF_MEMORY = re.compile(  # the reason in TensorFlow's message, without device and operation
    r"\b(OOM when|out of memory|unable to allocate|failed to allocate|could not create).*?"
    r"(?= on /job:| \[Op:| *\[\[|, in file|$)",
    re.IGNORECASE | re.MULTILINE,
)


class Task:
    """Task with a known or unknown number of steps.

    It is shown between `start` and `end`, or in a `with` statement.

    Attributes:
        description: What the task does, such as "reading images".
        total: Number of steps; None or 1 if its progress is unknown.
        before: Number of steps that were completed before the start.
        completed: Number of completed steps.
        counts: Format of the progress, with `completed` and `total` as arguments.
        logged: Whether a log shows the progress.
        display: Display of the task; None before the start.
        started: Start, in seconds of the monotonic clock.
        ended: End; None before it.
        last_logged: Time of its last line in a log.
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
        """Describes the task, which need not start at 0."""
        self.description, self.total, self.counts = description, total, counts
        self.before = self.completed = completed
        self.logged = logged
        self.display: Display | None = None
        self.ended: float | None = None
        self.started = self.last_logged = time.monotonic()

    def start(self) -> Self:
        """Starts the task, on the display of this context."""
        self.started = self.last_logged = time.monotonic()
        self.display = current_display()
        self.display.update(self)
        return self

    def advance(self, steps: float = 1) -> None:
        """Adds completed steps; the last one ends the task."""
        self.completed += steps
        if self.completed == self.total:
            self.end()
        elif self.display:
            self.display.update(self)

    def update(self, completed: float, counts: str | None = None) -> None:
        """Sets the number of completed steps, and optionally the format `counts`."""
        self.completed = completed
        self.counts = self.counts if counts is None else counts
        if self.display:
            self.display.update(self)

    def end(self) -> None:
        """Ends the task; does nothing if it has ended."""
        if self.ended is None:
            self.ended = time.monotonic()
            if self.display:
                self.display.update(self)

    def __enter__(self) -> Self:
        """Starts the task."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Ends the task."""
        self.end()

    @property
    def seconds(self) -> float:
        """Time since the start, or duration of the task once it has ended, in seconds."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def share(self) -> float | None:
        """Completed share of the task, 0 to 1; None if unknown."""
        return None if self.total in (None, 0, 1) else self.completed / self.total

    @property
    def left(self) -> str:
        """Estimated time of the remaining steps."""
        steps = self.completed - self.before
        if self.total is None or steps <= 0:
            return "-:--"
        return duration(self.seconds * (self.total - self.completed) / steps)

    def describe(self) -> str:
        """Returns the progress with the remaining time or, after the end, with the duration.

        >>> Task("reading images", 4).describe()
        'reading images: 0 of 4, -:-- left'
        """
        if self.share is None:
            return self.description + ("" if self.ended is None else f": {duration(self.seconds)}")
        counts = self.counts.format(self.completed, self.total)
        left = f"{self.left} left" if self.ended is None else duration(self.seconds)
        return f"{self.description}: {counts}, {left}"


class Display(logging.Handler):
    """Display of progress and messages; this base class prints warnings only."""

    lowest = logging.WARNING

    def __init__(self) -> None:
        """Sets the lowest level of messages."""
        super().__init__(self.lowest)

    def update(self, task: Task) -> None:
        """Shows that a task has started, advanced or ended."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message."""
        click.echo(message_of(record), err=record.levelno >= logging.WARNING)


class LogDisplay(Display):
    """Lines in a log: a line every minute for tasks that take long."""

    lowest = logging.INFO

    def update(self, task: Task) -> None:
        """Prints a line if the last one is a minute old, or the task has ended after one."""
        now, has_line = time.monotonic(), task.last_logged > task.started
        pause = _PAUSE if has_line or task.total is None else _FIRST
        is_due = now - task.last_logged >= pause or (task.ended is not None and has_line)
        if task.logged and is_due:
            task.last_logged = now
            click.echo(task.describe())


class TerminalDisplay(Display):
    """Progress bars in a terminal, drawn by `rich.live.Live`, and messages above them."""

    lowest = logging.INFO

    def __init__(self, console: Console) -> None:
        """Uses a console of rich."""
        super().__init__()
        self.console = console
        self.tasks: list[Task] = []

    def update(self, task: Task) -> None:
        """Adds or removes a bar."""
        if task.ended is not None:
            self.tasks.remove(task)
        elif task not in self.tasks:
            self.tasks.append(task)

    def __rich__(self) -> Table:
        """Returns the bars of tasks that take long."""
        late = (task for task in tuple(self.tasks) if task.seconds >= LATE)
        return _bars((task.share, task.describe()) for task in late)

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message above the bars."""
        style = "yellow" if record.levelno >= logging.WARNING else None
        line = message_of(record)
        self.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


class NotebookDisplay(Display):
    """Progress in a notebook: one display per cell, which is saved with the notebook as text.

    Nested tasks are shown until they end. Short tasks are not shown, except those without steps,
    which cannot be shown later.
    """

    lowest = logging.INFO

    def __init__(self, shell: Any) -> None:
        """Uses IPython's shell, which counts the cells."""
        super().__init__()
        self.shell = shell
        self.cell: int | None = None
        self.handle: Any = None
        self.refreshed = 0.0
        self.tasks: list[Task] = []
        self.finished: dict[str, str] = {}

    def update(self, task: Task) -> None:
        """Shows or updates a task, and keeps its line after the end."""
        if self.cell != self.shell.execution_count:
            self.cell, self.handle = self.shell.execution_count, None
            self.tasks, self.finished = [], {}
        self.tasks = [other for other in self.tasks if other is not task]
        is_late, has_no_steps = task.seconds >= LATE, task.total is None
        if task.ended is None:
            self.tasks.append(task)
        elif is_late and not self.tasks:
            self._keep(task)
        if is_late or has_no_steps:
            self._show(now=has_no_steps or task.ended is not None)

    def _keep(self, task: Task) -> None:
        """Keeps the line of a finished task, in place of one of the same name unless not logged."""
        name = task.description if task.logged else f"{task.description} {len(self.finished)}"
        self.finished.pop(name, None)
        self.finished[name] = task.describe()
        if len(self.finished) > _MOST_ROWS:
            del self.finished[next(iter(self.finished))]

    def _show(self, *, now: bool) -> None:
        from IPython.display import display

        if not now and time.monotonic() - self.refreshed < _REFRESH:
            return
        finished = ((1.0, text) for text in self.finished.values())
        tasks = ((task.share, task.describe()) for task in self.tasks)
        bundle = _bundle(_bars([*finished, *tasks]))
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self.handle.update(bundle, raw=True)
        self.refreshed = time.monotonic()


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
    """Renders a table for a notebook."""
    # The notebook display of rich needs ipywidgets and is not saved.
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
    """Returns the text of a log record, marked if it is a warning."""
    warning = "Warning: " if record.levelno >= logging.WARNING else ""
    return warning + record.getMessage()


_CHOSEN: ContextVar[Display | None] = ContextVar("display", default=None)
_NONE = Display()
_STARTING: ContextVar[bool] = ContextVar("starting TensorFlow", default=False)


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[None]:
    """Shows the progress and the messages of all tasks in the body.

    Shows bars in a terminal, one display per cell in a notebook, and a line every minute elsewhere.
    Messages are those of the logger "keras_unet" from the level INFO on; warnings are printed to
    standard error.

    Args:
        quiet: Whether to show only warnings.

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
    """Shows the progress and the messages of all tasks in the body on a display."""
    token, logger = _CHOSEN.set(display), logging.getLogger("keras_unet")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    kept = (handler for handler in handlers if not isinstance(handler, Display))
    logger.handlers = [*kept, display]
    logger.setLevel(logging.INFO)
    # TensorFlow adds a handler to a root logger without one when it saves or loads a model.
    logger.propagate = propagate and bool(logging.getLogger().handlers)
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
        logger.propagate = propagate
        _CHOSEN.reset(token)


def current_display() -> Display:
    """Returns the display of this context."""
    chosen, shell = _CHOSEN.get(), _notebook()
    if chosen is not None:
        return chosen
    return _NONE if shell is None else _display_of(shell)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields items, and shows the progress through them.

    Args:
        items: The items.
        description: What is done with them, such as "reading images".
        total: Number of items; None for `len(items)`.

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
    """Returns a task without steps, for a `with` statement.

    Args:
        description: What the task does.
    """
    return Task(description)


def _is_terminal() -> bool:
    """Returns whether the standard output is a terminal that can overwrite lines."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    return not Console().is_dumb_terminal


def _notebook() -> Any | None:
    """Returns IPython's shell in the main thread of a notebook's kernel, None elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is None or threading.current_thread() is not threading.main_thread():
        return None
    shell = ipython.get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


@cache
def _display_of(shell: Any) -> NotebookDisplay:
    return NotebookDisplay(shell)


class _Failure(click.ClickException):
    """Error of one line, which click prints."""

    exit_code = 2

    def format_message(self) -> str:
        return " ".join(self.message.split())


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Converts errors of the body to a message of one line and exit code 2."""
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
        match = _OUT_OF_MEMORY.search(str(error))
        reason = f" ({match[0]})" if match else ""
        raise _Failure(
            f"not enough memory{reason}; choose a smaller --tile, or train with fewer "
            "--base-filters or a smaller --batch-size"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error means that memory ran out: in Python, TensorFlow or oneDNN.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError())
    (True, False)
    """
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)  # without an import
    if errors is None or isinstance(error, MemoryError):
        return isinstance(error, MemoryError)
    in_onednn = isinstance(error, errors.AbortedError) and "Status: 1," in str(error)
    return in_onednn or isinstance(error, errors.ResourceExhaustedError)


def prepare_process() -> dict[str, str]:
    """Makes this process and its children independent of settings of the terminal.

    matplotlib uses the backend Agg, also under a notebook's kernel, since nothing is drawn on a
    screen. Characters that the terminal's encoding lacks are printed as escapes.

    Returns:
        The environment variables before the change.
    """
    before = dict(os.environ)
    os.environ["MPLBACKEND"] = "Agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return before


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Suppresses TensorFlow's messages while the body imports it.

    Compiled code writes them to standard error, before its log level is set. They are shown if the
    import fails. `keras_unet.backend` uses it, and the command line around slow imports.

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
    """Suppresses the standard error of the body, also of compiled code.

    Args:
        shown_on_error: Whether to print the suppressed text if the body raises an exception other
            than Ctrl-C.
    """
    with tempfile.TemporaryFile() if shown_on_error else Path(os.devnull).open("wb") as captured:
        try:
            with _redirect_stderr(captured.fileno()):
                yield
        except Exception:
            if shown_on_error:
                captured.seek(0)
                sys.stderr.write(captured.read().decode(errors="replace"))
            raise


@contextmanager
def _redirect_stderr(descriptor: int) -> Iterator[None]:
    sys.stderr.flush()
    original = os.dup(_STDERR)
    os.dup2(descriptor, _STDERR)
    try:
        yield
    finally:
        os.dup2(original, _STDERR)
        os.close(original)


def duration(seconds: float) -> str:
    """Formats a duration.

    >>> duration(3725.2)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


def counted(number: int, noun: str) -> str:
    """Formats a number with its noun.

    >>> counted(1, "plane"), counted(1200, "plane")
    ('1 plane', '1,200 planes')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """Formats a list of names, cut after the first few.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shortened(name: str, room: int) -> str:
    """Cuts a long name in the middle, since names differ at either end.

    >>> shortened("abcdefgh", 5), shortened("abc", 5)
    ('ab…gh', 'abc')
    """
    if len(name) <= room:
        return name
    end = (room - 1) // 2
    return f"{name[: room - 1 - end]}…{name[-end:]}"
