"""The U-Net as numbers: how deep, how wide, which sizes fit, and how much is lost at the border.

Everything else asks this module: the model is built from it, tiles are laid by it, and a run stores
it. It imports nothing of the package and no TensorFlow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

Padding = Literal["valid", "same"]
NormLayer = Literal["batch", "group"]


class _Bytes(NamedTuple):
    """Memory of a training in bytes, as `Architecture.training_memory` computes it.

    Fitted to the peaks of 60 trainings on a CPU; `weight` anew to figure 1, since its gradients
    have come to take less. `python -m benchmarks memory` measures others.

    Attributes:
        once: Compiled functions, graph, threads.
        weight: For each weight: itself, momentum, gradients, and what is copied for the files.
        pixel: For each pixel of a tile, to read and deform it and the next ones.
        kept: For each number that is kept for the gradient.
        widest: For each number of the largest of them, for the gradients in the making.
        batch: For each number that is kept besides by a batch normalization.
        group: The same of a group normalization.
    """

    once: float
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


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Describes a U-Net; the defaults are figure 1 of the paper.

    Attributes:
        channels: Channels of the input image.
        classes: Classes of the output, background included.
        depth: Number of poolings. The paper takes 4.
        base_filters: Features of the first level, doubled by each pooling. The paper takes 64.
        dropout: Rate at the end of the contracting path.
        padding: "valid" as in the paper, or "same".
        norm_layer: None as in the paper, "batch" or "group".

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

    def __post_init__(self) -> None:
        """Refuses numbers of which no network can be built.

        Raises:
            ValueError: If a number is out of its range; the message names it.
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
    def step(self) -> int:
        """Pixels between two sizes that fit, and between the points of the pooling lattice."""
        return int(2**self.depth)

    @property
    def margin(self) -> int:
        """Pixels that the network loses on each side: 0 with "same" padding."""
        return 6 * self.step - 4 if self.padding == "valid" else 0

    @property
    def context(self) -> int:
        """Pixels on each side of a tile whose scores depend on what lies beyond the tile.

        With "valid" padding they are the margin. With "same" padding the zeros of the convolutions
        reach up to `6 * 2**depth - 2` pixels inwards, which is rounded up to the pooling lattice so
        that they can be cut off and tiles still reproduce the whole image.
        """
        return self.margin if self.padding == "valid" else 6 * self.step

    @property
    def minimum_size(self) -> int:
        """The smallest input size, height or width, that leaves an output."""
        return 2 * self.margin + min(self.step, 4) if self.padding == "valid" else self.step

    def fits(self, size: int) -> bool:
        """Tells whether an input of `size` pixels, height or width, passes every pooling evenly."""
        return size >= self.minimum_size and (size - self.minimum_size) % self.step == 0

    def fitting_size(self, size: int) -> int:
        """Returns the smallest input size that fits and is at least `size`.

        Example:
            >>> Architecture().fitting_size(570)
            572
        """
        beyond = max(0, size - self.minimum_size)
        return self.minimum_size + -(-beyond // self.step) * self.step

    def check_size(self, size: int, argument: str = "input_size") -> None:
        """Raises if an input of `size` pixels does not fit.

        Raises:
            ValueError: With the rule and the nearest sizes that fit.
        """
        if self.fits(size):
            return
        above = self.fitting_size(size)
        below = above - self.step
        nearest = f"fit are {below} and {above}" if self.fits(below) else f"fits is {above}"
        rule = f"{self.step}k + {self.minimum_size % self.step}".removesuffix(" + 0")
        raise ValueError(
            f"{argument} must be {rule} and at least {self.minimum_size} for depth={self.depth} "
            f'and padding="{self.padding}". Received: {size}; the nearest that {nearest}'
        )

    def output_size(self, size: int) -> int:
        """Returns the output's size for an input of `size` pixels.

        Raises:
            ValueError: If the size does not fit.
        """
        self.check_size(size)
        return size - 2 * self.margin

    def filters(self, level: int) -> int:
        """Returns the features of a level, 0 being the uppermost and `depth` the bottom."""
        return int(self.base_filters * 2**level)

    def crop(self, level: int) -> int:
        """Returns the pixels cut from each side of the skip connection of a level.

        Example:
            >>> [Architecture().crop(level) for level in (3, 2, 1, 0)]
            [4, 16, 40, 88]
        """
        return int(6 * 2 ** (self.depth - level) - 8) if self.padding == "valid" else 0

    @property
    def parameters(self) -> int:
        """Weights and biases that are learned.

        Example:
            >>> f"{Architecture().parameters:,}"
            '31,030,658'
        """
        found = self.base_filters * self.classes + self.classes
        incoming = self.channels
        for level in range(self.depth + 1):
            features = self.filters(level)
            convolutions = 9 * (incoming + features) + 2
            if level < self.depth:
                convolutions += 4 * 2 * features + 1 + 9 * (2 * features + features) + 2
            scales = 2 * (2 if level == self.depth else 4) if self.norm_layer else 0
            found += features * (convolutions + scales)
            incoming = features
        return found

    def training_memory(
        self, tile_size: int, *, batch_size: int = 1, precision: str = "float32"
    ) -> int:
        """Predicts how much memory a training takes at most, besides the program and the images.

        Most is taken by what is kept for the gradient: the output of every convolution, pooling and
        concatenation. How close it comes, `python -m benchmarks memory` measures. On a GPU, where
        nothing was measured, the graph and the tiles in the making are no part of its memory.

        Args:
            tile_size: Height and width of the input tile in pixels.
            batch_size: Tiles a batch.
            precision: "float32", "bfloat16" or "float16", which is taken for "bfloat16".

        Returns:
            Bytes.

        Raises:
            ValueError: If the tile size does not fit.
        """
        self.check_size(tile_size, "tile_size")
        each = _BYTES["float32" if precision == "float32" else "bfloat16"]
        kept = self._kept(tile_size)
        a_kept_one = each.kept + (getattr(each, self.norm_layer) if self.norm_layer else 0)
        in_a_tile = a_kept_one * sum(kept) + each.widest * max(kept)
        of_weights, of_pixels = each.weight * self.parameters, each.pixel * tile_size**2
        return round(each.once + of_weights + of_pixels + batch_size * in_a_tile)

    def largest_tile(
        self, memory: float, at_most: int, *, batch_size: int = 1, precision: str = "float32"
    ) -> int | None:
        """Returns the largest tile that can be trained with in so much memory.

        Args:
            memory: Bytes, see `training_memory`.
            at_most: Height and width in pixels that it is not to exceed.
            batch_size: Tiles a batch.
            precision: As `training_memory`.

        Returns:
            Height and width in pixels; None where memory does not hold the smallest that fits.
        """
        sizes = range(self.minimum_size, at_most + 1, self.step)
        held = [
            size
            for size in sizes
            if self.training_memory(size, batch_size=batch_size, precision=precision) <= memory
        ]
        return max(held, default=None)

    def _kept(self, size: int) -> list[int]:
        """Lists how many numbers each convolution, pooling and concatenation gives for a tile."""
        lost = 2 if self.padding == "valid" else 0
        kept = []

        def convolve_twice(features: int) -> None:
            nonlocal size
            for _ in range(2):
                size -= lost
                kept.append(features * size**2)

        for level in range(self.depth):
            convolve_twice(self.filters(level))
            size //= 2
            kept.append(self.filters(level) * size**2)
        convolve_twice(self.filters(self.depth))
        for level in reversed(range(self.depth)):
            size *= 2
            kept.append(2 * self.filters(level) * size**2)
            convolve_twice(self.filters(level))
        return kept

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers as a dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuilds an architecture from `to_dict`."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @classmethod
    def of(cls, model: Any) -> Self:
        """Reads the numbers from a Keras model that `build_unet` made, loaded or new.

        Only the attributes of the layers are read, so Keras is not imported here.

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
        )


def _whole_number(name: str, value: Any, lowest: int) -> int:
    """Returns Python's own integer, for JSON takes none of NumPy's."""
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
