"""Tables of scores: per image, per class, of matched cells per IoU threshold, of ISBI 2012."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan, nan

from keras_unet.evaluation.comparison import Scores
from keras_unet.report.tables import Table

_IMAGE_TITLES = {
    "iou": "IoU",
    "dice": "Dice",
    "pixel_error": "pixel error",
    "mean_iou": "mean IoU",
    "seg": "SEG",
}
_MATCHING_TITLES = {"ap": "AP", "f1": "F1", "pq": "PQ"}
_TRACKING_TITLES = {"det": "DET: detection", "tra": "TRA: tracking"}
_ISBI2012_TITLES = {  # title, best value
    "pixel_error": ("pixel error: 1 - F of cell pixels", 0),
    "rand_error": ("Rand error: 1 - F of pairs, over cells", 0),
    "rand_error_classic": ("Rand error, classic: over all pixels", 0),
    "v_rand": ("V_Rand: F of pairs, borders thinned", 1),
    "v_info": ("V_Info: information, borders thinned", 1),
    "warping_error": ("warping error: pixels of splits, merges / all", 0),
    "warping_error_classic": ("warping error, classic: that differ / all", 0),
}


def score_tables(
    rows: Mapping[str, Scores], overall: Scores, *, from_probabilities: bool
) -> list[Table]:
    """Returns the tables of scores that have values.

    Args:
        rows: Scores of each image by its name.
        overall: Scores of all images together.
        from_probabilities: Whether the pixel error was computed from probabilities, not from label
            images.
    """
    tables = (
        _image_table(rows, overall, from_probabilities),
        _class_table(overall),
        _matching_table(overall),
        _matching_table_of_classes(overall),
        _isbi2012_table(overall),
        _tracking_table(overall),
    )
    return [table for table in tables if table.rows and len(table.head) > 1]


def _tracking_table(overall: Scores) -> Table:
    rows = [
        [title, *_numbers([overall.values[name]])]
        for name, title in _TRACKING_TITLES.items()
        if name in overall.values
    ]
    return Table("Tracks", ["score", "value"], rows)


def caption(scores: Scores) -> str:
    """Returns the scores of an image in one line.

    Example:
        >>> caption(Scores({"iou": 0.8, "seg": 0.75}))
        'IoU 0.8000, SEG 0.7500'
    """
    named = _image_scores(Scores(scores.values))
    return ", ".join(f"{title} {_number(value)}" for title, value in named.items())


def _image_table(rows: Mapping[str, Scores], overall: Scores, from_probabilities: bool) -> Table:
    head = list(_image_scores(next(iter(rows.values()))))
    whole = _image_scores(overall)
    note = _pixel_error_note(overall, from_probabilities) if "pixel error" in head else ""
    return Table(
        "By image",
        ["image", *head],
        [[name, *_numbers(_image_scores(scores).values())] for name, scores in rows.items()],
        ["all", *_numbers(whole[name] for name in head)],
        note,
    )


def _image_scores(scores: Scores) -> dict[str, float]:
    """Returns the scores of an image by title, with those of the first matching threshold."""
    named = {
        title: scores.values[key] for key, title in _IMAGE_TITLES.items() if key in scores.values
    }
    return named | {
        f"{title}@{matching.threshold}": getattr(matching, key)
        for matching in scores.matching[:1]
        for key, title in _MATCHING_TITLES.items()
    }


def _pixel_error_note(overall: Scores, from_probabilities: bool) -> str:
    if not from_probabilities:
        return "pixel error from label images, as there are no probabilities"
    threshold = _number(overall.values["pixel_error_threshold"], digits=1)
    return f"pixel error from probabilities above {threshold}"


def _class_table(overall: Scores) -> Table:
    rows = [
        [f"label {score.label}", *_numbers((score.iou, score.dice))] for score in overall.classes
    ]
    means = _numbers(overall.values.get(name, nan) for name in ("mean_iou", "mean_dice"))
    return Table("By class, all images together", ["class", "IoU", "Dice"], rows, ["mean", *means])


def _matching_table(overall: Scores) -> Table:
    rows = [
        [
            f"{matching.threshold}",
            *(f"{count:,}" for count in (matching.tp, matching.fp, matching.fn)),
            *_numbers(getattr(matching, key) for key in _MATCHING_TITLES),
        ]
        for matching in overall.matching
    ]
    head = ["IoU threshold", "TP", "FP", "FN", *_MATCHING_TITLES.values()]
    title = "Cells matched at an IoU threshold, all images together"
    note = ""
    if "ap_mean" in overall.values:
        note = f"mean AP at 0.5, 0.55, ... 0.95: {_number(overall.values['ap_mean'])}"
    return Table(title, head, rows, note=note)


def _matching_table_of_classes(overall: Scores) -> Table:
    rows = [
        [
            name,
            f"{matching[0].tp + matching[0].fn:,}",
            f"{matching[0].tp + matching[0].fp:,}",
            *_numbers(row.ap for row in matching),
        ]
        for name, matching in overall.matching_of_class.items()
    ]
    thresholds = [f"AP@{row.threshold}" for row in overall.matching] if rows else []
    head = ["class", "in the labels", "predicted", *thresholds]
    return Table("Cells matched within each class, all images together", head, rows)


def _isbi2012_table(overall: Scores) -> Table:
    values = overall.values if "v_rand" in overall.values else {}
    rows = [
        [title, _number(values[key]), f"{best}", _number(values[f"{key}_threshold"], digits=1)]
        for key, (title, best) in _ISBI2012_TITLES.items()
        if key in values
    ]
    head = ["score", "value", "best", "threshold"]
    note = "thresholds of the cell probability, each the best for its score"
    return Table("ISBI 2012, all images as one stack", head, rows, note=note)


def _numbers(values: Iterable[float]) -> list[str]:
    return [_number(value) for value in values]


def _number(value: float, digits: int = 4) -> str:
    return "-" if isnan(value) else f"{value:.{digits}f}"
