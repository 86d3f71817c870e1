"""Size, speed and accuracy of .tflite files: `python -m benchmarks.tflite NAME RUN DATA`.

RUN is a run or an ensemble, DATA a folder with images/ and labels/ that it was not trained on. The
run is exported as a SavedModel and as .tflite files (none, float16, dynamic, int8) with the same
tile. Each predicts all images; recorded are size, agreement with the SavedModel, and scores. For
speed, each predicts a few whole images alternately with the SavedModel in float32, on all cores;
the result is the median of five ratios. The table goes to `benchmarks/results/tflite-NAME.json`.
"""

from __future__ import annotations

import json
import sys
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.record import RESULTS, origin
from benchmarks.timing import compare
from keras_unet.backend import tf
from keras_unet.data.images import as_channels, image_files, read_planes, stem_of
from keras_unet.evaluation.evaluate import evaluate_folders
from keras_unet.export.export import export_model
from keras_unet.export.tflite import Mode
from keras_unet.files import make_folder, write_json
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.load import load
from keras_unet.prediction.outputs import output_path
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.tflite import load_tflite

_PATH = click.Path(path_type=Path)
MATCHING = 0.5  # IoU threshold of a match


@click.command()
@click.argument("name")
@click.argument("run_folder", metavar="RUN", type=_PATH)
@click.argument("data", type=_PATH)
@click.option("--tile", type=int, help="Input tile in pixels [default: fills 512]")
@click.option("--training", type=_PATH, help="Training data, for int8, if they have moved.")
@click.option(
    "--timed", type=int, default=3, show_default=True, help="Number of images for the timing."
)
def main(
    name: str, run_folder: Path, data: Path, tile: int | None, training: Path | None, timed: int
) -> None:
    """Measures all files, and writes the table."""
    with TemporaryDirectory() as work:
        comparison = Comparison(run_folder, data, Path(work), tile, timed)
        result = {
            "benchmark": f"python -m benchmarks.tflite {' '.join(sys.argv[1:])}",
            **origin(),
            **{package: version(package) for package in ("tensorflow", "ai-edge-litert")},
            "images": [path.name for path in comparison.images],
            "timed": [path.name for path in comparison.images[:timed]],
            "saved_model": comparison.of_saved_model(),
            **{mode: comparison.of_tflite(mode, training) for mode in get_args(Mode)},
        }
    write_json(make_folder(RESULTS) / f"tflite-{name}.json", result)
    print(json.dumps(result, indent=2))


class Comparison:
    """Exports of one run, measured on the same images."""

    def __init__(self, source: Path, data: Path, work: Path, tile: int | None, timed: int) -> None:
        """Loads the run, held-out data, and a working folder."""
        self.source, self.run = source, load(source).info
        self.data, self.work, self.tile = data, work, tile
        self.images = image_files(data / "images")
        seen = {stem_of(path) for path in self.images} & set(self.run.record["data"]["training"])
        if seen:
            raise click.UsageError(f"{data}: the run was trained on {', '.join(sorted(seen))}")
        self.planes = [plane for path in self.images for plane in self._read(path)]
        self.timed = self.planes[:timed]

    def of_saved_model(self) -> dict[str, Any]:
        """Returns size and scores of the SavedModel; the scores are those of the run in float32."""
        files = [path for path in self.saved_model_folder.rglob("*") if path.is_file()]
        return {
            "bytes": sum(path.stat().st_size for path in files),
            "scores": self._scores(self.source, precision="float32"),
        }

    def of_tflite(self, mode: Mode, training: Path | None) -> dict[str, Any]:
        """Returns size, speed, agreement and scores of a .tflite file."""
        path = self.work / f"{mode}.tflite"
        data = training if mode == "int8" else None
        export_model(self.source, path, tile_size=self.tile, quantize=mode, data=data)
        return {
            "bytes": path.stat().st_size,
            **self._speed(path),
            "scores": self._scores(path),
            **self._agreement(mode),
        }

    @cached_property
    def saved_model_folder(self) -> Path:
        """Folder of the exported SavedModel."""
        out = self.work / "saved_model"
        return export_model(self.source, out, precision="float32", tile_size=self.tile)

    @cached_property
    def saved_model(self) -> Any:
        """Loaded SavedModel."""
        return tf.saved_model.load(str(self.saved_model_folder))

    @cached_property
    def expected(self) -> list[NDArray[np.float32]]:
        """Probabilities of all images by the SavedModel."""
        return [self._asked(plane) for plane in self.planes]

    def _read(self, path: Path) -> list[NDArray[np.float32]]:
        planes = read_planes(path, palette="colors")
        channels = self.run.architecture.channels
        return [as_channels(plane, channels, path).astype(np.float32) for plane in planes]

    def _asked(self, image: NDArray[Any]) -> NDArray[np.float32]:
        answer = self.saved_model.signatures["serving_default"](image=tf.constant(image[None]))
        probabilities: NDArray[np.float32] = answer["probabilities"].numpy()[0]
        return probabilities

    def _by_saved_model(self) -> None:
        for image in self.timed:
            self._asked(image)

    def _speed(self, path: Path) -> dict[str, Any]:
        """Times both alternately, after one warm-up call each."""
        network = load_tflite(path)

        def by_tflite() -> None:
            for image in self.timed:
                normalized = self.run.normalize(image, path)
                predict_image(network, normalized, architecture=network.architecture)

        return compare(by_tflite, self._by_saved_model, calls=len(self.timed))

    def _scores(self, source: Path, **options: Any) -> dict[str, float]:
        """Predicts and scores all images."""
        out, kind = self._out(source), self.run.encoding.kind
        saved = (kind, "probabilities")
        predict_files(source, self.images, out, save=saved, **options)
        overall = evaluate_folders(
            out, self.data, kind=kind, ignore=self.run.encoding.ignore
        ).overall
        cells = [one for one in overall.matching if one.threshold == MATCHING]
        scores = {**overall.values, **{f"ap_{MATCHING}": one.ap for one in cells}}
        return {score: round(value, 4) for score, value in scores.items()}

    def _agreement(self, mode: Mode) -> dict[str, float]:
        """Compares the predicted probabilities with those of the SavedModel."""
        answers = self._probabilities(self.work / f"{mode}.tflite")
        pairs = list(zip(answers, self.expected, strict=True))
        differences = np.concatenate([np.abs(one - other).ravel() for one, other in pairs])
        same = [(one.argmax(axis=-1) == other.argmax(axis=-1)).ravel() for one, other in pairs]
        return {
            "mean_absolute_difference": float(f"{differences.mean():.3g}"),
            "largest_difference": float(f"{differences.max():.3g}"),
            "class_agreement": round(float(np.concatenate(same).mean()), 6),
            "class_agreement_of_the_worst_image": round(min(float(one.mean()) for one in same), 6),
        }

    def _probabilities(self, source: Path) -> list[NDArray[np.float32]]:
        out, kind = self._out(source), self.run.encoding.kind
        paths = [output_path(out, stem_of(path), "probabilities", kind) for path in self.images]
        return [plane for path in paths for plane in read_planes(path)]

    def _out(self, source: Path) -> Path:
        return self.work / f"predictions-{source.stem}"


if __name__ == "__main__":
    main()
