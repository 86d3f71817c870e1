"""Architecture of a U-Net as numbers: sizes that fit, margins, parameters, memory of a training.

The model, the tiling and the record of a run are derived from it. It imports neither TensorFlow nor
other modules of the package.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

Padding = Literal["valid", "same"]
NormLayer = Literal["batch", "group"]

OFFSETS = (
    *((-1, 0), (0, -1)),
    *((-9, 0), (0, -9), (-9, -9), (9, -9), (-9, -4), (-4, -9), (4, -9), (9, -4)),
    *((-27, 0), (0, -27)),
)
"""Rows and columns from a pixel to the other pixel of each affinity."""

NEIGHBORS = 2
"""Number of the first offsets, which lead to adjacent pixels."""


class _Bytes(NamedTuple):
    """Coefficients of `Architecture.training_memory` in bytes.

    They were fitted to the peak memory of 60 trainings on a CPU, and `weight` later to figure 1.
    `python -m benchmarks memory` repeats the measurement.

    Attributes:
        constant: Compiled functions, graph and threads.
        weight: Per weight: its value, momentum, gradients, and the copy for the files.
        pixel: Per pixel of a tile: reading and augmenting it and the next tiles.
        kept: Per activation that is kept for the gradient.
        widest: Per activation of the largest layer: its gradients.
        batch: Additional bytes per kept activation with batch normalization.
        group: Additional bytes per kept activation with group normalization.
    """

    constant: float
    weight: float
    pixel: float
    kept: float
    widest: float
    batch: float
    group: float


_BYTES = {
    "float32": _Bytes(153e6, 27, 156, 3.4, 11.8, 3.8, 2.4),
    "bfloat16": _Bytes(167e6, 24, 122, 2.0, 8.9, 6.0, 4.7),
}

_ADAM_BYTES = 8  # per weight, besides those of SGD: the second moment, and its copy for the files


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Numbers that define a U-Net; the defaults are those of figure 1 of the paper.

    Attributes:
        channels: Number of channels of the input image.
        classes: Number of classes, background included.
        depth: Number of poolings. The paper takes 4.
        base_filters: Features of the first level, doubled by each pooling. The paper takes 64.
        dropout: Dropout rate at the end of the contracting path.
        padding: "valid" as in the paper, or "same".
        norm_layer: None as in the paper, "batch" or "group".
        affinities: Whether the network also predicts, for each of `OFFSETS`, whether two pixels
            belong to the same object. The paper has none.

    Example:
        >>> figure1 = Architecture()
        >>> figure1.margin, figure1.step, figure1.minimum_size, figure1.output_size(572)
        (92, 16, 188, 388)
    """

    channels: int = 1
    classes: int = 2
    depth: int = 4
    base_filters: int = 64
    dropout: float = 0.5
    padding: Padding = "valid"
    norm_layer: NormLayer | None = None
    affinities: bool = False

    def __post_init__(self) -> None:
        """Validates the numbers.

        Raises:
            ValueError: If a number is out of range.
        """
        for name, lowest in (("channels", 1), ("classes", 2), ("depth", 1), ("base_filters", 1)):
            object.__setattr__(self, name, _whole_number(name, getattr(self, name), lowest))
        object.__setattr__(self, "dropout", _rate(self.dropout))
        if self.padding not in ("valid", "same"):
            raise ValueError(
                f'padding must be "valid" or "same". Received: padding={self.padding!r}'
            )
        if self.norm_layer not in (None, "batch", "group"):
            raise ValueError(
                'norm_layer must be None, "batch" or "group". '
                f"Received: norm_layer={self.norm_layer!r}"
            )

    @property
    def outputs(self) -> int:
        """Number of output channels: the classes, and the affinities if there are any."""
        return self.classes + (len(OFFSETS) if self.affinities else 0)

    @property
    def step(self) -> int:
        """Distance in pixels between sizes that fit, and between points of the pooling lattice."""
        return int(2**self.depth)

    @property
    def margin(self) -> int:
        """Pixels cropped from the image on each side of the output; 0 with "same" padding."""
        return 6 * self.step - 4 if self.padding == "valid" else 0

    @property
    def context(self) -> int:
        """Pixels on each side of a tile whose scores depend on pixels outside of the tile.

        With "valid" padding it is the margin. With "same" padding the zeros of the convolutions
        affect up to `6 * 2**depth - 2` pixels, which is rounded up to the pooling lattice so that
        tiles reproduce the whole image once these pixels are cropped.
        """
        return self.margin if self.padding == "valid" else 6 * self.step

    @property
    def minimum_size(self) -> int:
        """Smallest input height or width in pixels that leaves an output."""
        return 2 * self.margin + min(self.step, 4) if self.padding == "valid" else self.step

    def fits(self, size: int) -> bool:
        """Returns whether an input height or width of `size` pixels is even at every pooling."""
        return size >= self.minimum_size and (size - self.minimum_size) % self.step == 0

    def fitting_size(self, size: int) -> int:
        """Returns the smallest input size that fits and is at least `size`.

        Example:
            >>> Architecture().fitting_size(570)
            572
        """
        excess = max(0, size - self.minimum_size)
        return self.minimum_size + -(-excess // self.step) * self.step

    def check_size(self, size: int, argument: str = "input_size") -> None:
        """Checks that an input height or width fits.

        Args:
            size: Height or width in pixels.
            argument: Name of the argument, for the message.

        Raises:
            ValueError: If it does not. The message gives the formula and the nearest sizes that
                fit.
        """
        if self.fits(size):
            return
        above = self.fitting_size(size)
        below = above - self.step
        nearest = f"fit are {below} and {above}" if self.fits(below) else f"fits is {above}"
        formula = f"{self.step}k + {self.minimum_size % self.step}".removesuffix(" + 0")
        raise ValueError(
            f"{argument} must be {formula} and at least {self.minimum_size} for depth={self.depth} "
            f'and padding="{self.padding}". Received: {size}; the nearest that {nearest}'
        )

    def output_size(self, size: int) -> int:
        """Returns the output height or width for an input of `size` pixels.

        Raises:
            ValueError: If the size does not fit.
        """
        self.check_size(size)
        return size - 2 * self.margin

    def filters(self, level: int) -> int:
        """Returns the number of features of a level, from 0 (top) to `depth` (bottom)."""
        return int(self.base_filters * 2**level)

    def crop(self, level: int) -> int:
        """Returns the pixels cropped from each side of the skip connection of a level.

        Example:
            >>> [Architecture().crop(level) for level in (3, 2, 1, 0)]
            [4, 16, 40, 88]
        """
        return int(6 * 2 ** (self.depth - level) - 8) if self.padding == "valid" else 0

    @property
    def parameters(self) -> int:
        """Number of trainable weights and biases.

        Example:
            >>> f"{Architecture().parameters:,}"
            '31,030,658'
        """
        total = self.base_filters * self.outputs + self.outputs
        incoming = self.channels
        for level in range(self.depth + 1):
            features = self.filters(level)
            convolutions = 9 * (incoming + features) + 2
            if level < self.depth:
                convolutions += 4 * 2 * features + 1 + 9 * (2 * features + features) + 2
            scales = 2 * (2 if level == self.depth else 4) if self.norm_layer else 0
            total += features * (convolutions + scales)
            incoming = features
        return total

    def training_memory(
        self,
        tile_size: int,
        *,
        batch_size: int = 1,
        precision: str = "float32",
        optimizer: str = "sgd",
    ) -> int:
        """Estimates the peak memory of a training, without the program and the images.

        Most of it are the outputs of convolutions, poolings and concatenations, which are kept for
        the gradient. The estimate holds for a CPU; `python -m benchmarks memory` measures its
        error.

        Args:
            tile_size: Height and width of the input tile in pixels.
            batch_size: Tiles per batch.
            precision: "float32", "bfloat16" or "float16", which is estimated as "bfloat16".
            optimizer: "sgd", which keeps one value per weight, or "adam", which keeps two.

        Returns:
            The estimate in bytes.

        Raises:
            ValueError: If the tile size does not fit.
        """
        self.check_size(tile_size, "tile_size")
        bytes_per = _BYTES["float32" if precision == "float32" else "bfloat16"]
        activations = self._activations(tile_size)
        kept = bytes_per.kept + (getattr(bytes_per, self.norm_layer) if self.norm_layer else 0)
        tile = kept * sum(activations) + bytes_per.widest * max(activations)
        weight = bytes_per.weight + (_ADAM_BYTES if optimizer == "adam" else 0)
        weights, pixels = weight * self.parameters, bytes_per.pixel * tile_size**2
        return round(bytes_per.constant + weights + pixels + batch_size * tile)

    def largest_tile(self, memory: float, at_most: int, **training: Any) -> int | None:
        """Returns the largest tile whose training fits into memory.

        Args:
            memory: Memory in bytes, see `training_memory`.
            at_most: Upper limit of height and width in pixels.
            training: Batch size, precision and optimizer, as `training_memory`.

        Returns:
            Height and width in pixels; None if the smallest tile needs more memory.
        """
        sizes = range(self.minimum_size, at_most + 1, self.step)
        fitting = [size for size in sizes if self.training_memory(size, **training) <= memory]
        return max(fitting, default=None)

    def _activations(self, size: int) -> list[int]:
        """Returns the sizes of the outputs of convolutions, poolings and concatenations."""
        lost = 2 if self.padding == "valid" else 0
        activations = []

        def convolve_twice(features: int) -> None:
            nonlocal size
            for _ in range(2):
                size -= lost
                activations.append(features * size**2)

        for level in range(self.depth):
            convolve_twice(self.filters(level))
            size //= 2
            activations.append(self.filters(level) * size**2)
        convolve_twice(self.filters(self.depth))
        for level in reversed(range(self.depth)):
            size *= 2
            activations.append(2 * self.filters(level) * size**2)
            convolve_twice(self.filters(level))
        if self.affinities:
            activations.append(4 * len(OFFSETS) * size**2)  # scores, targets and losses in float32
        return activations

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers as a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuilds an architecture from the result of `to_dict`."""
        recorded = {"affinities": False, **values}  # which older runs do not record
        return cls(**{field.name: recorded[field.name] for field in fields(cls)})

    @classmethod
    def of(cls, model: Any) -> Self:
        """Reads the numbers from a Keras model of `build_unet`.

        It reads attributes of the layers, so Keras is not imported.

        Raises:
            ValueError: If the model's layers are not those of `build_unet`.
        """
        layers = {layer.name: layer for layer in getattr(model, "layers", ())}
        if not {"level0_down_conv1", "logits"} <= layers.keys():
            raise ValueError(
                "model must be a network of build_unet, whose layers are named by level. "
                f"Received: {type(model).__name__}; pass its architecture=Architecture(...)"
            )
        first = layers["level0_down_conv1"]
        dropout = layers.get("bottom_dropout")
        return cls(
            channels=int(model.input_shape[-1]),
            classes=int(layers["logits"].filters),
            depth=sum(name.endswith("_pool") for name in layers),
            base_filters=int(first.filters),
            dropout=float(dropout.rate) if dropout is not None else 0.0,
            padding=first.padding,
            norm_layer=_norm_layer(layers.get("level0_down_norm1")),
            affinities="affinities" in layers,
        )


def _whole_number(name: str, value: Any, lowest: int) -> int:
    """Returns a Python integer, as JSON cannot hold those of NumPy."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
        raise ValueError(
            f"{name} must be a whole number of at least {lowest}. Received: {name}={value!r}"
        )
    return int(value)


def _rate(value: Any) -> float:
    if not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ValueError(
            f"dropout must be a rate in [0, 1). Received: dropout={value!r}; 0 turns it off"
        )
    return float(value)


def _norm_layer(layer: Any) -> NormLayer | None:
    if layer is None:
        return None
    return "batch" if type(layer).__name__ == "BatchNormalization" else "group"
