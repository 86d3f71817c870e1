"""The challenge's thresholds, and what is best at them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from keras_unet.metrics.thresholds import THRESHOLDS, Best, above, highest, lowest


def test_there_are_eleven_a_tenth_apart() -> None:
    assert pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]) == THRESHOLDS


def test_a_certain_cell_exceeds_the_last_one() -> None:
    assert above(np.array([1, 1 - 2**-24], np.float32), THRESHOLDS[-1]).tolist() == [True, False]


def test_a_score_exceeds_what_is_truly_below_it() -> None:
    scores = np.array(
        [0.5, 0.3, 0.7], np.float32
    )  # as float32, 0.3 is above and 0.7 below 0.3, 0.7
    assert not above(scores, THRESHOLDS[5])[0]
    assert above(scores, THRESHOLDS[3])[1]
    assert not above(scores, THRESHOLDS[7])[2]


def test_the_best_comes_with_the_smallest_threshold_that_gives_it() -> None:
    assert lowest(np.array([3.0, 1.0, 2.0, 1.0])) == Best(1.0, 0.1)
    assert highest(np.array([1.0, 1.0, 2.0, 2.0])) == Best(2.0, 0.2)


def test_thresholds_are_reported_in_tenths() -> None:
    reported = [lowest(-np.eye(11)[step]).threshold for step in range(11)]
    assert reported == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]


@pytest.mark.parametrize("best", [lowest, highest])
def test_what_is_undefined_has_no_threshold(best) -> None:
    found = best(np.full(11, math.nan))
    assert math.isnan(found.value)
    assert math.isnan(found.threshold)
