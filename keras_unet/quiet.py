"""Standard error held back while compiled code, which cannot be told to be quiet, is at work."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STDERR = 2


@contextmanager
def compiled_code_quiet() -> Iterator[None]:
    """Keeps the body from writing to standard error; what it wrote is shown if it fails."""
    with tempfile.TemporaryFile() as held_back:
        try:
            with _stderr_to(held_back.fileno()):
                yield
        except Exception:  # Ctrl-C explains itself
            held_back.seek(0)
            sys.stderr.write(held_back.read().decode(errors="replace"))
            raise


@contextmanager
def compiled_code_silent() -> Iterator[None]:
    """Keeps the body from writing to standard error; for what an exception says as well."""
    with Path(os.devnull).open("wb") as nowhere, _stderr_to(nowhere.fileno()):
        yield


@contextmanager
def _stderr_to(descriptor: int) -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    os.dup2(descriptor, _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
