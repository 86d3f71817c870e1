"""Numbered version folders, as model servers watch them: there whole, or not there."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_version(out: Path, version: int) -> Path:
    """Returns the folder of a version that is free.

    Raises:
        ValueError: If the version is no number from 1.
        FileExistsError: If the version is there already.
    """
    if version < 1:
        raise ValueError(f"version must be a whole number of at least 1. Received: {version}")
    path = out / str(version)
    if path.exists():
        taken = [int(one.name) for one in out.iterdir() if one.name.isdecimal()]
        raise FileExistsError(
            f"{path}: expected a version that is not there yet. Received one that is; the next "
            f"is {max(taken) + 1}"
        )
    return path


@contextmanager
def new_version(out: Path, version: int) -> Iterator[Path]:
    """Yields a hidden folder in `out` and gives it its number when the body has ended well.

    A server passes over folders that are no numbers, and moving is done at once, so it never sees
    a version half written. Where the body raises, nothing is left, a folder `out` made for it
    included.

    Args:
        out: Folder of the model, whose parent exists or can be made.
        version: Number of the version.

    Yields:
        The folder to write to.

    Raises:
        ValueError: If the version is no number from 1.
        FileExistsError: If the version is there already.
    """
    final = check_version(out, version)
    is_new = not out.exists()
    hidden = out / f".{secrets.token_hex(4)}-{version}"
    hidden.mkdir(parents=True)
    try:
        yield hidden
        hidden.rename(final)
    except BaseException:
        shutil.rmtree(hidden)
        if is_new and not any(out.iterdir()):
            out.rmdir()
        raise
