"""What a person has left to the data is filled in, and said."""

from __future__ import annotations

from collections.abc import Callable

from keras_unet.data.fingerprint import Fingerprint
from keras_unet.jobs.options import SettledOptions, TrainingOptions
from keras_unet.recipe import Recipe

_HEAD = "chosen by that, and the options that take other numbers:"


def settle(
    options: TrainingOptions, seen: Fingerprint, say: Callable[[str], None] = print
) -> SettledOptions:
    """Fills in by the recipe what a person has left to the data.

    Args:
        options: What the person has chosen.
        seen: What was seen over the training images.
        say: Takes what was seen and what follows, if anything was left to the data.

    Returns:
        The options with all numbers set. They are what the run records.
    """
    recipe = Recipe.of(
        seen, padding=options.padding, batch_size=options.batch_size, **options.given
    )
    if recipe.reasons:
        say(f"{seen.describe()}\n{_HEAD}\n{recipe.describe()}")
    return SettledOptions(
        **options.to_dict() | {name: getattr(recipe, name) for name in recipe.reasons}
    )
