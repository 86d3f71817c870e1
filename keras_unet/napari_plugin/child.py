"""The process that does one job for a window: a request comes in, a line of JSON a piece of news.

The request is the first line of the standard input. When that input is closed, be it because a
person presses Stop or because the window is gone, the job ends as by Ctrl-C: a training keeps its
best model. The news is one object a line: `line` is for a person to read, `done` a share with its
`text`, null where nobody knows it, `result` or `error` the last.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from keras_unet.console import (
    LATE,
    Display,
    Task,
    message_of,
    one_line_errors,
    quiet_tensorflow,
    use_display,
)

Tell = Callable[..., None]
"""Called with what is new, by name."""

_STDOUT, _STDERR = 1, 2
_PAUSE = 0.1  # seconds between two moves of a bar


def main() -> None:
    """Does the job that the standard input asks for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    tell = _teller()
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    try:
        with one_line_errors(), use_display(News(tell)):
            result = JOBS[request.pop("job")](**request)
    except click.ClickException as error:
        tell(error=error.format_message())
    else:
        tell(result=result)


class News(Display):
    """Progress and messages as news for a window."""

    lowest = logging.INFO

    def __init__(self, tell: Tell) -> None:
        """Takes who is told."""
        super().__init__()
        self.tell = tell
        self.moved = -_PAUSE
        self.tasks: list[Task] = []

    def update(self, task: Task) -> None:
        """Moves the bar, which stays where the outermost task is while others are done for it."""
        if task.ended is not None:
            self.tasks.remove(task)
            return
        if task not in self.tasks:
            self.tasks.append(task)
        if task.total is None or task.seconds >= LATE:
            shares = (outer.share for outer in self.tasks)
            share = next((share for share in shares if share is not None), None)
            self.move(share, task.describe(), now=task.total is None)

    def emit(self, record: logging.LogRecord) -> None:
        """Passes a message on."""
        self.tell(line=message_of(record))

    def move(self, done: float | None, text: str, *, now: bool = False) -> None:
        """Moves the bar, not more often than an eye can follow; None: nobody knows how far."""
        clock = time.monotonic()
        if now or done == 1 or clock - self.moved >= _PAUSE:
            self.moved = clock
            self.tell(done=done, text=text)


def train(*, data: str, run: str, options: Mapping[str, Any], resume: bool) -> dict[str, Any]:
    """Trains on a folder; the result is the run's outcome."""
    with quiet_tensorflow():
        from keras_unet.training.options import TrainingOptions
        from keras_unet.training.train import train_folder

    asked = None if resume else TrainingOptions(**options)
    finished = train_folder(Path(data), Path(run), asked, resume=resume)
    return dict(finished.record["outcome"])


def predict(
    *,
    model: str,
    image: str,
    out: str,
    probabilities: bool,
    tta: bool,
    instances: Mapping[str, Any],
) -> dict[str, Any]:
    """Predicts a file; the result names the files written and says what is in them."""
    with quiet_tensorflow():
        from keras_unet.prediction.folder import predict_files
        from keras_unet.prediction.load import load
        from keras_unet.prediction.outputs import OutputOptions

    segmenter = load(model)
    encoding = segmenter.info.encoding
    written = predict_files(
        segmenter,
        image,
        out,
        save=[encoding.kind, *(["probabilities"] if probabilities else [])],
        tta=tta,
        instances=instances,
        storage=OutputOptions(stream=True),
    )
    return {"encoding": encoding.to_dict(), "files": [str(path) for path in written]}


JOBS: Mapping[str, Callable[..., dict[str, Any]]] = {"train": train, "predict": predict}


def _teller() -> Tell:
    """Keeps the standard output for the news; what else is printed goes to standard error."""
    news = os.fdopen(os.dup(_STDOUT), "w", encoding="utf-8", buffering=1)
    os.dup2(_STDERR, _STDOUT)

    def tell(**new: Any) -> None:
        with suppress(BrokenPipeError):  # the window is gone, and the job ends by itself
            news.write(json.dumps(new) + "\n")

    return tell


def _interrupt_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    _thread.interrupt_main()


if __name__ == "__main__":
    main()
