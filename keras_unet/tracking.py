"""Long work tells how far it is to whoever shows that: the command line, a notebook, or nobody.

What shows it is chosen around the work, `with progress_shown():`, and not handed down through every
function. In a notebook it is shown without being asked for, in a script it is not.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

from keras_unet.displays import BarWithLines, CellDisplay, Lines, late_bars
from keras_unet.work import Work

Part = TypeVar("Part")

_CHOSEN: ContextVar[Lines | None] = ContextVar("display", default=None)


@contextmanager
def progress_shown(*, quiet: bool = False) -> Iterator[Lines]:
    """Shows the progress of all that is done in the body, and what is logged.

    In a terminal by bars, in a notebook by one display a cell, elsewhere by a line now and then.
    Messages are those of the logger "keras_unet", from the level INFO on; warnings go to standard
    error.

    Args:
        quiet: Whether to show warnings alone.

    Example:
        >>> from keras_unet import progress_shown
        >>> with progress_shown(quiet=True):
        ...     pass  # train_folder(...), predict_files(...)
    """
    shell = _notebook()
    if quiet:
        with shown_by(Lines(quiet=True)) as lines:
            yield lines
    elif shell is not None:
        with shown_by(_display_of(shell)) as cell:
            yield cell
    elif _is_terminal():
        with late_bars() as bar, shown_by(BarWithLines(bar)) as bars:
            yield bars
    else:
        with shown_by(Lines()) as lines:
            yield lines


def display() -> Lines:
    """Returns what shows progress here and now."""
    chosen = _CHOSEN.get()
    if chosen is not None:
        return chosen
    shell = _notebook()
    return Lines(quiet=True) if shell is None else _display_of(shell)


def tracked(parts: Iterable[Part], what: str, total: int | None = None) -> Iterator[Part]:
    """Yields the parts of long work, and tells how many are done.

    Args:
        parts: The parts.
        what: What is done with them, for a person.
        total: Their number; None for `len(parts)`.

    Example:
        >>> list(tracked("abc", "reading letters"))
        ['a', 'b', 'c']
    """
    if total is None and isinstance(parts, Sized):
        total = len(parts)
    with _told(Work(what, total)) as tell_of_part:
        for part in parts:
            yield part
            tell_of_part()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Tells that something is done which has no parts to count.

    Args:
        what: What is done, for a person.
    """
    with _told(Work(what)):
        yield


@contextmanager
def _told(work: Work) -> Iterator[Callable[[], None]]:
    shown = display()

    def tell_of_part() -> None:
        work.done += 1
        shown.on_work(work)

    shown.on_work(work)
    try:
        yield tell_of_part
    finally:
        work.end()
        shown.on_work(work)


@contextmanager
def shown_by(shown: Lines) -> Iterator[Lines]:
    """Shows the progress of all that is done in the body in a way of one's own.

    Args:
        shown: What shows it.
    """
    token, logger = _CHOSEN.set(shown), logging.getLogger("keras_unet")
    handler, level = _Handler(shown), logger.level
    others = [one for one in logger.handlers if isinstance(one, _Handler)]
    logger.handlers = [*(one for one in logger.handlers if one not in others), handler]
    logger.setLevel(logging.INFO)
    try:
        yield shown
    finally:
        logger.handlers = [*(one for one in logger.handlers if one is not handler), *others]
        logger.setLevel(level)
        _CHOSEN.reset(token)


class _Handler(logging.Handler):
    """Shows what is logged beside the progress."""

    def __init__(self, shown: Lines) -> None:
        super().__init__()
        self.shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        warning = "Warning: " if record.levelno >= logging.WARNING else ""
        self.shown.say(warning + record.getMessage())


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
def _display_of(shell: Any) -> CellDisplay:
    return CellDisplay(shell)
