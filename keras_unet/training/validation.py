"""Validation: scores and pictures of the images held out from a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import track
from keras_unet.evaluation.figures import renumber_matches
from keras_unet.instances.affinities import class_probabilities
from keras_unet.instances.label import InstanceOptions, cell_probability, label_instances
from keras_unet.instances.selection import Cells, Selection, select_predicted, subsample
from keras_unet.metrics import mean_iou
from keras_unet.metrics.objects import Overlaps, seg_ap_of_overlaps
from keras_unet.prediction.predict import predict_outputs
from keras_unet.report.pictures import (
    Picture,
    center_crop,
    difference_picture,
    grey_picture,
    heat_picture,
    label_picture,
    montage,
    probability_picture,
)
from keras_unet.runs import Run
from keras_unet.training.schedule import Validation
from keras_unet.training.targets import Target, WeightMaps

_TITLES = ("image", "truth", "prediction", "difference")
_VALIDATION_TITLES = ("image", "truth", "probability", "prediction", "difference")
_MAX_IMAGES = 3  # images
_LONGEST_SIDE = 512  # pixels


@dataclass(frozen=True, eq=False)
class Validator:
    """Predicts images that are held out from the training, and scores the predictions.

    Instances are scored by the mean of SEG and AP, which drops if cells merge or are false; the
    pixels of a border between two cells are too few to affect a score of pixels. Classes are scored
    by the intersection over union (IoU) over all images, averaged over the classes.

    Attributes:
        run: The run.
        targets: Images to predict, at least one.
        held_out: Whether the images are held out. Images of the training itself get no score and
            are predicted for pictures and `single_class_warning` alone.
        tile: Approximate height and width in pixels of the tiles; None for the default.
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
        """Returns a validator of the images held out or, without any, of one training image."""
        return cls(run, held_out or training[:1], bool(held_out), tile)

    def __call__(self, model: Any) -> Validation:
        """Validates the model."""
        predictions = self.predictions(model)
        truth, predicted = _counted_classes(predictions)
        picture = montage(
            [self._validation_row(prediction) for prediction in predictions[:_MAX_IMAGES]],
            _VALIDATION_TITLES,
        )
        warning = single_class_warning(truth, predicted)
        return Validation(self.score(predictions), warning, picture)

    def score(self, predictions: Sequence[ImagePrediction]) -> float | None:
        """Returns the score of images held out; None without any, or if it is undefined."""
        if not self.held_out:
            return None
        score = self._seg_ap(predictions) if self._has_instances else self._mean_iou(predictions)
        return None if isnan(score) else score

    @property
    def score_name(self) -> str:
        """Name of the score."""
        return "mean of SEG and AP" if self._has_instances else "mean IoU"

    @property
    def _has_instances(self) -> bool:
        return self.run.encoding.kind == "instances"

    def select_options(self, model: Any) -> Selection | None:
        """Selects the instance options; returns None without images or cells held out."""
        if not self.held_out or self.run.encoding.holds_strokes:
            return None
        targets = subsample(self.targets, [target.classes.size for target in self.targets])
        subset = replace(self, targets=targets)
        predict, kind = partial(subset.cells, model), self.run.encoding.kind
        return select_predicted(self.run.instances, predict, kind)

    def cells(self, model: Any, options: InstanceOptions) -> Cells:
        """Returns the cell probabilities, 0 at ignored pixels, the labels and labelled pixels.

        Args:
            model: The model.
            options: Instance options, of which `affinities` is used.
        """
        predictions = replace(self, run=replace(self.run, instances=options)).predictions(model)
        return (
            [
                prediction.probability * self._within(prediction.target)
                for prediction in predictions
            ],
            [target.sample.instances for target in self.targets],
            [target.counted for target in self.targets] if self.in_part else None,
        )

    def predictions(self, model: Any) -> list[ImagePrediction]:
        """Predicts the images in turn."""
        return [self._predict(model, target) for target in track(self.targets, "predicting images")]

    def pictures(self, predictions: Sequence[ImagePrediction], weights: WeightMaps) -> Picture:
        """Draws a row per image: image, truth, prediction, difference and weight map."""
        rows = [
            [*self._row(prediction), heat_picture(weights.of(prediction.target))]
            for prediction in predictions
        ]
        return montage(rows, (*_TITLES, "weight map"))

    def instances(self, prediction: ImagePrediction) -> NDArray[np.int32]:
        """Labels the cells of a prediction by the instance options of the run."""
        return label_instances(prediction.probability, self.run.instances)

    def _predict(self, model: Any, target: Target) -> ImagePrediction:
        image = self.run.normalization.apply(target.sample.image)
        network = self.run.architecture
        tile = None
        if self.tile is not None:
            tile = network.fitting_size(max(self.tile, 2 * network.context + network.step))
        outputs = predict_outputs(model, image, network, tile_size=tile)
        separated = self.run.instances.affinities
        probabilities = class_probabilities(outputs, network, separated=separated)
        classes = np.asarray(probabilities.argmax(axis=-1), np.uint8)
        kept = probabilities if self.run.encoding.class_names else None
        return ImagePrediction(target, classes, cell_probability(probabilities), kept)

    def _seg_ap(self, predictions: Sequence[ImagePrediction]) -> float:
        return seg_ap_of_overlaps([self._overlaps(prediction) for prediction in predictions])

    def _overlaps(self, prediction: ImagePrediction) -> Overlaps:
        labelled = prediction.target.counted if self.in_part else None
        truth = prediction.target.sample.instances
        return Overlaps.of(truth, self.scored_instances(prediction), labelled)

    def scored_instances(self, prediction: ImagePrediction) -> NDArray[np.int32]:
        """Labels the cells of a prediction, without ignored pixels."""
        return self.instances(prediction) * self._within(prediction.target)

    @property
    def in_part(self) -> bool:
        """True if the images are labelled in part."""
        return self.run.encoding.unlabelled is not None

    def _within(self, target: Target) -> NDArray[np.bool_]:
        """Returns the pixels where predicted cells are scored, which are cut at the others."""
        # A cell that reaches from labelled to unlabelled pixels is scored as a whole.
        return np.ones_like(target.counted) if self.in_part else target.counted

    def _mean_iou(self, predictions: Sequence[ImagePrediction]) -> float:
        return mean_iou(*_counted_classes(predictions), self.run.encoding.classes)

    def _validation_row(self, prediction: ImagePrediction) -> list[Picture]:
        """Draws the pictures for TensorBoard, of the center of a large image."""
        image, truth, predicted, difference = self._row(prediction)
        probability = probability_picture(prediction.probability)
        row = [image, truth, probability, predicted, difference]
        return [center_crop(picture, _LONGEST_SIDE) for picture in row]

    def _row(self, prediction: ImagePrediction) -> list[Picture]:
        truth = prediction.target.sample.instances
        return [
            grey_picture(prediction.target.sample.image),
            label_picture(truth),
            label_picture(renumber_matches(truth, self.instances(prediction))),
            difference_picture(prediction.target.classes > 0, prediction.classes > 0),
        ]


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """Prediction of an image by a network.

    Attributes:
        target: The image and its labels.
        classes: Class of each pixel, `(height, width)`.
        probability: Cell probability, `(height, width)`.
        probabilities: Class probabilities, `(height, width, classes)`, if objects have classes;
            else None.
    """

    target: Target
    classes: NDArray[np.uint8]
    probability: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None


def single_class_warning(truth: NDArray[np.uint8], result: NDArray[np.uint8]) -> str | None:
    """Returns a warning if only one class is predicted where the labels hold several, else None.

    Args:
        truth: True classes, of any shape.
        result: Predicted classes.

    Example:
        >>> single_class_warning(np.array([0, 1, 2]), np.array([0, 0, 0]))
        'the network has collapsed to one class: ... as class 0, but ... hold 3 classes...
        >>> single_class_warning(np.array([0, 1, 2]), np.array([0, 1, 1])) is None
        True
    """
    predicted, expected = np.unique(result), np.unique(truth)
    if predicted.size != 1 or expected.size < 2:
        return None
    return (
        "the network has collapsed to one class: every pixel is predicted "
        f"as class {predicted[0]}, but the labels hold {expected.size} classes. If the next "
        "validations repeat this warning, stop (Ctrl-C) and train longer, with another --seed, or "
        "with a lower --learning-rate."
    )


def _counted_classes(
    predictions: Sequence[ImagePrediction],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns the true and the predicted classes of all pixels that are not ignored."""
    pairs = [(prediction.target, prediction.classes) for prediction in predictions]
    truth = np.concatenate([target.classes[target.counted] for target, _ in pairs])
    predicted = np.concatenate([classes[target.counted] for target, classes in pairs])
    return truth, predicted
