"""CSV tables of measurements."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_unet.files import atomic
from keras_unet.measurement.properties import Columns

_DIGITS = 12  # significant digits of numbers


def write_table(path: Path, tables: Sequence[Columns]) -> None:
    """Writes tables below each other, see `table_text`, in UTF-8.

    Args:
        path: Path of the file; its folder exists.
        tables: The tables.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(table_text(tables).encode("utf-8"))


def table_text(tables: Sequence[Columns]) -> str:
    """Returns tables below each other, as CSV with one header.

    Args:
        tables: Columns of each; those that a table lacks are empty in its rows.

    Example:
        >>> import numpy as np
        >>> table_text([{"number": np.array([1]), "area": np.array([0.5])}]).splitlines()
        ['number,area', '1,0.5']
    """
    names = list(dict.fromkeys(name for table in tables for name in table))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for table in tables:
        rows = len(next(iter(table.values())))
        columns = [table[name].tolist() if name in table else [""] * rows for name in names]
        writer.writerows([_text(value) for value in row] for row in zip(*columns, strict=True))
    return file.getvalue()


def _text(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.{_DIGITS}g}" if math.isfinite(value) else ""
    return value
