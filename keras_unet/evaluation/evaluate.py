"""Evaluation of a folder of predictions against labels: scores per image and overall."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from keras_unet.console import counted, some, status, track
from keras_unet.data.encoding import Kind
from keras_unet.data.label_consistency import check_same_conventions
from keras_unet.data.labels import LabelFile, detect_encoding, labels_of_planes, read_labels
from keras_unet.data.object_classes import CLASSES, uses_classes
from keras_unet.evaluation.comparison import (
    DEFAULT_METRICS,
    PROBABILITY_METRICS,
    LabelPair,
    Metric,
    Scores,
    compare,
    parse_metrics,
    score,
)
from keras_unet.evaluation.figures import draw_extreme_cells, draw_images, split_planes
from keras_unet.evaluation.objects import measured_objects
from keras_unet.evaluation.pairing import FilePair, LabelImages, find_label_images, pair_files
from keras_unet.evaluation.tables import score_tables
from keras_unet.evaluation.tracking import score_tracks
from keras_unet.files import (
    SOFTWARE,
    PathLike,
    check_replaceable,
    check_writable,
    make_folder,
    write_json,
)
from keras_unet.report.page import Page, write_page
from keras_unet.report.tables import Table

_log = logging.getLogger(__name__)

_CAPTION_METRICS: tuple[Metric, ...] = ("pixels", "ctc")
_CELL_METRICS = {"ctc", "matching"}
_LACKS_CLASSES = (
    f"the objects of the labels have classes, those of the predictions none: no {CLASSES} lies "
    "beside them, and classes are not scored"
)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a folder of predictions.

    Attributes:
        metrics: Metrics that were computed.
        rows: Scores of each image by name, except `isbi2012`, which scores a stack.
        overall: Scores of all images together.
        from_probabilities: Whether the pixel error was computed from probabilities, not from label
            images.
        missing: Label files without a prediction.
        left_out: Files in the label folder whose names are not those of labels, with the reason.
        lacks_classes: Whether the objects of the labels have classes, and those of the predictions
            none.
    """

    metrics: Sequence[Metric]
    rows: Mapping[str, Scores]
    overall: Scores
    from_probabilities: bool
    missing: Sequence[str]
    left_out: Sequence[str] = ()
    lacks_classes: bool = False

    @property
    def tables(self) -> list[Table]:
        """Tables of the scores."""
        return score_tables(self.rows, self.overall, from_probabilities=self.from_probabilities)

    @property
    def warnings(self) -> list[str]:
        """Warnings about files that were not scored."""
        missing, left_out = self.missing, self.left_out
        return [
            *([f"no prediction for {', '.join(missing)}"] if missing else []),
            *(
                [f"left out, as their names are not those of labels: {some(left_out)}"]
                if left_out
                else []
            ),
            *([_LACKS_CLASSES] if self.lacks_classes else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {
            "software": SOFTWARE,
            "metrics": list(self.metrics),
            "images": {name: row.to_dict() for name, row in self.rows.items()},
            "overall": self.overall.to_dict(),
            "pixel_error_from_probabilities": self.from_probabilities,
            "missing": list(self.missing),
            "left_out": list(self.left_out),
        }


def evaluate_folders(
    predictions: PathLike,
    labels: PathLike,
    *,
    metrics: Sequence[str] = (),
    kind: Kind | Literal["auto"] = "auto",
    ignore: int | None = None,
    unlabelled: int | None = None,
    json: PathLike | None = None,
    report: PathLike | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Scores the predictions in a folder against the labels in another, paired by name.

    All classes except the background count as cell; with more than two classes, each is also scored
    alone. If label files or predictions hold classes, the cells are their 4-connected components.
    If the objects of both have classes, see `keras_unet.data.object_classes`, "matching" also
    matches the objects of each class alone. The pixel error is computed from
    `<stem>_probabilities.tif` if every prediction has one, otherwise from label images; `isbi2012`
    requires these files. If the labels are those of the Cell Tracking Challenge with tracks, and
    the predictions hold `res_track.txt`, as `link_files` writes it, "ctc" adds DET and TRA.

    Args:
        predictions: Folder that `predict_files` wrote.
        labels: Folder of label files, a data folder with `labels/` in it, or one of the Cell
            Tracking Challenge, `01_GT/SEG` or above.
        metrics: Any of "pixels", "isbi2012", "ctc" and "matching"
            (`keras_unet.evaluation.comparison`). By default pixels and, if the labels hold
            instances, ctc and matching.
        kind: Kind of the labels: "instances", without classes of objects, "classes", or "auto" to
            detect it.
        ignore: Label value of pixels that are not scored, or None.
        unlabelled: Label value of the pixels that nobody has labelled, for images labelled in part,
            or None. Pixels are scored where there are labels; a predicted object that matches none,
            and has most of its pixels elsewhere, is not false.
        json: File to write the scores to.
        report: HTML file to write, with the scores, pictures of labels and predictions, and the
            cells with the lowest and highest IoU.
        overwrite: Whether `json` and `report` may replace files that keras-unet has not written.

    Returns:
        The scores.

    Raises:
        ValueError: If no label file has a prediction, sizes differ, the order of planes is unclear,
            two files match the same one, palettes differ, a file holds no labels, a metric is
            unknown, lacks its input or does not suit the labels, `json` and `report` are the same
            file, or one of them exists and keras-unet has not written it.
        OSError: If a folder is missing, or a file cannot be written.
    """
    predictions, labels = Path(predictions), Path(labels)
    json, report = (None if path is None else Path(path) for path in (json, report))
    requested = parse_metrics(metrics)
    references = find_label_images(labels)
    pairs = pair_files(references.files, predictions)
    if "isbi2012" in requested:
        _check_probabilities(pairs, predictions)
    for path, format_ in ((json, "json"), (report, "html")):
        if path is not None:
            check_writable(path.parent)
            check_replaceable(path, format_, overwrite=overwrite)
    _check_distinct(json, report)
    evaluation, images = _evaluate(references, pairs, requested, kind, (ignore, unlabelled))
    if "ctc" in evaluation.metrics and (errors := score_tracks(labels, predictions)) is not None:
        values = {**evaluation.overall.values, "det": errors.det, "tra": errors.tra}
        evaluation = replace(evaluation, overall=replace(evaluation.overall, values=values))
    for warning in evaluation.warnings:
        _log.warning(warning)
    if json is not None:
        make_folder(json.parent)
        write_json(json, evaluation.to_dict())
    if report is not None:
        write_page(report, _page(predictions, labels, evaluation, images))
    return evaluation


def _check_distinct(json: Path | None, report: Path | None) -> None:
    if json is not None and report is not None and json.resolve() == report.resolve():
        raise ValueError(
            f"{json}: expected different files for the scores and the report. Received one for "
            "both; choose another name for one of them"
        )


def _evaluate(
    references: LabelImages,
    pairs: Sequence[FilePair],
    requested: Sequence[Metric],
    kind: Kind | Literal["auto"],
    masked: tuple[int | None, int | None],
) -> tuple[Evaluation, list[LabelPair]]:
    truths = [_read_truth(pair) for pair in track(pairs, "reading labels")]
    files = [(pair.reference.labels, truth) for pair, truth in zip(pairs, truths, strict=True)]
    stated = [(str(path), classes) for path, truth in files for classes in truth.classes]
    has_classes = uses_classes(stated, kind)
    kind = "instances" if has_classes else kind
    if kind != "instances":
        check_same_conventions(files)
    planes = [(str(path), plane) for path, truth in files for plane in truth.labels]
    encoding = detect_encoding(planes, kind=kind, ignore=masked[0], unlabelled=masked[1])
    metrics = requested or DEFAULT_METRICS[encoding.kind]
    if encoding.holds_strokes and not _CELL_METRICS.isdisjoint(metrics):
        raise ValueError(
            "metrics of cells need labels of whole cells. Received: strokes of classes, labelled "
            "in part; use --metrics pixels"
        )
    from_probabilities = not PROBABILITY_METRICS.isdisjoint(metrics) and all(
        pair.probabilities for pair in pairs
    )
    images = compare(
        pairs,
        truths,
        encoding,
        with_probabilities=from_probabilities,
        with_classes=has_classes,
    )
    image_metrics = [metric for metric in metrics if metric != "isbi2012"]
    paired = {pair.reference for pair in pairs}
    rows = {image.name: score([image], image_metrics) for image in track(images, "scoring images")}
    with status("scoring all images together"):
        overall = score(images, metrics)
    evaluation = Evaluation(
        metrics,
        rows=rows,
        overall=overall,
        from_probabilities=from_probabilities,
        missing=[file.labels.name for file in references.files if file not in paired],
        left_out=[str(unused) for unused in references.left_out],
        lacks_classes=has_classes and not images[0].class_names,
    )
    return evaluation, images


def _read_truth(pair: FilePair) -> LabelFile:
    """Reads a label file, of which two planes may be instances and classes of a prediction."""
    truth = read_labels(pair.reference.labels)
    if len(truth.labels) == 1 or truth.classes:
        return truth
    return labels_of_planes(truth, len(read_labels(pair.result).labels))


def _page(
    predictions: Path, labels: Path, evaluation: Evaluation, images: Sequence[LabelPair]
) -> Page:
    """Returns the page of an evaluation, with labels and predictions but without images."""
    planes = split_planes(images)
    captions = {plane.labels.name: score([plane.labels], _CAPTION_METRICS) for plane in planes}
    drawn = draw_images(planes, captions)
    has_cells = not _CELL_METRICS.isdisjoint(evaluation.metrics)
    worst, best = draw_extreme_cells(planes) if has_cells else ([], [])
    return Page(
        title=f"Scores of {predictions.resolve().name}",
        summary=f"The predictions in {predictions} against the labels in {labels}.",
        warnings=evaluation.warnings,
        images=drawn,
        images_text=f"{counted(len(drawn), 'image')} of {len(planes)}, lowest score first.",
        worst=worst,
        best=best,
        tables=evaluation.tables,
        objects=measured_objects(planes) if has_cells else None,
    )


def _check_probabilities(pairs: Sequence[FilePair], predictions: Path) -> None:
    without = [pair.result.name for pair in pairs if pair.probabilities is None]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise ValueError(
            f"{predictions}: isbi2012 needs the probabilities of every image, "
            f"<stem>_probabilities.tif. Received none for {without[0]}{more}; predict again "
            "with keras-unet predict ... --save classes,probabilities"
        )
