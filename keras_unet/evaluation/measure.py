"""Measurement of the objects in a folder of label images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from keras_unet.console import counted, some, track
from keras_unet.data.calibration import Spacing
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import image_files, is_grey, read_image, stem_of
from keras_unet.data.labels import detect_encoding, read_labels
from keras_unet.data.lazy import OpenPlane, is_large, is_zarr, open_large
from keras_unet.data.microscopes import holds_scenes
from keras_unet.data.object_classes import (
    CLASSES,
    StatedClasses,
    class_of_objects,
    classes_beside,
    number_classes,
    read_table,
    uses_classes,
)
from keras_unet.data.stacks import Stack, describe_axes, in_order_of
from keras_unet.evaluation.pairing import LabelImage, find_label_images, pair_files
from keras_unet.files import PathLike, check_writable, created_folder, printable
from keras_unet.measurement.objects import ImageObjects, PlaneObjects
from keras_unet.measurement.properties import Columns
from keras_unet.measurement.table import write_table
from keras_unet.prediction.outputs import (
    TABLE,
    ObjectOutput,
    object_path,
    owner_of,
    write_outlines,
)
from keras_unet.prediction.replacing import check_only_own

_log = logging.getLogger(__name__)


def measure_files(
    labels: PathLike,
    out: PathLike,
    *,
    images: PathLike | None = None,
    save: Sequence[str] = ("table",),
    kind: Kind | Literal["auto"] = "auto",
    pixel_size: float | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Measures the objects of label images, and writes tables and outlines.

    `objects.csv` has a row for each object of all files, with the columns of `measure_objects`
    after `file`, the name of the image or, without images, of the label file, and `plane`, from 1.
    `<stem>_rois.zip` holds the outlines for ImageJ, `<stem>.geojson` those for QuPath. TIFF files
    of more than 2**26 pixels and Zarr are read in parts. Three equal channels are one.

    Args:
        labels: A label image, or a folder of them, see `evaluate_folders`.
        out: Folder to write to.
        images: The image, or the folder of the images, whose intensities are measured; None for
            shapes alone. Names are matched as in training.
        save: Some of "table", "rois" and "geojson".
        kind: Kind of the labels: "instances"; "classes", whose connected components are the
            objects; or "auto" to detect it, and to read the classes of instances, see
            `keras_unet.data.object_classes`.
        pixel_size: Height and width of a pixel in micrometers; None for that in the files.
        overwrite: Whether outputs may replace files that keras-unet has not written.

    Returns:
        The files written.

    Raises:
        ValueError: If a file holds no labels, an image is missing or has another size, an output is
            unknown, or would replace a file that keras-unet has not written.
        OSError: If a file is missing or cannot be written.
    """
    out, save = Path(out), _outputs(save)
    files = _label_files(Path(labels))
    partners = {} if images is None else _images_of(files, Path(images))
    check_writable(out)
    if not overwrite:
        stems = [stem_of(partners.get(file, file.labels)) for file in files]
        check_only_own({object_path(out, stem, name) for stem in stems for name in save})
    encoding = _encoding(files, kind)
    written: list[Path] = []
    tables: list[Columns] = []
    with created_folder(out):
        for file in track(files, "measuring objects"):
            image = partners.get(file)
            objects = _measure(file, image, encoding, pixel_size, outlined=save != ("table",))
            written += write_outlines(out, objects, save)
            tables.append(objects.table)
            number = counted(len(tables[-1]["number"]), "object")
            _log.info(f"{printable(objects.path.name)}: {number}")
        if "table" in save:
            write_table(out / TABLE, tables)
            written.append(out / TABLE)
    return written


def _outputs(save: Sequence[str]) -> tuple[str, ...]:
    known = get_args(ObjectOutput)
    unknown = [name for name in save if name not in known]
    if unknown or not save:
        raise ValueError(
            f"save must be of {', '.join(known)}. Received: {', '.join(unknown) or 'none of them'}"
        )
    return tuple(dict.fromkeys(save))


def _label_files(path: Path) -> tuple[LabelImage, ...]:
    """Finds the label images: a file, or those of a folder."""
    if path.is_file() or is_zarr(path):
        return (LabelImage(stem_of(path), path),)
    arrays = [one for one in sorted(path.iterdir()) if is_zarr(one)] if path.is_dir() else []
    labels = [one for one in arrays if owner_of(stem_of(one)) is None]
    named = tuple(LabelImage(stem_of(one), one) for one in labels)
    return named if named and not image_files(path) else (*find_label_images(path).files, *named)


def _images_of(files: Sequence[LabelImage], images: Path) -> dict[LabelImage, Path]:
    """Finds the image of each label image.

    Raises:
        ValueError: If one has none.
    """
    if images.is_file() or is_zarr(images) or holds_scenes(images):
        found = {files[0]: images} if len(files) == 1 else {}
    elif images.is_dir():
        arrays = {stem_of(path): path for path in images.iterdir() if is_zarr(path)}
        found = {file: arrays[file.name] for file in files if file.name in arrays}
        others = [file for file in files if file not in found]
        if image_files(images) and others:
            pairs = pair_files(others, images, "images")
            found |= {pair.reference: pair.result for pair in pairs}
    else:
        raise FileNotFoundError(f"{images}: expected an image or a folder of images. Received none")
    missing = [file.labels.name for file in files if file not in found]
    if missing:
        raise ValueError(
            f"{images}: expected an image for each label image. Received none for {some(missing)}; "
            "add them, or measure shapes alone, without images"
        )
    return found


def _encoding(files: Sequence[LabelImage], kind: Kind | Literal["auto"]) -> LabelEncoding:
    """Detects the kind of the labels, by the files that are read whole, and classes of objects."""
    whole = [file.labels for file in files if not is_large(file.labels)]
    contents = {} if kind == "instances" else {path: read_labels(path) for path in whole}
    stated = [(f"{path}", one) for path, file in contents.items() for one in file.classes]
    names = _class_names(files) | {
        name for _, one in stated for found in one.values() for name in found
    }
    has_classes = uses_classes(stated, kind) or (bool(names) and kind == "auto")
    if has_classes and (values := number_classes(names - {""})):
        return LabelEncoding("instances", (0, *values.values()), class_names=tuple(values))
    if kind == "instances" or has_classes or not whole:
        if kind == "classes":
            raise ValueError(
                "kind must be instances for label images that are read in parts. Received: "
                "kind=classes; number the objects"
            )
        return LabelEncoding("instances", (0, 1))
    planes = [(f"{path}", plane) for path, file in contents.items() for plane in file.labels]
    return detect_encoding(planes, kind=kind)


def _class_names(files: Sequence[LabelImage]) -> set[str]:
    """Returns the names of the classes in the tables beside label files."""
    tables = {file.labels.parent / CLASSES for file in files}
    return {row.name for table in tables if table.is_file() for row in read_table(table)}


@dataclass(frozen=True, eq=False)
class _Planes:
    """Planes of a file: arrays, or objects that are indexed by a window like one."""

    planes: Sequence[Any]
    stack: Stack
    spacing: Spacing
    classes: Sequence[StatedClasses] = ()


@dataclass(frozen=True, eq=False)
class _LargeLabels:
    """Plane of labels that is read in parts."""

    plane: OpenPlane

    @property
    def shape(self) -> tuple[int, int]:
        return self.plane.shape[:2]

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        pixels = self.plane[window]
        if pixels.shape[-1] != 1 or pixels.dtype.kind not in "iu" or pixels.min() < 0:
            raise ValueError(
                f"{self.plane.image.path}: expected one channel of integers, 0 for background. "
                f"Received {pixels.dtype} in {counted(pixels.shape[-1], 'channel')}"
            )
        return pixels[..., 0]


@contextmanager
def _labels(path: Path) -> Iterator[_Planes]:
    if is_large(path):
        with open_large(path) as opened:
            planes = [*map(_LargeLabels, opened)]
            stated = classes_beside(path, len(planes))
            yield _Planes(planes, opened.stack, opened.spacing, stated)
    else:
        file = read_labels(path)
        yield _Planes([*file.labels], file.stack, file.spacing, file.classes)


@contextmanager
def _image(path: Path) -> Iterator[_Planes]:
    if is_large(path):
        with open_large(path) as opened:
            yield _Planes([*opened], opened.stack, opened.spacing)
    else:
        image = read_image(path, palette="colors")
        pixels = image.planes[..., :1] if is_grey(image.planes) else image.planes
        yield _Planes([*pixels], image.stack, image.spacing)


def _measure(
    file: LabelImage,
    image: Path | None,
    encoding: LabelEncoding,
    pixel_size: float | None,
    *,
    outlined: bool,
) -> ImageObjects:
    with _labels(file.labels) as labels:
        if image is None:
            planes = _objects(file, labels, None, encoding, pixel_size, outlined=outlined)
            return ImageObjects(file.labels, planes, labels.stack, encoding.names)
        with _image(image) as opened:
            pixels = _planes_of(file, labels, image, opened)
            planes = _objects(file, labels, pixels, encoding, pixel_size, outlined=outlined)
            return ImageObjects(image, planes, labels.stack, encoding.names)


def _planes_of(file: LabelImage, labels: _Planes, path: Path, image: _Planes) -> _Planes:
    """Returns the planes of an image in the order of those of its labels.

    Raises:
        ValueError: If the planes, their order or their sizes differ.
    """
    planes: Sequence[Any] = image.planes
    if file.plane is not None and len(planes) > 1:
        planes = planes[file.plane : file.plane + 1]
    elif len(planes) == len(labels.planes) > 1:
        order = np.arange(len(planes)).reshape(-1, 1, 1)
        sources = (file.labels, labels.stack), (path, image.stack)
        planes = [planes[number] for number in in_order_of(*sources, order, "planes").ravel()]
    if len(planes) != len(labels.planes) or planes[0].shape[:2] != labels.planes[0].shape:
        sizes = [
            f"{describe_axes(stack)} of {height} x {width} pixels"
            for stack, (height, width) in (
                (labels.stack, labels.planes[0].shape),
                (image.stack, image.planes[0].shape[:2]),
            )
        ]
        raise ValueError(f"{path}: expected {sizes[0]}, as in {file.labels}. Received {sizes[1]}")
    return replace(image, planes=planes)


def _objects(
    file: LabelImage,
    labels: _Planes,
    image: _Planes | None,
    encoding: LabelEncoding,
    pixel_size: float | None,
    *,
    outlined: bool,
) -> list[PlaneObjects]:
    spacings = [labels.spacing] if image is None else [image.spacing, labels.spacing]
    stated = next((size for spacing in spacings if (size := spacing.pixel_size)), None)
    options: Mapping[str, Any] = {"pixel_size": pixel_size or stated, "outlined": outlined}
    pixels = [None] * len(labels.planes) if image is None else image.planes
    measured = [
        _objects_of_classes(plane, grey, encoding, options)
        if encoding.kind == "classes"
        else PlaneObjects.of(plane, grey, **options)
        for plane, grey in zip(labels.planes, pixels, strict=True)
    ]
    if not encoding.class_names or not labels.classes:
        return measured
    return [
        _with_classes(file, objects, stated)
        for objects, stated in zip(measured, labels.classes, strict=True)
    ]


def _with_classes(file: LabelImage, objects: PlaneObjects, stated: StatedClasses) -> PlaneObjects:
    numbers = objects.columns["number"]
    return objects.of_classes(class_of_objects(f"{file.labels}", numbers, stated, complete=False))


def _objects_of_classes(
    plane: NDArray[Any], image: Any, encoding: LabelEncoding, options: Mapping[str, Any]
) -> PlaneObjects:
    """Measures the edge-connected components of each class."""
    classes = encoding.to_classes(plane)
    components = np.asarray(label(classes, connectivity=1, background=0), np.int32)
    objects = PlaneObjects.of(components, image, **options)
    of_object = ndimage.maximum(classes, components, objects.columns["number"])
    names = np.array(encoding.names)[np.asarray(of_object, np.intp)]
    return replace(objects, columns={**objects.columns, "class": names})
