"""Segmenter of a model server, which runs the network; this process reads and writes the files.

Labels and instance options are read from the metadata of the served model. TensorFlow is not
imported.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_unet.client import TIMEOUT, Client, Tensor
from keras_unet.data.images import ImageFile, as_channels, orientation_of, pixels_of
from keras_unet.prediction.outputs import Prediction
from keras_unet.prediction.predict import average_over_views
from keras_unet.prediction.scale import Scale
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import ModelInfo

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@dataclass(frozen=True, eq=False)
class ServedSegmenter(Segmenter):
    """A model on a server, which normalizes and tiles the images.

    PNG and JPEG files are sent as they are, one at a time; large ones, and files of other formats,
    as float32 pixels.

    Attributes:
        client: Connection to the server.
        most_pixels: Pixels of the largest file that the server decodes.
    """

    client: Client
    most_pixels: int

    predicts_tiles: ClassVar[bool] = False

    def with_precision(self, precision: str) -> Self:
        """Raises ValueError: the precision was chosen when the model was exported."""
        raise ValueError(
            f"precision is that of {self.client.address}, chosen when it was exported. "
            f"Received: {precision!r}; leave it out"
        )

    def check_tile_size(self, tile_size: int | None) -> None:
        """Raises ValueError for any but None: the export chose the tile size."""
        if tile_size is not None:
            raise ValueError(
                f"tile_size is that of {self.client.address}, chosen when it was exported. "
                f"Received: {tile_size}; leave it out"
            )

    def check_scale(self, scale: Scale | str) -> float | Literal["auto"]:
        """Raises ValueError for any but "off" and 1: the server labels no cells."""
        factor = super().check_scale(scale)
        if factor != 1:
            raise ValueError(
                f"scale must be off for {self.client.address}. Received: {scale}; predict with the "
                "run, or send pixels and scale to the signature scaled"
            )
        return factor

    def _predict_plane(
        self, pixels: NDArray[Any], path: Path, tile_size: int | None, tta: bool, scale: float
    ) -> Prediction:
        self.check_scale(scale)
        self.check_tile_size(tile_size)
        image = self._as_input(pixels, path)
        request = partial(self._request, output="probabilities")  # eight times for the average
        return Prediction.of(average_over_views(request, image) if tta else request(image))

    def predict_planes(
        self,
        path: Path,
        image: ImageFile,
        *,
        tile_size: int | None = None,
        tta: bool = False,
        scale: float = 1.0,
        needs_probabilities: bool = True,
    ) -> Iterator[Prediction]:
        """Predicts the planes of an image file, see `Segmenter`."""
        self.check_scale(scale)
        content = path.read_bytes()
        if not tta and _can_send_file(path, content, self.most_pixels):
            yield self._predict_file(content, needs_probabilities)
            return
        for pixels in image.planes:
            if needs_probabilities or tta:
                yield self._predict_plane(pixels, path, tile_size, tta, scale)
            else:
                yield _class_prediction(self._request(self._as_input(pixels, path), "classes"))

    def _predict_file(self, content: bytes, needs_probabilities: bool) -> Prediction:
        if needs_probabilities:
            return Prediction.of(np.asarray(self.client.probabilities([content])[0]))
        return _class_prediction(imagecodecs.png_decode(self.client.classify([content])[0]))

    def _as_input(self, pixels: NDArray[Any], path: Path) -> NDArray[np.float32]:
        return pixels_of(as_channels(pixels, self.info.architecture.channels, path), path)

    def _request(self, pixels: NDArray[np.float32], output: str) -> NDArray[Any]:
        response = self.client.predict(
            "serving_default", {"image": Tensor.of(pixels[None])}, [output]
        )
        result: NDArray[Any] = np.asarray(response[output])[0]
        return result


def connect(server: str, timeout: float = TIMEOUT) -> ServedSegmenter:
    """Connects to a model server, and reads the metadata of its model.

    Args:
        server: Address, grpc://HOST:PORT/MODEL or http://HOST:PORT/v1/models/MODEL; @VERSION or
            @LABEL may follow MODEL.
        timeout: Time in seconds to wait for each response.

    Raises:
        ValueError: If the address is malformed, or this package did not export the model.
        OSError: If the server cannot be reached or does not respond in time.
        ImportError: If grpcio is needed and missing.
    """
    client = Client(server, timeout=timeout)
    try:
        metadata = client.about()
        info = ModelInfo.from_dict(metadata)
        return ServedSegmenter(info, (), client, int(metadata["most_pixels"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{client.address}: expected a model that this version of keras-unet has exported. "
            f"Received one without valid metadata ({error}); export it again"
        ) from error


def _class_prediction(classes: NDArray[np.integer]) -> Prediction:
    return Prediction(classes, np.empty((*classes.shape, 0), np.float32))


def _can_send_file(path: Path, content: bytes, most_pixels: int) -> bool:
    """Returns whether the server decodes a file to the same pixels as this process."""
    # TensorFlow ignores the EXIF orientation and rounds CMYK colors differently.
    if content.startswith(_PNG):
        width, height = struct.unpack(">II", content[16:24])
        is_turned = b"eXIf" in content and orientation_of(path) != 1
        return width * height <= most_pixels and not is_turned
    if not content.startswith(_JPEG):
        return False
    with Image.open(io.BytesIO(content)) as image:
        return (
            image.mode != "CMYK"
            and orientation_of(path) == 1
            and image.width * image.height <= most_pixels
        )
