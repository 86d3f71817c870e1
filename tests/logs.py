"""What the package logs and how far it is, for a test to look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_unet.displays import Lines
from keras_unet.tracking import shown_by

OnParts = Callable[[Path, int, int], object]


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collects the messages of the logger "keras_unet", warnings with the word before them."""
    messages: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warning = "Warning: " if record.levelno >= logging.WARNING else ""
            messages.append(warning + record.getMessage())

    logger, handler = logging.getLogger("keras_unet"), Collecting()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def watched(on_parts: OnParts) -> Iterator[None]:
    """Calls a function with a file, and how many of its tiles or bytes are done and there."""

    class Watching(Lines):
        def on_file(self, path: Path, done: int, total: int, words: str) -> None:
            super().on_file(path, done, total, words)
            on_parts(path, done, total)

    with shown_by(Watching(quiet=True)):
        yield
