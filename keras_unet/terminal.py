"""Terminal of a job: one line for an error, and no messages of other libraries."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from keras_unet.quiet import compiled_code_quiet
from keras_unet.shortage import is_memory_shortage
from keras_unet.tracking import working

_SHORTAGE = re.compile(  # in the page that TensorFlow writes, without device and operation
    r"\b(OOM when|out of memory|unable to allocate|failed to allocate|could not create).*?"
    r"(?= on /job:| \[Op:| *\[\[|, in file|$)",
    re.IGNORECASE | re.MULTILINE,
)


class _Failure(click.ClickException):
    """An error in one line; click prints it."""

    exit_code = 2

    def format_message(self) -> str:
        return " ".join(self.message.split())


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what goes wrong into one line and exit code 2, in one place."""
    try:
        yield
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "keras-unet"
        raise _Failure(f"{error.format_message()} See: {path} --help") from error
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise _Failure(str(error)) from error
    except Exception as error:
        if not is_memory_shortage(error):
            raise
        found = _SHORTAGE.search(str(error))
        reason = f" ({found[0]})" if found else ""
        raise _Failure(
            f"not enough memory{reason}; take a smaller --tile, or train with fewer --base-filters "
            "or a smaller --batch-size"
        ) from error


def prepare_process() -> dict[str, str]:
    """Makes this process, and those that it starts, independent of a terminal's settings.

    Nothing is drawn on a screen, so matplotlib's backend is Agg, whatever a notebook's kernel has
    handed on; what the encoding of the terminal lacks is written as an escape.

    Returns:
        The environment as it was before.
    """
    before = dict(os.environ)
    os.environ["MPLBACKEND"] = "Agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return before


def import_quietly(module: str) -> Any:
    """Imports a module that imports TensorFlow, without TensorFlow's greetings.

    They are written to standard error by compiled code, before it knows how much to say. What was
    held back is shown if the import fails. Later advice to programmers, on functions traced anew
    for images of another size, is turned off as well.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" in sys.modules:
        return import_module(module)
    with working("starting TensorFlow"), compiled_code_quiet():
        return import_module(module)
