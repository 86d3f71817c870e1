"""Normalization: grey values of any range become numbers that suit the network.

What was measured in training is recorded, so that a prediction does the same.
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
"""Rows that are measured at a time. Of an image given in parts of a multiple of so many rows, all
that is measured is the whole image's, to the last bit."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of the pixels of images, channel by channel, measured in one pass.

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
        """Measures images, or the parts of one from the first row to the last.

        Args:
            images: Arrays `(height, width, channels)`, at least one with a pixel.
        """
        bands = (image[top : top + ROWS] for image in images for top in range(0, len(image), ROWS))
        return reduce(cls._with, map(cls._of, bands))

    @classmethod
    def _of(cls, band: NDArray[Any]) -> Self:
        flat = np.ascontiguousarray(band).reshape(-1, band.shape[-1])
        mean = flat.sum(axis=0, dtype=np.float64) / len(flat)
        squares = np.square(flat - mean).sum(axis=0)
        return cls(len(flat), mean, squares, flat.min(axis=0), flat.max(axis=0))

    def _with(self, other: Moments) -> Moments:
        """Joins two (Chan, Golub and LeVeque 1979)."""
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
        """Mean and standard deviation of each channel; exactly 0 where constant."""
        constant = self.lowest == self.highest
        mean = np.where(constant, self.lowest, self.mean)
        std = np.where(constant, 0.0, np.sqrt(self.squares / self.pixels))
        return tuple(mean.tolist()), tuple(std.tolist())


@dataclass(frozen=True)
class Normalization:
    """Normalization of grey values: zero mean and unit deviation in each channel.

    Attributes:
        mode: `"image"` measures every image by itself; `"dataset"` uses the recorded numbers.
        mean: Mean of each channel, in grey values; empty for `"image"`.
        std: Standard deviation of each channel, in grey values; empty for `"image"`.

    Raises:
        ValueError: The mode is unknown, or the numbers do not go with it.

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
        """Checks that the numbers go with the mode."""
        if self.mode not in ("image", "dataset"):
            raise ValueError(f"mode must be 'image' or 'dataset'. Received {self.mode!r}.")
        if len(self.mean) != len(self.std) or bool(self.mean) != (self.mode == "dataset"):
            raise ValueError(
                "mean and std must hold one number a channel for mode 'dataset' and none for mode "
                f"'image'. Received mode={self.mode!r}, mean={self.mean}, std={self.std}."
            )

    @classmethod
    def of(cls, images: Sequence[NDArray[Any]], mode: Mode) -> Normalization:
        """Measures images.

        Args:
            images: Arrays `(height, width, channels)`; sizes may differ, channels may not.
            mode: `"dataset"` records mean and deviation of each channel over all pixels of all
                images; `"image"` records nothing.

        Returns:
            The normalization to use for these images and all later ones.

        Raises:
            ValueError: There is no image, or the numbers of channels differ.
        """
        if mode != "dataset":
            return cls(mode)
        channels = {image.shape[-1] for image in images}
        if len(channels) != 1:
            raise ValueError(
                "images must be at least one, all with the same number of channels. "
                f"Received {len(images)} with {sorted(channels)} channels."
            )
        return cls(mode, *Moments.of(images).mean_and_deviation)

    def settled(self, moments: Moments) -> Normalization:
        """Returns the numbers that hold for one image, wherever in it: its own, or the recorded.

        Args:
            moments: What was measured of the image.
        """
        if self.mode == "dataset":
            return self
        return Normalization("dataset", *moments.mean_and_deviation)

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Normalizes one image, in double precision.

        Args:
            image: Array `(height, width, channels)` of grey values.

        Returns:
            The image with zero mean and unit deviation in each channel; all 0 where constant.

        Raises:
            ValueError: The recorded numbers are for another number of channels.
        """
        if self.mode == "image":
            return self.settled(Moments.of([image])).apply(image)
        mean, std = np.array(self.mean), np.array(self.std)
        if mean.size != image.shape[-1]:
            raise ValueError(
                f"image must have {counted(mean.size, 'channel')}, as the images measured had. "
                f"Received shape {image.shape}."
            )
        return np.asarray((image - mean) / np.where(std > 0, std, 1.0), np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON knows them."""
        return {"mode": self.mode, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Normalization:
        """Returns what `to_dict` described."""
        return cls(fields["mode"], tuple(fields["mean"]), tuple(fields["std"]))
