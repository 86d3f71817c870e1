"""Auto-configuration: options of a training set from the data set and the memory limit.

Eight options that are None in `TrainingOptions` are set by fixed rules from the `Fingerprint` of
the training images. That rules can replace tuning by hand was shown by nnU-Net: F. Isensee et al.,
"nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18, 203-211 (2021). The rules here are this package's own.

    option     rule                                                             without cells
    affinities for tissue: two classes, more than half of it foreground         none
    balance    of classes in the loss, if one has less than 10 % of the pixels  the same
    depth      3 if its margin, 44 pixels, is at least a large cell; else 4     4
    tile       output covers the median image or 2.5 large cells; at most 572,  median image
               and at most what `memory_limit` allows
    amplitude  10 pixels of elastic deformation per tile of 572, in proportion  the same
    sigma      1/8 of the median cell, from 2 to 5 pixels                       5
    steps      100 passes over the training pixels, from 2,500 to 10,000        the same
    rate       0.01 for SGD, 0.001 for Adam                                     the same

A large cell is the 90th percentile of the cells' diameters. An option that is given is kept, and
the rules below it in the table use its value; the depth is at most one that a given tile fits. A
training that starts from a model has a quarter of the steps and three tenths of the rate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, TypeVar

from keras_unet.architecture import Architecture, Padding
from keras_unet.backend import choose_precision, tf
from keras_unet.data.encoding import Kind
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.system import free_memory
from keras_unet.training.options import (
    DEPTHS,
    PAPER_AMPLITUDE,
    PAPER_DEPTH,
    PAPER_SIGMA,
    PAPER_TILE,
    ResolvedOptions,
    TrainingOptions,
    deepest_for,
    learning_rate_of,
)
from keras_unet.training.schedule import Optimizer

_log = logging.getLogger(__name__)

CELLS_IN_TILE = 2.5
"""Large cells that fit side by side into a tile's output, at least."""

SIGMAS_IN_CELL = 8
"""Diameter of the median cell in units of sigma."""

SIGMA_RANGE = 2.0, PAPER_SIGMA
"""Smallest and largest sigma in pixels."""

PASSES = 100
"""Passes over the training pixels."""

FINE_TUNING_STEPS = 1 / 4
"""Steps of a training from a model, as a share of those of one from scratch."""

TISSUE = 0.5
"""Fraction of the pixels above which the foreground of two classes is tissue."""

RARE = 0.1
"""Fraction of the pixels below which a class is rare, so that the classes are balanced."""

STEPS_RANGE = 2500, 10_000
"""Smallest and largest number of steps."""

PROGRAM_BYTES = 850_000_000
"""Memory of Python, TensorFlow and the libraries before the network is built."""

BYTES_PER_PIXEL = 60
"""Memory per pixel of the training images: grey values, labels, weights, and copies of them."""

_LARGEST_NAMED = 4 * PAPER_TILE  # largest tile that a message names, in pixels
_FINE_TUNING = ", from a model"
_HEAD = "options chosen from these statistics; give one to change it:"

_TWO = 2  # classes, background included

Number = TypeVar("Number", bool, int, float)


def autoconfigure(
    options: TrainingOptions, fingerprint: Fingerprint, kind: Kind, *, fine_tuning: bool = False
) -> ResolvedOptions:
    """Sets the options that are None, and logs them with their reasons.

    Args:
        options: The requested options.
        fingerprint: Statistics of the training images.
        kind: Kind of the labels.
        fine_tuning: Whether the training starts from a model.

    Returns:
        The options with all numbers set, as the run records them.

    Raises:
        ValueError: If the given tile, or every tile, needs more memory than `memory_limit`, or
            affinities are to be learned from labels without objects.
    """
    if options.affinities and fingerprint.diameters is None:
        raise ValueError(
            "affinities need labels of whole objects, which show what belongs together. Received: "
            "affinities with strokes, or without any object; label objects, or use a network "
            "without affinities (--no-affinities)"
        )
    affinities = options.given.get("affinities", _affinities(fingerprint, kind)[0])
    has_affinities = affinities and (kind == "instances" or len(fingerprint.shares) <= _TWO)
    memory = MemoryEstimate(replace(options, affinities=has_affinities), fingerprint)
    configuration = AutoConfiguration.of(
        fingerprint,
        kind=kind,
        padding=options.padding,
        batch_size=options.batch_size,
        optimizer=options.optimizer,
        fine_tuning=fine_tuning,
        largest_tile=memory.largest_tile,
        **options.given,
    )
    memory.check(configuration.depth, configuration.tile)
    if configuration.reasons:
        _log.info(f"{fingerprint.describe()}\n{_HEAD}\n{configuration.describe()}")
    if not options.memory_limit and not tf.config.list_physical_devices("GPU"):
        warning = memory.warning(configuration.depth, configuration.tile, free_memory())
        if warning:
            _log.warning(warning)
    values = {name: getattr(configuration, name) for name in configuration.reasons}
    return ResolvedOptions(**options.to_dict() | values)


@dataclass(frozen=True, kw_only=True)
class AutoConfiguration:
    """Options of a training, given or set by the rules.

    Attributes:
        affinities: Whether the network learns which pixels belong to the same object.
        class_balance: Whether w_c of equation 2 balances the classes.
        depth: Number of poolings.
        tile: Height and width of the input tile in pixels.
        amplitude: Standard deviation of the elastic deformation in pixels.
        sigma: sigma of equation 2 in pixels.
        steps: Number of updates; None if the length is given in epochs or minutes.
        learning_rate: The highest learning rate.
        reasons: Reason for each option that a rule has set, by name.
    """

    affinities: bool
    class_balance: bool
    depth: int
    tile: int
    amplitude: float
    sigma: float
    steps: int | None
    learning_rate: float
    reasons: Mapping[str, str]

    @classmethod
    def of(
        cls,
        fingerprint: Fingerprint,
        *,
        kind: Kind = "instances",
        padding: Padding = "valid",
        batch_size: int = 1,
        optimizer: Optimizer = "adam",
        fine_tuning: bool = False,
        largest_tile: Callable[[int], int | None] = lambda _: None,
        **given: Any,
    ) -> AutoConfiguration:
        """Applies the rules.

        Args:
            fingerprint: Statistics of the training images.
            kind: Kind of the labels.
            padding: Padding of the network.
            batch_size: Tiles per batch.
            optimizer: Optimizer of the training.
            fine_tuning: Whether the training starts from a model.
            largest_tile: Returns the largest tile that memory allows at a depth; None for any.
            given: Options that are kept, by name.
        """
        reasons: dict[str, str] = {}

        def choose(name: str, rule: Callable[..., tuple[Number, str]], *arguments: Any) -> Number:
            if name in given:
                number: Number = given[name]
            else:
                number, reasons[name] = rule(*arguments)
            return number

        affinities = choose("affinities", _affinities, fingerprint, kind)
        depth = choose("depth", _depth, fingerprint, padding, given.get("tile"))
        network = Architecture(depth=depth, padding=padding)
        tile = choose("tile", _tile, fingerprint, network, largest_tile)
        pixels = network.output_size(tile) ** 2 * batch_size
        return cls(
            affinities=affinities,
            class_balance=choose("class_balance", _class_balance, fingerprint),
            depth=depth,
            tile=tile,
            amplitude=choose("amplitude", _amplitude, tile),
            sigma=choose("sigma", _sigma, fingerprint),
            steps=choose("steps", _steps, fingerprint, pixels, fine_tuning),
            learning_rate=choose("learning_rate", _learning_rate, optimizer, fine_tuning),
            reasons=reasons,
        )

    def describe(self) -> str:
        """Lists the options set by rules, one line each: the command-line option and the reason."""
        options = {name: self._option(name) for name in self.reasons}
        width = max(map(len, options.values()), default=0)
        return "\n".join(
            f"  {option:{width}}  {self.reasons[name]}" for name, option in options.items()
        )

    def _option(self, name: str) -> str:
        value, option = getattr(self, name), name.replace("_", "-")
        if isinstance(value, bool):
            return f"--{option}" if value else f"--no-{option}"
        return f"--{option} {value:g}"


def _affinities(fingerprint: Fingerprint, kind: Kind) -> tuple[bool, str]:
    share = f"{100 * fingerprint.foreground:.0f} % of the pixels are foreground"
    if kind == "classes" and fingerprint.diameters is None:
        return False, "they need whole objects, and the labels hold none"
    if kind == "classes" and len(fingerprint.shares) == 2 and fingerprint.foreground > TISSUE:
        return True, f"to separate the cells of tissue: the labels hold two classes, and {share}"
    return False, (
        f"they are for tissue: two classes, more than {100 * TISSUE:.0f} % of the pixels foreground"
    )


def _class_balance(fingerprint: Fingerprint) -> tuple[bool, str]:
    rarest = min(share for share in fingerprint.shares if share)
    return rarest < RARE, (
        f"the rarest class has {100 * rarest:.2g} % of the pixels; a balance is for less than "
        f"{100 * RARE:.0f} %"
    )


def _depth(fingerprint: Fingerprint, padding: Padding, tile: int | None) -> tuple[int, str]:
    depth, reason = _depth_for_cells(fingerprint)
    deepest = depth if tile is None else deepest_for(tile, padding)
    if depth <= deepest:
        return depth, reason
    return deepest, f"poolings, the most that --tile {tile} allows"


def _depth_for_cells(fingerprint: Fingerprint) -> tuple[int, str]:
    if fingerprint.diameters is None:
        return PAPER_DEPTH, "poolings, as in the paper, because there are no cells to measure"
    diameter = fingerprint.diameters.high
    margins = {depth: Architecture(depth=depth).margin for depth in DEPTHS}
    depth = next((depth for depth in DEPTHS if margins[depth] >= diameter), DEPTHS[-1])
    return depth, (
        f"poolings: {margins[depth]} pixels of context on each side; "
        f"large cells are {diameter:.0f} wide"
    )


def _tile(
    fingerprint: Fingerprint, network: Architecture, largest_tile: Callable[[int], int | None]
) -> tuple[int, str]:
    cells = CELLS_IN_TILE * fingerprint.diameters.high if fingerprint.diameters else 0.0
    covered = max(ceil(cells), ceil(fingerprint.median_side))
    object_ = "an image" if fingerprint.median_side >= cells else f"{CELLS_IN_TILE:g} large cells"
    needed = covered + 2 * network.margin
    tile = network.fitting_size(min(PAPER_TILE, needed))
    limit = largest_tile(network.depth)
    if limit is not None and limit < tile:
        return limit, f"pixels, the most that --memory-limit allows; without it, {tile}"
    if needed > tile:
        return tile, f"pixels, as in the paper; {object_} of {covered} would need a larger tile"
    output = network.output_size(tile)
    return tile, f"pixels, of which {output} are predicted, to cover {object_} of {covered}"


def _amplitude(tile: int) -> tuple[float, str]:
    # Keeps the ratio of amplitude to tile, and so the strain of the deformation.
    amplitude = round(PAPER_AMPLITUDE * tile / PAPER_TILE, 1)
    return amplitude, (
        f"pixels of elastic deformation: {PAPER_AMPLITUDE:g} in a tile of {PAPER_TILE}, in "
        "proportion"
    )


def _sigma(fingerprint: Fingerprint) -> tuple[float, str]:
    if fingerprint.diameters is None:
        return PAPER_SIGMA, "pixels, as in the paper, because there are no cells to measure"
    least, most = SIGMA_RANGE
    diameter = fingerprint.diameters.median
    sigma = round(min(max(diameter / SIGMAS_IN_CELL, least), most), 1)
    return sigma, (
        f"pixels, the reach of the border weights: 1/{SIGMAS_IN_CELL} of a cell of "
        f"{diameter:.0f}, from {least:g} to {most:g}"
    )


def _steps(fingerprint: Fingerprint, pixels: int, fine_tuning: bool) -> tuple[int, str]:
    share = FINE_TUNING_STEPS if fine_tuning else 1
    number = round(share * PASSES)
    least, most = (round(share * limit) for limit in STEPS_RANGE)
    passes = number * fingerprint.pixels / pixels
    return min(max(round(passes), least), most), (
        f"{number} passes over the training pixels are {passes:,.0f} steps; "
        f"limited to {least:,} to {most:,}{_FINE_TUNING if fine_tuning else ''}"
    )


def _learning_rate(optimizer: Optimizer, fine_tuning: bool) -> tuple[float, str]:
    reason = f"the highest learning rate, for --optimizer {optimizer}"
    rate = learning_rate_of(optimizer, fine_tuning=fine_tuning)
    return rate, reason + (_FINE_TUNING if fine_tuning else "")


@dataclass(frozen=True)
class MemoryEstimate:
    """Estimate of the memory of a training, and its limit.

    Attributes:
        options: The requested options.
        fingerprint: Statistics of the training images.
    """

    options: TrainingOptions
    fingerprint: Fingerprint

    def peak(self, depth: int, tile: int) -> int:
        """Estimates the most bytes that the training needs, with program and images.

        Args:
            depth: Number of poolings.
            tile: Height and width of the input tile in pixels.
        """
        return self._fixed + self._network(depth).training_memory(tile, **self._training)

    def largest_tile(self, depth: int) -> int | None:
        """Returns the largest tile in pixels that the limit allows; None without a limit.

        Raises:
            ValueError: If the limit is too low for the smallest tile.
        """
        limit = self.options.memory_limit
        if limit is None:
            return None
        network = self._network(depth)
        largest = network.largest_tile(
            limit - self._fixed,
            _LARGEST_NAMED,
            **self._training,
        )
        if largest is None:
            smallest = network.minimum_size
            raise ValueError(
                f"memory_limit must be at least {_gigabytes(self.peak(depth, smallest))} for "
                f"the smallest tile, {smallest} pixels at depth={depth}. Received: "
                f"{_gigabytes(limit)}; raise it, or reduce base_filters"
            )
        return largest

    def check(self, depth: int, tile: int) -> None:
        """Checks that a tile is within the limit.

        Raises:
            ValueError: If it is not. The message names the largest tile that is.
        """
        largest = self.largest_tile(depth)
        if largest is not None and tile > largest:
            raise ValueError(
                f"tile must be at most {largest} for memory_limit="
                f"{_gigabytes(self.options.memory_limit or 0)}. Received: {tile}, which needs "
                f"about {_gigabytes(self.peak(depth, tile))}"
            )

    def warning(self, depth: int, tile: int, free: int) -> str | None:
        """Returns a warning if the training needs more memory than is free, else None.

        Args:
            depth: Number of poolings.
            tile: Height and width of the input tile in pixels.
            free: Free memory in bytes, besides what the program holds already.
        """
        needed = self.peak(depth, tile) - PROGRAM_BYTES
        if needed <= free:
            return None
        return (
            f"training needs about {_gigabytes(needed)} more memory, but {free / 1e9:.1f}GB are "
            "free, so the system may end it. Close other programs, or let a smaller tile be "
            f"chosen by --memory-limit {(free + PROGRAM_BYTES) // 10**8 / 10:.1f}GB"
        )

    @property
    def _fixed(self) -> int:
        """Bytes that do not depend on the network and its tiles."""
        return PROGRAM_BYTES + BYTES_PER_PIXEL * self.fingerprint.pixels

    @property
    def _training(self) -> dict[str, Any]:
        """Arguments of `Architecture.training_memory`."""
        return {
            "batch_size": self.options.batch_size,
            "precision": choose_precision(self.options.precision),
            "optimizer": self.options.optimizer,
        }

    def _network(self, depth: int) -> Architecture:
        classes = max(_TWO, len(self.fingerprint.shares))
        return self.options.network(depth, classes=classes, kind="instances")


def _gigabytes(size: int) -> str:
    """Formats bytes as `--memory-limit` reads them, rounded up."""
    return f"{ceil(size / 10**8) / 10:.1f}GB"
