"""The formats of `keras-unet export`: which job writes each, and which options belong to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A format to export to.

    Attributes:
        name: Its name on the command line.
        module: Module of the job; it imports TensorFlow.
        job: The job, a function of a run's folder, where to write, and the options.
        options: Names of the options it takes.
    """

    name: str
    module: str
    job: str
    options: tuple[str, ...]

    def check_options(self, given: Iterable[str], flags: Mapping[str, str]) -> None:
        """Refuses options of other formats.

        Args:
            given: Names of the options given.
            flags: What each option is called on the command line.

        Raises:
            ValueError: If one of them is not the format's.
        """
        strange = [flags[name] for name in given if name not in self.options]
        if strange:
            raise ValueError(
                f"--format {self.name} takes {', '.join(flags[name] for name in self.options)}. "
                f"Received {', '.join(strange)}; leave out what belongs to other formats"
            )


_ALL = (
    Format(
        "saved_model",
        "keras_unet.jobs.export",
        "export_saved_model",
        ("tile_size", "precision", "frozen", "version"),
    ),
    Format(
        "tflite",
        "keras_unet.jobs.export_tflite",
        "export_tflite",
        ("tile_size", "quantize", "int8_io", "data"),
    ),
    Format(
        "bioimageio",
        "keras_unet.jobs.export_bioimageio",
        "export_bioimageio",
        ("authors", "licence"),
    ),
    Format("onnx", "keras_unet.jobs.export_onnx", "export_onnx", ("tile_size",)),
)
FORMATS = {one.name: one for one in _ALL}
