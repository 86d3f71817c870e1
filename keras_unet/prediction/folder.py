"""Predicts image files: label images or probabilities of the same size."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_unet.console import track
from keras_unet.data.headers import Header, read_header
from keras_unet.data.images import as_channels, read_image
from keras_unet.data.lazy import is_tiff, is_zarr
from keras_unet.data.stacks import channels_in_doubt
from keras_unet.files import PathLike, paths_of, printable
from keras_unet.prediction.blockwise import Blockwise, Plan, measure, predict_locally
from keras_unet.prediction.load import load
from keras_unet.prediction.outputs import OutputOptions, OutputPlan, Result, describe_unread
from keras_unet.prediction.predict import tile_size_of
from keras_unet.prediction.segmenter import Segmenter
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
    storage: OutputOptions | None = None,
    axes: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Predicts image files.

    `<stem>.tif` holds the label image, of the kind of the training labels: instances, or classes
    with the label values. The other kind has a suffix, `<stem>_classes.tif` or
    `<stem>_instances.tif`; `<stem>_probabilities.tif` is float32 `(classes, height, width)`. Every
    output has its image's height and width; a stack gives stacks.

    All headers are read and checked before the first image is predicted; the pixels of each file
    are decoded once, just before its prediction.

    Args:
        model: A segmenter; or an argument of `keras_unet.load`: a run, an ensemble, a .tflite file,
            or the address of a model server.
        files: Image files, or folders of them; one path or several.
        out: Folder to write to.
        save: Some of "instances", "classes" and "probabilities"; empty for the kind of the training
            labels.
        tile_size: Height and width of the input tile in pixels; None for the default. Fixed for a
            .tflite file and a server. Tiles that are too large for memory are halved.
        precision: Precision to predict in; None for that of the model.
        tta: Whether to use test-time augmentation, the average over the eight rotations and
            reflections of each image; takes eight times as long.
        instances: Fields of `InstanceOptions` that override the model's.
        storage: File format of the outputs, and whether images are streamed; None for the defaults.
        axes: Axes of the images, such as "YXC", if their files do not state them correctly.
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
    if isinstance(model, Segmenter) and precision is not None:
        segmenter = model.with_precision(precision)
    files, out, storage = paths_of(files), Path(out), storage or OutputOptions()
    output_plan = OutputPlan.of(
        segmenter.info, files, out, save, instances, storage.form, overwrite=overwrite
    )
    for message in describe_unread(files, output_plan.repeated):
        _log.warning(message)
    headers = {
        path: read_header(path, axes=axes) for path in track(output_plan.images, "reading headers")
    }
    streamed = {
        path
        for path, header in headers.items()
        if _is_streamed(output_plan, path, header, storage.stream, segmenter)
    }
    if streamed:
        require("large", "zarr")
    for path, header in headers.items():
        _check_channels(path, header, segmenter.info.architecture.channels, axes)
        doubt = channels_in_doubt(header.stack) if axes is None else ""
        _log_notes(path, [*(header.notes if path in streamed else ()), *filter(None, [doubt])])
    segmenter.check_tile_size(tile_size)
    needs_probabilities = output_plan.outputs != ("classes",)

    @cache
    def blockwise() -> Blockwise:
        plan = _plan(segmenter, tile_size, tta, axes)
        return Blockwise(output_plan, plan, partial(predict_locally, segmenter.networks))

    def predict(path: Path) -> Result:
        if path in streamed:
            return blockwise().predict_image(path, measure(segmenter.info, path, axes))
        image = read_image(path, palette="colors", axes=axes)
        _log_notes(path, image.notes)
        planes = segmenter.predict_planes(
            path, image, tile_size=tile_size, tta=tta, needs_probabilities=needs_probabilities
        )
        return output_plan.write(path, image, planes)

    return output_plan.write_all(predict)


def _is_streamed(
    output_plan: OutputPlan, path: Path, header: Header, stream: bool | None, segmenter: Segmenter
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
        return is_always_streamed or (is_tiff(path) and header.is_large)
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


def _check_channels(path: Path, header: Header, channels: int, axes: str | None) -> None:
    """Refuses an image of other channels than the model's; three equal ones count as one."""
    received = header.shape[-1]
    as_channels(np.zeros((1, received)), channels, path)
    if received != channels and not is_zarr(path) and not header.is_large:
        as_channels(read_image(path, palette="colors", axes=axes).planes, channels, path)


def _log_notes(path: Path, notes: Sequence[str]) -> None:
    for note in notes:
        _log.warning(f"{printable(path.name)}: {note}")
