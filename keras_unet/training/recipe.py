"""The recipe: five numbers of a training, set by what is seen in its images.

Each is one rule, a function below; its constants stand here. A number that a person gives takes the
place of its rule, and the rules after it go by that number. nnU-Net (Isensee et al. 2021) showed
that such rules can do without tuning.

depth           As far as the network sees around a pixel (its margin) the larger cells reach.
tile            Its output covers an image of median size and holds some of the larger cells; it is
                no larger than the paper's, nor than memory is to hold.
amplitude       The deformation strains a tile as the paper's 10 pixels strain one of 572.
sigma           The border term reaches as far as the paper's, less where cells are small.
steps           So many passes over the training pixels, within limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

from keras_unet.architecture import Architecture, Padding
from keras_unet.data.fingerprint import Fingerprint

PAPER_DEPTH, PAPER_TILE, PAPER_AMPLITUDE, PAPER_SIGMA = 4, 572, 10.0, 5.0

DEPTHS = 3, 4, 5  # that the rule chooses from; a tile that fits one of them fits those before it
CELLS_IN_TILE = 2.5  # larger cells that stand side by side in a tile's output, at least
SIGMAS_IN_CELL = 8  # sigmas in the diameter of the median cell
SIGMAS = 2.0, PAPER_SIGMA  # least and most, in pixels
PASSES = 100  # over the training pixels
STEPS = 2500, 10_000  # least and most

NUMBERS = "depth", "tile", "amplitude", "sigma", "steps"  # each has its rule

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers that a training takes from the data.

    Attributes:
        depth: Number of poolings.
        tile: Height and width of the input tile in pixels.
        amplitude: Standard deviation of the elastic deformation in pixels.
        sigma: sigma of equation 2 in pixels.
        steps: Updates; None where the length is given in other words.
        reasons: Why, for each number that a rule has set.
    """

    depth: int
    tile: int
    amplitude: float
    sigma: float
    steps: int | None
    reasons: Mapping[str, str]

    @classmethod
    def of(
        cls,
        seen: Fingerprint,
        *,
        padding: Padding = "valid",
        batch_size: int = 1,
        largest_tile: Callable[[int], int | None] = lambda _: None,
        **given: Any,
    ) -> Recipe:
        """Applies the rules.

        Args:
            seen: What was seen over the training images.
            padding: The network's.
            batch_size: Tiles a batch.
            largest_tile: Gives the largest tile that memory is to hold at a depth; None for any.
            given: Numbers that are not to be chosen, by name.
        """
        reasons: dict[str, str] = {}

        def choose(name: str, rule: Callable[..., tuple[Number, str]], *facts: Any) -> Number:
            if name in given:
                number: Number = given[name]
            else:
                number, reasons[name] = rule(*facts)
            return number

        depth = choose("depth", _depth, seen, padding, given.get("tile"))
        network = Architecture(depth=depth, padding=padding)
        tile = choose("tile", _tile, seen, network, largest_tile)
        return cls(
            depth=depth,
            tile=tile,
            amplitude=choose("amplitude", _amplitude, tile),
            sigma=choose("sigma", _sigma, seen),
            steps=choose("steps", _steps, seen, network.output_size(tile), batch_size),
            reasons=reasons,
        )

    def describe(self) -> str:
        """Lists to a person what the rules have set: the option of each number, and why."""
        options = {name: self._option(name) for name in self.reasons}
        width = max(map(len, options.values()), default=0)
        return "\n".join(
            f"  {option:{width}}  {self.reasons[name]}" for name, option in options.items()
        )

    def _option(self, name: str) -> str:
        return f"--{name} {getattr(self, name):g}"


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


def _depth(seen: Fingerprint, padding: Padding, tile: int | None) -> tuple[int, str]:
    """The margin is at least the 90th percentile of the cells' diameters; a given tile fits."""
    wanted, reason = _depth_for_cells(seen)
    deepest = wanted if tile is None else deepest_for(tile, padding)
    if wanted <= deepest:
        return wanted, reason
    return deepest, f"poolings, the most that --tile {tile} fits"


def _depth_for_cells(seen: Fingerprint) -> tuple[int, str]:
    if seen.diameters is None:
        return PAPER_DEPTH, "the paper's, as there are no cells to measure"
    large = seen.diameters.high
    margins = {depth: Architecture(depth=depth).margin for depth in DEPTHS}
    depth = next((depth for depth in DEPTHS if margins[depth] >= large), DEPTHS[-1])
    return depth, (
        f"poolings, to see {margins[depth]} pixels around each pixel: large cells are {large:.0f}"
    )


def _tile(
    seen: Fingerprint, network: Architecture, largest_tile: Callable[[int], int | None]
) -> tuple[int, str]:
    """The output covers the median image, or some of the larger cells; the paper's at most."""
    cells = CELLS_IN_TILE * seen.diameters.high if seen.diameters else 0.0
    covered = max(ceil(cells), ceil(seen.median_side))
    what = "an image" if seen.median_side >= cells else f"{CELLS_IN_TILE:g} large cells"
    wanted = covered + 2 * network.margin
    tile = network.fitting_size(min(PAPER_TILE, wanted))
    held = largest_tile(network.depth)
    if held is not None and held < tile:
        return held, f"pixels, the most that --memory-limit leaves room for; without it, {tile}"
    if wanted > tile:
        return tile, f"pixels, the paper's; {what} of {covered} would take a larger one"
    return tile, (
        f"pixels, of which {network.output_size(tile)} are scored, to cover {what} of {covered}"
    )


def _amplitude(tile: int) -> tuple[float, str]:
    """The paper's 10 pixels belong to its tile of 572; the strain of the deformation is kept."""
    amplitude = round(PAPER_AMPLITUDE * tile / PAPER_TILE, 1)
    return amplitude, (
        f"pixels of elastic deformation: {PAPER_AMPLITUDE:g} in a tile of {PAPER_TILE}, to scale"
    )


def _sigma(seen: Fingerprint) -> tuple[float, str]:
    """The paper's 5 pixels, less where the median cell has less than eight times that."""
    if seen.diameters is None:
        return PAPER_SIGMA, "pixels, the paper's, as there are no cells to measure"
    least, most = SIGMAS
    cell = seen.diameters.median
    sigma = round(min(max(cell / SIGMAS_IN_CELL, least), most), 1)
    return sigma, (
        f"pixels of reach between cells: 1/{SIGMAS_IN_CELL} of a cell of {cell:.0f}, "
        f"{least:g} to {most:g}"
    )


def _steps(seen: Fingerprint, output: int, batch_size: int) -> tuple[int, str]:
    """A hundred passes over the training pixels, within limits."""
    least, most = STEPS
    passes = PASSES * seen.pixels / output**2 / batch_size
    steps = min(max(round(passes), least), most)
    return steps, (
        f"{PASSES} passes over the training pixels are {passes:,.0f} steps; "
        f"{least:,} to {most:,} are taken"
    )
