"""Options that are left to the data, set by the recipe within the memory that there is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

from keras_unet.architecture import Architecture, Padding
from keras_unet.backend import choose_precision, tf
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
)

_log = logging.getLogger(__name__)

PROGRAM = 850_000_000
"""Bytes that Python, TensorFlow and the libraries take before the network is built."""

A_PIXEL = 60
"""Bytes for each pixel of the training images: grey values, labels, weights, and copies of them."""

_BEYOND = 4 * PAPER_TILE  # the largest tile that a message names, in pixels


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a training has to make do with.

    Attributes:
        options: What the person has chosen.
        seen: What was seen over the training images.
    """

    options: TrainingOptions
    seen: Fingerprint

    def needed(self, depth: int, tile: int) -> int:
        """Predicts the bytes that the training takes at most, program and images included."""
        return self._besides + self._network(depth).training_memory(
            tile, batch_size=self.options.batch_size, precision=self._precision
        )

    def largest_tile(self, depth: int) -> int | None:
        """Returns the largest tile that the limit leaves room for; None without a limit.

        Raises:
            ValueError: If there is no room for the smallest.
        """
        limit = self.options.memory_limit
        if limit is None:
            return None
        network = self._network(depth)
        largest = network.largest_tile(
            limit - self._besides,
            _BEYOND,
            batch_size=self.options.batch_size,
            precision=self._precision,
        )
        if largest is None:
            smallest = network.minimum_size
            raise ValueError(
                f"memory_limit must be at least {_in_words(self.needed(depth, smallest))} for "
                f"the smallest tile, {smallest} pixels at depth={depth}. Received: "
                f"{_in_words(limit)}; give more, or take fewer base_filters"
            )
        return largest

    def check(self, depth: int, tile: int) -> None:
        """Makes sure that a tile keeps to the limit.

        Raises:
            ValueError: If it does not. The message names the largest that does.
        """
        largest = self.largest_tile(depth)
        if largest is not None and tile > largest:
            raise ValueError(
                f"tile must be at most {largest} for memory_limit="
                f"{_in_words(self.options.memory_limit or 0)}. Received: {tile}, which takes "
                f"about {_in_words(self.needed(depth, tile))}"
            )

    def warning(self, depth: int, tile: int, free: int) -> str | None:
        """Says in one line that more is needed than is free; None where it is not.

        Args:
            depth: Number of poolings.
            tile: Height and width of the input tile in pixels.
            free: Bytes that are still to be had, those not counted that the program has by now.
        """
        needed = self.needed(depth, tile) - PROGRAM
        if needed <= free:
            return None
        return (
            f"training takes about {_in_words(needed)} more memory, and {free / 1e9:.1f}GB are "
            "free: the system may end it. Close other programs, or have a smaller tile chosen "
            f"by --memory-limit {(free + PROGRAM) // 10**8 / 10:.1f}GB"
        )

    @property
    def _besides(self) -> int:
        return PROGRAM + A_PIXEL * self.seen.pixels

    @property
    def _precision(self) -> str:
        return choose_precision(self.options.precision)

    def _network(self, depth: int) -> Architecture:
        return self.options.network(depth, classes=max(2, len(self.seen.shares)))


def _in_words(size: int) -> str:
    """Writes bytes as `--memory-limit` takes them, rounded up."""
    return f"{ceil(size / 10**8) / 10:.1f}GB"


_HEAD = "chosen by that, and the options that take other numbers:"


def autoconfigure(options: TrainingOptions, seen: Fingerprint) -> ResolvedOptions:
    """Fills in by the recipe what a person has left to the data.

    Args:
        options: What the person has chosen.
        seen: What was seen over the training images.

    Returns:
        The options with all numbers set. They are what the run records.

    Raises:
        ValueError: If the memory that training is limited to does not hold the tile that is given,
            or any.
    """
    budget = MemoryEstimate(options, seen)
    recipe = AutoConfiguration.of(
        seen,
        padding=options.padding,
        batch_size=options.batch_size,
        largest_tile=budget.largest_tile,
        **options.given,
    )
    budget.check(recipe.depth, recipe.tile)
    if recipe.reasons:
        _log.info(f"{seen.describe()}\n{_HEAD}\n{recipe.describe()}")
    if not options.memory_limit and not tf.config.list_physical_devices("GPU"):
        warning = budget.warning(recipe.depth, recipe.tile, free_memory())
        if warning:
            _log.warning(warning)
    return ResolvedOptions(
        **options.to_dict() | {name: getattr(recipe, name) for name in recipe.reasons}
    )


CELLS_IN_TILE = 2.5  # larger cells that stand side by side in a tile's output, at least
SIGMAS_IN_CELL = 8  # sigmas in the diameter of the median cell
SIGMAS = 2.0, PAPER_SIGMA  # least and most, in pixels
PASSES = 100  # over the training pixels
STEPS = 2500, 10_000  # least and most


Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class AutoConfiguration:
    """The numbers that a training takes from the data.

    Attributes:
        depth: Number of poolings.
        tile: Height and width of the input tile in pixels.
        amplitude: Standard deviation of the elastic deformation in pixels.
        sigma: sigma of equation 2 in pixels.
        steps: Updates; None where the length is given in other words.
        reasons: Why, for each number that a rule has set.
    """

    depth: int
    tile: int
    amplitude: float
    sigma: float
    steps: int | None
    reasons: Mapping[str, str]

    @classmethod
    def of(
        cls,
        seen: Fingerprint,
        *,
        padding: Padding = "valid",
        batch_size: int = 1,
        largest_tile: Callable[[int], int | None] = lambda _: None,
        **given: Any,
    ) -> AutoConfiguration:
        """Applies the rules.

        Args:
            seen: What was seen over the training images.
            padding: The network's.
            batch_size: Tiles a batch.
            largest_tile: Gives the largest tile that memory is to hold at a depth; None for any.
            given: Numbers that are not to be chosen, by name.
        """
        reasons: dict[str, str] = {}

        def choose(name: str, rule: Callable[..., tuple[Number, str]], *facts: Any) -> Number:
            if name in given:
                number: Number = given[name]
            else:
                number, reasons[name] = rule(*facts)
            return number

        depth = choose("depth", _depth, seen, padding, given.get("tile"))
        network = Architecture(depth=depth, padding=padding)
        tile = choose("tile", _tile, seen, network, largest_tile)
        return cls(
            depth=depth,
            tile=tile,
            amplitude=choose("amplitude", _amplitude, tile),
            sigma=choose("sigma", _sigma, seen),
            steps=choose("steps", _steps, seen, network.output_size(tile), batch_size),
            reasons=reasons,
        )

    def describe(self) -> str:
        """Lists to a person what the rules have set: the option of each number, and why."""
        options = {name: self._option(name) for name in self.reasons}
        width = max(map(len, options.values()), default=0)
        return "\n".join(
            f"  {option:{width}}  {self.reasons[name]}" for name, option in options.items()
        )

    def _option(self, name: str) -> str:
        return f"--{name} {getattr(self, name):g}"


def _depth(seen: Fingerprint, padding: Padding, tile: int | None) -> tuple[int, str]:
    """The margin is at least the 90th percentile of the cells' diameters; a given tile fits."""
    wanted, reason = _depth_for_cells(seen)
    deepest = wanted if tile is None else deepest_for(tile, padding)
    if wanted <= deepest:
        return wanted, reason
    return deepest, f"poolings, the most that --tile {tile} fits"


def _depth_for_cells(seen: Fingerprint) -> tuple[int, str]:
    if seen.diameters is None:
        return PAPER_DEPTH, "the paper's, as there are no cells to measure"
    large = seen.diameters.high
    margins = {depth: Architecture(depth=depth).margin for depth in DEPTHS}
    depth = next((depth for depth in DEPTHS if margins[depth] >= large), DEPTHS[-1])
    return depth, (
        f"poolings, to see {margins[depth]} pixels around each pixel: large cells are {large:.0f}"
    )


def _tile(
    seen: Fingerprint, network: Architecture, largest_tile: Callable[[int], int | None]
) -> tuple[int, str]:
    """The output covers the median image, or some of the larger cells; the paper's at most."""
    cells = CELLS_IN_TILE * seen.diameters.high if seen.diameters else 0.0
    covered = max(ceil(cells), ceil(seen.median_side))
    what = "an image" if seen.median_side >= cells else f"{CELLS_IN_TILE:g} large cells"
    wanted = covered + 2 * network.margin
    tile = network.fitting_size(min(PAPER_TILE, wanted))
    held = largest_tile(network.depth)
    if held is not None and held < tile:
        return held, f"pixels, the most that --memory-limit leaves room for; without it, {tile}"
    if wanted > tile:
        return tile, f"pixels, the paper's; {what} of {covered} would take a larger one"
    return tile, (
        f"pixels, of which {network.output_size(tile)} are scored, to cover {what} of {covered}"
    )


def _amplitude(tile: int) -> tuple[float, str]:
    """The paper's 10 pixels belong to its tile of 572; the strain of the deformation is kept."""
    amplitude = round(PAPER_AMPLITUDE * tile / PAPER_TILE, 1)
    return amplitude, (
        f"pixels of elastic deformation: {PAPER_AMPLITUDE:g} in a tile of {PAPER_TILE}, to scale"
    )


def _sigma(seen: Fingerprint) -> tuple[float, str]:
    """The paper's 5 pixels, less where the median cell has less than eight times that."""
    if seen.diameters is None:
        return PAPER_SIGMA, "pixels, the paper's, as there are no cells to measure"
    least, most = SIGMAS
    cell = seen.diameters.median
    sigma = round(min(max(cell / SIGMAS_IN_CELL, least), most), 1)
    return sigma, (
        f"pixels of reach between cells: 1/{SIGMAS_IN_CELL} of a cell of {cell:.0f}, "
        f"{least:g} to {most:g}"
    )


def _steps(seen: Fingerprint, output: int, batch_size: int) -> tuple[int, str]:
    """A hundred passes over the training pixels, within limits."""
    least, most = STEPS
    passes = PASSES * seen.pixels / output**2 / batch_size
    steps = min(max(round(passes), least), most)
    return steps, (
        f"{PASSES} passes over the training pixels are {passes:,.0f} steps; "
        f"{least:,} to {most:,} are taken"
    )
