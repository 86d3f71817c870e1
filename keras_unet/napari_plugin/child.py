"""The process that does one job for a window: a request comes in, a line of JSON a piece of news.

The request is the first line of the standard input. When that input is closed, be it because a
person presses Stop or because the window is gone, the job ends as by Ctrl-C: a training keeps its
best model. The news is one object a line: `line` is for a person to read, `done` a share with its
`text`, null where nobody knows it, `result` or `error` the last.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_unet.displays import LATE, Lines
from keras_unet.terminal import import_quietly, one_line_errors
from keras_unet.tracking import shown_by
from keras_unet.work import Work

if TYPE_CHECKING:
    from keras_unet.training.schedule import Progress

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
        with one_line_errors(), shown_by(News(tell)):
            result = JOBS[request.pop("job")](**request)
    except click.ClickException as error:
        tell(error=error.format_message())
    else:
        tell(result=result)


class News(Lines):
    """Progress as news for a window."""

    def __init__(self, tell: Tell) -> None:
        """Takes who is told."""
        super().__init__()
        self.tell = tell
        self.moved = -_PAUSE
        self.trained: float | None = None

    def on_step(self, progress: Progress) -> None:
        """Tells of a step of the training, with a line if it has ended in a validation."""
        super().on_step(progress)
        self.trained = self.share(progress)
        self.move(self.trained, self.standing(progress))

    def on_work(self, work: Work) -> None:
        """Tells of other work that takes long; the bar of a training stays where it is."""
        if not work.over and (work.total is None or work.seconds >= LATE):
            share = work.share if self.trained is None else self.trained
            self.move(share, work.describe(), now=work.total is None)

    def say(self, line: str) -> None:
        """Passes a line on."""
        self.tell(line=line)

    def move(self, done: float | None, text: str, *, now: bool = False) -> None:
        """Moves the bar, not more often than an eye can follow; None: nobody knows how far."""
        clock = time.monotonic()
        if now or done == 1 or clock - self.moved >= _PAUSE:
            self.moved = clock
            self.tell(done=done, text=text)


def train(*, data: str, run: str, options: Mapping[str, Any], resume: bool) -> dict[str, Any]:
    """Trains on a folder; the result is the run's outcome."""
    job = import_quietly("keras_unet.training.train")
    asked = None if resume else job.TrainingOptions(**options)
    finished = job.train_folder(Path(data), Path(run), asked, resume=resume)
    return dict(finished.record["outcome"])


def predict(
    *,
    model: str,
    image: str,
    out: str,
    probabilities: bool,
    symmetries: bool,
    rule: Mapping[str, Any],
) -> dict[str, Any]:
    """Predicts a file; the result names the files written and says what is in them."""
    job = import_quietly("keras_unet.prediction.folder")
    scheme = job.load_runs(Path(model))[0].scheme
    written = job.predict_files(
        Path(model),
        [Path(image)],
        Path(out),
        save=[scheme.kind, *(["probabilities"] if probabilities else [])],
        symmetries=symmetries,
        rule=rule,
        storage=job.Storage(stream=True),
    )
    return {"scheme": scheme.to_dict(), "files": [str(path) for path in written]}


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
