"""Scores and pictures of held-out images, during a training and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import track
from keras_unet.evaluation.figures import matched
from keras_unet.instances.label import cell_probability, label_instances
from keras_unet.instances.selection import Selection, select_options, spread
from keras_unet.metrics import iou, seg
from keras_unet.prediction.predict import predict_image
from keras_unet.report.pictures import (
    Picture,
    difference_picture,
    grey_picture,
    heat_picture,
    label_picture,
    middle,
    montage,
    probability_picture,
)
from keras_unet.runs import Run
from keras_unet.training.schedule import Validation
from keras_unet.training.targets import Target, WeightMaps

_LOOKING = "looking at images"
_TITLES = ("image", "truth", "prediction", "difference")
_WATCHED = ("image", "truth", "probability", "prediction", "difference")
_MOST_WATCHED = 3  # images
_MIDDLE = 512  # pixels of their height and width


@dataclass(frozen=True, eq=False)
class Validator:
    """Looks at images that training does not see, and scores what the network makes of them.

    Instances are scored by SEG, which falls where cells merge; the pixels of a border that parts
    two cells are too few to show in a score of pixels. Classes are scored by the intersection over
    union (IoU) of all images together, as the mean over the classes.

    Attributes:
        run: The run.
        targets: The images, at least one.
        held_out: Whether they are held out. Images of the training itself are looked at for a
            single_class_warning alone and get no score.
        tile: Height and width in pixels of the tiles to predict by, about; None chooses.
    """

    run: Run
    targets: Sequence[Target]
    held_out: bool = True
    tile: int | None = None

    @classmethod
    def of(
        cls,
        run: Run,
        training: Sequence[Target],
        held_out: Sequence[Target],
        tile: int | None = None,
    ) -> Validator:
        """Watches the images held out or, where there is none, one of the training."""
        return cls(run, held_out or training[:1], bool(held_out), tile)

    def __call__(self, model: Any) -> Validation:
        """Looks at the model."""
        predictions = self.predictions(model)
        truth = np.concatenate([target.classes[target.counted] for target in self.targets])
        found = np.concatenate(
            [prediction.classes[prediction.target.counted] for prediction in predictions]
        )
        score = nan
        if self.held_out:
            score = self._seg(predictions) if self._has_instances else _mean_iou(truth, found)
        picture = montage(
            [self._watched(prediction) for prediction in predictions[:_MOST_WATCHED]], _WATCHED
        )
        return Validation(
            None if isnan(score) else score, single_class_warning(truth, found), picture
        )

    @property
    def score_name(self) -> str:
        """Name of the score, for a person."""
        return "SEG" if self._has_instances else "mean IoU"

    @property
    def _has_instances(self) -> bool:
        return self.run.encoding.kind == "instances"

    def select_options(self, model: Any) -> Selection | None:
        """Chooses the rule by which cells are made; None without a cell that is held out."""
        if not self.held_out:
            return None
        targets = spread(self.targets, [target.classes.size for target in self.targets])
        return select_options(self.run.instances, *replace(self, targets=targets).cells(model))

    def cells(self, model: Any) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int32]]]:
        """Returns the probability of being cell, 0 where pixels do not count, and the instances."""
        return (
            [
                prediction.probability * prediction.target.counted
                for prediction in self.predictions(model)
            ],
            [one.sample.instances for one in self.targets],
        )

    def predictions(self, model: Any) -> list[ImagePrediction]:
        """Returns what the model makes of the images, one after the other."""
        return [self._predict(model, target) for target in track(self.targets, _LOOKING)]

    def pictures(self, predictions: Sequence[ImagePrediction], weights: WeightMaps) -> Picture:
        """Draws images with truth, prediction, difference and weight map, one a row."""
        rows = [
            [*self._row(prediction), heat_picture(weights.of(prediction.target))]
            for prediction in predictions
        ]
        return montage(rows, (*_TITLES, "weight map"))

    def instances(self, prediction: ImagePrediction) -> NDArray[np.int32]:
        """Makes cells of what a model has made of an image, by the rule of the run."""
        return label_instances(prediction.probability, self.run.instances)

    def _predict(self, model: Any, target: Target) -> ImagePrediction:
        image = self.run.normalization.apply(target.sample.image)
        network = self.run.architecture
        tile = None
        if self.tile is not None:
            tile = network.fitting_size(max(self.tile, 2 * network.context + network.step))
        probabilities = predict_image(model, image, tile_size=tile, architecture=network)
        classes = np.asarray(probabilities.argmax(axis=-1), np.uint8)
        return ImagePrediction(target, classes, cell_probability(probabilities))

    def _seg(self, predictions: Sequence[ImagePrediction]) -> float:
        return seg(
            [prediction.target.sample.instances for prediction in predictions],
            [self.instances(prediction) * prediction.target.counted for prediction in predictions],
        )

    def _watched(self, prediction: ImagePrediction) -> list[Picture]:
        """Draws what TensorBoard shows at every validation; the middle of a large image."""
        image, truth, found, difference = self._row(prediction)
        probability = probability_picture(prediction.probability)
        row = [image, truth, probability, found, difference]
        return [middle(picture, _MIDDLE) for picture in row]

    def _row(self, prediction: ImagePrediction) -> list[Picture]:
        truth = prediction.target.sample.instances
        return [
            grey_picture(prediction.target.sample.image),
            label_picture(truth),
            label_picture(matched(truth, self.instances(prediction))),
            difference_picture(prediction.target.classes > 0, prediction.classes > 0),
        ]


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """Prediction of an image by a network.

    Attributes:
        target: The image.
        classes: The class of each pixel, `(height, width)`.
        probability: The probability of being cell, `(height, width)`.
    """

    target: Target
    classes: NDArray[np.uint8]
    probability: NDArray[np.float32]


def single_class_warning(truth: NDArray[np.uint8], result: NDArray[np.uint8]) -> str | None:
    """Says in words that a network predicts one class alone where there are several; else None.

    Args:
        truth: True classes, of any shape.
        result: Predicted classes.

    Example:
        >>> single_class_warning(np.array([0, 1, 2]), np.array([0, 0, 0]))
        'the network has collapsed to one class: ... as class 0, but ... hold 3 classes...
        >>> single_class_warning(np.array([0, 1, 2]), np.array([0, 1, 1])) is None
        True
    """
    found, expected = np.unique(result), np.unique(truth)
    if found.size != 1 or expected.size < 2:
        return None
    return (
        "the network has collapsed to one class: every pixel it was shown is predicted "
        f"as class {found[0]}, but the labels hold {expected.size} classes. If the next "
        "validations say so too, stop (Ctrl-C) and train longer, with another --seed, or with a "
        "lower --learning-rate."
    )


def _mean_iou(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> float:
    classes = np.union1d(truth, found)
    return (
        float(np.mean([iou(truth == one, found == one) for one in classes]))
        if classes.size
        else nan
    )
