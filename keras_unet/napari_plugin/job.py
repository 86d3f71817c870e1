"""A job as the window holds it: it goes on in the background, and can be stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

News = dict[str, Any]
"""A `line` to read, or the share that is `done` and a `text`; see `napari_plugin.child`."""

Work = Generator[News, None, Any]
"""Yields news and returns what has come of the job."""

_COMMAND = [sys.executable, "-P", "-m", "keras_unet.napari_plugin.child"]
_WITHOUT_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # of a console, on Windows


class Stopped(Exception):  # noqa: N818 - it is none
    """A person has stopped the job, and nothing has come of it."""


class Job:
    """Something to be done, once.

    Attributes:
        stopped: Whether a person has asked for its end.
    """

    def __init__(self) -> None:
        """Begins nothing yet."""
        self.stopped = False
        self._input: IO[str] | None = None

    def stop(self) -> None:
        """Asks for the end; may be called from any thread, at any time."""
        self.stopped = True
        if self._input is not None:
            with suppress(OSError):  # the process has ended
                self._input.close()

    def check(self) -> None:
        """Ends the job if that has been asked for.

        Raises:
            Stopped: It has.
        """
        if self.stopped:
            raise Stopped

    def ask_child(self, request: News, folder: Path) -> Work:
        """Does a job of `keras_unet.napari_plugin.child` in a process of its own.

        Args:
            request: Name of the job and its arguments.
            folder: Where the process is at home; its paths may be relative to it.

        Yields:
            The news.

        Returns:
            The result.

        Raises:
            Stopped: The job was stopped before it had a result.
            ValueError: The job has failed; the message is one line.
            OSError: The process has died.
        """
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(  # noqa: S603 - this Python, with a module of this package
                _COMMAND,
                cwd=folder,
                env=os.environ | {"MPLBACKEND": "Agg"},  # it shows nothing on a screen
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                creationflags=_WITHOUT_WINDOW,
            ) as process,
        ):
            self._begin(process, request)
            for line in process.stdout or ():
                news = json.loads(line)
                if "error" in news:
                    raise ValueError(news["error"])
                if "result" in news:
                    return news["result"]
                yield news
            process.wait()
            self.check()
            errors.seek(0)
            raise OSError(_exit_message(process.returncode, errors.read().decode(errors="replace")))

    def _begin(self, process: subprocess.Popen[str], request: News) -> None:
        if process.stdin is None:
            raise OSError("the process must have a standard input. Received none")
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        self._input = process.stdin
        if self.stopped:  # while the process was started
            self.stop()


def _exit_message(code: int, errors: str) -> str:
    """Says why a process has ended that has not said so itself."""
    if code < 0:
        return (
            f"the work was expected to come to its end. The system ended it (signal {-code}), most "
            "often for lack of memory; close other programs, or take a smaller tile"
        )
    lines = errors.strip().splitlines() or ["nothing"]
    return (
        f"the work was expected to come to its end. It ended with code {code} and said: {lines[-1]}"
    )
