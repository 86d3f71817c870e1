from dataclasses import replace

import numpy as np
import pytest

from keras_unet.evaluation import figures as showing
from keras_unet.evaluation.comparison import LabelPair, Scores
from keras_unet.evaluation.figures import (
    MAX_CELLS,
    MAX_IMAGES,
    ImagePair,
    draw_extreme_cells,
    draw_images,
    renumber_matches,
    score_images,
    split_planes,
)
from keras_unet.report.pictures import ONLY_REFERENCE, ONLY_RESULT


def shown(name, truth, found, image=True):
    truth, found = np.array(truth, np.int32), np.array(found, np.int32)
    return ImagePair(
        LabelPair(
            name,
            truth[None],
            found[None],
            (found > 0).astype(np.float32)[None],
            np.ones_like(truth, bool)[None],
        ),
        np.ones((*truth.shape, 1), np.float32) if image else None,
    )


def row_of_cells(number, size=10):
    """Square cells beside each other."""
    labels = np.zeros((2 * size, 2 * size * number), np.int32)
    for cell in range(number):
        left = 2 * size * cell + size // 2
        labels[5 : 5 + size, left : left + size] = cell + 1
    return labels


@pytest.fixture
def plain(monkeypatch):
    """Has pictures given instead of packed."""
    monkeypatch.setattr(showing, "lossless_uri", lambda picture: picture)
    monkeypatch.setattr(showing, "lossy_uri", lambda picture: picture)


TRUTH = row_of_cells(1)
HALF = TRUTH * (np.arange(TRUTH.shape[1]) < 12)
IMAGES = [
    shown("good", TRUTH, TRUTH),
    shown("none", TRUTH * 0, TRUTH * 0),
    shown("bad", TRUTH, TRUTH * 0),
    shown("fair", TRUTH, HALF),
]
METRICS = ("pixels", "ctc", "matching")


def test_images_come_from_the_worst_to_the_best_and_those_without_a_score_last():
    rows, _ = score_images(IMAGES, METRICS)
    assert [one.name for one in draw_images(IMAGES, rows)] == ["bad", "fair", "good", "none"]
    assert "SEG 0.7000" in draw_images(IMAGES, rows)[1].caption


def test_of_many_images_some_from_worst_to_best_are_drawn():
    images = [shown(f"{n}", TRUTH, TRUTH) for n in range(3 * MAX_IMAGES)]
    rows = {f"{n}": Scores({"iou": n / 100}) for n in range(3 * MAX_IMAGES)}
    names = [int(one.name) for one in draw_images(images, rows)]
    assert len(names) == MAX_IMAGES
    assert (names[0], names[-1]) == (0, 3 * MAX_IMAGES - 1)


def test_layers_are_those_at_hand():
    rows, _ = score_images(IMAGES[:1], METRICS)
    usual = ["image", "truth", "prediction", "differences"]
    assert list(draw_images(IMAGES[:1], rows)[0].layers) == usual
    weighed = replace(IMAGES[0], weights=lambda: np.ones((20, 20), np.float32))
    assert list(draw_images([weighed], rows)[0].layers) == [*usual[:3], "weight map", usual[3]]
    without = [shown("good", TRUTH, TRUTH, image=False)]
    assert list(draw_images(without, rows)[0].layers) == usual[1:]


@pytest.mark.usefixtures("plain")
def test_cells_that_match_have_one_color_in_truth_and_prediction():
    truth = row_of_cells(4)
    found = np.array([0, 3, 1, 4, 2])[truth]
    found[:, 48:60] = 0  # a third of the third cell is found
    images = [shown("a", truth, found)]
    (image,) = draw_images(images, score_images(images, METRICS)[0])
    before, after = (image.layers[name][10, 6:80:20] for name in ("truth", "prediction"))
    assert (before == after).all(axis=1).tolist() == [True, True, False, True]


def test_cells_without_a_match_get_numbers_that_the_truth_does_not_have():
    truth, found = np.array([[3, 3, 9, 0, 0]]), np.array([[7, 7, 0, 5, 3]], np.uint16)
    assert renumber_matches(truth, found).tolist() == [[3, 3, 0, 11, 10]]
    assert renumber_matches(truth * 0, found).tolist() == [[3, 3, 0, 2, 1]]
    assert renumber_matches(truth, found * 0).tolist() == [[0] * 5]


@pytest.mark.usefixtures("plain")
def test_large_pictures_lose_pixels():
    large = np.zeros((10, 2500), np.int32)
    large[2:5, 2:5] = 1
    rows, _ = score_images([shown("a", large, large)], METRICS)
    (image,) = draw_images([shown("a", large, large)], rows)
    assert {picture.shape for picture in image.layers.values()} == {(4, 834, 3)}


def test_cells_missed_come_first_the_largest_of_them_before():
    truth = row_of_cells(3)
    truth[:, 20:40] = 0
    truth[2:17, 22:37] = 2
    worst, best = draw_extreme_cells([shown("a", truth, truth * (truth == 3))])
    assert [one.name for one in worst + best] == ["a", "a"]
    assert [one.caption.split(",")[0] for one in worst + best] == ["IoU 0.00", "IoU 1.00"]
    assert worst[0].caption.endswith("row 9, column 29")


def test_no_cell_is_worst_and_best():
    truth = row_of_cells(2 * MAX_CELLS + 3)
    worst, best = draw_extreme_cells([shown("a", truth, truth)])
    assert len(worst) == len(best) == MAX_CELLS
    assert len({one.caption for one in worst + best}) == 2 * MAX_CELLS
    worst, best = draw_extreme_cells([shown("a", row_of_cells(1), row_of_cells(1))])
    assert (len(worst), len(best)) == (1, 0)


def test_without_a_cell_none_is_drawn():
    assert draw_extreme_cells([shown("a", TRUTH * 0, TRUTH)]) == ([], [])


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("image", [True, False])
def test_a_cell_is_drawn_in_a_square_also_at_the_border(image):
    truth = np.zeros((60, 60), np.int32)
    truth[0:20, 50:60] = 1
    worst, _ = draw_extreme_cells([shown("a", truth, truth, image)])
    height, width, _ = worst[0].layers["outlines"].shape
    assert height == width >= 280


@pytest.mark.usefixtures("plain")
def test_of_neighbours_no_outlines_are_drawn():
    truth = np.zeros((40, 40), np.int32)
    truth[10:20, 10:20], truth[10:20, 22:32] = 1, 2
    (cell, *_), _ = draw_extreme_cells([shown("a", truth, truth * (truth == 2))])
    colors = {tuple(color) for color in cell.layers["outlines"].reshape(-1, 3).tolist()}
    assert ONLY_REFERENCE in colors
    assert ONLY_RESULT not in colors


def test_long_names_are_shortened_in_the_middle():
    worst, _ = draw_extreme_cells([shown("0123456789" * 7, TRUTH, TRUTH)])
    assert worst[0].name == "0123456789…123456789"


def test_stacks_are_taken_apart():
    stack = LabelPair(
        "s",
        np.stack([TRUTH, TRUTH * 0]),
        np.stack([HALF, TRUTH]),
        np.zeros((2, *TRUTH.shape), np.float32),
        np.ones((2, *TRUTH.shape), bool),
    )
    first, second = split_planes([stack])
    assert [first.labels.name, second.labels.name] == ["s_000", "s_001"]
    np.testing.assert_array_equal(second.labels.result, TRUTH[None])
    assert split_planes([IMAGES[0].labels])[0].labels is IMAGES[0].labels
