"""Table of all comparisons: contenders, sizes and goals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.peers.inputs import operations
from keras_unet.architecture import Architecture

FIGURE_1 = Architecture(dropout=0)  # dropout differs between frameworks
RATE = 1e-3  # learning rate
AMPLITUDE = 10.0  # pixels of deformation; the paper's
PRODUCT_OPERATIONS = 2  # a multiplication and an addition for each number multiplied


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the benchmarks.

    Attributes:
        network: The network of the paper, without dropout.
        tile: Input tile of training, in pixels.
        side: Height and width of the image to predict.
        prediction_tile: Input tile of prediction; None for the default of `predict`.
        matrix: Rows and columns of the matrices to multiply.
        steps: Training steps a call, for the pipeline.
        deformed: Height and width of the images to deform.
        deformations: Deformations a call.
        few: Side of the smaller label image, and its cells across and down.
        many: The same for the larger label image.
        every: Only each `every`-th of its cells is transformed over the whole image.
        slices: Number of slices to score, and their side.
        images: Number of training images, and their side.
    """

    network: Architecture = FIGURE_1
    tile: int = 572
    side: int = 2048
    prediction_tile: int | None = None
    matrix: int = 4096
    steps: int = 8
    deformed: int = 572
    deformations: int = 10
    few: tuple[int, int, int] = (512, 20, 10)
    many: tuple[int, int, int] = (2048, 40, 25)
    every: int = 20
    slices: tuple[int, int] = (5, 512)
    images: tuple[int, int] = (20, 512)


QUICK = Sizes(
    network=Architecture(depth=2, base_filters=4, dropout=0),
    tile=76,
    side=90,
    prediction_tile=76,
    matrix=256,
    steps=3,
    deformed=76,
    deformations=2,
    few=(96, 5, 4),
    many=(160, 6, 5),
    every=5,
    slices=(2, 96),
    images=(3, 128),
)


@dataclass(frozen=True)
class Goal:
    """Bound on the ratio of this package to a contender.

    >>> Goal(0.8).is_met(0.9), Goal(0.8, at_least=True).is_met(0.9)
    (False, True)
    """

    bound: float
    at_least: bool = False

    def is_met(self, ratio: float) -> bool:
        """Tells whether a ratio is on the right side of the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        """Formats the bound, such as `<= 0.8`."""
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


@dataclass(frozen=True)
class Rival:
    """A contender that this package is compared with.

    Attributes:
        contender: The contender.
        goal: Goal for the ratio, or None.
        tolerance: Largest difference of the results, relative to the largest value if that exceeds
            1; None if the results are not comparable.
    """

    contender: Contender
    goal: Goal | None
    tolerance: float | None = 0.0


@dataclass(frozen=True)
class Comparison:
    """A task done by this package and by others.

    Attributes:
        work: Description of the task.
        unit: Unit of a contender's `calls`.
        this: This package.
        rivals: The others.
        checks: Number of calls whose results are compared before the timing.
        is_rate: Whether the ratio is one of rates, where higher is better, instead of times.
    """

    work: str
    unit: str
    this: Contender
    rivals: tuple[Rival, ...]
    checks: int = 1
    is_rate: bool = False


def comparisons(sizes: Sizes, device: str) -> dict[str, Comparison]:
    """Returns all comparisons by name, in order of execution."""
    return {
        "help": _start(["-m", "keras_unet", "--help"]),
        "import": _start(["-c", "import keras_unet"]),
        "first-step": _first_step(sizes),
        "border-weights-few": _border_weights(*sizes.few, every=1),
        "border-weights-many": _border_weights(*sizes.many, every=sizes.every),
        "isbi2012": _scores(*sizes.slices),
        "deformation": _deformation(sizes, device),
        "training-bfloat16": _training(sizes, device, "bfloat16", Goal(0.80), 0.02),
        "training-float32": _training(sizes, device, "float32", Goal(0.85), 1e-4),
        "pipeline": _pipeline(sizes, device),
        "prediction-bfloat16": _prediction(sizes, device, "bfloat16", 0.1),
        "prediction-float32": _prediction(sizes, device, "float32", 1e-4),
        "arithmetic-bfloat16": _arithmetic(sizes, device, "bfloat16"),
        "arithmetic-float32": _arithmetic(sizes, device, "float32"),
    }


def _start(arguments: list[str]) -> Comparison:
    bare = Contender("click", "starting.python", {"arguments": ["-c", "import click"]})
    this = Contender("this", "starting.python", {"arguments": arguments})
    return Comparison(
        f"python {' '.join(arguments)}", "start", this, (Rival(bare, Goal(2.5), None),)
    )


def _first_step(sizes: Sizes) -> Comparison:
    images, side = sizes.images
    bare = Contender("TensorFlow", "starting.python", {"arguments": ["-c", "import tensorflow"]})
    this = Contender("this", "starting.first_step", {"images": images, "side": side})
    return Comparison(
        f"from `train` typed to the first step, {images} images of {side} x {side}",
        "start",
        this,
        (Rival(bare, Goal(2.5), None),),
    )


def _border_weights(side: int, across: int, down: int, every: int) -> Comparison:
    options = {"side": side, "across": across, "down": down}
    whole = options | {"every": every}
    return Comparison(
        f"border weights, {side} x {side}, {across * down} cells",
        "map",
        Contender("this", "bordering.here", options),
        (
            Rival(
                Contender(
                    "SciPy, the whole image a cell" + f", one cell in {every}" * (every > 1),
                    "bordering.by_whole_images",
                    whole,
                    calls=1 / every,
                ),
                Goal(0.02),
                1e-5 if every == 1 else None,
            ),
            Rival(
                Contender("SciPy by box", "bordering.by_boxes_of_scipy", options), Goal(0.7), 1e-5
            ),
            Rival(Contender("edt by box", "bordering.by_boxes_of_edt", options), Goal(0.7), 1e-5),
        ),
    )


def _scores(slices: int, side: int) -> Comparison:
    options = {"slices": slices, "side": side}
    plain = Contender("NumPy, straightforward", "scoring.straightforward", options)
    return Comparison(
        f"ISBI 2012 scores, {slices} slices of {side} x {side}, all thresholds",
        "stack",
        Contender("this", "scoring.here", options),
        (Rival(plain, Goal(0.2), 1e-9),),
    )


def _deformation(sizes: Sizes, device: str) -> Comparison:
    times, side = sizes.deformations, sizes.deformed
    options = {"side": side, "amplitude": AMPLITUDE, "times": times}

    def rival(name: str, factory: str, bound: float, tolerance: float | None) -> Rival:
        return Rival(
            Contender(name, f"deforming.{factory}", options, times), Goal(bound), tolerance
        )

    return Comparison(
        f"elastic deformation of image, labels and weights, {side} x {side}",
        "deformation",
        Contender("this", "in_keras.deformation", options | {"device": device}, times),
        (
            rival("elasticdeform", "by_elasticdeform", 0.08, 1e-3),
            rival("SciPy", "by_scipy", 0.08, 1e-3),
            rival("albumentations", "by_albumentations", 0.5, None),
        ),
    )


def _training(
    sizes: Sizes, device: str, precision: str, goal: Goal, tolerance: float
) -> Comparison:
    options = {
        "network": sizes.network,
        "tile": sizes.tile,
        "precision": precision,
        "rate": RATE,
        "device": device,
    }

    def rival(name: str, compiled: bool) -> Rival:
        with_mode = options | {"compiled": compiled}
        return Rival(Contender(name, "in_torch.training_step", with_mode), goal, tolerance)

    return Comparison(
        f"training step, {sizes.tile} x {sizes.tile}, {precision}",
        "step",
        Contender("this", "in_keras.training_step", options),
        (rival("PyTorch", compiled=False), rival("PyTorch, torch.compile", compiled=True)),
        checks=2,
    )


def _pipeline(sizes: Sizes, device: str) -> Comparison:
    def fed(name: str, cached: bool) -> Contender:
        options = {
            "network": sizes.network,
            "tile": sizes.tile,
            "precision": "bfloat16",
            "rate": RATE,
            "device": device,
            "steps": sizes.steps,
            "cached": cached,
        }
        return Contender(name, "in_keras.fed_steps", options, sizes.steps)

    return Comparison(
        f"training step fed by the pipeline, {sizes.tile} x {sizes.tile}, bfloat16",
        "step",
        fed("this", cached=False),
        (Rival(fed("one tile over and over", cached=True), Goal(1.03), 1e-3),),
    )


def _prediction_here(sizes: Sizes, device: str, precision: str, calls: float) -> Contender:
    options = _image(sizes, device) | {"precision": precision}
    return Contender("this", "in_keras.prediction", options, calls)


def _image(sizes: Sizes, device: str) -> dict[str, Any]:
    return {
        "network": sizes.network,
        "side": sizes.side,
        "tile": sizes.prediction_tile,
        "device": device,
    }


def _prediction(sizes: Sizes, device: str, precision: str, tolerance: float) -> Comparison:
    pixels, tiled = sizes.side**2, _image(sizes, device)
    whole = {name: value for name, value in tiled.items() if name != "tile"}
    precise = {"precision": precision}

    def rival(name: str, factory: str, bound: float, **options: Any) -> Rival:
        return Rival(Contender(name, factory, options, pixels), Goal(bound), tolerance)

    torch = "in_torch.prediction"
    return Comparison(
        f"prediction, {sizes.side} x {sizes.side}, stitched, {precision}",
        "useful pixel",
        _prediction_here(sizes, device, precision, pixels),
        (
            rival("PyTorch", torch, 0.80, **tiled, **precise, compiled=False),
            rival("PyTorch, torch.compile", torch, 0.80, **tiled, **precise, compiled=True),
            rival("ONNX Runtime, float32", "in_onnxruntime.prediction", 0.80, **tiled),
            rival("TensorFlow, one shot", "in_keras.one_shot", 1.10, **whole, **precise),
        ),
    )


def _arithmetic(sizes: Sizes, device: str, precision: str) -> Comparison:
    counted = operations(sizes.network, (sizes.side, sizes.side), sizes.prediction_tile)
    options = {"size": sizes.matrix, "precision": precision, "device": device}
    wanted, each = Goal(0.85, at_least=True), PRODUCT_OPERATIONS * sizes.matrix**3
    products = {"TensorFlow": "in_keras.product", "PyTorch": "in_torch.product"}
    return Comparison(
        f"arithmetic of that prediction, {precision}, and of a product of {sizes.matrix} cubed",
        "operation",
        _prediction_here(sizes, device, precision, counted),
        tuple(
            Rival(Contender(f"{name}, product", factory, options, each), wanted, None)
            for name, factory in products.items()
        ),
        is_rate=True,
    )
