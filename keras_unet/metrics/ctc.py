"""SEG, the segmentation accuracy of the Cell Tracking Challenge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def seg(references: Sequence[NDArray[np.integer]], results: Sequence[NDArray[np.integer]]) -> float:
    """Computes SEG: the mean Jaccard index over all reference objects of all images.

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
    if len(references) != len(results):
        raise ValueError(
            "references and results must be as many images. "
            f"Received {len(references)} and {len(results)}; pair them by name first."
        )
    pairs = zip(references, results, strict=True)
    scores = [score for pair in pairs for score in jaccard_of_references(*pair).tolist()]
    return math.fsum(scores) / len(scores) if scores else math.nan


def jaccard_of_references(
    reference: NDArray[np.integer], result: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Computes the Jaccard index of each reference object with the result object that covers it.

    An object covers another if it holds more than half of its pixels; there is at most one.

    Args:
        reference: Integer label image held to be true, of any shape; 0 is background.
        result: Integer label image to score, of the same shape.

    Returns:
        One index for each reference object in the order of their ids, `(objects,)`, float64; 0 for
        an object that no result covers.

    Raises:
        ValueError: If the shapes differ, or ids are not integers from 0.

    Example:
        >>> jaccard_of_references(np.array([[3, 3, 8, 8]]), np.array([[1, 1, 1, 0]])).round(3)
        array([0.667, 0.   ])
    """
    _check(reference, result)
    ids, of_reference, sizes = _objects(reference)
    result_ids, of_result, result_sizes = _objects(result)
    pairs, common = np.unique(of_reference * len(result_ids) + of_result, return_counts=True)
    left, right = np.divmod(pairs, len(result_ids))
    covered = (2 * common > sizes[left]) & (result_ids[right] > 0)
    jaccard = np.zeros(len(ids))
    union = sizes[left] + result_sizes[right] - common
    jaccard[left[covered]] = (common / union)[covered]
    return jaccard[ids > 0]


def _objects(
    labels: NDArray[np.integer],
) -> tuple[NDArray[np.integer], NDArray[np.intp], NDArray[np.intp]]:
    """Returns the ids, each pixel's position among them, and the number of pixels of each."""
    return np.unique(labels.ravel(), return_inverse=True, return_counts=True)


def _check(reference: NDArray[np.integer], result: NDArray[np.integer]) -> None:
    """Refuses what are not two label images of one shape."""
    if reference.shape != result.shape:
        raise ValueError(
            f"reference and result must have one shape. Received {reference.shape} and "
            f"{result.shape}; pair the images by name, and score at the reference's size."
        )
    for name, labels in (("reference", reference), ("result", result)):
        if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
            raise ValueError(
                f"{name} must be integers from 0, 0 for background. Received {labels.dtype}"
                f" from {labels.min(initial=0)}; scipy.ndimage.label numbers the cells of a mask."
            )
