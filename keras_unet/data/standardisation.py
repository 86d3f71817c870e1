"""Standardisation: grey values of any range become numbers that suit the network.

What was measured in training is recorded, so that a prediction does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.wording import counted

Mode = Literal["image", "dataset"]


@dataclass(frozen=True)
class Standardisation:
    """How grey values become the network's input: zero mean and unit deviation in each channel.

    Attributes:
        mode: `"image"` measures every image by itself; `"dataset"` uses the recorded numbers.
        mean: Mean of each channel, in grey values; empty for `"image"`.
        std: Standard deviation of each channel, in grey values; empty for `"image"`.

    Raises:
        ValueError: The mode is unknown, or the numbers do not go with it.

    Examples:
        >>> image = np.array([[[10.0], [30.0]]])
        >>> Standardisation("image").apply(image).ravel().tolist()
        [-1.0, 1.0]
        >>> Standardisation("dataset", mean=(20.0,), std=(5.0,)).apply(image).ravel().tolist()
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
    def of(cls, images: Sequence[NDArray[Any]], mode: Mode) -> Standardisation:
        """Measures images.

        Args:
            images: Arrays `(height, width, channels)`; sizes may differ, channels may not.
            mode: `"dataset"` records mean and deviation of each channel over all pixels of all
                images; `"image"` records nothing.

        Returns:
            The standardisation to use for these images and all later ones.

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
        mean, std = _moments(images)
        return cls(mode, tuple(mean.tolist()), tuple(std.tolist()))

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Standardises one image, in double precision.

        Args:
            image: Array `(height, width, channels)` of grey values.

        Returns:
            The image with zero mean and unit deviation in each channel; all 0 where constant.

        Raises:
            ValueError: The recorded numbers are for another number of channels.
        """
        if self.mode == "image":
            mean, std = _moments([image])
        else:
            mean, std = np.array(self.mean), np.array(self.std)
        if mean.size != image.shape[-1]:
            raise ValueError(
                f"image must have {counted(mean.size, 'channel')}, as the images measured had. "
                f"Received shape {image.shape}."
            )
        return ((image - mean) / np.where(std > 0, std, 1.0)).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON knows them."""
        return {"mode": self.mode, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Standardisation:
        """Returns what `to_dict` described."""
        return cls(fields["mode"], tuple(fields["mean"]), tuple(fields["std"]))


def _moments(images: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel over all pixels; exactly 0 where constant."""
    flat = [image.reshape(-1, image.shape[-1]) for image in images]
    pixels = sum(len(part) for part in flat)
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in flat) / pixels
    squares = sum(np.square(part - mean).sum(axis=0) for part in flat)
    lowest = np.min([part.min(axis=0) for part in flat], axis=0)
    highest = np.max([part.max(axis=0) for part in flat], axis=0)
    constant = lowest == highest
    return np.where(constant, lowest, mean), np.where(constant, 0.0, np.sqrt(squares / pixels))
