"""SEG by hand, by brute force, and beside py-ctcmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile
from ctc_metrics.metrics import seg as reference_seg
from ctc_metrics.utils.representations import match
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from keras_unet.data.synthetic import draw_cells
from keras_unet.metrics import seg
from keras_unet.metrics.objects import Overlaps, jaccard_of_references

LABELS = hnp.arrays(np.uint64, (4, 5), elements=st.sampled_from([0, 1, 2, 9, 2**63]))


def two_squares() -> NDArray[np.int32]:
    image = np.zeros((6, 11), np.int32)
    image[1:5, 1:5], image[1:5, 6:10] = 1, 2
    return image


def test_twelve_and_exactly_eight_of_sixteen_pixels() -> None:
    reference, result = two_squares(), np.zeros((6, 11), np.int32)
    result[1:4, 1:5], result[1:3, 6:10] = 5, 3
    assert seg([reference], [result]) == 0.375
    assert jaccard_of_references(Overlaps.of(reference, result)).tolist() == [0.75, 0]


def test_one_result_over_both() -> None:
    result = np.zeros((6, 11), np.int32)
    result[1:5, 1:10] = 4
    assert seg([two_squares()], [result]) == pytest.approx(16 / 36)


def test_one_reference_split() -> None:
    result = two_squares()
    result[1:3, 1:5], result[3:5, 1:5] = 3, 4
    result[3, 1] = 3
    assert seg([two_squares()], [result]) == 0.78125


def brute_force(reference: NDArray[np.integer], result: NDArray[np.integer]) -> list[float]:
    scores = []
    for one in sorted(set(reference.ravel().tolist()) - {0}):
        inside = reference == one
        covering = [
            result == other
            for other in set(result.ravel().tolist()) - {0}
            if 2 * np.sum(inside & (result == other)) > np.sum(inside)
        ]
        scores.append(sum(np.sum(inside & c) / np.sum(inside | c) for c in covering))
    return scores


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=3))
@settings(deadline=None, max_examples=80)
def test_equals_brute_force(pairs) -> None:
    scores = [brute_force(*pair) for pair in pairs]
    for pair, expected in zip(pairs, scores, strict=True):
        np.testing.assert_allclose(jaccard_of_references(Overlaps.of(*pair)), expected)
    references, results = zip(*pairs, strict=True)
    objects = [score for image in scores for score in image]
    expected = np.mean(objects) if objects else math.nan
    np.testing.assert_allclose(seg(references, results), expected)


def test_every_object_counts_alike_whatever_its_image() -> None:
    full = np.array([[1, 2, 3]])
    alone = np.array([[1, 1, 1]])
    assert seg([full, alone], [full, np.zeros_like(alone)]) == 0.75


def test_false_positives_cost_nothing() -> None:
    assert seg([np.array([[1, 0, 0]])], [np.array([[1, 0, 2]])]) == 1


def test_without_reference_objects_there_is_no_score() -> None:
    empty = np.zeros((2, 2), int)
    assert math.isnan(seg([], []))
    assert math.isnan(seg([empty], [empty + 1]))
    assert jaccard_of_references(Overlaps.of(empty, empty + 1)).tolist() == []


def grown(seed: int, pixels: int) -> NDArray[np.uint16]:
    """Draws cells and grows them until they cover, join and miss each other."""
    cells = draw_cells(seed, size=(96, 128), cells=12)[1]
    shifted = np.roll(cells, pixels * (1 + seed), axis=(0, 1))
    return np.where(cells > 0, shifted, 0).astype(np.uint16)


def test_equals_py_ctcmetrics(tmp_path) -> None:
    references = [draw_cells(seed, size=(96, 128), cells=12)[1] for seed in range(4)]
    results = [grown(seed, pixels) for seed, pixels in enumerate((0, 1, 2, 3))]
    labels, ious = [], []
    for reference, result in zip(references, results, strict=True):
        paths = tmp_path / "reference.tif", tmp_path / "result.tif"
        for path, image in zip(paths, (reference, result), strict=True):
            tifffile.imwrite(path, image.astype(np.uint16))
        found = match(*map(str, paths))
        labels.append(found[0])
        ious.append(found[4])
    expected = reference_seg(labels, ious)
    assert 0.2 < expected < 0.9
    assert seg(references, results) == pytest.approx(expected, rel=1e-12)


def test_refuses_numbers_of_images_that_differ() -> None:
    with pytest.raises(ValueError, match=r"equal numbers of images\. Received 1 and 0;"):
        seg([two_squares()], [])
