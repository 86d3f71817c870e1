"""SEG, the segmentation accuracy of the Cell Tracking Challenge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keras_unet.metrics.overlaps import LabelImage, Overlaps, overlaps_of_images


def seg(references: Sequence[LabelImage], results: Sequence[LabelImage]) -> float:
    """Computes SEG: the mean Jaccard index over all reference objects of all images.

    An object of the result matches a reference object if it covers more than half of its pixels.
    Objects of the result that match no reference object cost nothing.

    Args:
        references: Integer label images held to be true, one an image; 0 is background.
        results: Integer label images to score, of the same shapes.

    Returns:
        The score, 0 to 1 (best); nan, undefined, if there is no reference object.

    Raises:
        ValueError: If the numbers of images or the shapes differ, or ids are not integers from 0.

    Example:
        Of the two objects, one is found to two thirds and one not at all:

        >>> seg([np.array([[1, 1, 1, 0, 2]])], [np.array([[5, 5, 0, 0, 0]])]) == (2 / 3 + 0) / 2
        True
    """
    return seg_of_overlaps(overlaps_of_images(references, results))


def seg_of_overlaps(images: Sequence[Overlaps]) -> float:
    """Computes SEG from what objects share, one an image; see `seg`."""
    scores = [score for image in images for score in jaccard_of_references(image).tolist()]
    return math.fsum(scores) / len(scores) if scores else math.nan


def jaccard_of_references(overlaps: Overlaps) -> NDArray[np.float64]:
    """Computes the Jaccard index of each reference object with the result object that covers it.

    An object covers another if it holds more than half of its pixels; there is at most one.

    Args:
        overlaps: What the objects of an image share.

    Returns:
        One index for each reference object in the order of their ids, `(objects,)`, float64; 0 for
        an object that no result covers.

    Example:
        >>> overlaps = Overlaps.of(np.array([[3, 3, 8, 8]]), np.array([[1, 1, 1, 0]]))
        >>> jaccard_of_references(overlaps).round(3)
        array([0.667, 0.   ])
    """
    covered = 2 * overlaps.common > overlaps.reference_sizes[overlaps.reference]
    jaccard = np.zeros(len(overlaps.reference_sizes))
    jaccard[overlaps.reference[covered]] = overlaps.iou[covered]
    return jaccard
