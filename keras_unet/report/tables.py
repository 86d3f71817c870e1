"""Tables of a report, for the HTML page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keras_unet.console import shortened

_MIN_NAME_WIDTH = 12  # characters


@dataclass(frozen=True)
class Table:
    """Table with names in the first column and numbers in the others.

    Attributes:
        title: Title above the table.
        head: Headings of the columns.
        rows: Rows, each with a value per column.
        total: Last row, of all images together; empty for none.
        note: Line below the table; empty for none.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = ()
    note: str = ""


def print_tables(tables: Sequence[Table]) -> None:
    """Prints tables to the terminal, with long names shortened so that all columns fit."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column
    from rich.table import Table as RichTable

    console = Console(markup=False, emoji=False, highlight=False)
    for table in tables:
        columns = (Column(name, justify="right", no_wrap=True) for name in table.head[1:])
        rich_table = RichTable(
            table.head[0],
            *columns,
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        rows = [*table.rows, table.total] if table.total else table.rows
        name_width = max(console.width - _width([table.head, *rows]), _MIN_NAME_WIDTH)
        for row in rows:
            rich_table.add_row(
                shortened(row[0], name_width), *row[1:], style="bold" if row is table.total else ""
            )
        console.print(table.title, style="bold")
        console.print(rich_table)
        console.print(table.note + "\n" if table.note else "", soft_wrap=True)


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Returns the width in characters of all columns except the first, with their padding."""
    return sum(2 + max(map(len, column)) for column in list(zip(*rows, strict=True))[1:])
