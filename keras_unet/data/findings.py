"""Warnings about a data set that can still be trained on, and what to do about each.

What cannot be trained on is refused where it is read (`data.samples`, `data.labels`).
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

_SATURATED = 0.01  # share of an image's pixels that have its highest value
_GREYS = 16  # values that an image has at least for its highest to be a limit
_SIDES_APART = 4.0  # times
_CELLS_APART = 4.0  # times, from the 10th to the 90th percentile of diameters
_PIECES_APART = 2.0  # times, from the median to the 90th percentile
_SPECK = 5  # pixels of the smallest cell that is taken for one


def check_dataset(samples: Samples, seen: Fingerprint, held_out: Collection[str] = ()) -> list[str]:
    """Says what is odd about a data set, one line a finding.

    Args:
        samples: The data set.
        seen: What was seen over the images to train on.
        held_out: Names of the samples that are held out.

    Example:
        >>> labels = np.array([[0, 1, 1, 0]], np.int32)
        >>> blank = Sample("a", np.ones((1, 4, 1), np.float32), labels > 0, labels, labels < 0)
        >>> from keras_unet.data.encoding import LabelEncoding
        >>> one = Samples((blank,), LabelEncoding("instances", (0, 1), None), 1, "uint8", ())
        >>> check_dataset(one, Fingerprint.of([blank]))[0]
        '1 image holds one grey value alone (a): nothing can be seen in it; remove it'
    """
    every = samples.samples
    findings = (
        _unpaired(samples),
        _blank(every),
        _with_dark_channels(every),
        doubts_of(samples),
        _of_one_class(every),
        _same(every, held_out),
        _of_several_types(samples),
        _of_several_sizes(every),
        _saturated(every),
        _with_specks(every),
        _cells_of_several_sizes(samples, seen),
    )
    return [line for found in track(findings, "looking for what is odd") for line in found]


def _unpaired(samples: Samples) -> Iterator[str]:
    unused = [one for one in samples.orphans if not one.usual]
    if unused:
        names = [f"{one.name}: {one.reason}" for one in unused]
        yield (
            f"{counted(len(names), 'file')} not used ({some(names)}): give an image and its "
            "labels the same name, and keep other files elsewhere"
        )


def _blank(samples: Iterable[Sample]) -> Iterator[str]:
    names = [sample.name for sample in samples if np.ptp(sample.image) == 0]
    if names:
        held = "holds" if len(names) == 1 else "hold"
        yield (
            f"{counted(len(names), 'image')} {held} one grey value alone ({some(names)}): "
            "nothing can be seen in it; remove it"
        )


def _with_dark_channels(samples: Collection[Sample]) -> Iterator[str]:
    """Finds channels that hold something in some images alone, as colours put in other places."""
    dark = {one.name: np.ptp(one.image, axis=(0, 1)) == 0 for one in samples}
    for channel in range(len(next(iter(dark.values())))):
        names = [name for name, found in dark.items() if found[channel] and not found.all()]
        if 0 < len(names) < len(dark):
            yield (
                f"channel {channel + 1} holds one value alone in {counted(len(names), 'image')} "
                f"({some(names)}) and not in the others: make sure that all images have the same "
                "channels in the same order"
            )


def _of_one_class(samples: Iterable[Sample]) -> Iterator[str]:
    classes = {one.name: np.unique(one.classes[~one.ignored]) for one in samples}
    names = [name for name, found in classes.items() if found.size < 2]
    if names:
        yield (
            f"the labels of {counted(len(names), 'image')} hold one class alone ({some(names)}): "
            "make sure that they are complete"
        )


def _same(samples: Iterable[Sample], held_out: Collection[str]) -> Iterator[str]:
    by_digest: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        shape = str(sample.image.shape).encode()
        digest = hashlib.sha256(shape + np.ascontiguousarray(sample.image).tobytes()).hexdigest()
        by_digest[digest].append(sample.name)
    same = [names for names in by_digest.values() if len(names) > 1]
    if same:
        listing = some([" = ".join(names) for names in same])
        flattering = any(0 < len(set(names) & set(held_out)) < len(names) for names in same)
        why = "; one is trained on and another held out, so scores flatter" if flattering else ""
        yield f"images are there more than once ({listing}){why}: remove the copies"


def _of_several_types(samples: Samples) -> Iterator[str]:
    if "," in samples.dtype:
        yield (
            f"the image files hold numbers of several types ({samples.dtype}), which often are of "
            "several scales: save all alike, or leave it at --normalization image"
        )


def _of_several_sizes(samples: Collection[Sample]) -> Iterator[str]:
    sides = {sample.name: max(sample.classes.shape) for sample in samples}
    smallest, largest = min(sides, key=sides.__getitem__), max(sides, key=sides.__getitem__)
    if sides[largest] > _SIDES_APART * sides[smallest]:
        yield (
            f"images differ in size, from {sides[smallest]} ({smallest}) to {sides[largest]} "
            f"pixels ({largest}), and large ones are seen more often: cut them into images of like "
            "size if they should count alike"
        )


def _saturated(samples: Iterable[Sample]) -> Iterator[str]:
    names = [sample.name for sample in samples if _is_saturated(sample.image)]
    if names:
        yield (
            f"{counted(len(names), 'image')} saturated ({some(names)}): more than "
            f"{100 * _SATURATED:.0f} % of the pixels have the highest value, so cells that touch "
            "may look like one; expose less"
        )


def _with_specks(samples: Iterable[Sample]) -> Iterator[str]:
    specks = {sample.name: _specks_in(sample.instances) for sample in samples}
    names = [name for name, number in specks.items() if number]
    if names:
        yield (
            f"{counted(sum(specks.values()), 'cell')} of less than {_SPECK} pixels "
            f"({some(names)}): erase them from the labels if they are slips of the pen"
        )


def _cells_of_several_sizes(samples: Samples, seen: Fingerprint) -> Iterator[str]:
    if seen.diameters is None:
        return
    low, median, high = seen.diameters
    if samples.encoding.kind == "classes" and high > _PIECES_APART * median:
        yield (
            f"pieces of the foreground differ in size, {median:.0f} pixels in the median and a "
            f"tenth wider than {high:.0f}: if those are cells that touch, number the cells, for "
            "classes cannot tell them apart"
        )
    elif high > _CELLS_APART * low:
        yield (
            f"cells differ in size, a tenth narrower than {low:.0f} pixels and a tenth wider than "
            f"{high:.0f}: if they come of different kinds of images, train a run for each kind"
        )


def _is_saturated(image: NDArray[np.float32]) -> bool:
    highest = image == image.max()
    return bool(highest.mean() > _SATURATED) and len(np.unique(image)) >= _GREYS


def _specks_in(instances: NDArray[np.int32]) -> int:
    _, sizes = np.unique(instances[instances > 0], return_counts=True)
    return int(np.count_nonzero(sizes < _SPECK))


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
    if samples.encoding.kind != "classes":
        return
    names = [one.name for one in samples.samples if _holds_pieces_of_background(one)]
    if 2 * len(names) > len(samples.samples):
        value = samples.encoding.values[0]
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
    if samples.encoding.kind != "instances":
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
