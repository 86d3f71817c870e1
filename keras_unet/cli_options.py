"""Groups of command-line options, and parsers of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
AS_CHOSEN = "[default: chosen in training]"
FROM_DATA = "[default: from the data]"

AS_TRAINED = click.option(
    "--precision", help="auto, float32, bfloat16 or float16 [default: that of the training]"
)
OVERWRITE = click.option(
    "--overwrite", is_flag=True, help="Also replace files that keras-unet did not write."
)
QUIET = click.option("--quiet", is_flag=True, help="Print warnings only.")
RUN = click.argument("run_folder", metavar="RUN", type=PATH)

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?)b", re.IGNORECASE)
_FRACTION = re.compile(r"-?(\d+\.\d*|\.\d+)|0|1")  # names of digits, such as 07, are not fractions
_TRAINING_LENGTH = (
    click.option("--steps", type=int, help=f"Number of training steps {FROM_DATA}"),
    click.option(
        "--epochs",
        type=float,
        help="Length of the training, in passes over the pixels of the training images.",
    ),
    click.option("--max-minutes", type=float, help="Length of the training, in minutes."),
    click.option(
        "--patience",
        type=int,
        help="Stop early after this number of validations without a better score.",
    ),
    click.option(
        "--dropout",
        type=float,
        help="Dropout rate at the end of the contracting path [default: 0.2]",
    ),
    click.option(
        "--folds", type=int, help="Cross-validation: number of networks to train, an ensemble."
    ),
    click.option(
        "--optimizer",
        type=click.Choice(["sgd", "adam"]),
        help="Adam, or SGD with momentum, as in the paper [default: adam]",
    ),
    click.option(
        "--learning-rate",
        type=float,
        help="Peak learning rate [default: 0.01 for sgd, 0.001 for adam]",
    ),
    click.option(
        "--momentum",
        type=float,
        help="Momentum of the SGD optimizer [default: 0.99, as in the paper]",
    ),
    click.option(
        "--normalize-kernels/--no-normalize-kernels",
        default=None,
        help="Normalize the kernels of the convolutions after each update [default: on; off in the "
        "paper]",
    ),
)
_INSTANCES = (
    click.option(
        "--threshold", type=float, help=f"Probability above which a pixel is cell {AS_CHOSEN}"
    ),
    click.option(
        "--markers",
        type=click.Choice(["components", "probability", "distance"]),
        help=f"How touching cells are separated {AS_CHOSEN}",
    ),
    click.option(
        "--merge-threshold",
        type=float,
        help=f"Separate cells where they narrow below this fraction of their width {AS_CHOSEN}",
    ),
    click.option("--minimum-size", type=int, help=f"Smallest cell, in pixels {AS_CHOSEN}"),
    click.option(
        "--gap", type=float, help=f"Width of the gaps between cells to close, in pixels {AS_CHOSEN}"
    ),
    click.option(
        "--fill-holes/--keep-holes", default=None, help=f"Fill holes in cells {AS_CHOSEN}"
    ),
    click.option(
        "--affinities/--no-affinities",
        default=None,
        help=f"Separate touching cells by affinities, if the network predicts them {AS_CHOSEN}",
    ),
)
_TRAINING_DATA = (
    click.option("--depth", type=int, help=f"Number of max-pooling steps (paper: 4) {FROM_DATA}"),
    click.option(
        "--padding",
        type=click.Choice(["valid", "same"]),
        help="Padding of the convolutions [default: valid, as in the paper]",
    ),
    click.option(
        "--tile", type=int, help=f"Size of the input tile, in pixels (paper: 572) {FROM_DATA}"
    ),
    click.option(
        "--base-filters",
        type=int,
        help="Feature channels of the first level (paper: 64) [default: 16]",
    ),
    click.option(
        "--norm-layer",
        type=click.Choice(["batch", "group"]),
        help="Normalization layers after the convolutions [default: none, as in the paper]",
    ),
    click.option(
        "--affinities/--no-affinities",
        default=None,
        help="Also learn which pixels belong to the same object, to separate objects that touch "
        "[default: for tissue alone; none in the paper]",
    ),
    click.option(
        "--batch-size", type=int, help="Number of tiles in a batch [default: 1, as in the paper]"
    ),
    click.option("--precision", help="auto, float32, bfloat16 or float16 [default: auto]"),
    click.option(
        "--memory-limit", help="Choose a tile size that trains within this memory, such as 8GB."
    ),
    click.option(
        "--validation", help="Validation images: a fraction, or names such as a,b,c [default: 0.2]"
    ),
    click.option(
        "--final-share",
        type=float,
        help="Fraction of the training, at its end, that uses the validation images as well "
        "[default: 0]",
    ),
    click.option(
        "--groups",
        help="Images that belong together, as those of a film or slide: auto, none, or a regular "
        "expression of the group in a name, such as '(slide\\d+)' [default: auto]",
    ),
    click.option("--seed", type=int, help="Seed of the random numbers [default: 0]"),
    click.option(
        "--labels",
        "kind",
        type=click.Choice(["auto", "classes", "instances"]),
        help="Kind of labels: classes, or instances without classes "
        "[default: auto, from the files]",
    ),
    click.option("--axes", help="Axes of image files without axes metadata, such as YXC or CYX."),
    click.option(
        "--channels",
        help="Channels of the images: numbers from 0, or names, such as 0,2 or DAPI [default: all]",
    ),
    click.option(
        "--ignore", type=int, help="Label value of pixels to leave out of the loss and the scores."
    ),
    click.option(
        "--unlabelled",
        "--unlabeled",
        type=int,
        help="Label value of pixels that nobody has labelled, for images labelled in part.",
    ),
    click.option(
        "--allow-empty",
        is_flag=True,
        default=None,
        help="Accept label files without any foreground.",
    ),
    click.option(
        "--normalization",
        type=click.Choice(["image", "dataset"]),
        help="Normalize per image or per data set [default: image]",
    ),
    click.option(
        "--border-weight",
        type=float,
        help="w0 of the weight map, equation 2 [default: 10, as in the paper]",
    ),
    click.option(
        "--sigma",
        type=float,
        help=f"sigma of the weight map, equation 2, in pixels (paper: 5) {FROM_DATA}",
    ),
    click.option(
        "--class-balance/--no-class-balance",
        default=None,
        help=f"Balance class frequencies in the loss (paper: on) {FROM_DATA}",
    ),
    click.option(
        "--amplitude",
        type=float,
        help=f"Elastic deformation, standard deviation in pixels (paper: 10) {FROM_DATA}",
    ),
    click.option(
        "--zoom",
        type=float,
        help="Random scaling, standard deviation of the log factor (paper: 0) [default: 0.25]",
    ),
    click.option(
        "--contrast",
        type=float,
        help="Random contrast, standard deviation of the log factor [default: 0.15]",
    ),
    click.option(
        "--brightness",
        type=float,
        help="Random brightness, in standard deviations of the image [default: 0.15]",
    ),
    click.option(
        "--gamma",
        type=float,
        help="Random gamma, standard deviation of the log exponent [default: 0]",
    ),
    click.option(
        "--noise",
        type=float,
        help="Random noise, at most this many standard deviations of the image [default: 0]",
    ),
    click.option(
        "--blur", type=float, help="Random blur, sigma of at most this many pixels [default: 0]"
    ),
    click.option(
        "--illumination",
        type=float,
        help="Random uneven illumination, in standard deviations of the image [default: 0]",
    ),
    click.option(
        "--sampling",
        type=click.Choice(["uniform", "classes"]),
        help="Centers of tiles: any pixel, or for half of them a class at random "
        "[default: uniform]",
    ),
    click.option(
        "--engine",
        type=click.Choice(["graph", "elasticdeform"]),
        help="Backend of the elastic deformation [default: graph]",
    ),
)


def training_length_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of the length and optimizer of a training."""
    return _with(_TRAINING_LENGTH, command)


def instance_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of instance segmentation."""
    return _with(_INSTANCES, command)


def training_data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of network, data, tiles and augmentation."""
    return _with(_TRAINING_DATA, command)


def _with(options: Iterable[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


def given_options(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the options given on the command line, as arguments of `TrainingOptions`."""
    given = {name: value for name, value in values.items() if value is not None}
    if "validation" in given:
        given["validation"] = fraction_or_names(given["validation"])
    if "channels" in given:
        given["channels"] = parse_channels(given["channels"])
    if "memory_limit" in given:
        given["memory_limit"] = parse_bytes(given["memory_limit"])
    return given


def parse_bytes(text: str) -> int:
    """Parses an amount of memory to bytes.

    >>> parse_bytes("8GB"), parse_bytes("1.5 gib")
    (8000000000, 1610612736)

    Raises:
        ValueError: If `text` is not a number with a unit.
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


def fraction_or_names(text: str) -> float | tuple[str, ...]:
    """Parses a fraction of the images, or image names.

    >>> fraction_or_names("0.2"), fraction_or_names("a, 07"), fraction_or_names("07")
    (0.2, ('a', '07'), ('07',))
    """
    return float(text) if _FRACTION.fullmatch(text) else split_names(text)


def split_names(text: str) -> tuple[str, ...]:
    """Splits names at commas.

    >>> split_names("a, b,")
    ('a', 'b')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_channels(text: str) -> tuple[int | str, ...]:
    """Parses numbers and names of channels.

    >>> parse_channels("0,2"), parse_channels("DAPI")
    ((0, 2), ('DAPI',))
    """
    return tuple(int(name) if name.isdecimal() else name for name in split_names(text))


def parse_versions(texts: Iterable[str]) -> dict[str, int]:
    """Parses version numbers by label.

    >>> parse_versions(["stable=1", "canary=2"])
    {'stable': 1, 'canary': 2}

    Raises:
        ValueError: If a text is not LABEL=VERSION.
    """
    pairs = [(text, *text.partition("=")) for text in texts]
    for text, label, _, number in pairs:
        if not label or set(label) & set("/:@") or not number.isdecimal():
            raise ValueError(
                "--label must be LABEL=VERSION, a name without / : @ and a version number. "
                f"Received: {text}"
            )
    return {label: int(number) for _, label, _, number in pairs}


def none_if_absent(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Returns None for a repeatable option that was not given."""
    return values or None
