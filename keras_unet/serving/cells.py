"""Labels of an image file and their pictures, for the page of a served model.

Cells are those of `keras-unet predict`: the instance options of the model are applied to the
probabilities of its signature `classify_bytes`.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from keras_unet.client import read_tensor
from keras_unet.files import SOFTWARE
from keras_unet.prediction.outputs import Prediction
from keras_unet.report.pictures import grey_picture, label_picture

if TYPE_CHECKING:
    from keras_unet.runs import ModelInfo
    from keras_unet.serving.models import Version

FILES, FILE_INPUT = "classify_bytes", "image_bytes"

_MOST = int(np.iinfo(np.uint16).max)  # label values of a PNG of 16 bits
_COLORS = ("RGB", "RGBA", "P")  # modes of Pillow that are shown in color
_GREY = {"LA": "L", "1": "L"}  # modes of Pillow that NumPy does not read as grey values


def segment_file(version: Version, file: bytes) -> dict[str, Any]:
    """Segments an image file, and draws the result.

    Args:
        version: Version of a model.
        file: Content of a PNG or JPEG file.

    Returns:
        For JSON: `cells`, their number, or None for a model of classes; `classes`, the names of the
        classes; `height` and `width`; and PNG files as base64, `image`, `overlay`, of colors on a
        transparent background, and `labels`, of 16 bits, or None if there are more labels.

    Raises:
        ValueError: If the model cannot be used, or refuses the file.
    """
    info = version.info
    if info is None or FILES not in version.functions:
        raise ValueError(
            f"The page needs a model with the signatures about and {FILES}, which keras-unet "
            "export writes for images of 1 or 3 channels; use its other signatures by a client"
        )
    labels = _labels_of(version, info, file)
    has_instances = info.encoding.kind == "instances"
    return {
        "cells": len(np.unique(labels[labels != 0])) if has_instances else None,
        "classes": list(info.encoding.names),
        "height": labels.shape[0],
        "width": labels.shape[1],
        "image": _png(_shown(file)),
        "overlay": _png(_overlay(labels)),
        "labels": _png(labels.astype(np.uint16)) if labels.max(initial=0) <= _MOST else None,
    }


def _labels_of(version: Version, info: ModelInfo, file: bytes) -> NDArray[Any]:
    files = {FILE_INPUT: np.array([file], object)}
    (text,) = version.run(FILES, files)["probabilities_bytes"]
    prediction = Prediction.of(np.asarray(read_tensor(text)))
    if info.encoding.kind == "instances":
        return prediction.instances(info.instances)
    return info.encoding.from_classes(prediction.classes)


def _shown(file: bytes) -> NDArray[np.uint8]:
    """Decodes an image for the eye: colors as they are, grey values with stretched contrast."""
    with Image.open(io.BytesIO(file)) as image:
        if image.mode in _COLORS:
            return np.asarray(image.convert("RGB"))
        return grey_picture(np.asarray(image.convert(_GREY.get(image.mode, image.mode))))[..., 0]


def _overlay(labels: NDArray[Any]) -> NDArray[np.uint8]:
    opaque = np.where(labels == 0, 0, 255).astype(np.uint8)
    return np.dstack([label_picture(labels), opaque])


def _png(pixels: NDArray[Any]) -> str:
    """Encodes pixels as a PNG file in base64."""
    file, metadata = io.BytesIO(), PngInfo()
    metadata.add_text("Software", SOFTWARE)
    Image.fromarray(pixels).save(file, "PNG", compress_level=1, pnginfo=metadata)
    return base64.b64encode(file.getvalue()).decode()
