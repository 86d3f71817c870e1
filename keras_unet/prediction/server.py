"""Segmenter on a model server: the server has the network, and this process the files.

The model says of itself what its classes mean and by which rule cells are made of probabilities;
from there on the code is that of a prediction by a run. TensorFlow is not imported.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_unet.client import TIMEOUT, Client, Tensor
from keras_unet.data.images import ImageFile, as_channels, orientation_of, pixels_of
from keras_unet.prediction.outputs import Prediction
from keras_unet.prediction.predict import average_over_views
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.runs import ModelInfo

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@dataclass(frozen=True, eq=False)
class ServedSegmenter(Segmenter):
    """A model on a server, which tiles and normalizes by itself.

    PNG and JPEG files are sent whole, one at a time; all others, and very large ones, as float32
    pixels.

    Attributes:
        client: The connection.
        most_pixels: Pixels of the largest file that the server decodes.
    """

    client: Client
    most_pixels: int

    predicts_tiles: ClassVar[bool] = False

    def with_precision(self, precision: str) -> Self:
        """Refuses a precision, which was chosen when the model was exported."""
        raise ValueError(
            f"precision is that of {self.client.address}, chosen when it was exported. "
            f"Received: {precision!r}; leave it out"
        )

    def check_tile_size(self, tile_size: int | None) -> None:
        """Refuses a tile size, which was chosen when the model was exported."""
        if tile_size is not None:
            raise ValueError(
                f"tile_size is that of {self.client.address}, chosen when it was exported. "
                f"Received: {tile_size}; leave it out"
            )

    def predict_pixels(
        self,
        pixels: NDArray[Any],
        path: Path,
        *,
        tile_size: int | None = None,
        tta: bool = False,
    ) -> NDArray[np.float32]:
        """Predicts raw pixels, see `Segmenter`; test-time augmentation takes eight requests."""
        self.check_tile_size(tile_size)
        sent = self._sent(pixels, path)
        ask = partial(self._asked, output="probabilities")
        return average_over_views(ask, sent) if tta else ask(sent)

    def predict_planes(
        self,
        path: Path,
        image: ImageFile,
        *,
        tile_size: int | None = None,
        tta: bool = False,
        needs_probabilities: bool = True,
    ) -> Iterator[Prediction]:
        """Predicts the planes of an image file, see `Segmenter`."""
        content = path.read_bytes()
        if not tta and _is_decoded_alike(path, content, self.most_pixels):
            yield self._of_file(content, needs_probabilities)
            return
        for pixels in image.planes:
            if needs_probabilities or tta:
                yield Prediction.of(self.predict_pixels(pixels, path, tile_size=tile_size, tta=tta))
            else:
                yield _of_classes(self._asked(self._sent(pixels, path), "classes"))

    def _of_file(self, content: bytes, needs_probabilities: bool) -> Prediction:
        if needs_probabilities:
            return Prediction.of(np.asarray(self.client.probabilities([content])[0]))
        return _of_classes(imagecodecs.png_decode(self.client.classify([content])[0]))

    def _sent(self, pixels: NDArray[Any], path: Path) -> NDArray[np.float32]:
        return pixels_of(as_channels(pixels, self.info.architecture.channels, path), path)

    def _asked(self, pixels: NDArray[np.float32], output: str) -> NDArray[Any]:
        answer = self.client.predict(
            "serving_default", {"image": Tensor.of(pixels[None])}, [output]
        )
        result: NDArray[Any] = np.asarray(answer[output])[0]
        return result


def connect(server: str, timeout: float = TIMEOUT) -> ServedSegmenter:
    """Connects to a model server, and reads the facts of its model.

    Args:
        server: grpc://HOST:PORT/MODEL or http://HOST:PORT/v1/models/MODEL; @VERSION or @LABEL may
            follow MODEL.
        timeout: Seconds to wait for each answer.

    Raises:
        ValueError: If the address is none, or the model is not one of this package.
        OSError: If the server cannot be reached or does not answer in time.
        ImportError: If grpcio is needed and missing.
    """
    client = Client(server, timeout=timeout)
    try:
        about = client.about()
        return ServedSegmenter(ModelInfo.from_dict(about), (), client, int(about["most_pixels"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{client.address}: expected a model that this version of keras-unet has exported. "
            f"Received one that does not say what it is ({error}); export it again"
        ) from error


def _of_classes(classes: NDArray[np.integer]) -> Prediction:
    return Prediction(classes, np.empty((*classes.shape, 0), np.float32))


def _is_decoded_alike(path: Path, content: bytes, most_pixels: int) -> bool:
    """Tells whether the graph reads the very pixels of a file that are read here.

    It takes no larger ones, follows no orientation (EXIF), and rounds otherwise what printers'
    colours are on a screen.
    """
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
