"""From image files to label images of the same size, by a model server in the place of a run.

The model says of itself what its classes mean and by which rule cells are made of probabilities;
from there on the code is that of a prediction by a run. TensorFlow is not imported.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_unet.architecture import Architecture
from keras_unet.client import TIMEOUT, Client, Tensor
from keras_unet.console import track
from keras_unet.data.images import ImageFile, as_channels, orientation_of, pixels_of, read_image
from keras_unet.data.schemes import LabelScheme
from keras_unet.data.standardisation import Standardisation
from keras_unet.files import PathLike, paths_of, printable
from keras_unet.instances.label import InstanceRule
from keras_unet.prediction.labelling import Made, Order, Plane, unread
from keras_unet.prediction.predict import average_over_symmetries
from keras_unet.runs import Run

_log = logging.getLogger(__name__)

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def predict_files_on_server(
    server: str,
    files: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    save: Sequence[str] = (),
    symmetries: bool = False,
    rule: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    timeout: float = TIMEOUT,
    axes: str | None = None,
) -> list[Path]:
    """Predicts image files as `predict_files` does, with the same outputs, on a server.

    PNG and JPEG files are sent whole, one at a time; all others, and very large ones, as float32
    pixels.

    Args:
        server: grpc://HOST:PORT/MODEL or http://HOST:PORT/v1/models/MODEL; @VERSION or @LABEL may
            follow MODEL.
        files: Image files, or folders of them; one path or several.
        out: Folder to write to.
        save: Of "instances", "classes" and "probabilities"; empty for the model's kind of labels.
        symmetries: Whether to average over the eight symmetries of the square, in eight requests.
        rule: Numbers of the `InstanceRule` to take instead of the model's.
        overwrite: As `predict_files`.
        timeout: Seconds to wait for each answer.
        axes: Axes of images that state none, or others, such as "YXC".

    Returns:
        The files written.

    Raises:
        ValueError: As `predict_files`, or if the server refuses a request.
        OSError: As `predict_files`, or if the server cannot be reached or does not answer in time.
        ImportError: If grpcio is needed and missing.
    """
    files, out = paths_of(files), Path(out)
    with Client(server, timeout=timeout) as client:
        run, most_pixels = _served(client)
        order = Order.of(run, files, out, save, rule, overwrite=overwrite)
        for line in unread(files):
            _log.warning(line)
        for path in track(order.images, "checking images"):
            image = read_image(path, palette="colours", axes=axes)
            for note in image.notes:
                _log.warning(f"{printable(path.name)}: {note}")
            for _ in _pixels(order.run, path, image):
                pass  # what does not suit is found here
        needs_probabilities = order.outputs != ("classes",)
        served = _Served(client, run, most_pixels, needs_probabilities, symmetries)

        def make(path: Path) -> Made:
            image = read_image(path, palette="colours", axes=axes)
            return order.make(path, image, served.planes(path, image))

        return order.fulfil(make)


def _served(client: Client) -> tuple[Run, int]:
    """Reads what the model says of itself as the record of a run, and how large files may be."""
    try:
        about = client.about()
        run = Run(
            Path(about["run"]),
            Architecture.from_dict(about["network"]["architecture"]),
            LabelScheme.from_dict(about["labels"]),
            Standardisation.from_dict(about["standardisation"]),
            about["network"]["precision"],
            {},
            InstanceRule.from_dict(about["rule"]),
        )
        most_pixels = int(about["most_pixels"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{client.address}: expected a model that this version of keras-unet has exported. "
            f"Received one that does not say what it is ({error}); export it again"
        ) from error
    return run, most_pixels


def _pixels(run: Run, path: Path, image: ImageFile) -> Iterator[NDArray[np.float32]]:
    """Yields the planes of a file as the model takes them."""
    for plane in image.planes:
        yield pixels_of(as_channels(plane, run.architecture.channels, path), path)


@dataclass(frozen=True)
class _Served:
    client: Client
    run: Run
    most_pixels: int
    needs_probabilities: bool
    symmetries: bool

    def planes(self, path: Path, image: ImageFile) -> Iterator[Plane]:
        """Yields what the model says of each plane of a file."""
        content = path.read_bytes()
        if not self.symmetries and _is_decoded_alike(path, content, self.most_pixels):
            yield self._of_file(content)
            return
        for pixels in _pixels(self.run, path, image):
            if self.symmetries:
                yield Plane.of(average_over_symmetries(self._probabilities, pixels))
            elif self.needs_probabilities:
                yield Plane.of(self._probabilities(pixels))
            else:
                yield _without_probabilities(self._asked(pixels, "classes"))

    def _of_file(self, content: bytes) -> Plane:
        if self.needs_probabilities:
            return Plane.of(np.asarray(self.client.probabilities([content])[0]))
        return _without_probabilities(imagecodecs.png_decode(self.client.classify([content])[0]))

    def _probabilities(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._asked(pixels, "probabilities")

    def _asked(self, pixels: NDArray[np.float32], output: str) -> NDArray[Any]:
        answer = self.client.predict(
            "serving_default", {"image": Tensor.of(pixels[None])}, [output]
        )
        result: NDArray[Any] = np.asarray(answer[output])[0]
        return result


def _without_probabilities(classes: NDArray[np.integer]) -> Plane:
    return Plane(classes, np.empty((*classes.shape, 0), np.float32))


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
