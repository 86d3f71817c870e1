"""What the package logs, for a test to look at."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


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
