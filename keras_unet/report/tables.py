"""Tables of a report, on its page and in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keras_unet.console import shortened

_SHORTEST = 12  # characters of a name


@dataclass(frozen=True)
class Table:
    """Names in the first column, numbers in the others.

    Attributes:
        title: Title above the table.
        head: Headings of the columns.
        rows: Rows of as many values.
        total: Last row, of all together; empty for none.
        note: Line below the table; empty for none.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = ()
    note: str = ""


def print_tables(tables: Sequence[Table]) -> None:
    """Prints tables to the terminal; long names lose their middle, so that all columns fit."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column
    from rich.table import Table as RichTable

    console = Console(markup=False, emoji=False, highlight=False)
    for table in tables:
        columns = (Column(name, justify="right", no_wrap=True) for name in table.head[1:])
        shown = RichTable(
            table.head[0],
            *columns,
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        rows = [*table.rows, table.total] if table.total else table.rows
        room = max(console.width - _width([table.head, *rows]), _SHORTEST)
        for row in rows:
            shown.add_row(
                shortened(row[0], room), *row[1:], style="bold" if row is table.total else ""
            )
        console.print(table.title, style="bold")
        console.print(shown)
        console.print(table.note + "\n" if table.note else "", soft_wrap=True)


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Returns the characters of all columns but the first, with two before each."""
    return sum(2 + max(map(len, column)) for column in list(zip(*lines, strict=True))[1:])
