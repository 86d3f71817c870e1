"""What is looked at while training goes on, and when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.samples import Sample
from keras_unet.instances import label_instances
from keras_unet.jobs.targets import Target, WeightMaps
from keras_unet.metrics import iou, seg
from keras_unet.plan import Validation
from keras_unet.prediction import predict_image
from keras_unet.report import (
    Picture,
    difference_picture,
    grey_picture,
    heat_picture,
    label_picture,
    montage,
)
from keras_unet.runs import Run

_TITLES = ("image", "truth", "prediction", "difference")


@dataclass(frozen=True, eq=False)
class Watch:
    """Looks at images that training does not see, and scores what the network makes of them.

    Instances are scored by SEG, which falls where cells merge; the pixels of a border that parts
    two cells are too few to show in a score of pixels. Classes are scored by the intersection over
    union (IoU) of all images together, as the mean over the classes.

    Attributes:
        run: The run.
        targets: The images, at least one.
        held_out: Whether they are held out. Images of the training itself are looked at for a
            collapse alone and get no score.
    """

    run: Run
    targets: Sequence[Target]
    held_out: bool = True

    @classmethod
    def of(cls, run: Run, training: Sequence[Target], validation: Sequence[Sample]) -> Watch:
        """Watches the images held out or, where there is none, one of the training."""
        held_out = [Target.of(sample, run.scheme) for sample in validation]
        return cls(run, held_out or training[:1], bool(held_out))

    def __call__(self, model: Any) -> Validation:
        """Looks at the model."""
        results = [self._classes(model, target) for target in self.targets]
        pairs = list(zip(self.targets, results, strict=True))
        truth = np.concatenate([target.classes[target.counted] for target in self.targets])
        found = np.concatenate([result[target.counted] for target, result in pairs])
        score = nan
        if self.held_out:
            score = _seg(pairs) if self._has_instances else _mean_iou(truth, found)
        picture = montage([_row(*pairs[0])], _TITLES)
        return Validation(None if isnan(score) else score, collapse(truth, found), picture)

    @property
    def score_name(self) -> str:
        """Name of the score, for a person."""
        return "SEG" if self._has_instances else "mean IoU"

    @property
    def _has_instances(self) -> bool:
        return self.run.scheme.kind == "instances"

    def pictures(self, model: Any, weights: WeightMaps, most: int) -> Picture:
        """Draws the first images with truth, prediction, difference and weight map, one a row."""
        rows = [
            [*_row(target, self._classes(model, target)), heat_picture(weights.of(target))]
            for target in self.targets[:most]
        ]
        return montage(rows, (*_TITLES, "weight map"))

    def _classes(self, model: Any, target: Target) -> NDArray[np.uint8]:
        image = self.run.standardisation.apply(target.sample.image)
        probabilities = predict_image(model, image, architecture=self.run.architecture)
        return np.asarray(probabilities.argmax(axis=-1), np.uint8)


def collapse(truth: NDArray[np.uint8], result: NDArray[np.uint8]) -> str | None:
    """Says in words that a network predicts one class alone where there are several; else None.

    Args:
        truth: True classes, of any shape.
        result: Predicted classes.

    Example:
        >>> collapse(np.array([0, 1, 2]), np.array([0, 0, 0]))
        'Warning: the network has collapsed to one class: ... as class 0, but ... hold 3 classes...
        >>> collapse(np.array([0, 1, 2]), np.array([0, 1, 1])) is None
        True
    """
    found, expected = np.unique(result), np.unique(truth)
    if found.size != 1 or expected.size < 2:
        return None
    return (
        "Warning: the network has collapsed to one class: every pixel it was shown is predicted "
        f"as class {found[0]}, but the labels hold {expected.size} classes. If the next "
        "validations say so too, stop (Ctrl-C) and train longer, with another --seed, or with a "
        "lower --learning-rate."
    )


def _seg(pairs: Sequence[tuple[Target, NDArray[np.uint8]]]) -> float:
    return seg(
        [target.sample.instances for target, _ in pairs],
        [label_instances(result > 0) * target.counted for target, result in pairs],
    )


def _mean_iou(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> float:
    classes = np.union1d(truth, found)
    return (
        float(np.mean([iou(truth == one, found == one) for one in classes]))
        if classes.size
        else nan
    )


def _row(target: Target, result: NDArray[np.uint8]) -> list[Picture]:
    return [
        grey_picture(target.sample.image),
        label_picture(target.sample.instances),
        label_picture(label_instances(result > 0)),
        difference_picture(target.classes > 0, result > 0),
    ]
