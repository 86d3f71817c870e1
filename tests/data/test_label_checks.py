"""Label files with an ambiguous meaning are refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import find_boundaries

from keras_unet.data.labels import detect_encoding


def cells(number, side=6, gap=4):
    """Draws squares apart, numbered from 1."""
    labels = np.zeros((side + 2 * gap, (side + gap) * number + gap), np.int32)
    for k in range(number):
        left = gap + k * (side + gap)
        labels[gap : gap + side, left : left + side] = k + 1
    return labels


def edged(labels, edge=255):
    return np.where(find_boundaries(labels, mode="outer"), edge, labels)


NUMBERED = [cells(4), cells(6), cells(5)]
MASKS = [np.int32(one > 0) for one in NUMBERED]
SPOTS = np.where(cells(6) > 0, 1 + cells(6) % 2, 0)
AMBIGUOUS = {
    "edges beside cells": (
        [edged(one) for one in NUMBERED],
        r"0\.png: its values are 0 to 6 and 255,.*--ignore 255",
    ),
    "edges beside many cells": ([edged(cells(30)), edged(cells(25))], "0 to 30 and 255"),
    "edges of 16 bits": ([edged(one, 65_535) for one in NUMBERED], "0 to 6 and 65535"),
    "edges of a mask": ([edged(one) for one in MASKS], "0 to 1 and 255"),
    "8 and 16 bits": (
        [255 * MASKS[0], 65_535 * MASKS[1], 255 * MASKS[2]],
        r"0\.png: expected one convention.*0 and 255 in it, 0 and 65535 in 1\.png",
    ),
    "1 bit, 8 and 16 bits": (
        [MASKS[0], 255 * MASKS[1], 65_535 * MASKS[2]],
        r"0\.png: expected one convention.*0 and 1 in it, 0 and 65535 in 2\.png",
    ),
    "three levels in two scales": (
        [SPOTS, 255 * SPOTS // 2],
        r"0\.png: expected one convention.*0, 1 and 2 in it, 0, 127 and 255 in 1\.png",
    ),
    "backgrounds 0 and 1": (
        [MASKS[0], MASKS[1] + 1],
        r"1\.png: expected one convention.*1 and 2 in it, 0 and 1 in 0\.png",
    ),
    "numbered, and marked": (
        [NUMBERED[0], MASKS[1], NUMBERED[2]],
        r"1\.png: .*one number for 6 pieces in it, and 5 numbers of one piece each in 2\.png",
    ),
    "marked among many numbered": (
        [255 * MASKS[0], *[cells(20)] * 5],
        r"0\.png: .*one number for 4 pieces in it, and 20 numbers",
    ),
    "the background has the highest number": (
        [np.where(one == 0, 255, one - 1) for one in NUMBERED],
        "255 covers at least 7. % of each label image",
    ),
    "the background is 1 in one of them": (
        [NUMBERED[0], NUMBERED[1] + 1, NUMBERED[2]],
        r"1\.png: the number 1 covers 7. % of it, and 0 no pixel",
    ),
    "edges of any number": (
        [edged(one, 40) for one in NUMBERED],
        r"0\.png: the number 40 lies in pieces between.*--ignore 40",
    ),
    "edges of 1": (
        [edged(np.where(one > 0, one + 1, 0), 1) for one in NUMBERED],
        "the number 1 lies in pieces between",
    ),
    "distances": (
        [np.int32(ndimage.distance_transform_cdt(cells(k, side=12))) for k in (3, 4)],
        r"0\.png: the numbers 0 to 6 increase step by step",
    ),
    "numbered in most": (
        [*NUMBERED, np.where(cells(8) > 0, 1 + cells(8) % 2, 0)],
        r"3\.png: a number marks several pieces.*3 of 4 label images, such as 0\.png",
    ),
}


def detect(arrays, **options):
    return detect_encoding([(f"{i}.png", one) for i, one in enumerate(arrays)], **options)


@pytest.mark.parametrize(("arrays", "message"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_labels_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        detect(arrays)
    assert detect(arrays, kind="classes" if max(map(np.max, arrays)) in (1, 2) else "instances")


UNAMBIGUOUS = {
    "numbers up to 255": ([np.where(one > 0, one + 249, 0) for one in NUMBERED], "instances"),
    "a cell of two pieces": ([*NUMBERED, np.int32(cells(2) > 0)], "instances"),
    "levels of grey": ([np.where(one > 3, 255, 127 * (one > 0)) for one in NUMBERED], "classes"),
    "classes of images": ([np.int32(one > 0) * k for k, one in enumerate(NUMBERED, 1)], "classes"),
    "a large cell in one image": ([*NUMBERED, cells(2, side=30, gap=1)], "instances"),
}


@pytest.mark.parametrize(("arrays", "kind"), UNAMBIGUOUS.values(), ids=UNAMBIGUOUS)
def test_unambiguous_labels_are_accepted(arrays, kind):
    assert detect(arrays).kind == kind


def test_ignored_values_are_accepted():
    encoding = detect([*(edged(one) for one in NUMBERED), np.full((9, 9), 255)], ignore=255)
    assert (encoding.kind, encoding.ignore) == ("instances", 255)
