"""Options of a training, validated when they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from math import ceil, inf
from typing import Any, Literal, get_args

from keras_unet.architecture import Architecture, NormLayer, Padding
from keras_unet.backend import choose_precision
from keras_unet.data.augmentation import Augmentation
from keras_unet.data.channels import Channels, Selection
from keras_unet.data.encoding import Kind
from keras_unet.data.groups import Grouping, check_grouping
from keras_unet.data.normalization import Mode
from keras_unet.data.pipeline import Engine
from keras_unet.data.samples import check_fraction
from keras_unet.data.sampling import Sampling
from keras_unet.training.schedule import Optimizer, Schedule

PAPER_DEPTH = 4
"""Number of poolings in figure 1 of the paper."""

PAPER_TILE = 572
"""Height and width of the input tile in figure 1, in pixels."""

PAPER_AMPLITUDE = 10.0
"""Standard deviation of the elastic deformation in section 3.1, in pixels."""

PAPER_SIGMA = 5.0
"""sigma of equation 2 in section 3, in pixels."""

LEARNING_RATES: Mapping[Optimizer, float] = {"sgd": 1e-2, "adam": 1e-3}
"""Highest learning rate of each optimizer."""

FINE_TUNING_RATE = 3 / 10
"""Learning rate of a training from a model, as a share of that of one from scratch."""

DEPTHS = 3, 4
"""Depths that auto-configuration chooses from. A tile that fits one fits the smaller ones too."""

AUTOCONFIGURED = (
    *("affinities", "class_balance", "depth", "tile", "amplitude", "sigma", "steps"),
    "learning_rate",
)
"""Options that `keras_unet.training.autoconfig` sets from the data if they are None."""

INTENSITY = "contrast", "brightness", "gamma", "noise", "blur", "illumination"
"""Options of the augmentation of grey values."""

SEEDS = 2**32
"""Number of seeds that Keras and NumPy accept, from 0."""


def learning_rate_of(optimizer: Optimizer, *, fine_tuning: bool) -> float:
    """Returns the highest learning rate of a training from scratch, or from a model."""
    return LEARNING_RATES[optimizer] * (FINE_TUNING_RATE if fine_tuning else 1)


_CHOICES = {
    "kind": ("auto", *get_args(Kind)),
    "normalization": get_args(Mode),
    "engine": get_args(Engine),
    "sampling": get_args(Sampling),
    "optimizer": get_args(Optimizer),
}
_ABSENT = {  # values of options that older runs do not record
    "channels": None,
    "optimizer": "sgd",
    "contrast": 0.15,
    "brightness": 0.15,
    **dict.fromkeys(("gamma", "noise", "blur", "illumination"), 0.0),
    "sampling": "uniform",
    "groups": "auto",
    "affinities": False,
    "final_share": 0.0,
    "normalize_kernels": False,
}
_SMALLEST = {"batch_size": 1, "seed": 0, "ignore": 0, "unlabelled": 0, "memory_limit": 1}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training.

    Affinities, class balance, steps, depth, tile, sigma, amplitude and learning rate that are None
    are set by rules, see `keras_unet.training.autoconfig`.

    Attributes:
        steps: Number of updates. None sets it from the data, unless `epochs` or `max_minutes` is
            given.
        epochs: Length in passes over the training pixels, in place of `steps`.
        max_minutes: Time limit in minutes; with steps or epochs, the first limit reached ends the
            training.
        patience: Validations without a better score after which training ends.
        base_filters: Features of the first level. The paper takes 64, sixteen times the
            arithmetic of 16.
        depth: Number of poolings, or None. The paper takes 4.
        padding: "valid" as in the paper, or "same".
        norm_layer: None as in the paper, "batch" or "group".
        dropout: Dropout rate at the end of the contracting path; `build_unet` has 0.5.
        affinities: Whether the network also learns which pixels belong to the same object, to
            separate objects that touch; None for tissue alone. The paper has no such output.
            Without effect for labels of more than two classes.
        tile: Height and width of the input tile in pixels, or None. The paper takes 572.
        batch_size: Tiles per batch. The paper takes 1.
        memory_limit: Limit of the memory in bytes, kept by a smaller tile if necessary; None for no
            limit.
        validation: Share of the images held out, or their names.
        final_share: Share of the training, at its end, in which the images held out are trained on
            as well; instance options and score are those before it. Without effect if training
            ends by `patience`. Not for cross-validation, whose folds are scored together.
        groups: Images that belong together, such as frames of a film: "auto" to find them; "none";
            a regular expression whose first group is the name of the group, such as
            "(slide[0-9]+)"; or, for arrays, the name of each image's group.
        seed: Seed of all that is random, from 0 to 2**32 - 1.
        precision: "auto", "float32", "bfloat16" or "float16".
        kind: Kind of the labels: "classes", "instances", or "auto" to detect it.
        axes: Axes of images whose files do not state them, such as "YXC", or None.
        channels: Channels of image files to train on: numbers, from 0, or names as in the files,
            such as ("DAPI",); None for all. A prediction reads the same channels.
        ignore: Label value of pixels without weight in the loss and the scores, or None.
        unlabelled: Label value of the pixels that nobody has labelled, for images of which only
            some objects, or strokes, are labelled; or None. They have no weight either, tiles are
            centered at the others, and a predicted object that lies mostly there is not false. If
            it is 0, the background of numbered objects is 1.
        allow_empty: Whether label files without any foreground are accepted.
        normalization: Normalize grey values per "image" or per "dataset".
        border_weight: w0 of equation 2. The paper takes 10; 0 turns the border term off.
        sigma: sigma of equation 2 in pixels, or None. The paper takes about 5.
        class_balance: Whether w_c of equation 2 balances the classes, as in the paper; None for
            that if one of them is rare.
        amplitude: Standard deviation of the elastic deformation in pixels, or None. The paper
            takes 10.
        zoom: Standard deviation of the logarithm of the random scaling factor. The paper has none.
        contrast: Random contrast, as the following five in the units of `Augmentation`.
        brightness: Random brightness.
        gamma: Random gamma.
        noise: Random noise.
        blur: Random blur.
        illumination: Random uneven illumination.
        sampling: Centers of tiles: "uniform", or "classes" for half of them by class; for instances
            by cells and by borders between close cells.
        engine: Backend of the elastic deformation, "graph" or "elasticdeform".
        optimizer: "adam", or "sgd" with Nesterov momentum. The paper takes SGD with momentum.
        learning_rate: The highest learning rate, after the warm-up, or None.
        momentum: Momentum of SGD. The paper takes 0.99.
        normalize_kernels: Whether the kernels of 3 x 3 convolutions are normalized after each
            update, see `keras_unet.training.kernel_norm`. The paper does not.
        histograms: Whether to log histograms of all weights for TensorBoard.

    Raises:
        ValueError: If an option is out of range or unknown, or two options contradict each other.
        ImportError: If `engine` is "elasticdeform" and the library is missing.
    """

    steps: int | None = None
    epochs: float | None = None
    max_minutes: float | None = None
    patience: int | None = None
    base_filters: int = 16
    depth: int | None = None
    padding: Padding = "valid"
    norm_layer: NormLayer | None = None
    dropout: float = 0.2
    affinities: bool | None = None
    tile: int | None = None
    batch_size: int = 1
    memory_limit: int | None = None
    validation: float | Sequence[str] = 0.2
    final_share: float = 0.0
    groups: Grouping = "auto"
    seed: int = 0
    precision: str = "auto"
    kind: Kind | Literal["auto"] = "auto"
    axes: str | None = None
    channels: Channels | None = None
    ignore: int | None = None
    unlabelled: int | None = None
    allow_empty: bool = False
    normalization: Mode = "image"
    border_weight: float = 10.0
    sigma: float | None = None
    class_balance: bool | None = None
    amplitude: float | None = None
    zoom: float = 0.25
    contrast: float = 0.15
    brightness: float = 0.15
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    illumination: float = 0.0
    sampling: Sampling = "uniform"
    engine: Engine = "graph"
    optimizer: Optimizer = "adam"
    learning_rate: float | None = None
    momentum: float = 0.99
    normalize_kernels: bool = True
    histograms: bool = False

    def __post_init__(self) -> None:
        """Validates the options, before any file is read."""
        self._check_choices()
        self._check_numbers()
        self._check_length()
        self._check_validation()
        self._check_network()
        check_grouping(self.groups)
        Selection.of(self.channels)
        self._augmentation(self.amplitude or 0.0)
        choose_precision(self.precision)

    @property
    def given(self) -> dict[str, Any]:
        """The auto-configured options that are given, by name.

        Steps are None if the length is given in epochs or minutes.
        """
        values = {name: getattr(self, name) for name in AUTOCONFIGURED}
        given = {name: value for name, value in values.items() if value is not None}
        has_other_length = self.epochs is not None or self.max_minutes is not None
        return {"steps": None} | given if has_other_length else given

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as values for JSON."""
        return asdict(self)

    def network(
        self, depth: int, channels: int = 1, classes: int = 2, kind: Kind = "classes"
    ) -> Architecture:
        """Returns the architecture of a depth, for a number of channels and of classes.

        Several classes of the kind "classes" have no affinities, as their objects are not known.
        """
        return Architecture(
            channels=channels,
            classes=classes,
            depth=depth,
            base_filters=self.base_filters,
            dropout=self.dropout,
            padding=self.padding,
            norm_layer=self.norm_layer,
            affinities=bool(self.affinities) and (classes == 2 or kind == "instances"),
        )

    def _augmentation(self, amplitude: float) -> Augmentation:
        ranges = {name: getattr(self, name) for name in ("zoom", *INTENSITY)}
        return Augmentation(amplitude=amplitude, **ranges)

    def schedule_of_steps(self) -> Schedule:
        """Returns length and learning rate of a training given in steps or minutes."""
        return self._schedule(self.steps)

    def _schedule(self, steps: int | None) -> Schedule:
        rate = self.learning_rate
        return Schedule(
            steps=steps,
            max_minutes=self.max_minutes,
            patience=self.patience,
            optimizer=self.optimizer,
            learning_rate=LEARNING_RATES[self.optimizer] if rate is None else rate,
            momentum=self.momentum,
            normalize_kernels=self.normalize_kernels,
            final_share=self.final_share,
        )

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                listed = ", ".join(f'"{choice}"' for choice in choices)
                raise ValueError(
                    f"{name} must be one of {listed}. Received: {name}={getattr(self, name)!r}"
                )
        if self.engine == "elasticdeform" and find_spec("elasticdeform") is None:
            raise ImportError(
                'engine="elasticdeform" needs the library elasticdeform: '
                "pip install --no-binary elasticdeform elasticdeform"
            )

    def _check_numbers(self) -> None:
        for name, lowest in _SMALLEST.items():
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
                "steps and epochs both give the length of the training; give one of them. "
                f"Received: steps={self.steps}, epochs={self.epochs}"
            )
        if self.epochs is not None and not 0 < self.epochs < inf:
            raise ValueError(f"epochs must be greater than 0. Received: epochs={self.epochs}")
        self._schedule(1 if self.steps is None else self.steps)

    def _check_network(self) -> None:
        network = self.network(PAPER_DEPTH if self.depth is None else self.depth)
        if self.tile is not None and self.depth is None:
            deepest_for(self.tile, self.padding)
        elif self.tile is not None:
            network.check_size(self.tile, "tile")

    def _check_validation(self) -> None:
        if isinstance(self.validation, int | float):
            check_fraction(self.validation)
        if self.patience is not None and not self.validation:
            raise ValueError(
                "patience counts validations without a better score, so images must be held out. "
                f"Received: patience={self.patience} with validation={self.validation}"
            )


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(TrainingOptions):
    """Options of which none is to be set from the data, as a run records them.

    Steps, epochs or minutes must be given; affinities, class balance, depth, tile, sigma and
    amplitude default to the paper's.

    Raises:
        ValueError: As `TrainingOptions`.
        TypeError: If a number is None.
    """

    affinities: bool = False
    class_balance: bool = True
    depth: int = PAPER_DEPTH
    tile: int = PAPER_TILE
    sigma: float = PAPER_SIGMA
    amplitude: float = PAPER_AMPLITUDE
    learning_rate: float = LEARNING_RATES["adam"]

    def __post_init__(self) -> None:
        """Validates the options, and that all numbers are set."""
        super().__post_init__()
        for name in AUTOCONFIGURED:
            if name not in self.given:
                raise TypeError(f"{name} must be given; it is None")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResolvedOptions:
        """Rebuilds the options from the result of `to_dict`, also after a round trip through JSON.

        Raises:
            KeyError: If one of them is missing, except those that older runs lack.
            TypeError: If one of them is not set.
        """
        recorded = {**_ABSENT, **values}
        given = {field.name: recorded[field.name] for field in fields(cls)}
        lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(**given | lists)

    def architecture(self, *, channels: int, classes: int, kind: Kind = "classes") -> Architecture:
        """Returns the architecture for a number of channels, of classes, and their kind."""
        return self.network(self.depth, channels, classes, kind)

    @property
    def validation_tile(self) -> int | None:
        """Tile to predict the images held out by, if memory is limited; else None."""
        return self.tile if self.memory_limit else None

    @property
    def hyperparameters(self) -> dict[str, bool | float | str]:
        """Hyperparameters by which TensorBoard compares runs, as single values."""
        values = {
            name: ",".join(value) if isinstance(value, list | tuple) else value
            for name, value in self.to_dict().items()
        }
        del values["histograms"]
        return {name: value for name, value in values.items() if value is not None}

    def augmentation(self) -> Augmentation:
        """Returns the augmentation of the training tiles."""
        return self._augmentation(self.amplitude)

    def schedule(self, tiles_per_epoch: float) -> Schedule:
        """Returns the length and learning rate of the training.

        Args:
            tiles_per_epoch: Pixels of all training images, divided by those of an output tile.
        """
        if self.epochs is None:
            return self._schedule(self.steps)
        return self._schedule(ceil(self.epochs * tiles_per_epoch / self.batch_size))


def deepest_for(tile: int, padding: Padding) -> int:
    """Returns the greatest of `DEPTHS` that an input tile fits.

    Args:
        tile: Height and width of the input tile in pixels.
        padding: Padding of the network.

    Raises:
        ValueError: If the tile fits none. The message names sizes that fit the paper's depth.

    Example:
        >>> deepest_for(572, "valid"), deepest_for(180, "valid")
        (4, 3)
    """
    fitting = [depth for depth in DEPTHS if Architecture(depth=depth, padding=padding).fits(tile)]
    if not fitting:
        Architecture(depth=PAPER_DEPTH, padding=padding).check_size(tile, "tile")
    return max(fitting)
