"""Options of a training, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from math import ceil, inf
from typing import Any, Literal, get_args

from keras_unet.architecture import Architecture, NormLayer, Padding
from keras_unet.backend import choose_precision
from keras_unet.data.augmentation import Augmentation
from keras_unet.data.encoding import Kind
from keras_unet.data.normalization import Mode
from keras_unet.data.pipeline import Engine
from keras_unet.data.samples import check_share
from keras_unet.training.schedule import Schedule

PAPER_DEPTH, PAPER_TILE, PAPER_AMPLITUDE, PAPER_SIGMA = 4, 572, 10.0, 5.0
DEPTHS = 3, 4, 5  # that the rule chooses from; a tile that fits one of them fits those before it
NUMBERS = "depth", "tile", "amplitude", "sigma", "steps"  # each has its rule

_CHOICES = {
    "kind": ("auto", *get_args(Kind)),
    "normalization": get_args(Mode),
    "engine": get_args(Engine),
}
_WHOLE = {"batch_size": 1, "seed": 0, "ignore": 0, "memory_limit": 1}
SEEDS = 2**32  # that Keras and NumPy take, from 0


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training. What is None is left to the data.

    `keras_unet.training.autoconfig` has the rules by which `keras_unet.training.autoconfig` sets those
    numbers.

    Attributes:
        steps: Updates; left to the data with none of steps, epochs and max_minutes.
        epochs: The same in passes over the training pixels.
        max_minutes: The same in minutes; with steps or epochs, whichever ends first.
        patience: Validations without a better score after which training ends.
        base_filters: Features of the first level. The paper takes 64, in four times the time.
        depth: Number of poolings, or None. The paper takes 4.
        padding: "valid" as in the paper, or "same".
        norm_layer: None as in the paper, "batch" or "group".
        dropout: Rate at the end of the contracting path.
        tile: Height and width of the input tile in pixels, or None. The paper takes 572.
        batch_size: Tiles a batch. The paper takes 1.
        memory_limit: Bytes that the training is to make do with, by a smaller tile if need be; None
            for no limit.
        validation: Share of the images held out, or their names.
        seed: Makes the run reproducible.
        precision: "auto", "float32", "bfloat16" or "float16".
        kind: What the labels hold: "classes", "instances", or "auto" to find out.
        axes: Axes of images whose files do not state them, such as "YXC", or None.
        ignore: Value in the labels of pixels that are not to count.
        allow_empty: Whether label files without any foreground are wanted.
        normalization: Grey values by each "image" or by the whole "dataset".
        border_weight: w0 of equation 2. The paper takes 10; 0 turns the border term off.
        sigma: sigma of equation 2 in pixels, or None. The paper takes about 5.
        class_balance: Whether w_c of equation 2 balances the classes, as in the paper.
        amplitude: Standard deviation of the elastic deformation in pixels, or None. The paper
            takes 10.
        zoom: Standard deviation of the logarithm of a factor on lengths. The paper has none.
        engine: Who deforms, "graph" or "elasticdeform".
        learning_rate: The highest rate.
        momentum: The paper takes 0.99.
        histograms: Whether to log histograms of all weights for TensorBoard.

    Raises:
        ValueError: If a number is out of range, a word is unknown, or two options contradict each
            other; the message names it.
        ImportError: If `engine` is "elasticdeform" and the library is missing.
    """

    steps: int | None = None
    epochs: float | None = None
    max_minutes: float | None = None
    patience: int | None = None
    base_filters: int = 32
    depth: int | None = None
    padding: Padding = "valid"
    norm_layer: NormLayer | None = None
    dropout: float = 0.5
    tile: int | None = None
    batch_size: int = 1
    memory_limit: int | None = None
    validation: float | Sequence[str] = 0.2
    seed: int = 0
    precision: str = "auto"
    kind: Kind | Literal["auto"] = "auto"
    axes: str | None = None
    ignore: int | None = None
    allow_empty: bool = False
    normalization: Mode = "image"
    border_weight: float = 10.0
    sigma: float | None = None
    class_balance: bool = True
    amplitude: float | None = None
    zoom: float = 0.25
    engine: Engine = "graph"
    learning_rate: float = 1e-2
    momentum: float = 0.99
    histograms: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be trained with, before any file is read."""
        self._check_words()
        self._check_numbers()
        self._check_length()
        self._check_validation()
        self._check_network()
        Augmentation(amplitude=self.amplitude or 0.0, zoom=self.zoom)
        choose_precision(self.precision)

    @property
    def given(self) -> dict[str, Any]:
        """The numbers of the recipe that are not left to the data, by name.

        Steps are None where the length is given in epochs or minutes.
        """
        given = {name: getattr(self, name) for name in NUMBERS if getattr(self, name) is not None}
        otherwise = self.epochs is not None or self.max_minutes is not None
        return {"steps": None} | given if otherwise else given

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as JSON knows them."""
        return asdict(self)

    def network(self, depth: int, channels: int = 1, classes: int = 2) -> Architecture:
        """Returns the network of a depth, for images of so many channels and so many classes."""
        return Architecture(
            channels=channels,
            classes=classes,
            depth=depth,
            base_filters=self.base_filters,
            dropout=self.dropout,
            padding=self.padding,
            norm_layer=self.norm_layer,
        )

    def schedule_of_steps(self) -> Schedule:
        """Returns how long and how fast to train, by steps and minutes alone."""
        return self._plan(self.steps)

    def _plan(self, steps: int | None) -> Schedule:
        return Schedule(
            steps=steps,
            max_minutes=self.max_minutes,
            patience=self.patience,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
        )

    def _check_words(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                listed = ", ".join(f'"{word}"' for word in known)
                raise ValueError(
                    f"{name} must be one of {listed}. Received: {name}={getattr(self, name)!r}"
                )
        if self.engine == "elasticdeform" and find_spec("elasticdeform") is None:
            raise ImportError(
                'engine="elasticdeform" needs the library of that name: '
                "pip install --no-binary elasticdeform elasticdeform"
            )

    def _check_numbers(self) -> None:
        for name, lowest in _WHOLE.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < lowest):
                raise ValueError(
                    f"{name} must be a whole number of at least {lowest}. Received: {name}={value}"
                )
        if self.seed >= SEEDS:
            raise ValueError(f"seed must be at most {SEEDS - 1}. Received: seed={self.seed}")
        if not 0 <= self.border_weight < inf:
            raise ValueError(
                "border_weight must be at least 0, which turns the border term off. "
                f"Received: border_weight={self.border_weight}"
            )
        if self.sigma is not None and not 0 < self.sigma < inf:
            raise ValueError(
                f"sigma must be more than 0 pixels; the paper takes 5. Received: sigma={self.sigma}"
            )

    def _check_length(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                "steps and epochs are two words for one length; give one of them. "
                f"Received: steps={self.steps}, epochs={self.epochs}"
            )
        if self.epochs is not None and not 0 < self.epochs < inf:
            raise ValueError(f"epochs must be greater than 0. Received: epochs={self.epochs}")
        self._plan(1 if self.steps is None else self.steps)

    def _check_network(self) -> None:
        network = self.network(PAPER_DEPTH if self.depth is None else self.depth)
        if self.tile is not None and self.depth is None:
            deepest_for(self.tile, self.padding)
        elif self.tile is not None:
            network.check_size(self.tile, "tile")

    def _check_validation(self) -> None:
        if isinstance(self.validation, int | float):
            check_share(self.validation)
        if self.patience is not None and not self.validation:
            raise ValueError(
                "patience counts validations without a better score, so images must be held out. "
                f"Received: patience={self.patience} with validation={self.validation}"
            )


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(TrainingOptions):
    """Options with nothing left to the data, as a run records them.

    Most defaults are the paper's. A length has none.

    Raises:
        ValueError: As TrainingOptions.
        TypeError: If a number is None after all.
    """

    depth: int = PAPER_DEPTH
    tile: int = PAPER_TILE
    sigma: float = PAPER_SIGMA
    amplitude: float = PAPER_AMPLITUDE

    def __post_init__(self) -> None:
        """Refuses numbers out of range and numbers that are not set."""
        super().__post_init__()
        for name in NUMBERS:
            if name not in self.given:
                raise TypeError(f"{name} must be given; it is None")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResolvedOptions:
        """Returns the options that `to_dict` described, also after a way through JSON.

        Raises:
            KeyError: If one of them is missing.
            TypeError: If one of them is not set.
        """
        held_out = values["validation"]
        names = tuple(held_out) if isinstance(held_out, list) else held_out
        return cls(**{one.name: values[one.name] for one in fields(cls)} | {"validation": names})

    def architecture(self, *, channels: int, classes: int) -> Architecture:
        """Returns the network for images of so many channels and labels of so many classes."""
        return self.network(self.depth, channels, classes)

    @property
    def validation_tile(self) -> int | None:
        """The tile by which images are looked at, which a limit of memory binds; None for any."""
        return self.tile if self.memory_limit else None

    @property
    def hyperparameters(self) -> dict[str, bool | float | str]:
        """Hyperparameters that TensorBoard compares runs by; the names held out are one text."""
        held_out = self.validation
        names = held_out if isinstance(held_out, int | float) else ",".join(held_out)
        values = {**self.to_dict(), "validation": names}
        del values["histograms"]
        return {name: value for name, value in values.items() if value is not None}

    def augmentation(self) -> Augmentation:
        """Returns how training tiles are varied."""
        return Augmentation(amplitude=self.amplitude, zoom=self.zoom)

    def plan(self, tiles_an_epoch: float) -> Schedule:
        """Returns how long and how fast to train.

        Args:
            tiles_an_epoch: How many output tiles have as many pixels as all training images.
        """
        if self.epochs is None:
            return self._plan(self.steps)
        return self._plan(ceil(self.epochs * tiles_an_epoch / self.batch_size))


def deepest_for(tile: int, padding: Padding) -> int:
    """Returns the deepest of DEPTHS that a tile fits.

    >>> deepest_for(572, "valid"), deepest_for(188, "valid")
    (5, 4)

    Raises:
        ValueError: It fits none. The message names the sizes that fit the paper's depth.
    """
    fitting = [depth for depth in DEPTHS if Architecture(depth=depth, padding=padding).fits(tile)]
    if not fitting:
        Architecture(depth=PAPER_DEPTH, padding=padding).check_size(tile, "tile")
    return max(fitting)
