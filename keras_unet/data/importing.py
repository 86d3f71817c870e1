"""Import of annotations from other programs as training data: images and label images."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from keras_unet.console import counted, some, track
from keras_unet.data.annotations import (
    Annotation,
    DrawnLabels,
    categories_of,
    draw_labels,
    read_annotations,
)
from keras_unet.data.encoding import Kind
from keras_unet.data.images import read_image, smallest_unsigned, stem_of, write_tiff
from keras_unet.data.microscopes import scene_paths
from keras_unet.data.object_classes import CLASSES, ObjectClass, values_of_objects, write_table
from keras_unet.data.pairs import files_by_stem, is_annotation, match_files
from keras_unet.data.scenes import file_of
from keras_unet.data.stacks import axes_of_stack
from keras_unet.files import (
    PathLike,
    atomic_folder,
    check_new,
    created_folder,
    make_folder,
    printable,
)

_log = logging.getLogger(__name__)


def import_annotations(
    annotations: PathLike, images: PathLike, out: PathLike, *, kind: Kind = "instances"
) -> list[Path]:
    """Converts annotations of other programs to a folder for `train`.

    Reads ImageJ ROIs, GeoJSON of QuPath, and JSON of COCO and LabelMe. Files belong to the images
    of their names, by the rules of training; COCO and LabelMe name the images themselves. Images
    are copied to `out/images`, unless they lie there; label images are written to `out/labels`.

    Args:
        annotations: A file of annotations, or a folder of them.
        images: The image, or the folder of the images, that were annotated.
        out: Folder to write to; its `labels` must be new or empty.
        kind: "instances" for a number for each object and, if objects have classes, the table
            `labels/classes.csv` of file, number and class, which training reads; "classes" for a
            number for each class, in alphabetical order from 1.

    Returns:
        The label images written.

    Raises:
        ValueError: If a file is not of these formats, no annotation belongs to an image, an object
            lies outside the planes of its image, or classes are to be written that objects lack.
        OSError: If a file is missing or cannot be written, or files exist.
    """
    annotations, images, out = Path(annotations), Path(images), Path(out)
    check_new(out / "labels", "label images", is_removed=True)
    copies = None if (out / "images").resolve() == _folder(images).resolve() else out / "images"
    if copies is not None:
        check_new(copies, "copies of the images", is_removed=True)
    objects = _objects_by_image(annotations, images)
    numbers = _numbers_of_classes(objects, kind)
    rows: list[ObjectClass] = []
    with created_folder(out), ExitStack() as stack:
        folder = stack.enter_context(_new_folder(out / "labels"))
        for path, found in track(list(objects.items()), "drawing labels"):
            drawn = _write_labels(folder, path, found, numbers if kind == "classes" else None)
            rows += _rows(path, drawn)
            _log_drawn(path, len(found), drawn.covered, drawn.lost)
        if copies is not None:
            images_folder = stack.enter_context(_new_folder(copies))
            for file in {file_of(path) for path in objects}:
                shutil.copyfile(file, images_folder / file.name)
        if kind == "instances" and any(row.name for row in rows):
            write_table(folder / CLASSES, rows)
    if kind == "classes":
        listed = ", ".join(f"{number} {name}" for name, number in numbers.items())
        _log.info(f"classes: 0 background, {listed}")
    return [out / "labels" / f"{stem_of(path)}.tif" for path in objects]


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes the new folder if all goes well."""
    with atomic_folder(path, replaces=False) as temporary:
        yield make_folder(temporary)


def _write_labels(
    folder: Path,
    path: Path,
    objects: tuple[Annotation, ...],
    numbers: Mapping[str, int] | None,
) -> DrawnLabels:
    """Writes the label image of an image, with the numbers of the classes if they are given."""
    image = read_image(path)
    drawn = draw_labels(objects, image.planes.shape[:3], path)
    labels = drawn.labels
    if numbers is not None:
        pairs = zip(labels, drawn.categories, strict=True)
        labels = np.stack([values_of_objects(*pair, numbers) for pair in pairs])
    letters, sizes = axes_of_stack(image.stack)
    shaped = smallest_unsigned(labels).reshape(*sizes, *labels.shape[1:])
    target = folder / f"{stem_of(path)}.tif"
    write_tiff(target, shaped, axes=f"{letters}YX", spacing=image.spacing, is_data=True)
    return drawn


def _rows(path: Path, drawn: DrawnLabels) -> Iterator[ObjectClass]:
    is_stack = len(drawn.categories) > 1
    for plane, categories in enumerate(drawn.categories, 1):
        for number, name in categories.items():
            yield ObjectClass(path.name, plane if is_stack else None, number, name)


def _folder(images: Path) -> Path:
    return images if images.is_dir() else images.parent


def _objects_by_image(annotations: Path, images: Path) -> dict[Path, tuple[Annotation, ...]]:
    """Reads all annotations, and finds the image of each file.

    Raises:
        ValueError: If none belongs to an image.
    """
    files = _annotation_files(annotations)
    sources = (
        files_by_stem(images)
        if images.is_dir()
        else {stem_of(path): path for path in scene_paths(images)}
    )
    found: dict[str, list[Annotation]] = {}
    origins: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    for file in track(files, "reading annotations"):
        content = read_annotations(file)
        left_out.update(content.left_out)
        for name, objects in content.objects.items():
            stem = name if name in sources else stem_of(file)
            stem = name if len(content.objects) > 1 else stem
            found.setdefault(stem, []).extend(objects)
            origins[stem] = file
    partners = match_files(annotations, sources, origins)
    if len(sources) == len(found) == 1:
        partners = dict(zip(sources, found, strict=True))  # one of each belongs together
    for message in _describe_left_out(left_out, set(found) - set(partners.values()), origins):
        _log.warning(message)
    if not partners:
        raise ValueError(
            f"{annotations}: expected annotations named like the images in {images}. Received "
            f"{some(sorted(found))}; rename one of them"
        )
    if missing := sorted(set(sources) - set(partners)):
        _log.warning(f"without annotations, and left out: {some(missing)}")
    return {sources[stem]: tuple(found[partner]) for stem, partner in sorted(partners.items())}


def _annotation_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file. Expected annotations, or a folder of them")
    files = [file for file in sorted(path.iterdir()) if is_annotation(file)]
    if not files:
        raise ValueError(
            f"{path}: expected files of annotations (.roi, .zip, .geojson, .json). Received none"
        )
    return files


def _describe_left_out(
    kinds: Mapping[str, int], stems: set[str], origins: Mapping[str, Path]
) -> list[str]:
    messages = []
    if kinds:
        named = ", ".join(f"{number} x {kind}" for kind, number in sorted(kinds.items()))
        messages.append(f"annotations without an area are left out: {named}")
    if stems:
        named = some(sorted(f"{stem} ({origins[stem].name})" for stem in stems))
        messages.append(f"no image of this name, left out: {named}")
    return messages


def _numbers_of_classes(
    objects: Mapping[Path, tuple[Annotation, ...]], kind: Kind
) -> dict[str, int]:
    every = [one for found in objects.values() for one in found]
    numbers = {name: number for number, name in enumerate(categories_of(every), 1)}
    unclassified = sum(not one.category for one in every)
    if kind == "classes" and unclassified:
        raise ValueError(
            f"kind must be instances, as {counted(unclassified, 'object')} of {len(every)} have no "
            f"class. Received: kind={kind}"
        )
    return numbers


def _log_drawn(path: Path, number: int, covered: int, lost: tuple[str, ...]) -> None:
    _log.info(f"{printable(path.name)}: {counted(number, 'object')}")
    if covered:
        _log.warning(
            f"{printable(path.name)}: {counted(covered, 'object')} overlapped by smaller ones, "
            "which are on top"
        )
    if lost:
        _log.warning(f"{printable(path.name)}: without any pixel, and lost: {some(lost)}")
