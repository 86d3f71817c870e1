"""A .tflite file of one fixed tile, for phones and the computers of microscopes.

In: `tile`, float32 (1, tile_size, tile_size, channels), normalized. Out: `logits`, float32
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
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras, tf
from keras_unet.console import quiet_stderr
from keras_unet.data.samples import read_samples
from keras_unet.export.graph import GraphTiling
from keras_unet.export.metadata import ExportMetadata
from keras_unet.export.parity import LARGEST, MEAN, Measure, answer_of_tflite, write_and_compare
from keras_unet.files import PathLike, check_new_file, write_then_move
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.prediction.tflite import LOGITS, METADATA, TILE, schema
from keras_unet.runs import ModelInfo
from keras_unet.tiling import Tiling, mirrored_window

Mode = Literal["none", "float16", "dynamic", "int8"]

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # bytes, as the schema asks of every buffer; Python's builder aligns to one


@dataclass(frozen=True)
class Quantisation:
    """Number types that the file holds and computes with.

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
    artefact: ExportMetadata,
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
        tiles: Normalized tiles `(tile_size, tile_size, channels)` as the training has seen them,
            for int8 alone.

    Raises:
        RuntimeError: If TensorFlow's converter does not take the network.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(_of_one_tile(network, artefact))
    _OPTIONS[quantisation.mode](converter, tiles)
    if quantisation.int8_io:
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(_with_metadata(_converted(converter), artefact, quantisation))


def _of_one_tile(network: Any, artefact: ExportMetadata) -> Any:
    size, channels = artefact.tiling.tile_size, artefact.info.architecture.channels
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
    with quiet_stderr(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        converted: bytes = converter.convert()
        return converted


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers is untyped
    """Keeps the weights where processors that are strict about it can read them."""

    def CreateNumpyVector(self, x: NDArray[Any]) -> Any:  # noqa: N802 - its name there
        """Aligns the vector's first number."""
        self.Prep(_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)


def _with_metadata(content: bytes, artefact: ExportMetadata, quantisation: Quantisation) -> bytes:
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


def _metadata(graph: Any, artefact: ExportMetadata, quantisation: Quantisation) -> dict[str, Any]:
    network, tiling, metadata = artefact.info.architecture, artefact.tiling, artefact.metadata
    metadata["network"] |= {
        "output_size": network.output_size(tiling.tile_size),
        "skip": network.context - network.margin,
        "stride": tiling.useful // network.step * network.step,
    }
    return metadata | {
        "input": _described(TILE, graph.tensors[graph.inputs[0]]),
        "output": _described(LOGITS, graph.tensors[graph.outputs[0]]),
        "quantize": quantisation.mode,
    }


def _described(name: str, tensor: Any) -> dict[str, Any]:
    described = {"name": name, "shape": tensor.shape.tolist(), "dtype": "float32"}
    if tensor.type != schema().TensorType.INT8:
        return described
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    return described | {"dtype": "int8", "scale": float(scale), "zero_point": int(zero)}


ALLOWED: dict[Mode, tuple[Measure, float]] = {
    "none": (LARGEST, 1e-5),
    "float16": (LARGEST, 2e-2),
    "dynamic": (MEAN, 5e-2),
    "int8": (MEAN, 1e-1),
}
"""Difference allowed between an export and its run.

Numbers rounded to int8 move the border of a cell by a fraction of a pixel. A pixel there may then
have any probability, so the largest difference tells nothing, and the mean is held against a limit.
The limit is for what is broken (an answer of one class alone is far beyond it), not for what is
good: only the score on images held out says that, and `python -m benchmarks.tflite` measures it.
"""

TILES = 16
"""Representative tiles: more take longer and, as measured, gain nothing."""

_USUAL = (0.1, 0.9)
"""Ranks of the usual tiles.

One very bright speck would stretch the range of int8 for all images, and their own grey values
would share what few of its 256 steps are left.
"""


def export_tflite(
    segmenter: Segmenter,
    out: Path,
    *,
    tile_size: int | None = None,
    quantize: Mode = "none",
    int8_io: bool = False,
    data: PathLike | None = None,
) -> Path:
    """Exports a model as a .tflite file of one tile, which says how to tile with it.

    See `export_model`.

    Args:
        segmenter: The model.
        out: File to write; its name ends in .tflite.
        tile_size: Height and width of the tile in pixels; None for one that fills 512.
        quantize: "none" keeps float32, "float16" halves the file, "dynamic" and "int8" make it a
            quarter; `keras_unet.export.tflite.Quantisation` says how each computes.
        int8_io: Whether tile and logits are int8 too; with "int8".
        data: The data folder of the training, for "int8", which measures training images; None
            for where it was then.

    Returns:
        The file written.
    """
    info, data = segmenter.info, None if data is None else Path(data)
    quantisation = Quantisation(quantize, int8_io)
    tiling = GraphTiling.of(info.architecture, tile_size)
    check_new_file(out, ".tflite")
    if data is not None and quantize != "int8":
        raise ValueError(
            f'data is looked at for quantize="int8". Received: quantize="{quantize}"; leave it out'
        )
    tiles = _representative_tiles(info, tiling, data) if quantize == "int8" else []
    measure, tolerance = ALLOWED[quantize]
    write_and_compare(
        segmenter,
        write_then_move(out),
        partial(write_tflite, quantisation=quantisation, tiles=tiles),
        answer_of_tflite,
        tolerance,
        tiling=tiling,
        measure=measure,
    )
    return out


def _representative_tiles(
    info: ModelInfo, tiling: GraphTiling, data: Path | None
) -> list[NDArray[np.float32]]:
    """Cuts usual tiles from the run's training images, normalized.

    All tiles are ranked by their largest normalized grey value, and some are taken at even
    distances of rank, the extremes left out.
    """
    size = (tiling.tile_size,) * 2
    places = [
        (image, tile.read)
        for image in _training_images(info, data)
        for tile in Tiling.covering(image.shape[:2], info.architecture, size)
    ]
    peaks = [np.abs(mirrored_window(image, *read)).max() for image, read in places]
    ranks = np.quantile(np.arange(len(places)), np.linspace(*_USUAL, min(TILES, len(places))))
    chosen = np.argsort(peaks)[ranks.round().astype(int)]
    return [mirrored_window(image, *read) for image, read in (places[one] for one in chosen)]


def _training_images(info: ModelInfo, data: Path | None) -> list[NDArray[np.float32]]:
    """Reads the training images, normalized; all in `data`, if they came from no folder."""
    folder, recorded = data or info.data_folder, info.record.get("options", {})
    if folder is None or not folder.is_dir():
        raise FileNotFoundError(
            f"{folder or info.name}: no such folder. Expected the data that the run was trained "
            "on, by whose images the ranges of int8 are found; say where they are by data (--data)"
        )
    found = read_samples(
        folder,
        labels=info.encoding.kind,
        ignore=info.encoding.ignore,
        allow_empty=True,
        axes=recorded.get("axes"),
    ).samples
    names = info.record["data"]["training"] if info.data_folder else [one.name for one in found]
    images = [one.image for one in found if one.name in names]
    if not images:
        raise ValueError(
            f"{folder}: expected images that the run was trained on. Received none of them; say "
            "where they are by data (--data)"
        )
    return [info.normalization.apply(image) for image in images]
