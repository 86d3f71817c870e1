"""What a person has left to the data is filled in, and said."""

from __future__ import annotations

import logging

from keras_unet.backend import tf
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.machine import free_memory
from keras_unet.training.budget import Budget
from keras_unet.training.options import SettledOptions, TrainingOptions
from keras_unet.training.recipe import Recipe

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
