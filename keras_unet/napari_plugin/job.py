"""Background job of a window, which can be stopped."""

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

Event = dict[str, Any]
"""Message (`line`) or progress (`done` and `text`) of a job, see `napari_plugin.child`."""

Events = Generator[Event, None, Any]
"""Yields the events of a job, and returns its result."""

_COMMAND = [sys.executable, "-P", "-m", "keras_unet.napari_plugin.child"]
_NO_CONSOLE = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows


class JobStopped(Exception):  # noqa: N818 - not an error
    """Raised if the user has stopped a job before it had a result."""


class Job:
    """Background job, which runs once.

    Attributes:
        stopped: Whether the user has stopped it.
    """

    def __init__(self) -> None:
        """Prepares the job."""
        self.stopped = False
        self._input: IO[str] | None = None

    def stop(self) -> None:
        """Stops the job; may be called from any thread at any time."""
        self.stopped = True
        if self._input is not None:
            with suppress(OSError):  # the process has ended
                self._input.close()

    def check(self) -> None:
        """Raises JobStopped if the job was stopped."""
        if self.stopped:
            raise JobStopped

    def run_in_child(self, request: Event, folder: Path) -> Events:
        """Runs a job of `keras_unet.napari_plugin.child` in a process of its own.

        Args:
            request: Name of the job and its arguments.
            folder: Working directory of the process.

        Yields:
            Events of the job.

        Returns:
            The result.

        Raises:
            JobStopped: If the job was stopped before it had a result.
            ValueError: If the job has failed; the message is one line.
            OSError: If the process has died.
        """
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(  # noqa: S603 - this Python, with a module of this package
                _COMMAND,
                cwd=folder,
                env=os.environ | {"MPLBACKEND": "Agg"},  # draws nothing on a screen
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                creationflags=_NO_CONSOLE,
            ) as process,
        ):
            self._send(process, request)
            for line in process.stdout or ():
                event = json.loads(line)
                if "error" in event:
                    raise ValueError(event["error"])
                if "result" in event:
                    return event["result"]
                yield event
            process.wait()
            self.check()
            errors.seek(0)
            raise OSError(_exit_message(process.returncode, errors.read().decode(errors="replace")))

    def _send(self, process: subprocess.Popen[str], request: Event) -> None:
        if process.stdin is None:
            raise OSError("the process must have a standard input. Received none")
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        self._input = process.stdin
        if self.stopped:  # during the start of the process
            self.stop()


def _exit_message(code: int, errors: str) -> str:
    """Returns why a process died, by its exit code and its last message."""
    if code < 0:
        return (
            f"expected a job that finishes. The system ended it (signal {-code}), probably out of "
            "memory; close other programs, or choose a smaller tile"
        )
    lines = errors.strip().splitlines() or ["no message"]
    return f"expected a job that finishes. It ended with code {code} and the message: {lines[-1]}"
