"""Instance labels from a map of cell probabilities.

As in the paper, training inserts a gap of background between touching cells (`separate_touching`),
so that each cell becomes a connected component. If the network misses part of a gap, two cells stay
one component. A watershed (`keras_unet.instances.watershed`) can split them by their shape, where
the component is narrow, or by the probability, where it falls between two maxima. At the end the
gaps are closed.
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
"""Label of pixels outside the image, see `BackgroundComponents`."""

_DIAGONAL = 1.415  # of a pixel; a little above sqrt(2), so that rounding does not decide


@dataclass(frozen=True, kw_only=True)
class InstanceOptions:
    """Options for instance labels; the defaults give the paper's connected components.

    Attributes:
        threshold: Probability above which a pixel is foreground.
        markers: Watershed markers within a connected component. "components": none, each component
            is a cell. "distance": maxima of the distance to the background. "probability": maxima
            of the probability.
        merge_threshold: Two regions of the watershed are separate cells if the distance, or the
            probability, falls between them below this fraction of the lower maximum. Larger values
            give more cells.
        minimum_size: Size in pixels below which a cell is merged with the cell it touches, or
            removed if it touches none.
        gap: Width in pixels up to which gaps between cells are closed; `separate_touching` leaves
            gaps of 2 pixels. 0 closes none.
        fill_holes: Whether background that is surrounded by one cell becomes part of the cell.
        affinities: Whether touching objects are separated by affinities before all else, see
            `keras_unet.instances.affinities`; only for a network that predicts them.

    Raises:
        ValueError: If a number is out of range, or `markers` is unknown.
    """

    threshold: float = 0.5
    markers: Markers = "components"
    merge_threshold: float = 0.6
    minimum_size: int = 0
    gap: float = 2.0
    fill_holes: bool = True
    affinities: bool = False

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 <= self.threshold < 1:
            raise ValueError(
                "threshold must be a probability of at least 0 and less than 1, such as 0.5. "
                f"Received: threshold={self.threshold}"
            )
        if self.markers not in get_args(Markers):
            raise ValueError(
                f"markers must be one of {', '.join(get_args(Markers))}. "
                f"Received: markers={self.markers}"
            )
        if not 0 <= self.merge_threshold <= 1:
            raise ValueError(
                "merge_threshold must be between 0 and 1; 0 splits no cells. "
                f"Received: merge_threshold={self.merge_threshold}"
            )
        if not isinstance(self.minimum_size, int) or self.minimum_size < 0:
            raise ValueError(
                "minimum_size must be a whole number of pixels, 0 or more; 0 keeps all cells. "
                f"Received: minimum_size={self.minimum_size}"
            )
        if not 0 <= self.gap < math.inf:
            raise ValueError(
                "gap must be 0 pixels or more; training leaves gaps of 2 pixels. "
                f"Received: gap={self.gap}"
            )

    def describe(self) -> str:
        """Returns a summary in one line.

        Example:
            >>> InstanceOptions(markers="distance", minimum_size=30).describe()
            'cells: probability above 0.5, split where they narrow below 0.6 of their width,
             of at least 30 pixels, gaps of 2 pixels closed, holes filled'
        """
        split = {
            "components": "connected components",
            "distance": f"split where they narrow below {self.merge_threshold:g} of their width",
            "probability": f"split where it falls below {self.merge_threshold:g} of its maximum",
        }
        size = f"of at least {self.minimum_size} pixels" if self.minimum_size else "of any size"
        gap = f"gaps of {self.gap:g} pixels closed" if self.gap else "gaps left open"
        holes = "holes filled" if self.fill_holes else "holes kept"
        above = f"probability above {self.threshold:g}"
        separated = ("separated by affinities",) if self.affinities else ()
        return f"cells: {', '.join((above, *separated, split[self.markers], size, gap, holes))}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InstanceOptions:
        """Creates options from the result of `to_dict`."""
        return cls(**values)


def cell_probability(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Sums the probabilities of all classes except the background, which is the first.

    Args:
        probabilities: Class probabilities from `predict_image`, `(height, width, classes)`.

    Returns:
        The cell probability, `(height, width)`, float32.
    """
    return np.asarray(1 - probabilities[..., 0], np.float32).clip(0, 1)


def label_instances(
    probability: NDArray[np.floating | np.bool_], options: InstanceOptions | None = None
) -> NDArray[np.int32]:
    """Computes a label image of the cells.

    The foreground is split into cells, small cells are merged or removed, gaps are closed and holes
    are filled, in this order. Cells are edge-connected; cells at the image border are kept. A hole
    is background that touches a single cell and, over edges or corners, neither another cell nor
    the image border.

    A background pixel lies in a gap, and gets the label of its nearest cell, if both hold:

    - d1 + d2 <= 1 + sqrt(2) * gap, with the distances to the two nearest cells. Across a gap of n
      pixels d1 + d2 = n + 1; along a diagonal, where `separate_touching` leaves twice as many
      pixels, it is up to 1 + sqrt(2) * n.
    - No background square of side 2 * gap + 1 contains the pixel. This keeps cells from growing
      outward where the gap opens.

    Args:
        probability: Cell probability, `(height, width)`, see `cell_probability`; or a mask, True in
            cells.
        options: Options; None for the defaults.

    Returns:
        Label image, `(height, width)`, int32: 0 is background, cells are 1 ... n.

    Raises:
        ValueError: If `probability` is not a two-dimensional image of probabilities.

    Example:
        >>> label_instances(np.array([[1, 1, 0, 0, 1, 1, 0, 0, 0, 1]], dtype=bool)).tolist()
        [[1, 1, 1, 2, 2, 2, 0, 0, 0, 3]]
        >>> row = np.array([[0.9, 0.9, 0.6, 0.8, 0.8, 0.1, 0.7]])
        >>> options = InstanceOptions(markers="probability", merge_threshold=0.8, gap=0)
        >>> label_instances(row, options).tolist()
        [[1, 1, 1, 2, 2, 0, 3]]
    """
    _check_probability(probability)
    options = options or InstanceOptions()
    regions = watershed_regions(probability, options.threshold, options.markers)
    cells = regions.cells(options.merge_threshold, options.minimum_size)[regions.labels]
    closed = close_gaps(cells, options.gap) if options.gap else cells
    return _fill_holes(closed) if options.fill_holes else closed


def watershed_regions(
    probability: NDArray[np.floating | np.bool_], threshold: float, markers: Markers
) -> WatershedRegions:
    """Computes the watershed regions of the foreground, which are cells or parts of cells.

    Args:
        probability: Cell probability, `(height, width)`.
        threshold: Probability above which a pixel is foreground.
        markers: Height image of the watershed: constant, the probability, or the distance to the
            background in pixels, where the outside of the image is no background.
    """
    foreground = np.asarray(probability > threshold, np.bool_)
    if markers == "probability":
        return WatershedRegions.of(probability.astype(np.float32), foreground)
    if markers == "distance":
        return WatershedRegions.of(ndimage.distance_transform_edt(foreground), foreground)
    return WatershedRegions.of(np.ones(foreground.shape, np.float32), foreground)


def close_gaps(cells: NDArray[np.int32], gap: float) -> NDArray[np.int32]:
    """Fills the gaps between cells with the label of the nearest cell, see `label_instances`.

    The result at a pixel depends on pixels up to `gap_margin(gap)` rows and columns away.

    Args:
        cells: Integer label image, `(height, width)`.
        gap: Width in pixels up to which gaps are closed.
    """
    d1, d2, nearest = nearest_two(cells, _DIAGONAL * gap)
    between = (d1 + d2 <= 1 + _DIAGONAL * gap) & _closing(cells > 0, 2 * math.ceil(gap) + 1)
    return np.where(between, nearest, cells)


def _closing(foreground: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Computes the morphological closing by a square."""
    height, width = foreground.shape
    padded = np.pad(foreground, side)  # squares may extend beyond the image
    closed: NDArray[np.bool_] = ndimage.grey_closing(padded, size=(side, side))
    return closed[side : side + height, side : side + width]


def gap_margin(gap: float) -> int:
    """Returns the distance in rows and columns up to which pixels influence `close_gaps`."""
    # Two squares of side 2 * ceil(gap) + 1 that share a pixel extend this far, and a distance up to
    # sqrt(2) * gap is no larger.
    return 2 * math.ceil(gap)


def _fill_holes(cells: NDArray[np.int32]) -> NDArray[np.int32]:
    holes = BackgroundComponents.of(np.pad(cells, 1, constant_values=OUTSIDE))
    return holes.fill(cells, enclosing_label(holes.lowest, holes.highest))


@dataclass(frozen=True, eq=False)
class BackgroundComponents:
    """Components of the background, connected over edges and corners, with the cells they touch.

    Attributes:
        labels: Component of each pixel, 1 ... n, `(height, width)`; 0 in cells.
        lowest: Lowest label of the cells that each component touches, `(n + 1,)`; OUTSIDE is below
            all.
        highest: Highest label of these cells, `(n + 1,)`.
    """

    labels: NDArray[np.integer]
    lowest: NDArray[np.int32]
    highest: NDArray[np.int32]

    @classmethod
    def of(cls, cells: NDArray[np.int32]) -> BackgroundComponents:
        """Computes the components of a label image.

        Args:
            cells: Label image with a margin of one pixel, `(height + 2, width + 2)`. Pixels of the
                margin belong to no component but may touch one; OUTSIDE beyond the image.
        """
        labels, number = ndimage.label(cells[1:-1, 1:-1] == 0, np.ones((3, 3)))
        neighbors = cells[:-2, 1:-1], cells[2:, 1:-1], cells[1:-1, :-2], cells[1:-1, 2:]
        touching = (labels > 0) & np.any([shifted != 0 for shifted in neighbors], axis=0)
        around = np.stack([shifted[touching] for shifted in neighbors])
        component = labels[touching]
        lowest = np.full(number + 1, np.iinfo(np.int32).max, np.int32)
        highest = np.zeros(number + 1, np.int32)
        np.maximum.at(highest, component, around.max(axis=0))
        np.minimum.at(lowest, component, np.where(around != 0, around, lowest[0]).min(axis=0))
        return cls(labels, lowest, highest)

    def fill(self, cells: NDArray[np.int32], enclosing: NDArray[np.int32]) -> NDArray[np.int32]:
        """Returns the label image with each component filled by its enclosing cell, if not 0."""
        return np.where(cells > 0, cells, enclosing[self.labels])


def enclosing_label(lowest: NDArray[np.int32], highest: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns the cell that encloses each component; 0 if it touches several or the outside."""
    return np.where(lowest == highest, highest, 0).astype(np.int32)


def _check_probability(probability: NDArray[Any]) -> None:
    if probability.ndim != 2 or probability.size == 0:
        raise ValueError(
            "probability must be one image of shape (height, width). Received shape "
            f"{probability.shape}; sum the classes of predict_image by cell_probability."
        )
    if probability.dtype.kind not in "fb" or not _is_between_0_and_1(probability):
        raise ValueError(
            "probability must hold numbers from 0 to 1, or be a boolean mask. Received "
            f"{probability.dtype} from {probability.min()} to {probability.max()}; convert a mask "
            "by `mask > 0`."
        )


def _is_between_0_and_1(values: NDArray[Any]) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1)  # False for NaN
