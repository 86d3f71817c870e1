"""Selection of instance options: scores against those of the metrics, cost of steps, and use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.data.synthetic import draw_cells
from keras_unet.instances import selection as module
from keras_unet.instances.label import InstanceOptions, label_instances
from keras_unet.instances.selection import (
    default_options,
    select_options,
    select_predicted,
    subsample,
)
from keras_unet.metrics import matching, seg
from keras_unet.metrics.objects import Overlaps, matching_of_overlaps

START = InstanceOptions(threshold=0.6, markers="distance", merge_threshold=0.6, minimum_size=20)


def example(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """A blurred and noisy probability, and the cells it is of."""
    _, cells = draw_cells(seed, size=(80, 90), cells=8)
    noise = np.random.default_rng(seed).normal(0, 0.1, cells.shape)
    return np.clip(ndimage.gaussian_filter((cells > 0) * 1.0, 2) + noise, 0, 1), cells


def mean_of_seg_and_ap(references, results) -> float:
    return (seg(references, results) + matching(references, results, [0.5])[0].ap) / 2


@pytest.fixture(scope="module")
def examples():
    return tuple(zip(*(example(seed) for seed in range(2)), strict=True))


def test_scores_of_merged_regions_are_those_of_label_images(examples) -> None:
    probabilities, references = examples
    grid = list(module._grid(START, probabilities, references, [None] * len(references)))
    assert len(grid) == len({options for options, _ in grid}) == 5 * 10 * 3
    for options, score in grid[::3]:
        plain = replace(options, gap=0, fill_holes=False)
        results = [label_instances(one, plain) for one in probabilities]
        assert score == pytest.approx(mean_of_seg_and_ap(references, results), abs=1e-12)


def test_scores_of_merged_regions_in_part_are_those_of_label_images(examples) -> None:
    probabilities, references = examples
    masks = [
        np.random.default_rng(seed).random(one.shape) < 0.5 for seed, one in enumerate(references)
    ]
    labels = [one * (one % 2) for one in references]
    grid = list(module._grid(START, probabilities, labels, masks))
    for options, score in grid[::7]:
        plain = replace(options, gap=0, fill_holes=False)
        results = [label_instances(one, plain) for one in probabilities]
        overlaps = list(map(Overlaps.of, labels, results, masks))
        ap = matching_of_overlaps(overlaps, 0.5).ap
        assert score == pytest.approx((seg(labels, results) + ap) / 2, abs=1e-12)
        assert ap >= matching(labels, results, [0.5])[0].ap


def test_score_and_score_before_are_those_of_the_two_options(examples) -> None:
    probabilities, references = examples
    selection = select_options(START, probabilities, references)
    for options, score in ((selection.options, selection.score), (START, selection.score_before)):
        results = [label_instances(one, options) for one in probabilities]
        assert score == pytest.approx(mean_of_seg_and_ap(references, results))
    assert selection.cells == sum(int(one.max()) for one in references)
    assert selection == select_options(START, probabilities, references)


def test_options_that_gain_less_than_their_steps_cost_are_not_selected(
    examples, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_STEP_COST", 99)
    assert select_options(START, *examples).options == START
    monkeypatch.setattr(module, "_STEP_COST", 0)
    free = select_options(START, *examples)
    assert free.options != START
    assert free.score >= free.score_before


WITH_AFFINITIES = replace(START, affinities=True)


@pytest.mark.parametrize("better", [True, False, None])
def test_affinities_are_used_unless_cells_are_better_without(examples, better) -> None:
    probabilities, references = examples
    poor = [ndimage.gaussian_filter(one, 4) for one in probabilities]

    def predict(options: InstanceOptions):
        return (probabilities if better in (options.affinities, None) else poor), references

    selection = select_predicted(WITH_AFFINITIES, predict, "instances")
    assert selection.options.affinities is (better is not False)
    expected = select_options(WITH_AFFINITIES, probabilities, references)
    assert selection.score == expected.score
    assert replace(selection.options, affinities=True) == expected.options
    assert selection.score_before == select_options(START, *predict(WITH_AFFINITIES)).score_before


def test_affinities_are_always_or_never_used_after_one_prediction(examples) -> None:
    calls = []

    def predict(options: InstanceOptions):
        calls.append(options)
        return examples

    assert select_predicted(START, predict, "instances") == select_options(START, *examples)
    assert select_predicted(WITH_AFFINITIES, predict, "classes").options.affinities
    assert calls == [START, WITH_AFFINITIES]


def dumbbells(number: int) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int32]]]:
    """Pairs of cells that a bridge connects, one pair an image."""
    cells = np.zeros((15, 30), np.int32)
    cells[2:13, 2:13], cells[2:13, 16:27] = 1, 2
    probability = (cells > 0) * 0.9
    probability[6:9, 13:16] = 0.9
    return [probability] * number, [cells] * number


def test_connected_cells_are_split() -> None:
    selection = select_options(InstanceOptions(gap=0), *dumbbells(20))
    assert selection.options.markers == "distance"
    assert selection.score_before < 0.5 < selection.score


def test_false_cells_are_removed_though_seg_ignores_them() -> None:
    probability, cells = (images[0] for images in dumbbells(1))
    probability = np.pad(probability, [(0, 12), (0, 0)])
    probability[20, 1::3] = probability[24, 1::3] = 0.9
    references = [np.pad(cells, [(0, 12), (0, 0)])] * 20
    start = replace(START, minimum_size=0)
    assert select_options(start, [probability] * 20, references).options.minimum_size == 0
    selection = select_options(replace(start, minimum_size=4), [probability] * 20, references)
    assert selection.options.minimum_size >= 2
    assert label_instances(probability, selection.options).max() == 2


def test_without_cells_nothing_is_selected(examples) -> None:
    probabilities, references = examples
    assert select_options(START, probabilities, [0 * cells for cells in references]) is None


def test_a_network_that_finds_nothing_keeps_the_initial_options(examples) -> None:
    probabilities, references = examples
    selection = select_options(START, [0 * image for image in probabilities], references)
    assert (selection.options, selection.score) == (START, 0)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 0),
        ({"threshold": 0.8}, 2),
        ({"threshold": 0.4}, 2),
        ({"merge_threshold": 0.8}, 2),
        ({"minimum_size": 0}, 1),
        ({"minimum_size": 2 * START.minimum_size}, 1),
        ({"gap": 0.0}, 1),
        ({"fill_holes": False}, 1),
        ({"markers": "components"}, 2),
        ({"markers": "probability", "merge_threshold": 0.9}, 2),
        ({"markers": "probability", "merge_threshold": 0.95, "gap": 4.0}, 4),
    ],
)
def test_steps_are_counted(changes, steps) -> None:
    assert module._steps(START, replace(START, **changes)) == steps
    assert module._steps(START, START) == 0


def test_the_default_options_split_instances_alone() -> None:
    cells = np.repeat([[0, 1, 2, 2]], 30, axis=0)  # of 30 and 60 pixels; the 10th percentile is 33
    assert default_options("instances", [cells, 0 * cells]).minimum_size == 8
    assert default_options("instances", [cells]).markers == "distance"
    assert default_options("classes", [cells]) == InstanceOptions(minimum_size=8)
    assert default_options("classes", [0 * cells]) == InstanceOptions()


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [([1, 1, 1], "abc"), ([2**30] * 3, "a"), ([2**21] * 3, "ac"), ([2**22] * 3, "a")],
)
def test_images_are_subsampled_evenly(pixels, expected) -> None:
    assert subsample("abc", pixels) == list(expected)


def test_the_summary_of_a_selection_is_one_line(examples) -> None:
    summary = select_options(START, *examples).describe()
    assert summary.startswith("cells: probability above 0.")
    assert "mean of SEG and AP 0." in summary
    assert "\n" not in summary
