"""From the probability of being cell to a label image, by a options of a few numbers.

Training parts touching cells by a gap of background (`separate_touching`), so that the network
learns to leave it out and each cell becomes a component of its own: the paper's way. Where the gap
is not found all along, two cells stay one component. They can be told apart by their shape, being
wide on both sides of a merge_threshold, or by a probability that falls between two summits; then the component
is a regions of two basins (`keras_unet.instances.watershed`). What the gap took is given back at
the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.data.distances import nearest_two
from keras_unet.instances.watershed import WatershedRegions

Markers = Literal["components", "probability", "distance"]

OUTSIDE = -1
"""Value that `BackgroundComponents` takes for pixels outside of the image."""

_DIAGONAL = 1.415  # of a pixel; a little above sqrt(2), so that rounding does not decide


@dataclass(frozen=True, kw_only=True)
class InstanceOptions:
    """Options for making cells of probabilities; the defaults are the paper's connected components.

    Attributes:
        threshold: A pixel is foreground if its probability of being cell is above it.
        markers: What tells cells apart that are one component. "components": nothing. "distance":
            their shape, a cell is grown from where its distance to the background is largest.
            "probability": a cell is grown from where its probability is highest.
        merge_threshold: Cells are parted if the distance, or the probability, falls between them to less than
            this share of the lower of their two summits. The more, the more cells.
        minimum_size: A cell of fewer pixels is joined to the one it touches, or removed if it
            touches none.
        gap: Width in pixels of gaps between cells that are closed; 2 is what `separate_touching`
            leaves, 0 closes nothing.
        fill_holes: Whether a cell gets the background that it alone surrounds.

    Raises:
        ValueError: If a number is out of range, or `markers` is unknown; the message names it.
    """

    threshold: float = 0.5
    markers: Markers = "components"
    merge_threshold: float = 0.6
    minimum_size: int = 0
    gap: float = 2.0
    fill_holes: bool = True

    def __post_init__(self) -> None:
        """Refuses what is out of range."""
        if not 0 <= self.threshold < 1:
            raise ValueError(
                "threshold must be a probability of at least 0 and less than 1. "
                f"Received {self.threshold}; 0.5 is the middle."
            )
        if self.markers not in get_args(Markers):
            raise ValueError(
                f"markers must be of {', '.join(get_args(Markers))}. Received {self.markers}"
            )
        if not 0 <= self.merge_threshold <= 1:
            raise ValueError(
                f"merge_threshold must be a share between 0 and 1. Received {self.merge_threshold}; 0 parts nothing."
            )
        if not isinstance(self.minimum_size, int) or self.minimum_size < 0:
            raise ValueError(
                "minimum_size must be a whole number of pixels, 0 or more. "
                f"Received {self.minimum_size}; 0 keeps all cells."
            )
        if not 0 <= self.gap < math.inf:
            raise ValueError(
                f"gap must be 0 pixels or more. Received {self.gap}; training leaves 2."
            )

    def describe(self) -> str:
        """Describes the options to a person, in one line.

        Example:
            >>> InstanceOptions(markers="distance", minimum_size=30).describe()
            'cells: probability above 0.5, parted where they narrow to less than 0.6 of their width,
             of at least 30 pixels, gaps of 2 pixels closed, holes filled'
        """
        parted = {
            "components": "connected",
            "distance": f"parted where they narrow to less than {self.merge_threshold:g} of their width",
            "probability": f"parted where it falls below {self.merge_threshold:g} of what it is on both sides",
        }
        size = f"of at least {self.minimum_size} pixels" if self.minimum_size else "of any size"
        gap = f"gaps of {self.gap:g} pixels closed" if self.gap else "gaps left open"
        holes = "holes filled" if self.fill_holes else "holes kept"
        above = f"probability above {self.threshold:g}"
        return f"cells: {', '.join((above, parted[self.markers], size, gap, holes))}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers as JSON knows them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InstanceOptions:
        """Returns what `to_dict` described."""
        return cls(**values)


def cell_probability(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Joins all classes but the background, which is the first.

    Args:
        probabilities: What `predict_image` gives, `(height, width, classes)`.

    Returns:
        The probability of being cell, `(height, width)`, float32.
    """
    return np.asarray(1 - probabilities[..., 0], np.float32).clip(0, 1)


def label_instances(
    probability: NDArray[np.floating | np.bool_], options: InstanceOptions | None = None
) -> NDArray[np.int32]:
    """Numbers the cells.

    In the order of the options's numbers: the foreground is cut into cells, small ones are joined or
    removed, gaps are closed and holes filled. Cells at the image's border are cells. Pixels of a
    cell are neighbours over their edges. A hole is background that touches one cell and nothing
    else: no other cell, nor, over edges or corners, the image's border.

    A background pixel lies in a gap, and goes to its nearest cell, if d1 + d2 <= 1 + sqrt(2) * gap,
    with the distances to the two nearest cells, and no square of 2 * gap + 1 pixels a side that
    holds the pixel is all background. The first condition is that of the gap's width: one of n
    pixels has d1 + d2 = n + 1, and along a diagonal, where it comes out twice as many pixels wide,
    up to 1 + sqrt(2) * n. The second keeps cells from growing outward where the gap opens.

    Args:
        probability: Probability of being cell, `(height, width)`, see `cell_probability`; or a
            mask, True in cells.
        options: How; None for the defaults.

    Returns:
        Integer label image, `(height, width)`, int32: 0 is background, cells are 1 ... n.

    Raises:
        ValueError: If `probability` is not one image of probabilities.

    Example:
        >>> label_instances(np.array([[1, 1, 0, 0, 1, 1, 0, 0, 0, 1]], dtype=bool)).tolist()
        [[1, 1, 1, 2, 2, 2, 0, 0, 0, 3]]
        >>> row = np.array([[0.9, 0.9, 0.6, 0.8, 0.8, 0.1, 0.7]])
        >>> label_instances(row, InstanceOptions(markers="probability", merge_threshold=0.8, gap=0)).tolist()
        [[1, 1, 1, 2, 2, 0, 3]]
    """
    _check(probability)
    options = options or InstanceOptions()
    regions = watershed_regions(probability, options.threshold, options.markers)
    cells = regions.cells(options.merge_threshold, options.minimum_size)[regions.labels]
    closed = close_gaps(cells, options.gap) if options.gap else cells
    return _without_holes(closed) if options.fill_holes else closed


def watershed_regions(
    probability: NDArray[np.floating | np.bool_], threshold: float, markers: Markers
) -> WatershedRegions:
    """Returns the regions whose basins are the cells or parts of them; see `InstanceOptions`.

    Args:
        probability: Probability of being cell, `(height, width)`.
        threshold: The regions is where it is above this.
        markers: What its height is: the same everywhere, the probability, or the distance to the
            background in pixels. The image's border is no background.
    """
    foreground = np.asarray(probability > threshold, np.bool_)
    if markers == "probability":
        return WatershedRegions.of(probability.astype(np.float32), foreground)
    if markers == "distance":
        return WatershedRegions.of(ndimage.distance_transform_edt(foreground), foreground)
    return WatershedRegions.of(np.ones(foreground.shape, np.float32), foreground)


def close_gaps(cells: NDArray[np.int32], gap: float) -> NDArray[np.int32]:
    """Gives the gaps between cells to the nearest, see `label_instances`.

    A pixel's outcome depends on those up to `reach_of_gaps(gap)` rows and columns away.

    Args:
        cells: Integer label image, `(height, width)`.
        gap: Width in pixels of gaps that are closed.
    """
    d1, d2, nearest = nearest_two(cells, _DIAGONAL * gap)
    between = (d1 + d2 <= 1 + _DIAGONAL * gap) & _closed(cells > 0, 2 * math.ceil(gap) + 1)
    return np.where(between, nearest, cells)


def _closed(foreground: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Fills the background that squares of `side` pixels within it cannot cover (a closing)."""
    height, width = foreground.shape
    padded = np.pad(foreground, side)  # such squares may reach out of the image
    closed: NDArray[np.bool_] = ndimage.grey_closing(padded, size=(side, side))
    return closed[side : side + height, side : side + width]


def reach_of_gaps(gap: float) -> int:
    """Returns how far away, in rows and columns, `close_gaps` looks.

    Two squares of `2 * ceil(gap) + 1` pixels a side that share a pixel reach so far, and a distance
    up to `sqrt(2) * gap` no farther.
    """
    return 2 * math.ceil(gap)


def _without_holes(cells: NDArray[np.int32]) -> NDArray[np.int32]:
    pockets = BackgroundComponents.of(np.pad(cells, 1, constant_values=OUTSIDE))
    return pockets.filled(cells, owners(pockets.lowest, pockets.highest))


@dataclass(frozen=True, eq=False)
class BackgroundComponents:
    """The pieces of the background, joined over edges and corners, and which cells they touch.

    Attributes:
        numbers: Pocket of each pixel, 1 ... n, `(height, width)`; 0 in cells.
        lowest: Lowest number of the cells that each touches, `(n + 1,)`; OUTSIDE is below all.
        highest: Highest number of them, `(n + 1,)`.
    """

    numbers: NDArray[np.integer]
    lowest: NDArray[np.int32]
    highest: NDArray[np.int32]

    @classmethod
    def of(cls, cells: NDArray[np.int32]) -> BackgroundComponents:
        """Finds the pockets of a label image.

        Args:
            cells: Label image with one pixel more on each side, which belongs to none of the
                pockets but may touch them; OUTSIDE where it lies outside of the image.
        """
        numbers, number = ndimage.label(cells[1:-1, 1:-1] == 0, np.ones((3, 3)))
        beside = cells[:-2, 1:-1], cells[2:, 1:-1], cells[1:-1, :-2], cells[1:-1, 2:]
        touching = (numbers > 0) & np.any([one != 0 for one in beside], axis=0)
        around, pocket = np.stack([one[touching] for one in beside]), numbers[touching]
        lowest = np.full(number + 1, np.iinfo(np.int32).max, np.int32)
        highest = np.zeros(number + 1, np.int32)
        np.maximum.at(highest, pocket, around.max(axis=0))
        np.minimum.at(lowest, pocket, np.where(around != 0, around, lowest[0]).min(axis=0))
        return cls(numbers, lowest, highest)

    def filled(self, cells: NDArray[np.int32], owner: NDArray[np.int32]) -> NDArray[np.int32]:
        """Gives each pocket to its owner; 0 leaves it background."""
        return np.where(cells > 0, cells, owner[self.numbers])


def owners(lowest: NDArray[np.int32], highest: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns the one cell that each pocket touches; 0 if it touches others or the outside."""
    return np.where(lowest == highest, highest, 0).astype(np.int32)


def _check(probability: NDArray[Any]) -> None:
    """Refuses what is neither probabilities nor a mask."""
    if probability.ndim != 2 or probability.size == 0:
        raise ValueError(
            "probability must be one image of shape (height, width). Received shape "
            f"{probability.shape}; cell_probability joins the classes of predict_image."
        )
    if probability.dtype.kind not in "fb" or not _is_between_0_and_1(probability):
        raise ValueError(
            "probability must hold numbers from 0 to 1, or be a boolean mask. Received "
            f"{probability.dtype} from {probability.min()} to {probability.max()}; compare a mask "
            "first, e.g. `mask > 0`."
        )


def _is_between_0_and_1(values: NDArray[Any]) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1)  # and no NaN, which neither is
