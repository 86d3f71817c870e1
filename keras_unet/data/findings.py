"""Warnings about a data set that can still be trained on, and what to do about each.

What cannot be trained on is refused where it is read (`data.samples`, `data.labels`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, some, track
from keras_unet.data.doubts import doubts_of
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.samples import Sample, Samples

_SATURATED = 0.01  # share of an image's pixels that have its highest value
_GREYS = 16  # values that an image has at least for its highest to be a limit
_SIDES_APART = 4.0  # times
_CELLS_APART = 4.0  # times, from the 10th to the 90th percentile of diameters
_PIECES_APART = 2.0  # times, from the median to the 90th percentile
_SPECK = 5  # pixels of the smallest cell that is taken for one


def find_amiss(samples: Samples, seen: Fingerprint, held_out: Collection[str] = ()) -> list[str]:
    """Says what is odd about a data set, one line a finding.

    Args:
        samples: The data set.
        seen: What was seen over the images to train on.
        held_out: Names of the samples that are held out.

    Example:
        >>> labels = np.array([[0, 1, 1, 0]], np.int32)
        >>> blank = Sample("a", np.ones((1, 4, 1), np.float32), labels > 0, labels, labels < 0)
        >>> from keras_unet.data.schemes import LabelScheme
        >>> one = Samples((blank,), LabelScheme("instances", (0, 1), None), 1, "uint8", ())
        >>> find_amiss(one, Fingerprint.of([blank]))[0]
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
            "several scales: save all alike, or leave it at --standardise image"
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
    if samples.scheme.kind == "classes" and high > _PIECES_APART * median:
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
