"""Normalization of grey values to zero mean and unit variance.

The statistics of the training images are recorded, and used again in prediction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted

Mode = Literal["image", "dataset"]

ROWS = 128
"""Rows per step. The statistics of an image in parts of a multiple of this height equal those of
the whole image to the last bit."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of the pixels of images in each channel, computed in one pass.

    Attributes:
        pixels: Number of pixels.
        mean: Mean of each channel, in grey values.
        squares: Sum of the squared differences from the mean.
        lowest: Lowest grey value.
        highest: Highest grey value.
    """

    pixels: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    lowest: NDArray[Any]
    highest: NDArray[Any]

    @classmethod
    def of(cls, images: Iterable[NDArray[Any]]) -> Moments:
        """Computes the statistics of images, or of the parts of one image from top to bottom.

        Args:
            images: Arrays `(height, width, channels)`, at least one with a pixel.
        """
        bands = (image[top : top + ROWS] for image in images for top in range(0, len(image), ROWS))
        return reduce(cls._merge, map(cls._of_band, bands))

    @classmethod
    def _of_band(cls, band: NDArray[Any]) -> Self:
        flat = np.ascontiguousarray(band).reshape(-1, band.shape[-1])
        mean = flat.sum(axis=0, dtype=np.float64) / len(flat)
        squares = np.square(flat - mean).sum(axis=0)
        return cls(len(flat), mean, squares, flat.min(axis=0), flat.max(axis=0))

    def _merge(self, other: Moments) -> Moments:
        """Merges the statistics of two sets of pixels (Chan, Golub and LeVeque 1979)."""
        pixels = self.pixels + other.pixels
        shift = other.mean - self.mean
        return Moments(
            pixels,
            self.mean + shift * (other.pixels / pixels),
            self.squares + other.squares + shift**2 * (self.pixels * (other.pixels / pixels)),
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )

    @property
    def mean_and_deviation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel; the latter is exactly 0 if constant."""
        constant = self.lowest == self.highest
        mean = np.where(constant, self.lowest, self.mean)
        std = np.where(constant, 0.0, np.sqrt(self.squares / self.pixels))
        return tuple(mean.tolist()), tuple(std.tolist())


@dataclass(frozen=True)
class Normalization:
    """Normalization of grey values to zero mean and unit variance in each channel.

    Attributes:
        mode: `"image"` uses the statistics of each image; `"dataset"` those of the training images.
        mean: Mean of each channel, in grey values; empty for `"image"`.
        std: Standard deviation of each channel, in grey values; empty for `"image"`.

    Raises:
        ValueError: If the mode is unknown, or the statistics do not fit the mode.

    Examples:
        >>> image = np.array([[[10.0], [30.0]]])
        >>> Normalization("image").apply(image).ravel().tolist()
        [-1.0, 1.0]
        >>> Normalization("dataset", mean=(20.0,), std=(5.0,)).apply(image).ravel().tolist()
        [-2.0, 2.0]
    """

    mode: Mode
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Checks the mode and the numbers of channels."""
        if self.mode not in ("image", "dataset"):
            raise ValueError(f"mode must be 'image' or 'dataset'. Received: mode={self.mode!r}")
        if len(self.mean) != len(self.std) or bool(self.mean) != (self.mode == "dataset"):
            raise ValueError(
                "mean and std must hold one number for each channel with mode 'dataset' and none "
                f"with mode 'image'. Received: mode={self.mode!r}, mean={self.mean}, std={self.std}"
            )

    @classmethod
    def of(cls, images: Sequence[NDArray[Any]], mode: Mode) -> Normalization:
        """Creates the normalization for a set of images.

        Args:
            images: Arrays `(height, width, channels)`; sizes may differ, channels may not.
            mode: `"dataset"` records mean and standard deviation of each channel over all pixels of
                all images; `"image"` records nothing.

        Returns:
            The normalization for these images and those of later predictions.

        Raises:
            ValueError: If there is no image, or the numbers of channels differ.
        """
        if mode != "dataset":
            return cls(mode)
        channels = {image.shape[-1] for image in images}
        if len(channels) != 1:
            raise ValueError(
                "images must be at least one, all with the same number of channels. "
                f"Received: {len(images)} with {sorted(channels)} channels"
            )
        return cls(mode, *Moments.of(images).mean_and_deviation)

    def with_moments(self, moments: Moments) -> Normalization:
        """Returns the normalization with fixed statistics, for an image that is read in parts.

        Args:
            moments: Statistics of the image, used in mode `"image"`.
        """
        if self.mode == "dataset":
            return self
        return Normalization("dataset", *moments.mean_and_deviation)

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Normalizes one image, in double precision.

        Args:
            image: Array `(height, width, channels)` of grey values.

        Returns:
            The image with zero mean and unit variance in each channel; 0 in constant channels.

        Raises:
            ValueError: If the recorded statistics are for another number of channels.
        """
        if self.mode == "image":
            return self.with_moments(Moments.of([image])).apply(image)
        mean, std = np.array(self.mean), np.array(self.std)
        if mean.size != image.shape[-1]:
            raise ValueError(
                f"image must have {counted(mean.size, 'channel')}, as the training images. "
                f"Received shape {image.shape}"
            )
        return np.asarray((image - mean) / np.where(std > 0, std, 1.0), np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON object."""
        return {"mode": self.mode, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Normalization:
        """Creates a normalization from the result of `to_dict`."""
        return cls(fields["mode"], tuple(fields["mean"]), tuple(fields["std"]))
