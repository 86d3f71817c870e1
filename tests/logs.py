"""What the package logs and how far it is, for a test to look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keras_unet.console import Display, Task, message_of, use_display

OnParts = Callable[[str, float, float | None], object]


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collects the messages of the logger "keras_unet", warnings with the word before them."""
    messages: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(message_of(record))

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
    """Calls a function with a file's name, and how many of its tiles or bytes are done and all."""
    latest: dict[Task, float] = {}

    class Watching(Display):
        def update(self, task: Task) -> None:
            of_file = task.counts.startswith("tile") or task.counts.endswith("bytes")
            if of_file and latest.get(task, task.before) != task.completed:
                latest[task] = task.completed
                on_parts(task.description, task.completed, task.total)

    with use_display(Watching()):
        yield
