"""Doubts whether labels mean, and lie, as they are read: inverted, outlines, turned, exchanged.

Nothing of this is certain, so it is said, not refused. Whether labels lie on their image is judged
by the correlation of grey values and foreground, which is compared with that of the same labels
turned, or on another image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.console import counted, some
from keras_unet.data.samples import Sample, Samples

_PIECES = 3
_PIECE_PIXELS = 5
_MOST_OF_IT = 0.9
_FAR = 3.0  # times the square root of the pixels
_SECOND = 0.25  # share of the pixels in the second largest piece
_SIDE = 128  # pixels that images are thinned out to
_COMPARED = 32  # images
_TIMES_BETTER = 2.0
_CORRELATED = 0.3
_MOST_IMAGES = 0.8

_TURNS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "turned by 180 degrees": lambda one: one[::-1, ::-1],
    "mirrored top to bottom": lambda one: one[::-1],
    "mirrored left to right": lambda one: one[:, ::-1],
    "transposed (rows for columns)": lambda one: one.T,
    "turned by 90 degrees": np.rot90,
    "turned by 270 degrees": lambda one: np.rot90(one, 3),
    "transposed the other way": lambda one: one[::-1, ::-1].T,
}


def doubts_of(samples: Samples) -> Iterator[str]:
    """Says what is doubtful about labels, one line a doubt.

    Args:
        samples: The data set.
    """
    every = samples.samples
    yield from _inverted(samples)
    yield from _outlines(every)
    yield from _numbers_far_apart(samples)
    yield from _same_labels(every)
    yield from _misplaced(every)


def _inverted(samples: Samples) -> Iterator[str]:
    if samples.scheme.kind != "classes":
        return
    names = [one.name for one in samples.samples if _holds_pieces_of_background(one)]
    if 2 * len(names) > len(samples.samples):
        value = samples.scheme.values[0]
        yield (
            f"value {value} is taken for background, but lies in pieces within other values in "
            f"{counted(len(names), 'image')} ({some(names)}): if the pieces are the cells, invert "
            "the labels"
        )


def _holds_pieces_of_background(sample: Sample) -> bool:
    marked, background = sample.classes > 0, (sample.classes == 0) & ~sample.ignored
    if 2 * marked.sum() <= marked.size:
        return False
    around, within = _pieces(marked), _pieces(background)
    is_one = around.max(initial=0) >= _MOST_OF_IT * around.sum()
    large = within[within >= _PIECE_PIXELS]
    return bool(is_one and large.size >= _PIECES and 2 * large.max() < background.sum())


def _pieces(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    labels, _ = ndimage.label(mask)
    return np.bincount(labels.ravel())[1:]


def _outlines(samples: Sequence[Sample]) -> Iterator[str]:
    names = [one.name for one in samples if _is_outline(one.classes > 0)]
    if 2 * len(names) > len(samples):
        yield (
            f"the labels of {counted(len(names), 'image')} are thin lines around background "
            f"({some(names)}): if they are the outlines of cells, fill them"
        )


def _is_outline(mask: NDArray[np.bool_]) -> bool:
    drawn = int(mask.sum())
    return 0 < 4 * drawn < mask.size and int(ndimage.binary_fill_holes(mask).sum()) >= 2 * drawn


def _numbers_far_apart(samples: Samples) -> Iterator[str]:
    """Finds numbers of several cells, as where 8 bits have been too few to count them."""
    if samples.scheme.kind != "instances":
        return
    apart = {one.name: _far_apart(one.instances) for one in samples.samples}
    names = [name for name, number in apart.items() if number]
    if names:
        yield (
            f"{counted(sum(apart.values()), 'number')} of pieces that lie far apart ({some(names)}"
            "): if they are different cells, give each its own number, in 16 bits if 255 are too "
            "few"
        )


def _far_apart(instances: NDArray[np.int32]) -> int:
    """Counts numbers whose pixels reach over several times the width of as large a disc."""
    numbers: NDArray[Any] = instances
    if instances.max(initial=0) > instances.size:
        numbers = np.unique(instances, return_inverse=True)[1].reshape(instances.shape)
    sizes = np.bincount(numbers.ravel())[1:]
    found = 0
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        size = sizes[number - 1]
        if max(one.stop - one.start for one in box) > _FAR * np.sqrt(size):
            pieces = _pieces(numbers[box] == number)
            found += int(np.sort(pieces)[:-1].max(initial=0) >= _SECOND * size)
    return found


def _same_labels(samples: Sequence[Sample]) -> Iterator[str]:
    by_labels: dict[bytes, list[Sample]] = defaultdict(list)
    for sample in samples:
        if len(_pieces(sample.classes > 0)) > 1:
            by_labels[sample.instances.tobytes()].append(sample)
    same = [group for group in by_labels.values() if _differ(group)]
    if same:
        listing = some([" = ".join(one.name for one in group) for group in same])
        yield (
            f"different images have the very same labels ({listing}): make sure that each label "
            "file belongs to its image"
        )


def _differ(group: Sequence[Sample]) -> bool:
    first = group[0].image
    return any(not np.array_equal(first, one.image) for one in group[1:])


def _misplaced(samples: Sequence[Sample]) -> Iterator[str]:
    """Compares how labels fit their image with how they fit turned, and on other images."""
    thin = [_thin(one) for one in samples[:: -(-len(samples) // _COMPARED)]]
    own = [_fit(grey, marked) for _, grey, marked in thin]
    if len(thin) < 2:
        return
    for turn, turned in _TURNS.items():
        fits = [
            _fit(grey, moved) if (moved := turned(marked)).shape == grey.shape else 0.0
            for _, grey, marked in thin
        ]
        if _fits_better(fits, own):
            yield (
                f"the labels fit the images better when {turn} ({some([n for n, *_ in thin])}): "
                "make sure that they lie on the images as they were drawn"
            )
            return
    best = [_best_of(grey, name, thin) for name, grey, _ in thin]
    if len(thin) > 2 and _fits_better([fit for fit, _ in best], own):
        pairs = [f"{other} on {name}" for (name, *_), (_, other) in zip(thin, best, strict=True)]
        yield (
            f"the labels of other images fit better than an image's own ({some(pairs)}): make sure "
            "that each label file belongs to its image"
        )


def _thin(sample: Sample) -> tuple[str, NDArray[np.float32], NDArray[np.bool_]]:
    step = -(-max(sample.classes.shape) // _SIDE)
    return (
        sample.name,
        sample.image[::step, ::step].mean(axis=-1),
        sample.classes[::step, ::step] > 0,
    )


def _fit(grey: NDArray[np.float32], marked: NDArray[np.bool_]) -> float:
    """Returns the correlation of grey values and foreground, without its sign."""
    spread = float(grey.std()) * float(marked.std())
    if not spread:
        return 0.0
    product = ((grey - grey.mean()) * (marked - marked.mean())).mean()
    return abs(float(product)) / spread


def _fits_better(fits: Sequence[float], own: Sequence[float]) -> bool:
    better = sum(
        fit > max(_TIMES_BETTER * mine, _CORRELATED) for fit, mine in zip(fits, own, strict=True)
    )
    return better >= _MOST_IMAGES * len(own)


def _best_of(
    grey: NDArray[np.float32],
    name: str,
    others: Sequence[tuple[str, NDArray[np.float32], NDArray[np.bool_]]],
) -> tuple[float, str]:
    fits = [
        (_fit(grey, marked), other)
        for other, _, marked in others
        if other != name and marked.shape == grey.shape
    ]
    return max(fits, default=(0.0, ""))
