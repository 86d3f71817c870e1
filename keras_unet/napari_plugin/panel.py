"""Panel of the widgets: buttons to start and stop jobs, a progress bar, and messages."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from magicgui.widgets import Container, Label, ProgressBar, PushButton, TextEdit
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtGui import QTextCursor
from superqt.utils import GeneratorWorker, create_worker

from keras_unet.napari_plugin.job import Event, Events, Job, JobStopped

_BAR_MAXIMUM = 1000
_DASHES = re.compile(r"(?<!\S)--(?=\w)")
_LINES_HEIGHT = 90  # pixels


class Panel:
    """Starts a job, shows its progress, and stops it. One job at a time.

    Attributes:
        widget: Widget of the panel.
        starts: Buttons that start a job, by their text.
        job: Running job, or None.
    """

    def __init__(self, starts: Mapping[str, Callable[[], None]]) -> None:
        """Builds the panel, with the callbacks of the buttons that start a job, by their text."""
        self.starts = {title: PushButton(text=title) for title in starts}
        self.stop = PushButton(text="Stop", enabled=False)
        self.bar = ProgressBar(min=0, max=_BAR_MAXIMUM, value=0)
        self.text = Label(value="")
        self.lines = TextEdit(value="")
        self.job: Job | None = None
        self._worker: GeneratorWorker[Event, None, Any] | None = None
        buttons = Container(
            widgets=[*self.starts.values(), self.stop], layout="horizontal", labels=False
        )
        buttons.margins = (0, 0, 0, 0)
        parts = [buttons, self.bar, self.text, self.lines]
        self.widget = Container(widgets=parts, labels=False)
        self.widget.margins = (0, 0, 0, 0)
        self._style()
        for title, start in starts.items():
            self.starts[title].changed.connect(partial(self._on_start, start))
        self.stop.changed.connect(self._stop_job)

    def run(self, task: Callable[[Job], Events], on_result: Callable[[Any], None]) -> None:
        """Runs a job in the background.

        Args:
            task: Returns the events of the job.
            on_result: Called in the window's thread with the result.
        """
        self.job = Job()
        self.lines.value = ""
        self._show_running(running=True)
        worker = create_worker(task, self.job, _worker_class=_Worker, _ignore_errors=True)
        worker.yielded.connect(self._on_event)
        worker.returned.connect(lambda result: self._end(on_result, result))
        worker.errored.connect(self._on_error)
        self._worker = worker
        worker.start()

    def stop_with(self, window: Container[Any]) -> None:
        """Stops the job and ignores its events when napari closes a widget."""

        def on_parent_changed(_: object) -> None:
            if window.native.parent() is None:
                self._quit()

        window.native_parent_changed.connect(on_parent_changed)
        window.native.destroyed.connect(self._quit)

    def add_line(self, line: str) -> None:
        """Adds a message; napari shows warnings as well."""
        self.lines.native.moveCursor(QTextCursor.MoveOperation.End)
        self.lines.native.insertPlainText(f"{line}\n")
        self.lines.native.ensureCursorVisible()
        if line.startswith("Warning: "):
            show_warning(line.removeprefix("Warning: "))

    def _style(self) -> None:
        self.lines.native.setReadOnly(True)
        self.lines.native.setFixedHeight(_LINES_HEIGHT)
        self.lines.native.setPlaceholderText("Messages")
        self.text.native.setWordWrap(True)
        self.text.native.setMinimumHeight(2 * self.text.native.fontMetrics().lineSpacing())

    def _on_start(self, start: Callable[[], None], _: object = None) -> None:
        self._show_errors(start)

    def _show_errors(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (ValueError, OSError) as error:
            show_error(_one_line(error))

    def _stop_job(self) -> None:
        if self.job is not None:
            self.stop.enabled = False
            self.text.value = "stopping"
            self.job.stop()

    def _on_event(self, event: Event) -> None:
        if "line" in event:
            self.add_line(event["line"])
            return
        done = event.get("done")
        self.bar.max = 0 if done is None else _BAR_MAXIMUM  # 0: an animation without progress
        self.bar.value = 0 if done is None else round(_BAR_MAXIMUM * done)
        if self.job is not None and not self.job.stopped:
            self.text.value = event["text"]

    def _end(self, on_result: Callable[[Any], None], result: Any) -> None:
        self._show_running(running=False)
        self.bar.value, self.text.value = _BAR_MAXIMUM, "done"
        self._show_errors(lambda: on_result(result))

    def _on_error(self, error: Exception) -> None:
        self._show_running(running=False)
        if isinstance(error, JobStopped):
            self.text.value = "stopped"
            show_info("Stopped.")
            return
        self.text.value = "ended by an error"
        self.add_line(_one_line(error))
        show_error(_one_line(error))
        if not isinstance(error, ValueError | OSError):  # a defect of this program
            logging.getLogger(__name__).error("a job has failed", exc_info=error)

    def _show_running(self, *, running: bool) -> None:
        self.stop.enabled = running
        for start in self.starts.values():
            start.enabled = not running
        self.bar.max = 0 if running else _BAR_MAXIMUM
        if not running:
            self.bar.value = 0
            self.job = self._worker = None

    def _quit(self) -> None:
        if self._worker is not None:
            for signal in (self._worker.yielded, self._worker.returned, self._worker.errored):
                signal.disconnect()
            self._worker.quit()
            self._worker = None


class _Worker(GeneratorWorker[Event, None, Any]):
    """Thread that stops its job when napari asks it to quit."""

    def __init__(self, task: Callable[[Job], Events], job: Job, **options: Any) -> None:
        super().__init__(task, job, **options)
        self.job = job

    def quit(self) -> None:
        self.job.stop()
        super().quit()


def _one_line(error: Exception) -> str:
    """Returns a message without line breaks and without the dashes of options."""
    text = _DASHES.sub("", " ".join(str(error).split()))
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"
