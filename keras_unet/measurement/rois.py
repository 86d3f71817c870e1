"""ImageJ ROI archives of outlines, for the ROI Manager of ImageJ and Fiji."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi

from keras_unet.files import SOFTWARE, atomic
from keras_unet.measurement.objects import ImageObjects, OutlinedObject
from keras_unet.measurement.outlines import polygons_of

_MOVE, _LINE, _CLOSE = 0, 1, 4  # segments of a path, as in java.awt.geom.PathIterator


def write_rois(path: Path, objects: ImageObjects) -> None:
    """Writes a ZIP archive of ROIs, one for each object, with its name.

    An object of one piece without holes is a traced ROI, with corners at corners of pixels; any
    other is a composite ROI. In a stack each ROI has the position of its plane.

    Args:
        path: Path of the archive; its folder exists.
        objects: The objects.
    """
    with (
        atomic(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.comment = SOFTWARE.encode()
        for item in objects:
            roi = _roi(item)
            archive.writestr(zipfile.ZipInfo(f"{item.name}.roi"), roi.tobytes())


def _roi(item: OutlinedObject) -> ImagejRoi:
    rings = [ring[:-1] for polygon in polygons_of(item.outline) for ring in polygon]
    roi = _traced(rings[0]) if len(rings) == 1 else _composite(rings)
    roi.name = item.name
    if len(item.plane) == 1:
        roi.position = 1 + next(iter(item.plane.values()))
    elif item.plane:
        roi.z_position, roi.t_position = (1 + item.plane.get(axis, 0) for axis in "ZT")
    if item.color is not None:
        roi.stroke_color = bytes((255, *item.color))
    return roi


def _traced(ring: NDArray[np.int64]) -> ImagejRoi:
    roi: ImagejRoi = ImagejRoi.frompoints(ring)
    roi.roitype = ROI_TYPE.TRACED
    roi.right, roi.bottom = (int(side) for side in ring.max(axis=0))
    return roi


def _composite(rings: list[NDArray[np.int64]]) -> ImagejRoi:
    path = [
        value
        for ring in rings
        for place, corner in enumerate(ring.tolist())
        for value in (_LINE if place else _MOVE, *corner, *_end(place, ring))
    ]
    corners = np.concatenate(rings)
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, shape_roi_size=len(path))
    roi.multi_coordinates = np.array(path, np.float32)
    roi.left, roi.top = (int(side) for side in corners.min(axis=0))
    roi.right, roi.bottom = (int(side) for side in corners.max(axis=0))
    return roi


def _end(place: int, ring: NDArray[np.int64]) -> tuple[int, ...]:
    return (_CLOSE,) if place == len(ring) - 1 else ()
