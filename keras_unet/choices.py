"""Options that several commands share: of data, shares, lists of names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

FROM_DATA = "[default: from the data]"

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?)b", re.IGNORECASE)
_SHARE = re.compile(r"-?(\d+\.\d*|\.\d+)|0|1")  # a name of digits, such as 07, is no share
_OF_DATA = (
    click.option("--depth", type=int, help=f"Number of poolings (paper: 4) {FROM_DATA}"),
    click.option("--padding", type=click.Choice(["valid", "same"]), help='Paper: "valid".'),
    click.option("--tile", type=int, help=f"Input tile in pixels (paper: 572) {FROM_DATA}"),
    click.option("--base-filters", type=int, help="Features of the first level (32; paper: 64)."),
    click.option("--normalization", type=click.Choice(["batch", "group"]), help="Paper: none."),
    click.option(
        "--batch-size", type=int, help="Tiles a batch, of each replica (1, as in the paper)."
    ),
    click.option("--precision", help="auto, float32, bfloat16 or float16."),
    click.option("--memory-limit", help="Such as 8GB: the tile is chosen to make do with that."),
    click.option("--validation", help="Share of images held out (0.2), or their names: a,b,c."),
    click.option("--seed", type=int, help="Makes the run reproducible (0)."),
    click.option(
        "--labels", type=click.Choice(["auto", "classes", "instances"]), help="What labels hold."
    ),
    click.option(
        "--axes", help="Axes of images whose files do not state them, such as YXC or CYX."
    ),
    click.option("--ignore", type=int, help="Label value of pixels that are not to count."),
    click.option(
        "--allow-empty", is_flag=True, default=None, help="Keep labels without foreground."
    ),
    click.option("--standardise", type=click.Choice(["image", "dataset"]), help="Grey values by."),
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


def options_of_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command all options by which `train` reads data and makes tiles of it."""
    for option in reversed(_OF_DATA):
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
