"""Exports a model as a .tflite file of one fixed tile size, for phones and microscopes.

In: `tile`, float32 (1, tile_size, tile_size, channels), normalized. Out: `logits`, float32
(1, output_size, output_size, classes). Logits rather than probabilities: their largest is the class
without any exponential, and in int8 a softmax would round a second time, to steps of 1/256.

The shape is fixed, so that memory is planned before the first tile and accelerators take the whole
graph. The tiling is in the file's metadata, JSON named `keras_unet.json`; export/README.md explains
how to use it.
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
from keras_unet.export.parity import LARGEST, MEAN, Measure, predict_by_tflite, write_and_compare
from keras_unet.files import PathLike, check_new_file, write_then_move
from keras_unet.prediction.segmenter import Segmenter
from keras_unet.prediction.tflite import LOGITS, METADATA, TILE, schema
from keras_unet.runs import ModelInfo
from keras_unet.tiling import Tiling, mirrored_window

Mode = Literal["none", "float16", "dynamic", "int8"]

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # bytes, required by the schema for every buffer; flatbuffers aligns to one


TOLERANCES: dict[Mode, tuple[Measure, float]] = {
    "none": (LARGEST, 1e-5),
    "float16": (LARGEST, 2e-2),
    "dynamic": (MEAN, 5e-2),
    "int8": (MEAN, 1e-1),
}
"""Measure of the difference between export and model, and its tolerance.

Rounding to int8 moves the border of a cell by a fraction of a pixel, where any probability may
occur; so the mean difference is checked rather than the largest. It detects broken exports, such as
one that predicts a single class, but not bad ones: `python -m benchmarks.tflite` measures the score
on images held out.
"""

TILES = 16
"""Number of representative tiles; more take longer without a measured gain."""

_QUANTILES = (0.1, 0.9)
"""Range of the tiles' peak values from which representative tiles are chosen.

One very bright speck would stretch the range of int8, and leave few of its 256 steps for the grey
values of all other images.
"""


@dataclass(frozen=True)
class Quantization:
    """Number types of weights and computations.

    Attributes:
        mode: "none": float32. "float16": weights are stored in float16 and computed in float32 or,
            on a GPU, in float16. "dynamic": weights are stored in int8, and activations are
            rounded to int8 by a range of each tile. "int8": everything is int8, by ranges of
            representative tiles, for accelerators and microcontrollers without floating point.
        int8_io: Whether tile and logits are int8 as well, which saves two conversions. The client
            scales them by the numbers in the metadata.

    Raises:
        ValueError: If the mode is unknown, or `int8_io` is set in another mode than "int8".
    """

    mode: Mode = "none"
    int8_io: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.mode not in get_args(Mode):
            raise ValueError(
                f"quantize must be one of {', '.join(get_args(Mode))}. Received: {self.mode!r}"
            )
        if self.int8_io and self.mode != "int8":
            raise ValueError(
                f'int8_io needs quantize="int8". Received: quantize="{self.mode}"; leave int8_io '
                "out to have float32 tiles and logits"
            )


def export_tflite(
    segmenter: Segmenter,
    out: Path,
    *,
    tile_size: int | None = None,
    quantize: Mode = "none",
    int8_io: bool = False,
    data: PathLike | None = None,
) -> Path:
    """Exports a model as a .tflite file, see `export_model`.

    Args:
        segmenter: The model.
        out: File to write; its name ends in .tflite.
        tile_size: Height and width of the input tile in pixels; None for 512 useful pixels.
        quantize: "none" keeps float32, "float16" halves the size, "dynamic" and "int8" reduce it to
            a quarter; see `Quantization`.
        int8_io: Whether tile and logits are int8 too; only with "int8".
        data: Data folder of the training, for "int8", to choose value ranges; None for the recorded
            one.

    Returns:
        The file written.
    """
    info, data = segmenter.info, None if data is None else Path(data)
    quantization = Quantization(quantize, int8_io)
    tiling = GraphTiling.of(info.architecture, tile_size)
    check_new_file(out, ".tflite")
    if data is not None and quantize != "int8":
        raise ValueError(
            f'data is for quantize="int8" only. Received: quantize="{quantize}"; leave it out'
        )
    tiles = _representative_tiles(info, tiling, data) if quantize == "int8" else []
    measure, tolerance = TOLERANCES[quantize]
    write_and_compare(
        segmenter,
        write_then_move(out),
        partial(write_tflite, quantization=quantization, tiles=tiles),
        predict_by_tflite,
        tolerance,
        tiling=tiling,
        measure=measure,
    )
    return out


def write_tflite(
    path: Path,
    metadata: ExportMetadata,
    network: Any,
    quantization: Quantization,
    tiles: Sequence[NDArray[np.float32]] = (),
) -> None:
    """Writes a .tflite file.

    Args:
        path: File to write.
        metadata: Metadata of the export, with its tiling.
        network: The Keras network, in float32.
        quantization: Number types.
        tiles: Representative normalized tiles `(tile_size, tile_size, channels)`, for int8 only.

    Raises:
        RuntimeError: If TensorFlow's converter fails.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(_fixed_size_model(network, metadata))
    _OPTIONS[quantization.mode](converter, tiles)
    if quantization.int8_io:
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(_with_metadata(_convert(converter), metadata, quantization))


def _fixed_size_model(network: Any, metadata: ExportMetadata) -> Any:
    size, channels = metadata.tiling.tile_size, metadata.info.architecture.channels
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


def _convert(converter: Any) -> bytes:
    """Converts without the log messages of the converter."""
    with quiet_stderr(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        content: bytes = converter.convert()
        return content


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers is untyped
    """Aligns weights, as some processors require."""

    def CreateNumpyVector(self, x: NDArray[Any]) -> Any:  # noqa: N802 - name in flatbuffers
        """Writes an aligned vector."""
        self.Prep(_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)


def _with_metadata(content: bytes, metadata: ExportMetadata, quantization: Quantization) -> bytes:
    parts = schema()
    model = parts.ModelT.InitFromPackedBuf(content)
    text = json.dumps(_metadata(model.subgraphs[0], metadata, quantization), ensure_ascii=False)
    buffer, entry = parts.BufferT(), parts.MetadataT()
    buffer.data = np.frombuffer(text.encode("utf-8", "backslashreplace"), np.uint8)
    entry.name, entry.buffer = METADATA, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    builder = _Builder(len(content))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _metadata(graph: Any, metadata: ExportMetadata, quantization: Quantization) -> dict[str, Any]:
    network, tiling, entries = metadata.info.architecture, metadata.tiling, metadata.to_dict()
    entries["network"] |= {
        "output_size": network.output_size(tiling.tile_size),
        "skip": network.context - network.margin,
        "stride": tiling.useful // network.step * network.step,
    }
    return entries | {
        "input": _tensor_entries(TILE, graph.tensors[graph.inputs[0]]),
        "output": _tensor_entries(LOGITS, graph.tensors[graph.outputs[0]]),
        "quantize": quantization.mode,
    }


def _tensor_entries(name: str, tensor: Any) -> dict[str, Any]:
    entries = {"name": name, "shape": tensor.shape.tolist(), "dtype": "float32"}
    if tensor.type != schema().TensorType.INT8:
        return entries
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    return entries | {"dtype": "int8", "scale": float(scale), "zero_point": int(zero)}


def _representative_tiles(
    info: ModelInfo, tiling: GraphTiling, data: Path | None
) -> list[NDArray[np.float32]]:
    """Cuts normalized tiles from the training images, at even ranks of their peak value."""
    size = (tiling.tile_size,) * 2
    windows = [
        (image, tile.read)
        for image in _training_images(info, data)
        for tile in Tiling.covering(image.shape[:2], info.architecture, size)
    ]
    peaks = [np.abs(mirrored_window(image, *read)).max() for image, read in windows]
    ranks = np.quantile(np.arange(len(windows)), np.linspace(*_QUANTILES, min(TILES, len(windows))))
    chosen = np.argsort(peaks)[ranks.round().astype(int)]
    return [mirrored_window(image, *read) for image, read in (windows[index] for index in chosen)]


def _training_images(info: ModelInfo, data: Path | None) -> list[NDArray[np.float32]]:
    """Returns the normalized training images, or all of `data` if their names are not recorded."""
    folder, recorded = data or info.data_folder, info.record.get("options", {})
    if folder is None or not folder.is_dir():
        raise FileNotFoundError(
            f"{folder or info.name}: no such folder. Expected the data that the run was trained "
            "on, to choose the value ranges of int8; give its folder by data (--data)"
        )
    samples = read_samples(
        folder,
        labels=info.encoding.kind,
        ignore=info.encoding.ignore,
        unlabelled=info.encoding.unlabelled,
        allow_empty=True,
        axes=recorded.get("axes"),
        channels=info.channels,
        groups="none",
    ).samples
    names = (
        info.record["data"]["training"] if info.data_folder else [sample.name for sample in samples]
    )
    images = [sample.image for sample in samples if sample.name in names]
    if not images:
        raise ValueError(
            f"{folder}: expected images that the run was trained on. Received none of them; give "
            "their folder by data (--data)"
        )
    return [info.normalization.apply(image) for image in images]
