"""Which objects of two label images share pixels, and how many: where scores of objects begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LabelImage = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The objects of a reference and a result, and the pairs of them that share pixels.

    Objects are numbered from 0 in the order of their ids; the background is none of them.

    Attributes:
        reference_sizes: Pixels of each reference object, `(reference objects,)`.
        result_sizes: Pixels of each result object, `(result objects,)`.
        reference: Number of the reference object of each pair, `(pairs,)`.
        result: Number of the result object of each pair, `(pairs,)`.
        common: Pixels that each pair shares, `(pairs,)`, at least 1.
    """

    reference_sizes: NDArray[np.intp]
    result_sizes: NDArray[np.intp]
    reference: NDArray[np.intp]
    result: NDArray[np.intp]
    common: NDArray[np.intp]

    @classmethod
    def of(cls, reference: LabelImage, result: LabelImage) -> Overlaps:
        """Counts the pixels that the objects of two label images share.

        Args:
            reference: Integer label image held to be true, of any shape; 0 is background.
            result: Integer label image to score, of the same shape.

        Raises:
            ValueError: If the shapes differ, or ids are not integers from 0.

        Example:
            >>> found = Overlaps.of(np.array([[3, 3, 8, 0]]), np.array([[1, 1, 1, 1]]))
            >>> found.reference_sizes, found.result_sizes
            (array([2, 1]), array([4]))
            >>> found.reference, found.result, found.common
            (array([0, 1]), array([0, 0]), array([2, 1]))
        """
        _check_images(reference, result)
        reference_numbers, reference_sizes = _objects(reference)
        result_numbers, result_sizes = _objects(result)
        shared = (reference_numbers >= 0) & (result_numbers >= 0)
        pairs = reference_numbers[shared] * len(result_sizes) + result_numbers[shared]
        pairs, common = np.unique(pairs, return_counts=True)
        left, right = np.divmod(pairs, max(len(result_sizes), 1))
        return cls(reference_sizes, result_sizes, left, right, common)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union (Jaccard index) of each pair, `(pairs,)`."""
        sizes = self.reference_sizes[self.reference] + self.result_sizes[self.result]
        return np.asarray(self.common / (sizes - self.common), np.float64)


def overlaps_of_images(
    references: Sequence[LabelImage], results: Sequence[LabelImage]
) -> list[Overlaps]:
    """Counts the pixels that objects share, image by image.

    Args:
        references: Integer label images held to be true, one an image; 0 is background.
        results: Integer label images to score, of the same shapes.

    Raises:
        ValueError: If the numbers of images or the shapes differ, or ids are not integers from 0.
    """
    if len(references) != len(results):
        raise ValueError(
            "references and results must be as many images. "
            f"Received {len(references)} and {len(results)}; pair them by name first."
        )
    return [Overlaps.of(*pair) for pair in zip(references, results, strict=True)]


def _objects(labels: LabelImage) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers the objects from 0, by pixel and -1 for background, and counts their pixels."""
    ids, numbers, sizes = np.unique(labels.ravel(), return_inverse=True, return_counts=True)
    background = int(ids.size > 0 and ids[0] == 0)
    return numbers - background, sizes[background:]


def _check_images(reference: LabelImage, result: LabelImage) -> None:
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
