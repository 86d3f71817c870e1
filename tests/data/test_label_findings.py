"""Warnings about labels, and none for good ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import find_boundaries

from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.findings import check_dataset, label_warnings
from keras_unet.data.fingerprint import Fingerprint
from keras_unet.data.samples import Sample, Samples

INSTANCES, CLASSES = (
    LabelEncoding("instances", (0, 1), None),
    LabelEncoding("classes", (0, 255), None),
)


def cells(seed, size=64):
    """Draws some cells apart."""
    random = np.random.default_rng(seed)
    places = random.permutation(16)[:6]
    labels = np.zeros((size, size), np.int32)
    for number, place in enumerate(places, 1):
        row, column = 16 * (place // 4), 16 * (place % 4)
        top, left = random.integers(1, 5, 2)
        labels[row + top : row + top + 9, column + left : column + left + 11] = number
    return labels


def sample(seed, labels=None, truth=None, channels=1):
    truth = cells(seed) if truth is None else truth
    labels = truth if labels is None else labels
    noise = np.random.default_rng(seed).normal(0, 8, (*truth.shape, channels))
    image = (40 + 100 * (truth > 0)[..., None] + noise).astype(np.float32)
    classes = (labels > 0).astype(np.uint8)
    return Sample(f"c{seed}", image, classes, labels, np.zeros(labels.shape, bool))


def data(*samples, encoding=INSTANCES):
    return Samples(samples, encoding, samples[0].image.shape[-1], "uint8", ())


def test_good_labels_have_no_warnings():
    assert not list(label_warnings(data(*map(sample, range(4)))))
    stack = [sample(0, truth=np.roll(cells(0), k, axis=0)) for k in range(4)]
    assert not list(label_warnings(data(*stack)))
    net = [np.int32(~ndimage.binary_dilation(cells(k) == 0, iterations=1)) for k in range(4)]
    assert not list(label_warnings(data(*(sample(k, net[k]) for k in range(4)), encoding=CLASSES)))


TURNED = {
    "rotated by 180 degrees": lambda mask: mask[::-1, ::-1],
    "mirrored top to bottom": lambda mask: mask[::-1],
    "transposed": lambda mask: mask.T,
    "rotated by 90 degrees": lambda mask: np.rot90(mask, 3),
}


@pytest.mark.parametrize(("turn", "turned"), TURNED.items())
def test_labels_that_fit_when_turned_are_reported(turn, turned):
    every = [sample(k, np.ascontiguousarray(turned(cells(k)))) for k in range(4)]
    (line,) = label_warnings(data(*every))
    assert f"fit the images better when {turn}" in line


def test_labels_of_other_images_are_reported():
    every = [sample(k, cells((k + 1) % 4)) for k in range(4)]
    (line,) = label_warnings(data(*every))
    assert "the labels of other images fit better" in line
    assert "c3 on c0" in line


def test_inverted_masks_are_reported():
    every = [sample(k, np.int32(cells(k) == 0)) for k in range(3)]
    (line,) = label_warnings(data(*every, encoding=CLASSES))
    assert "value 0 is background, but lies in pieces" in line


def test_outlines_are_reported():
    outlines = [np.where(find_boundaries(cells(k), mode="inner"), cells(k), 0) for k in range(3)]
    (line,) = label_warnings(data(*(sample(k, outlines[k]) for k in range(3))))
    assert "the labels of 3 images are thin lines" in line


def test_numbers_of_several_cells_are_reported():
    labels = cells(0)
    labels[:, :16], labels[:, 48:] = 0, 0
    labels[2:10, 2:10], labels[50:60, 50:60] = 7, 7
    (line,) = label_warnings(data(sample(0, labels), sample(1)))
    assert "1 number with pieces that lie far apart (c0)" in line
    assert list(label_warnings(data(sample(0, labels * 10_000_000), sample(1)))) == [line]
    assert not list(label_warnings(data(sample(0, labels), sample(1), encoding=CLASSES)))


def test_a_cell_that_another_cuts_is_one():
    truth = cells(0)
    truth[:, 20:24] = 9
    assert not [line for line in label_warnings(data(sample(0, truth))) if "apart" in line]


def test_the_same_labels_of_different_images_are_reported():
    every = [sample(0), sample(1), sample(2, truth=cells(1))]
    (line,) = label_warnings(data(*every))
    assert "same labels (c1 = c2)" in line


def test_a_channel_that_is_dark_in_some_images_is_reported():
    every = [sample(k, channels=3) for k in range(3)]
    every[1].image[..., 2] = 0
    (line,) = check_dataset(data(*every), Fingerprint.of(every))
    assert "channel 3 holds a single value in 1 image (c1)" in line
