"""The tables of scores, as a person sees them."""

from math import nan

import pytest

from keras_unet.evaluation.comparison import Scores
from keras_unet.evaluation.evaluate import Evaluation
from keras_unet.metrics import Matching
from keras_unet.scoreboard import print_scores

CELLS = (Matching(0.5, 3, 1, 0, 2.5), Matching(0.9, 0, 0, 0, 0.0))
OF_STACK = ("pixel_error", "rand_error", "v_rand", "v_info", "warping_error")
STACK = {
    **dict.fromkeys(OF_STACK, 0.0123),
    **dict.fromkeys((f"{name}_threshold" for name in OF_STACK), 0.4),
    **{f"{name}_error_classic": nan for name in ("rand", "warping")},
    **{f"{name}_error_classic_threshold": nan for name in ("rand", "warping")},
    "v_info": 0.9876,
}


def evaluation(metrics, row, overall, **fields):
    others = {"from_probabilities": False, "missing": ()} | fields
    return Evaluation(metrics, {"a": row}, overall, **others)


def shown(capsys):
    """The cells of the tables' rows, without their headings."""
    lines = capsys.readouterr().out.splitlines()
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in lines
        if line.startswith("│")
    ]


def test_scores_that_are_undefined_are_a_dash(capsys):
    scores = Scores({"seg": nan})
    print_scores(evaluation(("ctc",), scores, scores))
    assert shown(capsys) == [["a", "-"], ["all", "-"]]


def test_images_show_the_matching_at_its_first_threshold(capsys):
    scores = Scores({"iou": 0.5, "seg": 0.25}, CELLS)
    print_scores(evaluation(("matching",), scores, scores))
    of_image = ["0.5000", "0.2500", "0.7500", "0.8571", "0.7143"]
    assert shown(capsys) == [
        ["a", *of_image],
        ["all", *of_image],
        ["0.5", "3", "1", "0", "0.7500", "0.8571", "0.7143"],
        ["0.9", "0", "0", "0", "-", "-", "-"],
    ]


def test_headings_name_thresholds(capsys):
    scores = Scores({"seg": 0.25}, CELLS)
    print_scores(evaluation(("ctc", "matching"), scores, scores))
    headings = capsys.readouterr().out
    assert all(f"{name} ┃" in headings for name in ("SEG", "AP", "F1", "PQ", "TP", "FP", "FN"))
    assert headings.count("at 0.5") == 3
    assert "from an IoU of" in headings


def test_a_stack_has_a_table_of_its_own(capsys):
    print_scores(evaluation(("isbi2012",), Scores({}), Scores(STACK)))
    rows = shown(capsys)
    assert len(rows) == 7
    assert ["V_Info: information, borders thinned", "0.9876", "1", "0.4"] in rows
    assert ["Rand error, classic: over all pixels", "-", "0", "-"] in rows


@pytest.mark.parametrize(
    ("from_probabilities", "line"),
    [
        (True, "pixel error from probabilities above 0.3"),
        (False, "pixel error from label images, there being no probabilities"),
    ],
)
def test_where_the_pixel_error_comes_from(capsys, from_probabilities, line):
    scores = Scores({"pixel_error": 0.1, "pixel_error_threshold": 0.3})
    print_scores(
        evaluation(("pixels",), scores, scores, from_probabilities=from_probabilities),
    )
    assert line in capsys.readouterr().out.splitlines()


def test_labels_without_a_prediction_are_a_warning(capsys):
    scores = Scores({"seg": 1.0})
    print_scores(evaluation(("ctc",), scores, scores, missing=("b.tif", "c.tif")))
    assert capsys.readouterr().err == "Warning: no prediction for b.tif, c.tif\n"


@pytest.mark.parametrize("width", [80, 120])
def test_all_scores_fit_the_terminal_and_long_names_keep_both_ends(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    of_image = Scores(dict.fromkeys(("iou", "dice", "pixel_error", "seg"), 0.5), CELLS)
    metrics = ("pixels", "isbi2012", "ctc", "matching")
    overall = Scores({**of_image.values, **STACK}, CELLS)
    names = [f"{ends[0]}{'0123456789' * 8}{ends[1]}" for ends in ("ab", "ac", "bc")]
    print_scores(Evaluation(metrics, dict.fromkeys(names, of_image), overall, True, ()))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) == width
    first = [line.split()[1] for line in printed.splitlines() if "…" in line]
    assert [(name[0], name[-1]) for name in first] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert printed.count("0.5000") >= 3 * 4
