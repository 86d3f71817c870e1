"""Outlines drawn in other programs: ImageJ ROIs, QuPath GeoJSON, COCO and LabelMe JSON.

Coordinates are those of corners of pixels: x and y of 0 are the upper left corner of the image. A
pixel belongs to an object if its center lies inside.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi
from skimage.draw import polygon

Ring = NDArray[np.float64]

_AREAS = {ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED, ROI_TYPE.RECT, ROI_TYPE.OVAL}
_CORNERS_OF_ELLIPSE = 128


@dataclass(frozen=True, eq=False)
class Annotation:
    """An object that was outlined.

    Attributes:
        rings: Closed outlines, `(corners, 2)` as x and y; a point is inside if it lies within an
            odd number of them. Empty if `mask` is given.
        category: Name of its class; empty if it has none.
        name: Its name; empty if it has none.
        plane: Number of its plane in a stack, from 0.
        mask: Pixels of the object in its bounding box, in place of outlines; or None.
    """

    rings: tuple[Ring, ...]
    category: str = ""
    name: str = ""
    plane: int = 0
    mask: Mask | None = None


@dataclass(frozen=True, eq=False)
class Mask:
    """Pixels of an object.

    Attributes:
        size: Height and width of the image.
        corner: First row and column of the bounding box.
        pixels: Pixels of the bounding box, True in the object.
    """

    size: tuple[int, int]
    corner: tuple[int, int]
    pixels: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Mask:
        """Cuts a mask of the size of the image to the bounding box."""
        height, width = mask.shape
        rows, columns = (np.nonzero(mask.any(axis=axis))[0] for axis in (1, 0))
        if not len(rows):
            return cls((height, width), (0, 0), mask[:0, :0])
        top, left = int(rows[0]), int(columns[0])
        inside = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1].copy()
        return cls((height, width), (top, left), inside)


@dataclass(frozen=True, eq=False)
class Annotations:
    """Content of a file of annotations.

    Attributes:
        objects: The objects, by the stem of the image they were drawn in; under an empty text if
            the file is that of one image and does not name it.
        left_out: Kinds and numbers of annotations without an area, such as points and lines.
    """

    objects: Mapping[str, tuple[Annotation, ...]]
    left_out: Mapping[str, int]


def read_annotations(path: Path) -> Annotations:
    """Reads the objects of a file of annotations.

    Args:
        path: ImageJ `.roi` or `.zip`, QuPath `.geojson`, or COCO or LabelMe `.json`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of these, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected annotations")
    try:
        if path.suffix.lower() in (".roi", ".zip"):
            return _of_imagej(path)
        return _of_json(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, IndexError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected ImageJ ROIs (.roi, .zip), GeoJSON of QuPath, or JSON of COCO or "
            f"LabelMe. Received another file, or a damaged one ({type(error).__name__}: {error})"
        ) from error


def _of_imagej(path: Path) -> Annotations:
    rois: list[ImagejRoi] = []
    if path.suffix.lower() == ".roi":
        rois.append(_read_roi(path.read_bytes(), path.stem))
    else:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(".roi")]
            rois += [_read_roi(archive.read(name), Path(name).stem) for name in names]
    objects, left_out = [], Counter[str]()
    for roi in rois:
        if roi.roitype in _AREAS and (rings := _rings_of_roi(roi)):
            plane = max(roi.position, roi.z_position, roi.t_position, 1) - 1
            objects.append(Annotation(rings, name=roi.name, plane=plane))
        else:
            left_out[roi.roitype.name.lower()] += 1
    return Annotations({"": tuple(objects)}, left_out)


def _read_roi(content: bytes, name: str) -> ImagejRoi:
    roi: ImagejRoi = ImagejRoi.frombytes(content)
    roi.name = name  # as the ROI Manager shows it
    return roi


def _rings_of_roi(roi: ImagejRoi) -> tuple[Ring, ...]:
    if roi.roitype == ROI_TYPE.OVAL:
        return (_ellipse((roi.left, roi.top), (roi.right, roi.bottom)),)
    rings = (np.asarray(ring, np.float64) for ring in roi.coordinates(multi=True))
    return tuple(ring for ring in rings if len(ring) > 2)


def _ellipse(first: Any, last: Any) -> Ring:
    """Returns the ellipse in a box that is given by two corners."""
    start, end = np.asarray(first, float), np.asarray(last, float)
    angles = np.linspace(0, 2 * np.pi, _CORNERS_OF_ELLIPSE, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    ring: Ring = (start + end) / 2 + circle * (end - start) / 2
    return ring


def _of_json(content: Any) -> Annotations:
    if isinstance(content, dict) and "shapes" in content:
        return _of_labelme(content)
    if isinstance(content, dict) and "annotations" in content:
        return _of_coco(content)
    features = content if isinstance(content, list) else content.get("features", [content])
    return _of_geojson(features)


def _of_geojson(features: Iterable[Mapping[str, Any]]) -> Annotations:
    objects, left_out = [], Counter[str]()
    for feature in features:
        geometry, properties = feature["geometry"], feature.get("properties") or {}
        kind, coordinates = geometry["type"], geometry["coordinates"]
        if kind not in ("Polygon", "MultiPolygon"):
            left_out[kind] += 1
            continue
        polygons = [coordinates] if kind == "Polygon" else coordinates
        rings = tuple(np.array(ring, float)[:, :2] for part in polygons for ring in part)
        place = geometry.get("plane") or {}
        objects.append(
            Annotation(
                rings,
                str((properties.get("classification") or {}).get("name") or ""),
                str(properties.get("name") or ""),
                max(place.get("z", 0), place.get("t", 0)),
            )
        )
    return Annotations({"": tuple(objects)}, left_out)


def _of_labelme(content: Mapping[str, Any]) -> Annotations:
    objects, left_out = [], Counter[str]()
    for shape in content["shapes"]:
        kind, points = shape.get("shape_type") or "polygon", np.array(shape["points"], float)
        if kind == "rectangle":
            (left, top), (right, bottom) = points[:2]
            ring = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        elif kind == "circle":
            radius = float(np.linalg.norm(points[1] - points[0]))
            ring = _ellipse(points[0] - radius, points[0] + radius)
        elif kind == "polygon" and len(points) > 2:
            ring = points
        else:
            left_out[kind] += 1
            continue
        objects.append(Annotation((ring,), str(shape.get("label") or "")))
    name = str(content.get("imagePath") or "").replace("\\", "/")
    return Annotations({Path(name).stem if name else "": tuple(objects)}, left_out)


def _of_coco(content: Mapping[str, Any]) -> Annotations:
    categories = {one["id"]: str(one["name"]) for one in content.get("categories", ())}
    images = {one["id"]: Path(one["file_name"]).stem for one in content["images"]}
    objects: dict[str, list[Annotation]] = {stem: [] for stem in images.values()}
    left_out = Counter[str]()
    for one in content["annotations"]:
        category = categories.get(one.get("category_id"), "")
        segmentation = one.get("segmentation")
        if isinstance(segmentation, dict):
            found = Annotation((), category, mask=Mask.of(_decode_runs(segmentation)))
        elif segmentation:
            rings = tuple(np.reshape(np.array(part, float), (-1, 2)) for part in segmentation)
            found = Annotation(rings, category)
        else:
            left_out["box"] += 1
            continue
        objects[images[one["image_id"]]].append(found)
    return Annotations({stem: tuple(found) for stem, found in objects.items()}, left_out)


def _decode_runs(segmentation: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decodes run lengths of COCO, column by column, of background and object in turn."""
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else counts
    values = np.arange(len(runs)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(values, runs).reshape((width, height)).T
    return mask


def _decompress(text: str) -> list[int]:
    """Decodes numbers of 5 bits a character; from the third on, differences to the last but one."""
    runs: list[int] = []
    characters = iter(text)
    for character in characters:
        value = shift = 0
        code = ord(character) - 48
        while True:
            value |= (code & 0x1F) << shift
            shift += 5
            if not code & 0x20:
                break
            code = ord(next(characters)) - 48
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


@dataclass(frozen=True, eq=False)
class DrawnLabels:
    """Label images of annotations.

    Attributes:
        labels: Label images `(planes, height, width)`, int32.
        categories: Class of each label of each plane, in the order of the objects; empty texts for
            none. Objects without any pixel are left out.
        covered: Objects of which pixels were lost to smaller ones.
        lost: Objects of which no pixel is left, by name or position.
    """

    labels: NDArray[np.int32]
    categories: tuple[Mapping[int, str], ...]
    covered: int
    lost: tuple[str, ...]


def draw_labels(
    objects: Sequence[Annotation], shape: tuple[int, int, int], path: Path
) -> DrawnLabels:
    """Draws annotations as instances.

    Where objects overlap, the smallest one is on top. If all names are different whole numbers, as
    in archives that this program writes, they are the labels; otherwise objects are numbered from 1
    in their order, through all planes.

    Args:
        objects: The annotations.
        shape: Planes, height and width.
        path: Their image, for messages.

    Raises:
        ValueError: If an object lies in a plane that the image does not have, or has a mask of
            another size.
    """
    numbers = _numbers(objects, shape[0])
    labels = np.zeros(shape, np.int32)
    masks = [_mask(one, number, shape, path) for one, number in zip(objects, numbers, strict=True)]
    sizes = np.array([np.count_nonzero(mask) for _, mask in masks])
    for index in np.argsort(-sizes, kind="stable").tolist():
        (rows, columns), mask = masks[index]
        labels[objects[index].plane, rows, columns][mask] = numbers[index]
    kept = Counter[tuple[int, int]]()
    for plane, image in enumerate(labels):
        found, counts = np.unique(image[image > 0], return_counts=True)
        kept.update({(plane, int(n)): int(c) for n, c in zip(found, counts, strict=True)})
    left = [kept[one.plane, number] for one, number in zip(objects, numbers, strict=True)]
    categories: list[dict[int, str]] = [{} for _ in labels]
    for one, number, now in zip(objects, numbers, left, strict=True):
        if now:
            categories[one.plane][number] = one.category
    return DrawnLabels(
        labels,
        tuple(categories),
        sum(0 < now < size for now, size in zip(left, sizes.tolist(), strict=True)),
        tuple(
            one.name or f"object {index}"
            for index, (one, now) in enumerate(zip(objects, left, strict=True), 1)
            if not now
        ),
    )


def _numbers(objects: Sequence[Annotation], planes: int) -> list[int]:
    """Returns the label of each object."""
    names = [one.name.split("-")[-1] if planes > 1 else one.name for one in objects]
    places = {(one.plane, name) for one, name in zip(objects, names, strict=True)}
    if len(places) == len(objects) and all(name.isdecimal() and int(name) for name in names):
        return [int(name) for name in names]
    return list(range(1, len(objects) + 1))


def _mask(
    item: Annotation, number: int, shape: tuple[int, int, int], path: Path
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Returns the window of an object, and its pixels there."""
    planes, height, width = shape
    if item.plane >= planes:
        raise ValueError(
            f"{path}: expected objects in the planes 1 to {planes}. Received {item.name or number} "
            f"in plane {item.plane + 1}; give the stack that was annotated"
        )
    if item.mask is not None:
        if item.mask.size != (height, width):
            raise ValueError(
                f"{path}: expected objects of an image of {height} x {width} pixels. Received "
                f"{item.name or number} of one of {item.mask.size[0]} x {item.mask.size[1]}; give "
                "the image that was annotated"
            )
        first, pixels = item.mask.corner, item.mask.pixels
        rows, columns = (
            slice(start, start + side) for start, side in zip(first, pixels.shape, strict=True)
        )
        return (rows, columns), pixels
    corners = np.concatenate(item.rings)
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width, height)).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (width, height)).tolist()
    mask = np.zeros((bottom - top, right - left), bool)
    for ring in item.rings:
        inside = polygon(ring[:, 1] - top - 0.5, ring[:, 0] - left - 0.5, mask.shape)
        mask[inside] ^= True
    return (slice(top, bottom), slice(left, right)), mask


def categories_of(objects: Iterable[Annotation]) -> Iterator[str]:
    """Yields the names of the classes that occur, in alphabetical order."""
    yield from sorted({one.category for one in objects} - {""})
