"""From the foreground that the network finds to a label image, cell by cell.

Training parts touching cells by a gap of background (`separate_touching`), so that the network
learns to leave it out and each cell becomes a component of its own. Here the components are
numbered and the gap is given back to the cells on its two sides.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.distances import nearest_two

_DIAGONAL = 1.415  # of a pixel; a little above sqrt(2), so that rounding does not decide


def label_instances(
    foreground: NDArray[np.bool_], *, gap: float = 2.0, minimum_size: int = 0
) -> NDArray[np.int32]:
    """Numbers the cells of the foreground and closes the gap between neighbours.

    Cells are the 4-connected components of the foreground. A background pixel goes to its nearest
    cell if it lies in a gap: d1 + d2 <= 1 + sqrt(2) * gap, with the distances to the two nearest
    cells, and no square of 2 * gap + 1 pixels a side that holds the pixel is all background. The
    first condition is that of the gap's width: one of n pixels has d1 + d2 = n + 1, and along a
    diagonal, where it comes out twice as many pixels wide, up to 1 + sqrt(2) * n. The second keeps
    cells from growing outward where the gap opens. All other background stays background.

    Args:
        foreground: True in cells, `(height, width)`.
        gap: Width in pixels of the gap between touching cells; 2 is what `separate_touching`
            leaves, 0 closes nothing.
        minimum_size: Components of fewer pixels are removed, before the gap is closed.

    Returns:
        Integer label image, `(height, width)`, int32: 0 is background, cells are 1 ... n in the
        raster order of the components' first pixels.

    Raises:
        ValueError: If `foreground` is not boolean or not one image, or `gap` or `minimum_size` is
            negative.

    Example:
        >>> label_instances(np.array([[1, 1, 0, 0, 1, 1, 0, 0, 0, 1]], dtype=bool)).tolist()
        [[1, 1, 1, 2, 2, 2, 0, 0, 0, 3]]
    """
    _check(foreground, gap, minimum_size)
    cells = _components(foreground, minimum_size)
    d1, d2, nearest = nearest_two(cells, _DIAGONAL * gap)
    between = (d1 + d2 <= 1 + _DIAGONAL * gap) & _closed(cells > 0, 2 * math.ceil(gap) + 1)
    return np.where(between, nearest, cells)


def _components(foreground: NDArray[np.bool_], minimum_size: int) -> NDArray[np.int32]:
    """Numbers the 4-connected components of at least `minimum_size` pixels, in raster order."""
    components, _ = ndimage.label(foreground)
    kept = np.bincount(components.ravel()) >= minimum_size
    kept[0] = False
    numbers = np.where(kept, kept.cumsum(), 0).astype(np.int32)
    return numbers[components]


def _closed(foreground: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Fills the background that squares of `side` pixels within it cannot cover (a closing)."""
    height, width = foreground.shape
    padded = np.pad(foreground, side)  # such squares may reach out of the image
    closed: NDArray[np.bool_] = ndimage.grey_closing(padded, size=(side, side))
    return closed[side : side + height, side : side + width]


def _check(foreground: NDArray[np.bool_], gap: float, minimum_size: int) -> None:
    """Refuses what is not a mask, and negative sizes."""
    if foreground.dtype != np.bool_ or foreground.ndim != 2 or foreground.size == 0:
        raise ValueError(
            "foreground must be one boolean image of shape (height, width). Received "
            f"{foreground.dtype} of shape {foreground.shape}; compare first, e.g. `scores > 0.5`."
        )
    if not 0 <= gap < math.inf:
        raise ValueError(f"gap must be 0 pixels or more. Received {gap}; training leaves 2.")
    if minimum_size < 0:
        raise ValueError(
            f"minimum_size must be 0 pixels or more. Received {minimum_size}; 0 keeps all cells."
        )
