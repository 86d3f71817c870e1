"""Predicts image files: label images or probabilities of the same size."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_unet.console import track
from keras_unet.data.channels import Channels, Selection
from keras_unet.data.headers import Header, read_header
from keras_unet.data.images import as_channels, read_image
from keras_unet.data.lazy import is_tiff, is_zarr, open_large
from keras_unet.data.stacks import Stack, channels_in_doubt, check_planes_along
from keras_unet.files import PathLike, paths_of, printable
from keras_unet.instances.link import Along
from keras_unet.prediction.blockwise import Blockwise, Plan, measure, predict_locally
from keras_unet.prediction.inputs import describe_unread
from keras_unet.prediction.load import load
from keras_unet.prediction.outputs import OutputOptions, OutputPlan, Result
from keras_unet.prediction.predict import tile_size_of
from keras_unet.prediction.scale import Choice, Scale, scale_of_pixels
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import ModelInfo
from keras_unet.system import require

_log = logging.getLogger(__name__)


def predict_files(  # noqa: PLR0913 - a prediction has that many choices, all but three by name
    model: Segmenter | PathLike,
    files: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    save: Sequence[str] = (),
    tile_size: int | None = None,
    precision: str | None = None,
    tta: bool = False,
    instances: Mapping[str, Any] | None = None,
    link: Along | None = None,
    scale: Scale = "off",
    storage: OutputOptions | None = None,
    axes: str | None = None,
    channels: Channels | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Predicts image files.

    `<stem>.tif` holds the label image, of the kind of the training labels: instances, or classes
    with the label values. The other kind has a suffix, `<stem>_classes.tif` or
    `<stem>_instances.tif`; `<stem>_probabilities.tif` is float32 `(classes, height, width)`. Every
    output has its image's height and width; a stack gives stacks. `objects.csv` is a table of the
    cells of all images, `<stem>_rois.zip` holds their outlines for ImageJ, `<stem>.geojson` for
    QuPath, see `measure_files`.

    All headers are read and checked before the first image is predicted; the pixels of each file
    are decoded once, just before its prediction.

    Args:
        model: A segmenter; or an argument of `keras_unet.load`: a run, an ensemble, a .tflite file,
            or the address of a model server.
        files: Image files, or folders of them; one path or several.
        out: Folder to write to.
        save: Some of "instances", "classes", "probabilities", "table", "rois" and "geojson"; empty
            for the kind of the training labels.
        tile_size: Height and width of the input tile in pixels; None for the default. Fixed for a
            .tflite file and a server. Tiles that are too large for memory are halved.
        precision: Precision to predict in; None for that of the model.
        tta: Whether to use test-time augmentation, the average over the eight rotations and
            reflections of each image; takes eight times as long.
        instances: Fields of `InstanceOptions` that override the model's.
        link: "z" or "t" for stacks whose objects keep their number through the planes of a volume
            or the frames of a film, see `link_objects`; the outputs have these numbers,
            `tracks.csv` is a table of the tracks, and for films `<stem>_RES` holds them in the form
            of the Cell Tracking Challenge, see `link_files`. None for numbers that begin anew in
            each plane.
        scale: Factor by which images are resampled before the prediction, and probabilities and
            labels back after it: 2 if objects are half as wide as in training. "auto" for the pixel
            size of each image divided by that of the training images or, if one is unknown, for the
            factor at which the objects found are as wide as in training, see
            `Segmenter.choose_scale`. "off" for images as they are; a line names those whose
            pixels or objects differ by more than 25 %.
        storage: File format of the outputs, and whether images are streamed; None for the defaults.
        axes: Axes of the images, such as "YXC", if their files do not state them correctly.
        channels: Channels to read of every image: numbers, from 0, or names as in the files, in the
            order of the model's. None for the channels that the model was trained on, if they were
            selected; an image that has as many channels, and does not name these, is read as it is.
        overwrite: Whether outputs may replace files that this program has not written, and be
            written into a folder of images or labels. One of `files` is never replaced.

    Returns:
        The files written.

    Raises:
        ValueError: If an image cannot be read or has other channels than the model, outputs of two
            files would have the same name, an output would replace an image or lie among files of
            others, an output is unknown, or an option is out of range or has no effect. If the
            pixels of a file cannot be decoded, the outputs of earlier files remain.
        OSError: If a file or the model is missing, the folder cannot be written, memory is too
            small for the smallest tile, or a server does not respond.
    """
    segmenter = model if isinstance(model, Segmenter) else load(model, precision=precision)
    factor = segmenter.check_scale(scale)
    if isinstance(model, Segmenter) and precision is not None:
        segmenter = model.with_precision(precision)
    files, out, storage = paths_of(files), Path(out), storage or OutputOptions()
    output_plan = OutputPlan.of(
        segmenter.info,
        files,
        out,
        save,
        instances,
        storage.form,
        link=link,
        overwrite=overwrite,
    )
    segmenter = replace(segmenter, info=output_plan.info)
    for message in describe_unread(files, output_plan.repeated):
        _log.warning(message)
    selection = Selection.of(channels) or segmenter.info.selection
    headers = {
        path: read_header(path, axes=axes, channels=selection)
        for path in track(output_plan.images, "reading headers")
    }
    choices = {
        path: choice_for(factor, segmenter.info, path, header.spacing.pixel_size)
        for path, header in headers.items()
    }
    streamed = {
        path
        for path, header in headers.items()
        if _is_streamed(output_plan, path, header, choices[path], storage.stream, segmenter)
    }
    if streamed:
        require("large", "zarr")
    for path, header in headers.items():
        check_linkable(link, path, header.stack)
        _check_channels(path, header, segmenter.info.architecture.channels, axes, selection)
        doubt = channels_in_doubt(header.stack) if axes is None else ""
        _log_notes(path, [*(header.notes if path in streamed else ()), *filter(None, [doubt])])
    segmenter.check_tile_size(tile_size)
    needs_probabilities = output_plan.outputs != ("classes",) or output_plan.needs_instances

    @cache
    def blockwise() -> Blockwise:
        plan = replace(_plan(segmenter, tile_size, tta, axes), channels=selection)
        return Blockwise(output_plan, plan, partial(predict_locally, segmenter.networks))

    def look(path: Path, planes: Any) -> Choice:
        return segmenter.choose_scale(planes[len(planes) // 2], path, tile_size=tile_size)

    def predict(path: Path) -> Result:
        choice = choices[path]
        if path in streamed:
            measured = measure(segmenter.info, path, axes, selection)
            if choice is None:
                with open_large(path, axes, selection) as opened:
                    choice = look(path, list(opened))
            log_choice(path, choice)
            return blockwise().predict_image(path, measured, choice.factor)
        image = read_image(path, palette="colors", axes=axes, channels=selection)
        _log_notes(path, image.notes)
        choice = choice or look(path, image.planes)
        log_choice(path, choice)
        planes = segmenter.predict_planes(
            path,
            image,
            tile_size=tile_size,
            tta=tta,
            scale=choice.factor,
            needs_probabilities=needs_probabilities,
        )
        return output_plan.write(path, image, planes)

    return output_plan.write_all(predict, compared=scale == "off")


def choice_for(
    factor: float | Literal["auto"],
    info: ModelInfo,
    path: Path,
    pixel_size: tuple[float, float] | None,
) -> Choice | None:
    """Returns the scale of an image as far as its header decides it; None if objects decide.

    Args:
        factor: Result of `as_scale`.
        info: Metadata of the model.
        path: Path of the image, for messages.
        pixel_size: Height and width of a pixel of the image in micrometers, or None.

    Raises:
        ValueError: If the pixel sizes are too different.
    """
    if factor == "auto":
        return scale_of_pixels(info, pixel_size, path)
    return Choice(factor, "as given" if factor != 1 else "")


def log_choice(path: Path, choice: Choice) -> None:
    """Logs the scale of an image, unless it is predicted as it is."""
    if choice.reason:
        _log.info(f"{printable(path.name)}: {choice}")


def _is_streamed(
    output_plan: OutputPlan,
    path: Path,
    header: Header,
    choice: Choice | None,
    stream: bool | None,
    segmenter: Segmenter,
) -> bool:
    is_always_streamed = is_zarr(path) or output_plan.form_of(path) == "ome-zarr"
    if is_always_streamed and stream is False:
        raise ValueError(
            f"{path}: stream must not be off for Zarr, which is read and written in parts. "
            f"Received: stream={stream}; leave it out"
        )
    if not segmenter.predicts_tiles and (is_always_streamed or stream):
        raise ValueError(
            f"{path}: Zarr and stream need a model in this process. Received {segmenter.info.name} "
            "on a server; save the image as TIFF, and leave form and stream out"
        )
    if stream is None and segmenter.predicts_tiles:
        factor = choice.factor if choice else 1.0
        return is_always_streamed or (is_tiff(path) and header.is_large_at(factor))
    return bool(stream)


def _plan(segmenter: Segmenter, tile_size: int | None, tta: bool, axes: str | None) -> Plan:
    members = segmenter.members
    infos, checksums = zip(*((member.info, member.checksum) for member in members), strict=True)
    sizes = tuple(tile_size_of(network, tile_size) for network in segmenter.networks)
    precision = members[0].precision
    if precision == "auto":
        from keras_unet.backend import choose_precision

        precision = choose_precision(precision)
    return Plan(infos, sizes, tta, axes, precision, checksums)


def _check_channels(
    path: Path, header: Header, channels: int, axes: str | None, selection: Selection | None
) -> None:
    """Refuses an image of other channels than the model's; three equal ones count as one."""
    received = header.shape[-1]
    as_channels(np.zeros((1, received)), channels, path)
    if received != channels and not is_zarr(path) and not header.is_large:
        image = read_image(path, palette="colors", axes=axes, channels=selection)
        as_channels(image.planes, channels, path)


def check_linkable(link: Along | None, path: Path, stack: Stack) -> None:
    """Checks that the objects of an image can be linked.

    Args:
        link: Axis, "z" or "t"; None if they are not to be linked.
        path: Path of the image, for the message.
        stack: Letter and size of each plane axis.

    Raises:
        ValueError: If it is a single plane, or its planes lie along another axis.
    """
    if link is None:
        return
    if math.prod(size for _, size in stack) == 1:
        raise ValueError(
            f"{path}: link needs a stack. Received one plane; predict single images without it, "
            f"and then keras-unet link PREDICTIONS --along {link}"
        )
    check_planes_along(link.upper(), stack, path)


def _log_notes(path: Path, notes: Sequence[str]) -> None:
    for note in notes:
        _log.warning(f"{printable(path.name)}: {note}")
