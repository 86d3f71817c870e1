"""Quality checks of a data set: warnings with advice.

Data that cannot be trained on are refused while reading (`data.samples`, `data.labels`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.console import counted, some, track
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.samples import Sample, Samples

_SATURATED = 0.01  # fraction of an image's pixels that have its highest value
_GREYS = 16  # values of an image from which its highest value may be saturation
_SIDE_RATIO = 4.0
_DIAMETER_RATIO = 4.0  # of the 90th to the 10th percentile, for cells
_PIECE_RATIO = 2.0  # of the 90th percentile to the median, for pieces of classes
_SPECK = 5  # pixels; a smaller cell is most likely an error


def check_dataset(
    samples: Samples, fingerprint: Fingerprint, held_out: Collection[str] = ()
) -> list[str]:
    """Lists likely defects of a data set, one warning a line.

    Args:
        samples: The data set.
        fingerprint: Statistics of the training images.
        held_out: Names of the validation samples.

    Example:
        >>> labels = np.array([[0, 1, 1, 0]], np.int32)
        >>> blank = Sample("a", np.ones((1, 4, 1), np.float32), labels > 0, labels, labels < 0)
        >>> from keras_unet.data.encoding import LabelEncoding
        >>> samples = Samples((blank,), LabelEncoding("instances", (0, 1), None), 1, "uint8", ())
        >>> check_dataset(samples, Fingerprint.of([blank]))[0]
        '1 image holds a single grey value (a): it shows nothing; remove it'
    """
    every, is_complete = samples.samples, samples.encoding.unlabelled is None
    checks = (
        _check_unused_files(samples),
        _check_blank_images(every),
        _check_blank_channels(every),
        label_warnings(samples),
        _check_single_class(every) if is_complete else _check_unmarked(samples),
        _check_duplicates(every, held_out),
        _check_types(samples),
        _check_image_sizes(every),
        _check_saturation(every),
        () if samples.encoding.holds_strokes else _check_specks(every),
        _check_cell_sizes(samples, fingerprint),
    )
    return [warning for check in track(checks, "checking data") for warning in check]


def _check_unused_files(samples: Samples) -> Iterator[str]:
    unused = [file for file in samples.unused if not file.is_expected]
    if unused:
        names = [f"{file.name}: {file.reason}" for file in unused]
        yield (
            f"{counted(len(names), 'file')} not used ({some(names)}): give an image and its "
            "labels the same name, and keep other files elsewhere"
        )


def _check_blank_images(samples: Iterable[Sample]) -> Iterator[str]:
    names = [sample.name for sample in samples if np.ptp(sample.image) == 0]
    if names:
        is_one = len(names) == 1
        yield (
            f"{counted(len(names), 'image')} {'holds' if is_one else 'hold'} a single grey value "
            f"({some(names)}): {'it shows' if is_one else 'they show'} nothing; remove "
            f"{'it' if is_one else 'them'}"
        )


def _check_blank_channels(samples: Collection[Sample]) -> Iterator[str]:
    """Finds channels that are constant in some images only, as if channels were exchanged."""
    constant = {sample.name: np.ptp(sample.image, axis=(0, 1)) == 0 for sample in samples}
    for channel in range(len(next(iter(constant.values())))):
        names = [
            name
            for name, is_constant in constant.items()
            if is_constant[channel] and not is_constant.all()
        ]
        if 0 < len(names) < len(constant):
            yield (
                f"channel {channel + 1} holds a single value in {counted(len(names), 'image')} "
                f"({some(names)}) and not in the others: make sure that all images have the same "
                "channels in the same order"
            )


def _check_single_class(samples: Iterable[Sample]) -> Iterator[str]:
    classes = {sample.name: np.unique(sample.classes[~sample.ignored]) for sample in samples}
    names = [name for name, present in classes.items() if present.size < 2]
    if names:
        yield (
            f"the labels of {counted(len(names), 'image')} hold a single class ({some(names)}): "
            "make sure that they are complete"
        )


def _check_unmarked(samples: Samples) -> Iterator[str]:
    """Finds images labelled in part in which no background, or nothing else, is labelled."""
    present = {
        sample.name: set(np.unique(sample.classes[~sample.ignored]).tolist())
        for sample in samples.samples
    }
    encoding = samples.encoding
    objects = "cell" if encoding.kind == "instances" else "foreground"
    advice = f"mark some, of value {encoding.background}, also close to objects"
    unmarked = {
        "background": ([name for name, found in present.items() if 0 not in found], advice),
        objects: (
            [name for name, found in present.items() if found <= {0}],
            "mark some if it is there",
        ),
    }
    for what, (names, way_out) in unmarked.items():
        if names:
            images = f"{counted(len(names), 'image')} ({some(names)})"
            yield f"no {what} is marked in {images}: {way_out}"


def _check_duplicates(samples: Iterable[Sample], held_out: Collection[str]) -> Iterator[str]:
    by_digest: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        shape = str(sample.image.shape).encode()
        digest = hashlib.sha256(shape + np.ascontiguousarray(sample.image).tobytes()).hexdigest()
        by_digest[digest].append(sample.name)
    same = [names for names in by_digest.values() if len(names) > 1]
    if same:
        listing = some([" = ".join(names) for names in same])
        is_leak = any(0 < len(set(names) & set(held_out)) < len(names) for names in same)
        reason = (
            "; copies in both training and validation data make scores too high" if is_leak else ""
        )
        yield f"images occur more than once ({listing}){reason}: remove the copies"


def _check_types(samples: Samples) -> Iterator[str]:
    if "," in samples.dtype:
        yield (
            f"the image files hold numbers of several types ({samples.dtype}), which often have "
            "different scales: save all alike, or use --normalization image"
        )


def _check_image_sizes(samples: Collection[Sample]) -> Iterator[str]:
    sides = {sample.name: max(sample.classes.shape) for sample in samples}
    smallest, largest = min(sides, key=sides.__getitem__), max(sides, key=sides.__getitem__)
    if sides[largest] > _SIDE_RATIO * sides[smallest]:
        yield (
            f"images differ in size, from {sides[smallest]} ({smallest}) to {sides[largest]} "
            f"pixels ({largest}), and large ones are used more often: cut them into images of "
            "similar size if all should count alike"
        )


def _check_saturation(samples: Iterable[Sample]) -> Iterator[str]:
    names = [sample.name for sample in samples if _is_saturated(sample.image)]
    if names:
        yield (
            f"{counted(len(names), 'image')} saturated ({some(names)}): more than "
            f"{100 * _SATURATED:.0f} % of the pixels have the highest value, so that touching "
            "cells may look like one; reduce the exposure"
        )


def _check_specks(samples: Iterable[Sample]) -> Iterator[str]:
    specks = {sample.name: _count_specks(sample.instances) for sample in samples}
    names = [name for name, number in specks.items() if number]
    if names:
        yield (
            f"{counted(sum(specks.values()), 'cell')} of less than {_SPECK} pixels "
            f"({some(names)}): remove them from the labels if they are errors of the annotation"
        )


def _check_cell_sizes(samples: Samples, fingerprint: Fingerprint) -> Iterator[str]:
    if fingerprint.diameters is None:
        return
    low, median, high = fingerprint.diameters
    if samples.encoding.kind == "classes" and high > _PIECE_RATIO * median:
        yield (
            f"pieces of the foreground differ in size: the median is {median:.0f} pixels, and a "
            f"tenth are wider than {high:.0f}. If these are touching cells, number the cells, "
            "which classes do not distinguish"
        )
    elif high > _DIAMETER_RATIO * low:
        yield (
            f"cells differ in size: a tenth are narrower than {low:.0f} pixels and a tenth wider "
            f"than {high:.0f}. If they are from different kinds of images, train a run for each "
            "kind"
        )


def _is_saturated(image: NDArray[np.float32]) -> bool:
    highest = image == image.max()
    return bool(highest.mean() > _SATURATED) and len(np.unique(image)) >= _GREYS


def _count_specks(instances: NDArray[np.int32]) -> int:
    _, sizes = np.unique(instances[instances > 0], return_counts=True)
    return int(np.count_nonzero(sizes < _SPECK))


_PIECES = 3
_PIECE_PIXELS = 5
_MAIN_PIECE = 0.9
_FAR = 3.0  # times the square root of the pixels
_SECOND = 0.25  # fraction of the pixels in the second largest piece
_SIDE = 128  # pixels of a subsampled image
_COMPARED = 32  # images
_TIMES_BETTER = 2.0
_CORRELATED = 0.3
_MOST_IMAGES = 0.8

_ORIENTATIONS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "rotated by 180 degrees": lambda mask: mask[::-1, ::-1],
    "mirrored top to bottom": lambda mask: mask[::-1],
    "mirrored left to right": lambda mask: mask[:, ::-1],
    "transposed (rows for columns)": lambda mask: mask.T,
    "rotated by 90 degrees": np.rot90,
    "rotated by 270 degrees": lambda mask: np.rot90(mask, 3),
    "transposed along the other diagonal": lambda mask: mask[::-1, ::-1].T,
}


def label_warnings(samples: Samples) -> Iterator[str]:
    """Yields likely defects of the labels, one warning a line.

    Args:
        samples: The data set.
    """
    every = samples.samples
    yield from _check_scattered_numbers(samples)
    yield from _check_same_labels(every)
    if samples.encoding.unlabelled is None:  # strokes are thin, and where people like to draw
        yield from _check_inverted(samples)
        yield from _check_outlines(every)
        yield from _check_alignment(every)


def _check_inverted(samples: Samples) -> Iterator[str]:
    if samples.encoding.kind != "classes":
        return
    names = [sample.name for sample in samples.samples if _looks_inverted(sample)]
    if 2 * len(names) > len(samples.samples):
        value = samples.encoding.values[0]
        yield (
            f"value {value} is background, but lies in pieces within other values in "
            f"{counted(len(names), 'image')} ({some(names)}): if the pieces are the cells, invert "
            "the labels"
        )


def _looks_inverted(sample: Sample) -> bool:
    foreground, background = sample.classes > 0, (sample.classes == 0) & ~sample.ignored
    if 2 * foreground.sum() <= foreground.size:
        return False
    foreground_pieces, background_pieces = _piece_sizes(foreground), _piece_sizes(background)
    is_one = foreground_pieces.max(initial=0) >= _MAIN_PIECE * foreground_pieces.sum()
    large = background_pieces[background_pieces >= _PIECE_PIXELS]
    return bool(is_one and large.size >= _PIECES and 2 * large.max() < background.sum())


def _piece_sizes(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    labels, _ = ndimage.label(mask)
    return np.bincount(labels.ravel())[1:]


def _check_outlines(samples: Sequence[Sample]) -> Iterator[str]:
    names = [sample.name for sample in samples if _is_outline(sample.classes > 0)]
    if 2 * len(names) > len(samples):
        yield (
            f"the labels of {counted(len(names), 'image')} are thin lines around background "
            f"({some(names)}): if they are the outlines of cells, fill them"
        )


def _is_outline(mask: NDArray[np.bool_]) -> bool:
    pixels = int(mask.sum())
    return 0 < 4 * pixels < mask.size and int(ndimage.binary_fill_holes(mask).sum()) >= 2 * pixels


def _check_scattered_numbers(samples: Samples) -> Iterator[str]:
    """Finds numbers of several cells, as after an overflow of 8 bits."""
    if samples.encoding.kind != "instances":
        return
    scattered = {sample.name: _count_scattered(sample.instances) for sample in samples.samples}
    names = [name for name, number in scattered.items() if number]
    if names:
        yield (
            f"{counted(sum(scattered.values()), 'number')} with pieces that lie far apart "
            f"({some(names)}): if these are different cells, give each its own number, in 16 bits "
            "if 255 are too few"
        )


def _count_scattered(instances: NDArray[np.int32]) -> int:
    """Counts numbers in several pieces that extend far beyond a disc of the same area."""
    numbers: NDArray[Any] = instances
    if instances.max(initial=0) > instances.size:
        numbers = np.unique(instances, return_inverse=True)[1].reshape(instances.shape)
    sizes = np.bincount(numbers.ravel())[1:]
    count = 0
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        size = sizes[number - 1]
        if max(axis.stop - axis.start for axis in box) > _FAR * np.sqrt(size):
            pieces = _piece_sizes(numbers[box] == number)
            count += int(np.sort(pieces)[:-1].max(initial=0) >= _SECOND * size)
    return count


def _check_same_labels(samples: Sequence[Sample]) -> Iterator[str]:
    by_labels: dict[bytes, list[Sample]] = defaultdict(list)
    for sample in samples:
        if len(_piece_sizes(sample.classes > 0)) > 1:
            by_labels[sample.instances.tobytes()].append(sample)
    same = [group for group in by_labels.values() if _have_different_images(group)]
    if same:
        listing = some([" = ".join(sample.name for sample in group) for group in same])
        yield (
            f"different images have the same labels ({listing}): make sure that each label file "
            "belongs to its image"
        )


def _have_different_images(group: Sequence[Sample]) -> bool:
    first = group[0].image
    return any(not np.array_equal(first, sample.image) for sample in group[1:])


def _check_alignment(samples: Sequence[Sample]) -> Iterator[str]:
    """Compares the fit of labels to their image with that of turned and of other labels."""
    small = [_subsample(sample) for sample in samples[:: -(-len(samples) // _COMPARED)]]
    own = [_fit(grey, mask) for _, grey, mask in small]
    if len(small) < 2:
        return
    for orientation, turn in _ORIENTATIONS.items():
        fits = [
            _fit(grey, turned) if (turned := turn(mask)).shape == grey.shape else 0.0
            for _, grey, mask in small
        ]
        if _fits_better(fits, own):
            names = some([name for name, *_ in small])
            yield (
                f"the labels fit the images better when {orientation} ({names}): make sure that "
                "they have the orientation of the images"
            )
            return
    best = [_best_other(grey, name, small) for name, grey, _ in small]
    if len(small) > 2 and _fits_better([fit for fit, _ in best], own):
        pairs = [f"{other} on {name}" for (name, *_), (_, other) in zip(small, best, strict=True)]
        yield (
            f"the labels of other images fit better than an image's own ({some(pairs)}): make sure "
            "that each label file belongs to its image"
        )


def _subsample(sample: Sample) -> tuple[str, NDArray[np.float32], NDArray[np.bool_]]:
    step = -(-max(sample.classes.shape) // _SIDE)
    return (
        sample.name,
        sample.image[::step, ::step].mean(axis=-1),
        sample.classes[::step, ::step] > 0,
    )


def _fit(grey: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Returns the absolute correlation of grey values and foreground."""
    deviations = float(grey.std()) * float(mask.std())
    if not deviations:
        return 0.0
    covariance = ((grey - grey.mean()) * (mask - mask.mean())).mean()
    return abs(float(covariance)) / deviations


def _fits_better(fits: Sequence[float], own: Sequence[float]) -> bool:
    better = sum(
        fit > max(_TIMES_BETTER * own_fit, _CORRELATED)
        for fit, own_fit in zip(fits, own, strict=True)
    )
    return better >= _MOST_IMAGES * len(own)


def _best_other(
    grey: NDArray[np.float32],
    name: str,
    others: Sequence[tuple[str, NDArray[np.float32], NDArray[np.bool_]]],
) -> tuple[float, str]:
    fits = [
        (_fit(grey, mask), other)
        for other, _, mask in others
        if other != name and mask.shape == grey.shape
    ]
    return max(fits, default=(0.0, ""))
