"""An image's prediction beside its reference: of one size, with numbers that mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.images import read_image
from keras_unet.data.labels import LabelFile, read_labels
from keras_unet.data.schemes import LabelScheme
from keras_unet.data.stacks import Stack, in_order_of
from keras_unet.data.wording import counted
from keras_unet.evaluation.pairing import Scored
from keras_unet.metrics.objects import Overlaps, overlaps_of_images
from keras_unet.tracking import tracked


@dataclass(frozen=True, eq=False)
class Comparison:
    """An image's reference and prediction; ignored pixels are background in both.

    All arrays are `(planes, height, width)`.

    Attributes:
        name: Name of the image.
        reference: Instances held to be true.
        result: Instances predicted.
        scores: Probability of cell; 0 and 1 by the label image where there is none to read.
        counted: Which pixels count.
    """

    name: str
    reference: NDArray[np.int32]
    result: NDArray[np.int32]
    scores: NDArray[np.float32]
    counted: NDArray[np.bool_]

    @cached_property
    def overlaps(self) -> list[Overlaps]:
        """What the instances share, one a plane."""
        return overlaps_of_images(list(self.reference), list(self.result))


def compare(
    pairs: Sequence[Scored],
    truths: Sequence[LabelFile],
    scheme: LabelScheme,
    *,
    with_probabilities: bool,
) -> list[Comparison]:
    """Reads the predictions of label files and puts both into the same terms.

    Predictions hold classes where they have no other values than the labels' classes, or a single
    one besides 0; else instances.

    Args:
        pairs: The files.
        truths: What the label files hold.
        scheme: What the numbers in them mean.
        with_probabilities: Whether to read the probabilities, which every prediction has.

    Raises:
        ValueError: If a prediction has another size than its labels, or axes that do not say which
            planes belong together, or holds no labels.
    """
    results = [
        _result(one, truth)
        for one, truth in zip(tracked(pairs, "reading predictions"), truths, strict=True)
    ]
    reading = _reading(results, scheme)
    return [
        _comparison(one, truth, _instances(result, reading), scheme, with_probabilities)
        for one, truth, result in zip(pairs, truths, results, strict=True)
    ]


def _comparison(
    one: Scored,
    truth: LabelFile,
    found: NDArray[np.int32],
    scheme: LabelScheme,
    with_probabilities: bool,
) -> Comparison:
    counted = ~scheme.ignored(truth.labels)
    scores = (found > 0).astype(np.float32)
    if with_probabilities and one.probabilities is not None:
        scores = _foreground(one, one.probabilities, truth)
    return Comparison(
        one.reference.name, _instances(truth.labels, scheme), found * counted, scores, counted
    )


def _result(one: Scored, truth: LabelFile) -> NDArray[np.int32]:
    file = read_labels(one.result)
    return _planes_of(one, (one.result, file.stack), file.labels, truth)


def _foreground(one: Scored, path: Path, truth: LabelFile) -> NDArray[np.float32]:
    """Reads probabilities and joins all classes but the background."""
    image = read_image(path)
    planes = _planes_of(one, (path, image.stack), image.planes, truth)
    return (1 - planes[..., 0].astype(np.float32)).clip(0, 1)


def _planes_of(
    one: Scored, file: tuple[Path, Stack], planes: NDArray[Any], truth: LabelFile
) -> NDArray[Any]:
    """Picks the planes of a file that the labels belong to, in their order and of their size."""
    plane = one.reference.plane
    picked = planes if plane is None or len(planes) == 1 else planes[plane : plane + 1]
    if picked.shape[:3] != truth.labels.shape:
        raise ValueError(
            f"{file[0]}: expected the size of {one.reference.labels}, {_size(truth.labels)}. "
            f"Received {_size(planes)}; predict the image that was labelled"
        )
    if plane is not None:
        return picked
    return in_order_of((one.reference.labels, truth.stack), file, planes, "planes")


def _reading(results: Sequence[NDArray[np.int32]], scheme: LabelScheme) -> LabelScheme:
    """Finds out what the numbers in the predictions mean."""
    values = set().union(*(np.unique(result).tolist() for result in results))
    if scheme.kind == "classes" and values <= set(scheme.values):
        return LabelScheme("classes", scheme.values)
    cells = sorted(values - {0})
    if len(cells) == 1:
        return LabelScheme("classes", (0, cells[0]))
    return LabelScheme("instances", (0, 1))


def _instances(planes: NDArray[np.int32], reading: LabelScheme) -> NDArray[np.int32]:
    return np.stack([reading.to_instances(plane) for plane in planes])


def _size(planes: NDArray[Any]) -> str:
    return f"{counted(len(planes), 'plane')} of {planes.shape[1]} x {planes.shape[2]} pixels"
