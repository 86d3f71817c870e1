"""Options that are left to the data, set by the recipe within the memory that there is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import ceil

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.precision import choose_precision
from keras_unet.system import free_memory
from keras_unet.training.options import SettledOptions, TrainingOptions
from keras_unet.training.recipe import PAPER_TILE, Recipe

PROGRAM = 850_000_000
"""Bytes that Python, TensorFlow and the libraries take before the network is built."""

A_PIXEL = 60
"""Bytes for each pixel of the training images: grey values, labels, weights, and copies of them."""

_BEYOND = 4 * PAPER_TILE  # the largest tile that a message names, in pixels


@dataclass(frozen=True)
class Budget:
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


_log = logging.getLogger(__name__)

_HEAD = "chosen by that, and the options that take other numbers:"


def settle(options: TrainingOptions, seen: Fingerprint) -> SettledOptions:
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
    budget = Budget(options, seen)
    recipe = Recipe.of(
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
    return SettledOptions(
        **options.to_dict() | {name: getattr(recipe, name) for name in recipe.reasons}
    )
