"""The tables of scores, as a person sees them in a terminal and on a page."""

import math
from math import nan

import numpy as np
import pytest

from keras_unet.evaluation.comparison import Scores
from keras_unet.evaluation.evaluate import Evaluation
from keras_unet.evaluation.tables import caption, score_tables
from keras_unet.metrics import Matching
from keras_unet.metrics.objects import matching
from keras_unet.report.tables import print_tables

CELLS = (Matching(0.5, 3, 1, 0, 2.5), Matching(0.9, 0, 0, 0, 0.0))
OF_STACK = ("pixel_error", "rand_error", "v_rand", "v_info", "warping_error")
STACK = {
    **dict.fromkeys(OF_STACK, 0.0123),
    **dict.fromkeys((f"{name}_threshold" for name in OF_STACK), 0.4),
    **{f"{name}_error_classic": nan for name in ("rand", "warping")},
    **{f"{name}_error_classic_threshold": nan for name in ("rand", "warping")},
    "v_info": 0.9876,
}


def tables(row, overall=None, *, from_probabilities=False):
    return score_tables({"a": row}, overall or row, from_probabilities=from_probabilities)


def test_scores_that_are_undefined_are_a_dash():
    (table,) = tables(Scores({"seg": nan}))
    assert [*table.rows, table.total] == [["a", "-"], ["all", "-"]]


def test_images_show_the_matching_at_its_first_threshold():
    by_image, by_threshold = tables(Scores({"iou": 0.5, "seg": 0.25}, CELLS))
    of_image = ["0.5000", "0.2500", "0.7500", "0.8571", "0.7143"]
    assert by_image.head == ["image", "IoU", "SEG", "AP@0.5", "F1@0.5", "PQ@0.5"]
    assert [*by_image.rows, by_image.total] == [["a", *of_image], ["all", *of_image]]
    assert by_threshold.head == ["IoU threshold", "TP", "FP", "FN", "AP", "F1", "PQ"]
    assert by_threshold.rows == [
        ["0.5", "3", "1", "0", "0.7500", "0.8571", "0.7143"],
        ["0.9", "0", "0", "0", "-", "-", "-"],
    ]


def test_the_mean_ap_is_below_the_matching():
    assert tables(Scores({"ap_mean": 0.625}, CELLS))[1].note == (
        "mean AP at 0.5, 0.55, ... 0.95: 0.6250"
    )
    assert tables(Scores({}, CELLS))[1].note == ""


def test_the_matching_is_that_of_the_metrics():
    truth = np.array([[1, 1, 0, 2, 2, 2]])
    found = matching([truth], [truth * (truth > 1)])
    (_, table) = tables(Scores({}, tuple(found)))
    assert table.rows[3] == ["0.8", "1", "0", "1", f"{found[3].ap:.4f}", *table.rows[3][5:]]


def test_a_stack_has_a_table_of_its_own():
    (table,) = tables(Scores({}), Scores(STACK))
    assert len(table.rows) == 7
    assert ["V_Info: information, borders thinned", "0.9876", "1", "0.4"] in table.rows
    assert ["Rand error, classic: over all pixels", "-", "0", "-"] in table.rows


@pytest.mark.parametrize(
    ("from_probabilities", "line"),
    [
        (True, "pixel error from probabilities above 0.3"),
        (False, "pixel error from label images, as there are no probabilities"),
    ],
)
def test_where_the_pixel_error_comes_from(capsys, from_probabilities, line):
    scores = Scores({"pixel_error": 0.1, "pixel_error_threshold": 0.3})
    found = tables(scores, from_probabilities=from_probabilities)
    print_tables(found)
    assert found[0].note == line
    assert line in capsys.readouterr().out.splitlines()


def test_a_caption_is_the_scores_of_an_image_without_the_matching():
    assert caption(Scores({"seg": 0.25, "iou": math.nan}, CELLS)) == "IoU -, SEG 0.2500"


@pytest.mark.parametrize("width", [80, 120])
def test_all_scores_fit_the_terminal_and_long_names_keep_both_ends(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    of_image = Scores(dict.fromkeys(("iou", "dice", "pixel_error", "seg"), 0.5), CELLS)
    metrics = ("pixels", "isbi2012", "ctc", "matching")
    overall = Scores({**of_image.values, **STACK}, CELLS)
    names = [f"{ends[0]}{'0123456789' * 8}{ends[1]}" for ends in ("ab", "ac", "bc")]
    evaluation = Evaluation(metrics, dict.fromkeys(names, of_image), overall, True, ())
    print_tables(evaluation.tables)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) == width
    first = [line.split()[0] for line in printed.splitlines() if "…" in line]
    assert [(name[0], name[-1]) for name in first] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert printed.count("0.5000") >= 3 * 4
