"""Synthetic microscope images of touching cells and of tissue, with labels.

The cells lie in clusters without background between them, separated only by faint lines, with
uneven illumination, blur and noise. The border weights of the paper are made for such lines. Tissue
is drawn as in electron microscopy: cells fill the image, separated by membranes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANDIDATES = 200  # positions tried for a cell before it is skipped
CONTACT = 0.80, 0.92  # center distance of touching cells, in sums of their radii
MEMBRANE = 1.8  # pixels from the middle of a membrane to its edge
CLUSTERED = 0.8  # fraction of the cells that touch another
RADII = 13.0, 20.0  # pixels
SMALLEST = 40  # pixels of the smallest cell that is kept


@dataclass(frozen=True)
class Cell:
    """Ellipse of a cell, before its outline is deformed.

    Attributes:
        center: Row and column in pixels.
        radius: Geometric mean of the two semi-axes, in pixels.
        stretch: Ratio of the major semi-axis to `radius`, at least 1.
        angle: Direction of the major axis, in radians from the row axis.
    """

    center: tuple[float, float]
    radius: float
    stretch: float
    angle: float

    def depth(self, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the relative distance of points from the center: 1 on the outline."""
        down, right = rows - self.center[0], columns - self.center[1]
        along = math.cos(self.angle) * down + math.sin(self.angle) * right
        across = math.cos(self.angle) * right - math.sin(self.angle) * down
        return np.hypot(along / (self.radius * self.stretch), across * self.stretch / self.radius)


def draw_cells(
    seed: int, *, size: tuple[int, int] = (256, 256), cells: int = 28
) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Draws an image of touching cells, and its label image.

    Args:
        seed: Random seed of the image.
        size: Height and width in pixels, at least 64 each.
        cells: Number of cells to place. A full image gets fewer.

    Returns:
        The image, `(height, width)` in camera counts, and the instances, `(height, width)`: 0 is
        background, 1 to n are the cells, each in one piece.

    Raises:
        ValueError: If `size` or `cells` is too small.

    Example:
        >>> image, instances = draw_cells(0)
        >>> image.shape, image.dtype, instances.dtype
        ((256, 256), dtype('uint16'), dtype('int32'))
        >>> int(instances.max()) > 20
        True
    """
    _check_size(size)
    if cells < 1:
        raise ValueError(f"cells must be at least 1, such as 28. Received: cells={cells}")
    rng = np.random.default_rng(seed)
    instances = _label_pixels(_place_cells(rng, size, cells), rng, size)
    brightness = _draw_brightness(instances, rng) * _draw_illumination(rng, size)
    return _simulate_camera(brightness, rng), instances


def draw_tissue(
    seed: int, *, size: tuple[int, int] = (256, 256), cell: float = 26.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draws a slice of tissue as in electron microscopy, and its classes.

    Membranes are dark; some are wide and faint, as if cut obliquely. Organelles are dark as well.

    Args:
        seed: Random seed of the image.
        size: Height and width in pixels, at least 64 each.
        cell: Mean distance between the centers of neighboring cells, in pixels.

    Returns:
        The slice, `(height, width)`, and its classes, `(height, width)`: 1 in cells, 0 on
        membranes.

    Raises:
        ValueError: If `size` or `cell` is too small.

    Example:
        >>> image, classes = draw_tissue(0)
        >>> image.shape, image.dtype, np.unique(classes).tolist()
        ((256, 256), dtype('uint8'), [0, 1])
    """
    _check_size(size)
    if not cell >= 8:
        raise ValueError(f"cell must be at least 8 pixels, such as 26. Received: cell={cell}")
    rng = np.random.default_rng(seed)
    distance = _distance_to_membrane(rng, size, cell)
    dark = 0.5 * np.exp(-(distance**2) / (2 * _membrane_width(rng, size) ** 2))
    dark += 0.4 * ndimage.gaussian_filter(_organelles(rng, distance), 1.2)
    light = 0.72 - dark + 0.03 * _smooth_noise(rng, size, 1) + 0.04 * _smooth_noise(rng, size, 20)
    grey = np.rint(255 * np.clip(light + rng.normal(0, 0.05, size), 0, 1))
    return grey.astype(np.uint8), (distance > MEMBRANE).astype(np.uint8)


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 64:
        raise ValueError(f"size must be at least (64, 64) pixels. Received: size={size}")


def _distance_to_membrane(
    rng: np.random.Generator, size: tuple[int, int], cell: float
) -> NDArray[np.float64]:
    """Computes the distances to the borders of cells, whose centers form a distorted grid."""
    coordinates = np.indices(size, dtype=np.float64)
    coordinates += 0.2 * cell * np.stack([_smooth_noise(rng, size, cell / 2) for _ in range(2)])
    grid = np.mgrid[-cell : size[0] + 2 * cell : cell, -cell : size[1] + 2 * cell : cell]
    centers = np.moveaxis(grid, 0, -1).reshape(-1, 2).astype(np.float64)
    centers += rng.uniform(-0.45 * cell, 0.45 * cell, centers.shape)
    _, nearest = cKDTree(centers).query(np.moveaxis(coordinates, 0, -1))
    inside = ndimage.maximum_filter(nearest, 3) == ndimage.minimum_filter(nearest, 3)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(inside)
    return distance


def _membrane_width(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Draws the apparent width of membranes, larger where they are cut obliquely."""
    oblique = np.clip(_smooth_noise(rng, size, 12) - 1, 0, 1)
    width: NDArray[np.float64] = 1.2 + 2.5 * oblique.astype(np.float64)
    return width


def _organelles(rng: np.random.Generator, distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Marks the outlines of round organelles within the cells."""
    noise = _smooth_noise(rng, distance.shape, 3)
    is_outline = (np.abs(noise - 1.6) < 0.2) & (distance > 3 * MEMBRANE)
    outlines: NDArray[np.float64] = is_outline * 1.0
    return outlines


def _place_cells(rng: np.random.Generator, size: tuple[int, int], count: int) -> list[Cell]:
    """Places cells one after the other, most of them in contact with another."""
    cells: list[Cell] = []
    for radius in rng.uniform(*RADII, count):
        positions = _candidates(rng, size, cells, radius)
        free = positions[_is_inside(positions, size) & _is_free(positions, cells, radius)]
        if len(free):
            center = float(free[0, 0]), float(free[0, 1])
            cells.append(Cell(center, radius, rng.uniform(1, 1.25), rng.uniform(0, math.pi)))
    return cells


def _candidates(
    rng: np.random.Generator, size: tuple[int, int], cells: list[Cell], radius: float
) -> NDArray[np.float64]:
    """Draws centers, `(candidates, 2)`, in contact with a cell or anywhere."""
    anywhere = rng.uniform((0, 0), size, (CANDIDATES, 2))
    if not cells or rng.random() > CLUSTERED:
        return anywhere
    chosen = rng.integers(len(cells), size=CANDIDATES)
    distance = (_radii(cells)[chosen] + radius) * rng.uniform(*CONTACT, CANDIDATES)
    angle = rng.uniform(0, 2 * math.pi, CANDIDATES)
    beside = np.stack([np.cos(angle), np.sin(angle)], axis=1) * distance[:, None]
    return _centers(cells)[chosen] + beside


def _is_inside(positions: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.all((positions >= 0) & (positions < size), axis=1)
    return inside


def _is_free(positions: NDArray[np.float64], cells: list[Cell], radius: float) -> NDArray[np.bool_]:
    """Returns the positions at which a cell overlaps no other, `(candidates,)`."""
    distances = np.linalg.norm(positions[:, None] - _centers(cells)[None], axis=2)
    free: NDArray[np.bool_] = np.all(distances >= CONTACT[0] * (_radii(cells) + radius), axis=1)
    return free


def _centers(cells: list[Cell]) -> NDArray[np.float64]:
    return np.array([cell.center for cell in cells]).reshape(-1, 2)


def _radii(cells: list[Cell]) -> NDArray[np.float64]:
    return np.array([cell.radius for cell in cells])


def _label_pixels(
    cells: list[Cell], rng: np.random.Generator, size: tuple[int, int]
) -> NDArray[np.int32]:
    """Assigns each pixel to the cell that it is deepest in, on smoothly deformed coordinates."""
    rows, columns = np.indices(size, dtype=np.float32)
    rows += 2.5 * _smooth_noise(rng, size, 8)
    columns += 2.5 * _smooth_noise(rng, size, 8)
    nearest = np.ones(size, np.float32)
    instances = np.zeros(size, np.int32)
    for number, cell in enumerate(cells, start=1):
        depth = cell.depth(rows, columns)
        instances[depth < nearest] = number
        np.minimum(nearest, depth, out=nearest)
    return _keep_largest_pieces(instances)


def _keep_largest_pieces(instances: NDArray[np.int32]) -> NDArray[np.int32]:
    """Keeps the largest piece of each cell, removes small ones, and renumbers the cells from 1."""
    kept = np.zeros_like(instances)
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        pieces, _ = ndimage.label(instances[box] == number)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() >= SMALLEST:
            kept[box][pieces == sizes.argmax() + 1] = kept.max() + 1
    return kept


def _draw_brightness(instances: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draws textured cell bodies, soft rims, and faint lines where cells touch."""
    size = instances.shape
    inside = (instances > 0).astype(np.float32)
    bodies = rng.uniform(0.22, 0.34, instances.max() + 1).astype(np.float32)[instances] * inside
    texture = 0.025 * _smooth_noise(rng, size, 1.5) + 0.03 * _smooth_noise(rng, size, 4)
    rim = ndimage.gaussian_filter(inside, 1.5) - ndimage.gaussian_filter(inside, 5)
    line = ndimage.gaussian_filter(_contacts(instances), 1.0)
    ground = 0.40 + 0.012 * _smooth_noise(rng, size, 6)
    brightness: NDArray[np.float32] = ground + bodies + inside * texture + 0.15 * rim - 0.18 * line
    return brightness


def _contacts(instances: NDArray[np.int32]) -> NDArray[np.float32]:
    """Marks the pixels at which a cell touches another."""
    highest = ndimage.maximum_filter(instances, footprint=ndimage.generate_binary_structure(2, 1))
    return ((instances > 0) & (highest > instances)).astype(np.float32)


def _draw_illumination(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Draws uneven illumination of about 1: a gradient, and a fall-off around a bright spot."""
    rows, columns = (axis / max(size) for axis in np.indices(size, dtype=np.float32))
    row, column = rng.uniform(0.25, 0.75, 2).tolist()
    angle = rng.uniform(0, 2 * math.pi)
    slope = math.cos(angle) * (rows - 0.5) + math.sin(angle) * (columns - 0.5)
    fall = (rows - row) ** 2 + (columns - column) ** 2
    light: NDArray[np.float32] = 1.05 + 0.3 * slope - 0.45 * fall
    return light


def _simulate_camera(
    brightness: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Adds blur, shot noise and read noise, in camera counts."""
    blurred = ndimage.gaussian_filter(brightness, 0.8)
    photons = rng.poisson(700 * np.clip(blurred, 0, None))
    counts = 100 + 4 * (photons + rng.normal(0, 6, photons.shape))
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def _smooth_noise(
    rng: np.random.Generator, size: tuple[int, ...], sigma: float
) -> NDArray[np.float32]:
    """Draws noise of standard deviation 1 that is smooth over `sigma` pixels."""
    noise = rng.standard_normal(size, dtype=np.float32)
    # A Gaussian filter reduces the standard deviation of white noise by 2 sigma sqrt(pi).
    return ndimage.gaussian_filter(noise, sigma) * np.float32(2 * sigma * math.sqrt(math.pi))
