"""Child process that runs one job for a window.

The request is the first line of the standard input. When that input is closed, since the user
pressed Stop or the window has gone, the job ends as by Ctrl-C: a training keeps its best model.
Events are written to the standard output, one JSON object per line: `line` is a message, `done` the
completed share, null if unknown, with a `text`, and `result` or `error` the last event.
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
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from keras_unet.console import (
    LATE,
    Display,
    Task,
    message_of,
    one_line_errors,
    quiet_tensorflow,
    track,
    use_display,
)
from keras_unet.data.images import read_planes, write_tiff

if TYPE_CHECKING:
    from keras_unet.instances.link import Along

Send = Callable[..., None]
"""Sends an event, whose entries are keyword arguments."""

_STDOUT, _STDERR = 1, 2
_PAUSE = 0.1  # seconds between two updates of the progress


def main() -> None:
    """Runs the job of the request in the standard input."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    send = _event_writer()
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    try:
        with one_line_errors(), use_display(EventDisplay(send)):
            result = JOBS[request.pop("job")](**request)
    except click.ClickException as error:
        send(error=error.format_message())
    else:
        send(result=result)


class EventDisplay(Display):
    """Sends progress and messages to a window."""

    lowest = logging.INFO

    def __init__(self, send: Send) -> None:
        """Sends events by a function."""
        super().__init__()
        self.send = send
        self.sent = -_PAUSE
        self.tasks: list[Task] = []

    def update(self, task: Task) -> None:
        """Sends the share of the outermost task with the text of this one."""
        if task.ended is not None:
            self.tasks.remove(task)
            return
        if task not in self.tasks:
            self.tasks.append(task)
        if task.total is None or task.seconds >= LATE:
            shares = (outer.share for outer in self.tasks)
            share = next((share for share in shares if share is not None), None)
            self.send_progress(share, task.describe(), now=task.total is None)

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a message."""
        self.send(line=message_of(record))

    def send_progress(self, done: float | None, text: str, *, now: bool = False) -> None:
        """Sends the completed share, None if unknown, unless the last one was sent just before."""
        time_now = time.monotonic()
        if now or done == 1 or time_now - self.sent >= _PAUSE:
            self.sent = time_now
            self.send(done=done, text=text)


def train(
    *, data: str, run: str, options: Mapping[str, Any], resume: bool, initial: str | None
) -> dict[str, Any]:
    """Trains on a data folder, and returns the outcome of the run."""
    with quiet_tensorflow():
        from keras_unet.training.initial import Initial
        from keras_unet.training.options import TrainingOptions
        from keras_unet.training.train import train_folder

    start = None if initial is None else Initial.of(initial)
    training = None if resume else TrainingOptions(**options)
    if start and training:
        training = start.options(training, options)
    finished = train_folder(Path(data), Path(run), training, resume=resume, initial=start)
    return dict(finished.record["outcome"])


def predict(
    *,
    model: str,
    image: str,
    out: str,
    probabilities: bool,
    tta: bool,
    instances: Mapping[str, Any],
    link: Along | None,
) -> dict[str, Any]:
    """Predicts a file, and returns the images and tracks written, and the label encoding."""
    with quiet_tensorflow():
        from keras_unet.prediction.folder import predict_files
        from keras_unet.prediction.load import load
        from keras_unet.prediction.outputs import OutputOptions
        from keras_unet.prediction.tracks import TRACKS

    segmenter = load(model)
    encoding = segmenter.info.encoding
    written = predict_files(
        segmenter,
        image,
        out,
        save=[encoding.kind, *(["probabilities"] if probabilities else [])],
        tta=tta,
        instances=instances,
        link=link,
        storage=OutputOptions(stream=True),
    )
    files = [str(path) for path in written if path.suffix == ".tif"]
    tracks = next((str(path) for path in written if path.name == TRACKS), None)
    return {"encoding": encoding.to_dict(), "files": files, "tracks": tracks}


def propose(*, model: str, image: str, out: str) -> dict[str, Any]:
    """Predicts the plane of a file on which the eight symmetries disagree most.

    Returns:
        Number of the plane, and the disagreement of each if there are several.
    """
    with quiet_tensorflow():
        from keras_unet.prediction.load import load

    segmenter = load(model)
    planes = read_planes(Path(image))
    several = planes if len(planes) > 1 else ()
    disagreements = [
        segmenter.disagreement(plane) for plane in track(several, "comparing the eight symmetries")
    ]
    plane = int(np.argmax(disagreements)) if disagreements else 0
    write_tiff(Path(out), segmenter.segment(planes[plane]), axes="YX", is_data=True)
    return {"plane": plane, "disagreements": disagreements}


JOBS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "train": train,
    "predict": predict,
    "propose": propose,
}


def _event_writer() -> Send:
    """Reserves the standard output for events; other output is redirected to standard error."""
    output = os.fdopen(os.dup(_STDOUT), "w", encoding="utf-8", buffering=1)
    os.dup2(_STDERR, _STDOUT)

    def send(**event: Any) -> None:
        with suppress(BrokenPipeError):  # the window has gone, and the job ends by its input
            output.write(json.dumps(event) + "\n")

    return send


def _interrupt_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    _thread.interrupt_main()


if __name__ == "__main__":
    main()
