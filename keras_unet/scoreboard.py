"""Tables of an evaluation in the terminal: the images, then scores with thresholds."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from typing import TYPE_CHECKING

import click

from keras_unet.console import shortened, some

if TYPE_CHECKING:
    from rich.table import Table

    from keras_unet.evaluation.comparison import Scores
    from keras_unet.evaluation.evaluate import Evaluation

_OF_IMAGES = {"iou": "IoU", "dice": "Dice", "pixel_error": "pixel\nerror", "seg": "SEG"}
_OF_ISBI2012 = {  # title, best value
    "pixel_error": ("pixel error: 1 - F of cell pixels", 0),
    "rand_error": ("Rand error: 1 - F of pairs, over cells", 0),
    "rand_error_classic": ("Rand error, classic: over all pixels", 0),
    "v_rand": ("V_Rand: F of pairs, borders thinned", 1),
    "v_info": ("V_Info: information, borders thinned", 1),
    "warping_error": ("warping error: pixels of splits, merges / all", 0),
    "warping_error_classic": ("warping error, classic: that differ / all", 0),
}
_COLUMN, _AROUND, _SHORTEST = 9, 4, 12  # characters of a score, around the names, of a name


def print_scores(evaluation: Evaluation) -> None:
    """Prints one row an image and one for all, then the scores that have thresholds."""
    from rich.console import Console

    console = Console()
    if any(_columns(row) for row in evaluation.rows.values()):
        console.print(_table_of_images(evaluation, console.width))
    if "pixels" in evaluation.metrics:
        click.echo(_source_of_pixel_error(evaluation))
    if "matching" in evaluation.metrics:
        console.print(_table_of_matching(evaluation.overall))
    if "isbi2012" in evaluation.metrics:
        console.print(_table_of_isbi2012(evaluation.overall))
    if evaluation.left_out:
        click.echo(f"no labels by their names, and left out: {some(evaluation.left_out)}", err=True)
    if evaluation.missing:
        click.echo(f"Warning: no prediction for {', '.join(evaluation.missing)}", err=True)


def _table_of_images(evaluation: Evaluation, width: int) -> Table:
    scores = {**evaluation.rows, "all": evaluation.overall}
    columns = list(_columns(next(iter(evaluation.rows.values()))))
    table = _table("image", columns)
    room = max(width - _AROUND - _COLUMN * len(columns), _SHORTEST)
    for name, row in scores.items():
        if row is evaluation.overall:
            table.add_section()
        found = _columns(row)
        table.add_row(shortened(name, room), *(_number(found[column]) for column in columns))
    return table


def _columns(scores: Scores) -> dict[str, float]:
    """Returns the scores of an image by their headings; of the matching, at the first threshold."""
    named = [name for name in _OF_IMAGES if name in scores.values]
    found = {_OF_IMAGES[name]: scores.values[name] for name in named}
    for row in scores.matching[:1]:
        of_cells = {"AP": row.ap, "F1": row.f1, "PQ": row.pq}
        found |= {f"{name}\nat {row.threshold}": value for name, value in of_cells.items()}
    return found


def _table_of_matching(scores: Scores) -> Table:
    table = _table(
        "cells match\nfrom an IoU of", ["matched\nTP", "false\nFP", "missed\nFN", "AP", "F1", "PQ"]
    )
    for row in scores.matching:
        counts = (str(count) for count in (row.tp, row.fp, row.fn))
        table.add_row(str(row.threshold), *counts, *map(_number, (row.ap, row.f1, row.pq)))
    return table


def _table_of_isbi2012(scores: Scores) -> Table:
    table = _table("ISBI 2012, all slices", ["score", "best\nis", "P(cell)\nabove"])
    for name, (title, best) in _OF_ISBI2012.items():
        threshold = _number(scores.values[f"{name}_threshold"], digits=1)
        table.add_row(title, _number(scores.values[name]), str(best), threshold)
    return table


def _table(first: str, columns: Iterable[str]) -> Table:
    """Returns an empty table with names in its first column and numbers in the others."""
    from rich.table import Column, Table

    return Table(first, *(Column(name, justify="right", no_wrap=True) for name in columns))


def _source_of_pixel_error(evaluation: Evaluation) -> str:
    if not evaluation.from_probabilities:
        return "pixel error from label images, there being no probabilities"
    threshold = _number(evaluation.overall.values["pixel_error_threshold"], digits=1)
    return f"pixel error from probabilities above {threshold}"


def _number(value: float, digits: int = 4) -> str:
    return "-" if isnan(value) else f"{value:.{digits}f}"
