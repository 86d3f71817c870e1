"""ND2 files of Nikon, read by `nd2`; the positions of a file are images of their own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nd2
from numpy.typing import NDArray

from keras_unet.data.calibration import Spacing
from keras_unet.data.scenes import Scene

_POSITION = "P"


def scenes_of(path: Path) -> list[Scene]:
    """Lists the positions of a file.

    Raises:
        ValueError: If frames are missing, or it holds colors.
    """
    with nd2.ND2File(path) as file:
        if "S" in file.sizes:  # blue or red first? `nd2` does not say
            raise ValueError("it holds colors of a color camera, whose order is not known")
        _refuse_missing_frames(file)
        sizes = {axis: size for axis, size in file.sizes.items() if axis != _POSITION}
        calibration = _spacing(file, sizes)
        names = _names_of_positions(file)
        return [
            Scene(
                number,
                "".join(sizes),
                tuple(sizes.values()),
                file.dtype,
                Spacing(*calibration, name=name, channels=_channels(file)),
            )
            for number, name in enumerate(names)
        ]


def read(path: Path, scene: Scene) -> NDArray[Any]:
    """Reads the pixels of a position, with the axes of the scene."""
    with nd2.ND2File(path) as file:
        pixels: NDArray[Any] = file.asarray(position=scene.number)
        return pixels.reshape(scene.shape)


def _refuse_missing_frames(file: nd2.ND2File) -> None:
    """Refuses a file of a recording that was stopped, whose last frames would be read as zeros."""
    stated = math.prod(loop.count for loop in file.experiment)
    stored = file.attributes.sequenceCount
    if stored < stated:
        raise ValueError(f"it holds {stored:,} of {stated:,} frames: the recording was stopped")


def _spacing(
    file: nd2.ND2File, sizes: dict[str, int]
) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Returns steps, starts and units."""
    steps: dict[str, float] = {}
    channels = file.metadata.channels or ()
    calibrated = channels[0].volume.axesCalibrated if channels else ()
    for axis, step, is_calibrated in zip("XYZ", file.voxel_size(), calibrated, strict=False):
        if is_calibrated and axis in sizes and step > 0:
            steps[axis] = float(step)
    units = dict.fromkeys(steps, "micrometer")
    if (interval := _interval(file)) and "T" in sizes:
        steps["T"], units["T"] = interval, "second"
    return steps, {}, units


def _interval(file: nd2.ND2File) -> float | None:
    """Returns the seconds between frames; None without a regular interval."""
    for loop in file.experiment:
        if loop.type == "TimeLoop" and loop.parameters.periodMs > 0:
            return float(loop.parameters.periodMs) / 1000
    return None


def _channels(file: nd2.ND2File) -> tuple[str, ...]:
    return tuple(channel.channel.name for channel in file.metadata.channels or ())


def _names_of_positions(file: nd2.ND2File) -> list[str]:
    """Returns the name of each position, which may be empty."""
    for loop in file.experiment:
        if loop.type == "XYPosLoop" and loop.count > 1:
            points = loop.parameters.points
            return [point.name or "" for point in points]
    return [""]
