"""A .tflite file of one fixed tile, for phones and the computers of microscopes.

In: `tile`, float32 (1, tile_size, tile_size, channels), standardised. Out: `logits`, float32
(1, output_size, output_size, classes). Logits rather than probabilities: the class is their largest
without any exponential, averages over tiles or symmetries start from them, and in int8 a softmax
would round a second time, to steps of 1/256.

The shape is fixed, so that memory is planned before the first tile and accelerators take the whole
graph. What tiling needs stands in the file's own metadata, as JSON named `keras_unet.json`; the
README in export/ says how to tile by it.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras, tf
from keras_unet.export.artefact import Artefact
from keras_unet.litert import FORMAT, LOGITS, METADATA, TILE, schema
from keras_unet.quiet import compiled_code_quiet

Mode = Literal["none", "float16", "dynamic", "int8"]

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # bytes, as the schema asks of every buffer; Python's builder aligns to one


@dataclass(frozen=True)
class Quantisation:
    """What numbers the file holds and computes with.

    Attributes:
        mode: "none": float32. "float16": weights are stored in half the bytes, and computed with
            in float32 or, on a GPU, in float16. "dynamic": weights are stored in int8, and grey
            values are rounded to int8 on the way, by a range found for each tile. "int8": all is
            int8, by ranges found beforehand on representative tiles; accelerators and
            microcontrollers that have integers alone take it.
        int8_io: Whether tile and logits are int8 as well, which saves two conversions. The client
            scales them by the numbers in the metadata.

    Raises:
        ValueError: If the mode is unknown, or tile and logits are to be int8 in another mode.
    """

    mode: Mode = "none"
    int8_io: bool = False

    def __post_init__(self) -> None:
        """Refuses what TFLite does not know."""
        if self.mode not in get_args(Mode):
            raise ValueError(
                f"quantize must be of {', '.join(get_args(Mode))}. Received: {self.mode!r}"
            )
        if self.int8_io and self.mode != "int8":
            raise ValueError(
                f'int8_io needs quantize="int8". Received: quantize="{self.mode}"; leave int8_io '
                "out, and tile and logits are float32"
            )


def write_tflite(
    path: Path,
    artefact: Artefact,
    network: Any,
    quantisation: Quantisation,
    tiles: Sequence[NDArray[np.float32]] = (),
) -> None:
    """Writes the file.

    Args:
        path: File to write.
        artefact: What it says of itself, and the tile.
        network: The Keras network, in float32.
        quantisation: What numbers it holds.
        tiles: Standardised tiles `(tile_size, tile_size, channels)` as the training has seen them,
            for int8 alone.

    Raises:
        RuntimeError: If TensorFlow's converter does not take the network.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(_of_one_tile(network, artefact))
    _OPTIONS[quantisation.mode](converter, tiles)
    if quantisation.int8_io:
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(_with_metadata(_converted(converter), artefact, quantisation))


def _of_one_tile(network: Any, artefact: Artefact) -> Any:
    size, channels = artefact.tiling.tile_size, artefact.run.architecture.channels
    tile = keras.Input(batch_shape=(1, size, size, channels), name=TILE)
    return keras.Model(tile, {LOGITS: network(tile)})


def _half(converter: Any, _: Sequence[Any]) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: Any, _: Sequence[Any]) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _integer(converter: Any, tiles: Sequence[NDArray[np.float32]]) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: ([tile[None]] for tile in tiles)


_OPTIONS: Mapping[Mode, Callable[[Any, Sequence[Any]], None]] = {
    "none": lambda *_: None,
    "float16": _half,
    "dynamic": _dynamic,
    "int8": _integer,
}


def _converted(converter: Any) -> bytes:
    """Converts without the converter's talk of where it keeps what, and of its inner types."""
    with compiled_code_quiet(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        converted: bytes = converter.convert()
        return converted


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers is untyped
    """Keeps the weights where processors that are strict about it can read them."""

    def CreateNumpyVector(self, x: NDArray[Any]) -> Any:  # noqa: N802 - its name there
        """Aligns the vector's first number."""
        self.Prep(_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)


def _with_metadata(content: bytes, artefact: Artefact, quantisation: Quantisation) -> bytes:
    parts = schema()
    model = parts.ModelT.InitFromPackedBuf(content)
    text = json.dumps(_metadata(model.subgraphs[0], artefact, quantisation), ensure_ascii=False)
    buffer, entry = parts.BufferT(), parts.MetadataT()
    buffer.data = np.frombuffer(text.encode("utf-8", "backslashreplace"), np.uint8)
    entry.name, entry.buffer = METADATA, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    builder = _Builder(len(content))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _metadata(graph: Any, artefact: Artefact, quantisation: Quantisation) -> dict[str, Any]:
    network, tiling = artefact.run.architecture, artefact.tiling
    provenance = artefact.provenance
    return {
        "format": FORMAT,
        "network": artefact.geometry
        | {
            "output_size": network.output_size(tiling.tile_size),
            "skip": network.context - network.margin,
            "stride": tiling.useful // network.step * network.step,
        },
        "input": _described(TILE, graph.tensors[graph.inputs[0]]),
        "output": _described(LOGITS, graph.tensors[graph.outputs[0]]),
        "quantize": quantisation.mode,
        "standardisation": artefact.run.standardisation.to_dict(),
        "classes": artefact.classes,
        "labels": provenance.pop("labels"),
        "rule": provenance.pop("rule"),
        "provenance": provenance,
    }


def _described(name: str, tensor: Any) -> dict[str, Any]:
    described = {"name": name, "shape": tensor.shape.tolist(), "dtype": "float32"}
    if tensor.type != schema().TensorType.INT8:
        return described
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    return described | {"dtype": "int8", "scale": float(scale), "zero_point": int(zero)}
