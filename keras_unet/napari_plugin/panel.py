"""Panel that the widgets share: buttons to start and stop a job, a bar, and messages."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from magicgui.widgets import Container, Label, ProgressBar, PushButton, TextEdit
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtGui import QTextCursor
from superqt.utils import GeneratorWorker, create_worker

from keras_unet.napari_plugin.job import Job, News, Stopped, Work

_WHOLE = 1000  # of a bar
_DASHES = re.compile(r"(?<!\S)--(?=\w)")
_LINES = 90  # pixels of height


class Panel:
    """Starts a job, shows how it goes on, and stops it. One job at a time.

    Attributes:
        widget: What a person sees.
        job: The job under way, or None.
    """

    def __init__(self, title: str, start: Callable[[], None]) -> None:
        """Takes what the button says, and what is called when it is pressed."""
        self.start = PushButton(text=title)
        self.stop = PushButton(text="Stop", enabled=False)
        self.bar = ProgressBar(min=0, max=_WHOLE, value=0)
        self.text = Label(value="")
        self.lines = TextEdit(value="")
        self.job: Job | None = None
        self._worker: GeneratorWorker[News, None, Any] | None = None
        buttons = Container(widgets=[self.start, self.stop], layout="horizontal", labels=False)
        buttons.margins = (0, 0, 0, 0)
        parts = [buttons, self.bar, self.text, self.lines]
        self.widget = Container(widgets=parts, labels=False)
        self.widget.margins = (0, 0, 0, 0)
        self._dress()
        self.start.changed.connect(lambda: self._try(start))
        self.stop.changed.connect(self._ask_to_stop)

    def run(self, work: Callable[[Job], Work], on_result: Callable[[Any], None]) -> None:
        """Does a job in the background.

        Args:
            work: Makes the work of a job.
            on_result: Called in the window's own thread with what the work returns.
        """
        self.job = Job()
        self.lines.value = ""
        self._show_running(running=True)
        worker = create_worker(work, self.job, _worker_class=_Worker, _ignore_errors=True)
        worker.yielded.connect(self._on_news)
        worker.returned.connect(lambda result: self._end(on_result, result))
        worker.errored.connect(self._on_error)
        self._worker = worker
        worker.start()

    def live_with(self, window: Container[Any]) -> None:
        """Stops the job, and shows nothing more of it, when napari closes the widget all is in."""

        def parted(_: object) -> None:
            if window.native.parent() is None:
                self._leave()

        window.native_parent_changed.connect(parted)
        window.native.destroyed.connect(self._leave)

    def say(self, line: str) -> None:
        """Adds a line for a person; a warning is shown by napari as well."""
        self.lines.native.moveCursor(QTextCursor.MoveOperation.End)
        self.lines.native.insertPlainText(f"{line}\n")
        self.lines.native.ensureCursorVisible()
        if line.startswith("Warning: "):
            show_warning(line.removeprefix("Warning: "))

    def _dress(self) -> None:
        self.lines.native.setReadOnly(True)
        self.lines.native.setFixedHeight(_LINES)
        self.lines.native.setPlaceholderText("What goes on is told here.")
        self.text.native.setWordWrap(True)
        self.text.native.setMinimumHeight(2 * self.text.native.fontMetrics().lineSpacing())

    def _try(self, start: Callable[[], None]) -> None:
        try:
            start()
        except (ValueError, OSError) as error:
            show_error(_one_line(error))

    def _ask_to_stop(self) -> None:
        if self.job is not None:
            self.stop.enabled = False
            self.text.value = "stopping"
            self.job.stop()

    def _on_news(self, news: News) -> None:
        if "line" in news:
            self.say(news["line"])
            return
        done = news.get("done")
        self.bar.max = 0 if done is None else _WHOLE  # without an end, the bar only moves
        self.bar.value = 0 if done is None else round(_WHOLE * done)
        if self.job is not None and not self.job.stopped:
            self.text.value = news["text"]

    def _end(self, on_result: Callable[[Any], None], result: Any) -> None:
        self._show_running(running=False)
        self.bar.value, self.text.value = _WHOLE, "done"
        self._try(lambda: on_result(result))

    def _on_error(self, error: Exception) -> None:
        self._show_running(running=False)
        if isinstance(error, Stopped):
            self.text.value = "stopped"
            show_info("Stopped.")
            return
        self.text.value = "ended by an error"
        self.say(_one_line(error))
        show_error(_one_line(error))
        if not isinstance(error, ValueError | OSError):  # a mistake of ours
            logging.getLogger(__name__).error("a job has failed", exc_info=error)

    def _show_running(self, *, running: bool) -> None:
        self.start.enabled, self.stop.enabled = not running, running
        self.bar.max = 0 if running else _WHOLE
        if not running:
            self.bar.value = 0
            self.job = self._worker = None

    def _leave(self) -> None:
        if self._worker is not None:
            for signal in (self._worker.yielded, self._worker.returned, self._worker.errored):
                signal.disconnect()
            self._worker.quit()
            self._worker = None


class _Worker(GeneratorWorker[News, None, Any]):
    """A thread that stops its job when it is to quit, as all are when napari ends."""

    def __init__(self, work: Callable[[Job], Work], job: Job, **options: Any) -> None:
        super().__init__(work, job, **options)
        self.job = job

    def quit(self) -> None:
        self.job.stop()
        super().quit()


def _one_line(error: Exception) -> str:
    """Says what went wrong, with options named as the widgets do, without dashes."""
    text = _DASHES.sub("", " ".join(str(error).split()))
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"
