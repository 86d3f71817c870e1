"""From image files to label images of the same size, by a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from keras_unet.console import track
from keras_unet.data.images import ImageFile, read_image
from keras_unet.data.large import is_large, is_zarr, open_large
from keras_unet.data.stacks import Stack, channels_in_doubt
from keras_unet.data.standardisation import Moments
from keras_unet.files import PathLike, paths_of, printable
from keras_unet.prediction.halving import Halving
from keras_unet.prediction.labelling import Made, Order, Plane, unread
from keras_unet.prediction.networks import Member, load_network, load_runs, predict_together
from keras_unet.prediction.outputs import Storage
from keras_unet.prediction.predict import tile_size_of
from keras_unet.prediction.streaming import Streaming, measure
from keras_unet.prediction.sweeps import Here
from keras_unet.system import require
from keras_unet.tiling import Tiling

_log = logging.getLogger(__name__)


def predict_files(  # noqa: PLR0913 - a prediction has that many choices, all but three by name
    run_folder: PathLike,
    files: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    save: Sequence[str] = (),
    tile_size: int | None = None,
    precision: str | None = None,
    symmetries: bool = False,
    rule: Mapping[str, Any] | None = None,
    storage: Storage | None = None,
    axes: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Predicts image files with a run, or with an ensemble, whose probabilities are averaged.

    A .tflite file that a run was exported to is taken in its place; LiteRT runs it.

    `<stem>.tif` holds the label image, of the kind the run was trained on: instances, or classes
    with the values of the training labels. The other kind gets its own ending, `<stem>_classes.tif`
    or `<stem>_instances.tif`; `<stem>_probabilities.tif` is float32 (classes, height, width). Every
    output has its image's height and width; a stack gives stacks.

    All files are read and checked before the first is predicted, so bad input leaves nothing
    behind.

    Args:
        run_folder: A folder that training wrote, a run or an ensemble, or a .tflite file.
        files: Image files, or folders of them; one path or several.
        out: Folder to write to.
        save: Of "instances", "classes" and "probabilities"; empty for the run's kind of labels.
        tile_size: Height and width of the input tile in pixels; None chooses. A .tflite file has
            its own. A tile that memory does not hold is halved, and so are those after it.
        precision: Precision to predict in; None for that of the training. A .tflite file has its
            own.
        symmetries: Whether to average over the eight symmetries of the square, in eight times the
            time.
        rule: Numbers of the `InstanceRule` to take instead of the run's.
        storage: How outputs are stored and images held; None for what the images are.
        axes: Axes of images that state none, or others, such as "YXC".
        overwrite: Whether outputs may replace files that this program has not written, and be
            written into a folder of images or labels. One of `files` is never replaced.

    Returns:
        The files written.

    Raises:
        ValueError: If an image cannot be read or does not suit the run, outputs of two files would
            have one name, an output would replace an image or come to lie among files of others, an
            output is unknown, or a number of the rule is out of range or of no effect.
        OSError: If a file or the run is missing, the folder cannot be written, or memory does not
            hold the smallest tile.
    """
    run_folder, files, out = Path(run_folder), paths_of(files), Path(out)
    runs = load_runs(run_folder)
    storage = storage or Storage()
    order = Order.of(runs[0], files, out, save, rule, storage.form, overwrite=overwrite)
    for line in unread(files):
        _log.warning(line)
    streamed = {path for path in order.images if _is_streamed(order, path, storage.stream, axes)}
    if streamed:
        require("large", "zarr")
    halving = Halving()
    members = [
        (one, halving.around(load_network(one, precision), one.architecture))
        for one in track(runs, "loading networks")
    ]
    moments = {
        path: _check_image(members[0], path, tile_size, path in streamed, axes)
        for path in track(order.images, "checking images")
    }
    predict = partial(_planes, members, tile_size=tile_size, symmetries=symmetries)
    streaming = Streaming(order, Here(members, tile_size, symmetries, axes))

    def make(path: Path) -> Made:
        if path in streamed:
            return streaming.make(path, moments[path])
        image = read_image(path, palette="colours", axes=axes)
        return order.make(path, image, predict(path, image))

    return order.fulfil(make)


def _is_streamed(order: Order, path: Path, stream: bool | None, axes: str | None) -> bool:
    by_parts_alone = is_zarr(path) or order.form_of(path) == "ome-zarr"
    if by_parts_alone and stream is False:
        raise ValueError(
            f"{path}: stream must not be off for Zarr, which is read and written by parts. "
            f"Received: stream={stream}; leave it out"
        )
    return is_large(path, axes) or by_parts_alone if stream is None else stream


def _check_image(
    member: Member,
    path: Path,
    tile_size: int | None,
    is_streamed: bool,
    axes: str | None,
) -> Sequence[Moments]:
    """Makes sure that an image suits a run, and measures it if it is not held in memory later."""
    run, model = member
    tile = tile_size_of(model, tile_size)
    if is_streamed:
        with open_large(path, axes) as image:
            _log_notes(path, image.notes, image.stack if axes is None else ())
            Tiling.covering(image.shape[1:3], run.architecture, tile)
        return measure(run, path, axes=axes)
    read = read_image(path, palette="colours", axes=axes)
    _log_notes(path, read.notes, read.stack if axes is None else ())
    for plane in read.planes:
        run.standardise(plane, path)
        Tiling.covering(plane.shape[:2], run.architecture, tile)
    return ()


def _log_notes(path: Path, notes: Sequence[str], stack: Stack) -> None:
    doubt = channels_in_doubt(stack)
    for note in (*notes, *([doubt] if doubt else [])):
        _log.warning(f"{printable(path.name)}: {note}")


def _planes(
    members: Sequence[Member],
    path: Path,
    image: ImageFile,
    *,
    tile_size: int | None,
    symmetries: bool,
) -> Iterator[Plane]:
    """Yields the mean of the networks for each plane of a file."""
    for plane in image.planes:
        yield Plane.of(
            predict_together(members, plane, path, tile_size=tile_size, symmetries=symmetries)
        )
