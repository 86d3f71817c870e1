"""Options of the commands, in groups, and the readers of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
AS_CHOSEN = "[default: as chosen in training]"
FROM_DATA = "[default: from the data]"

AS_TRAINED = click.option(
    "--precision", help="auto, float32, bfloat16 or float16; as trained if not given."
)
OVERWRITE = click.option(
    "--overwrite", is_flag=True, help="Also replace files that keras-unet has not written."
)
QUIET = click.option("--quiet", is_flag=True, help="Print warnings only.")
RUN = click.argument("run_folder", metavar="RUN", type=PATH)

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?)b", re.IGNORECASE)
_SHARE = re.compile(r"-?(\d+\.\d*|\.\d+)|0|1")  # a name of digits, such as 07, is no share
_OF_LENGTH = (
    click.option("--steps", type=int, help=f"Updates {FROM_DATA}"),
    click.option("--epochs", type=float, help="Length in passes over the training pixels."),
    click.option("--max-minutes", type=float, help="Length in minutes."),
    click.option("--patience", type=int, help="Validations without a better score to end after."),
    click.option("--dropout", type=float, help="Rate at the end of the contracting path (0.5)."),
    click.option(
        "--folds", type=int, help="Cross-validation: train so many networks, an ensemble."
    ),
    click.option("--learning-rate", type=float, help="The highest rate (0.01)."),
    click.option("--momentum", type=float, help="Of the gradient (0.99, as in the paper)."),
)
_OF_CELLS = (
    click.option("--threshold", type=float, help=f"Probability that cells are above {AS_CHOSEN}"),
    click.option(
        "--markers",
        type=click.Choice(["components", "probability", "distance"]),
        help=f"By what cells are told apart that touch {AS_CHOSEN}",
    ),
    click.option(
        "--merge-threshold", type=float, help=f"Share of the width to part them at {AS_CHOSEN}"
    ),
    click.option("--minimum-size", type=int, help=f"Pixels of the smallest cell {AS_CHOSEN}"),
    click.option("--gap", type=float, help=f"Width in pixels of gaps to close {AS_CHOSEN}"),
    click.option("--fill-holes/--keep-holes", default=None, help=f"In cells {AS_CHOSEN}"),
)
_OF_DATA = (
    click.option("--depth", type=int, help=f"Number of poolings (paper: 4) {FROM_DATA}"),
    click.option("--padding", type=click.Choice(["valid", "same"]), help='Paper: "valid".'),
    click.option("--tile", type=int, help=f"Input tile in pixels (paper: 572) {FROM_DATA}"),
    click.option("--base-filters", type=int, help="Features of the first level (32; paper: 64)."),
    click.option("--norm-layer", type=click.Choice(["batch", "group"]), help="Paper: none."),
    click.option(
        "--batch-size", type=int, help="Tiles a batch, of each replica (1, as in the paper)."
    ),
    click.option("--precision", help="auto, float32, bfloat16 or float16."),
    click.option("--memory-limit", help="Such as 8GB: the tile is chosen to make do with that."),
    click.option("--validation", help="Share of images held out (0.2), or their names: a,b,c."),
    click.option("--seed", type=int, help="Makes the run reproducible (0)."),
    click.option(
        "--labels",
        "kind",
        type=click.Choice(["auto", "classes", "instances"]),
        help="What labels hold.",
    ),
    click.option(
        "--axes", help="Axes of images whose files do not state them, such as YXC or CYX."
    ),
    click.option("--ignore", type=int, help="Label value of pixels that are not to count."),
    click.option(
        "--allow-empty", is_flag=True, default=None, help="Keep labels without foreground."
    ),
    click.option(
        "--normalization", type=click.Choice(["image", "dataset"]), help="Grey values by."
    ),
    click.option("--border-weight", type=float, help="w0 of equation 2 (10, as in the paper)."),
    click.option(
        "--sigma", type=float, help=f"sigma of equation 2 in pixels (paper: 5) {FROM_DATA}"
    ),
    click.option(
        "--class-balance/--no-class-balance",
        default=None,
        help="Let rare and frequent classes weigh alike in all (on, as in the paper).",
    ),
    click.option(
        "--amplitude", type=float, help=f"Elastic deformation in pixels (paper: 10) {FROM_DATA}"
    ),
    click.option("--zoom", type=float, help="Spread of a factor on lengths (0.25; paper: 0)."),
    click.option("--engine", type=click.Choice(["graph", "elasticdeform"]), help="Who deforms."),
)


def options_of_length(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options of the length and rate of a training."""
    return _with(_OF_LENGTH, command)


def options_of_cells(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options by which cells are made of probabilities."""
    return _with(_OF_CELLS, command)


def options_of_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command all options by which `train` reads data and makes tiles of it."""
    return _with(_OF_DATA, command)


def _with(options: Iterable[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


def given_of(choices: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that a person gave, as TrainingOptions takes them."""
    given = {name: value for name, value in choices.items() if value is not None}
    if "validation" in given:
        given["validation"] = share_or_names(given["validation"])
    if "memory_limit" in given:
        given["memory_limit"] = bytes_of(given["memory_limit"])
    return given


def bytes_of(text: str) -> int:
    """Reads an amount of memory.

    >>> bytes_of("8GB"), bytes_of("1.5 gib")
    (8000000000, 1610612736)

    Raises:
        ValueError: If it is no number with a unit.
    """
    found = _MEMORY.fullmatch(text.strip())
    if not found:
        raise ValueError(
            "--memory-limit must be a number with its unit, such as 8GB or 500MB. "
            f"Received: {text!r}"
        )
    number, unit, binary = found.groups()
    base = 1024.0 if binary else 1000.0
    return round(float(number) * base ** ("kmgt".index(unit.lower()) + 1))


def share_or_names(text: str) -> float | tuple[str, ...]:
    """Reads a share of images, or their names.

    >>> share_or_names("0.2"), share_or_names("a, 07"), share_or_names("07")
    (0.2, ('a', '07'), ('07',))
    """
    return float(text) if _SHARE.fullmatch(text) else names_of(text)


def names_of(text: str) -> tuple[str, ...]:
    """Parts a list of names at its commas.

    >>> names_of("a, b,")
    ('a', 'b')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def none_for_nothing(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Tells an option that was not given from one that was, as `None` does where none repeats."""
    return values or None
