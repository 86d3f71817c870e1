"""Networks in .tflite files, run by LiteRT: tiles in, logits out.

`keras-unet export --format tflite` embeds the metadata of the model, `keras_unet.json`, so the file
alone predicts whole images:

    network = load_tflite(path)
    image = network.info.normalize(pixels, image_path)
    probabilities = predict_image(network, image, architecture=network.architecture)

It runs on `ai-edge-litert` without TensorFlow or, if that is not installed, on the interpreter of
TensorFlow. To predict one array, run
`python -m keras_unet.prediction.tflite MODEL.tflite IMAGE.npy PROBABILITIES.npy`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.architecture import Architecture
from keras_unet.console import quiet_stderr
from keras_unet.prediction.predict import predict_image
from keras_unet.runs import FORMAT, ModelInfo

METADATA = "keras_unet.json"
TILE, LOGITS = "tile", "logits"


@dataclass(frozen=True, eq=False)
class LiteNetwork:
    """Network in a .tflite file, a callable from normalized tiles to logits.

    Attributes:
        info: Metadata of the model: architecture, labels, normalization, instances, training.
        metadata: Whole content of the embedded `keras_unet.json`.
        runner: Signature runner of LiteRT.
    """

    info: ModelInfo
    metadata: Mapping[str, Any]
    runner: Any

    @property
    def architecture(self) -> Architecture:
        """Architecture of the network."""
        return self.info.architecture

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of an input tile, `(1, height, width, channels)`."""
        size = self.metadata["network"]["tile_size"]
        return 1, size, size, self.architecture.channels

    def __call__(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        """Maps a normalized tile of `input_shape` to logits, both float32.

        The tile is quantized, and the logits dequantized, for a network of int8.
        """
        quantized = _quantize(tile, self.runner.get_input_details()[TILE])
        logits = self.runner(**{TILE: quantized})[LOGITS]
        return _dequantize(logits, self.runner.get_output_details()[LOGITS])


def load_tflite(path: Path | str, *, threads: int | None = None) -> LiteNetwork:
    """Loads a file that `keras-unet export --format tflite` wrote.

    Args:
        path: Path of the file.
        threads: Number of threads to compute with; None for one per core.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a TFLite file, or has no metadata of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Expected a .tflite file that keras-unet export writes"
        )
    content = path.read_bytes()
    interpreter = _interpreter(path, content, threads or os.cpu_count() or 1)
    try:
        metadata = json.loads(_embedded(content))
        info = ModelInfo.from_dict(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a .tflite file that keras-unet export writes, with {METADATA} of "
            f"format {FORMAT} in its metadata. Received one without ({type(error).__name__}: "
            f"{error}); export the run again"
        ) from error
    return LiteNetwork(info, metadata, interpreter.get_signature_runner())


def schema() -> Any:
    """Returns the FlatBuffers classes of a .tflite file."""
    return import_module(f"{_package()}.schema_py_generated")


def _package() -> str:
    return "ai_edge_litert" if find_spec("ai_edge_litert") else "tensorflow.lite.python"


def _interpreter(path: Path, content: bytes, threads: int) -> Any:
    try:
        with quiet_stderr(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
            runtime = import_module(f"{_package()}.interpreter")
            interpreter = runtime.Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected a .tflite file that keras-unet export writes. Received one that "
            f"LiteRT cannot load ({reason}); copy it again, or export the run again"
        ) from error
    return interpreter


def _embedded(content: bytes) -> bytes:
    model = schema().Model.GetRootAsModel(content)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() == METADATA.encode():
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
    raise KeyError(METADATA)


def _quantize(tile: NDArray[Any], details: Mapping[str, Any]) -> NDArray[Any]:
    dtype, (scale, zero) = np.dtype(details["dtype"]), details["quantization"]
    if dtype != np.int8:
        return np.asarray(tile, dtype)
    levels: NDArray[Any] = np.clip(np.rint(np.asarray(tile) / scale) + zero, -128, 127)
    return levels.astype(np.int8)


def _dequantize(logits: NDArray[Any], details: Mapping[str, Any]) -> NDArray[np.float32]:
    values = logits.astype(np.float32)
    if logits.dtype == np.int8:
        scale, zero = details["quantization"]
        values = (values - np.float32(zero)) * np.float32(scale)
    return values


def main(arguments: Sequence[str]) -> None:
    """Predicts an array of raw pixels `(height, width, channels)` and writes the probabilities."""
    model, image, out = map(Path, arguments)
    network = load_tflite(model)
    normalized = network.info.normalize(np.load(image), image)
    np.save(out, predict_image(network, normalized, architecture=network.architecture))


if __name__ == "__main__":
    main(sys.argv[1:])
