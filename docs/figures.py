"""Figures of the site: `python docs/figures.py FOLDER`.

Each function draws one matplotlib figure; `draw` renders it for light and dark pages. The data are
synthetic cells of `keras_unet.data.synthetic`, so nothing is downloaded.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from keras_unet.architecture import Architecture
from keras_unet.console import quiet_tensorflow
from keras_unet.data.distances import separate_touching
from keras_unet.data.synthetic import draw_cells
from keras_unet.data.weight_maps import border_weight_map
from keras_unet.instances.label import InstanceOptions, label_instances
from keras_unet.measurement.outlines import outlines_of
from keras_unet.measurement.properties import measure_objects
from keras_unet.metrics.objects import Overlaps
from keras_unet.report.pictures import grey_picture, heat_picture, label_picture, outline_picture
from keras_unet.tiling import Tiling, mirrored_window
from keras_unet.training.schedule import Schedule

INKS = {"light": "#24292f", "dark": "#d7dbe2"}  # lines and text on light and dark pages
BLUE, ORANGE, GREEN = "#3f8fd2", "#e07b1f", "#3a9d5d"  # visible on both
SEED = 7


def draw(name: str, theme: str) -> bytes:
    """Renders a figure as PNG with a transparent background, in the colors of a theme.

    Args:
        name: One of FIGURES.
        theme: "light" or "dark".
    """
    ink = INKS[theme]
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style = dict.fromkeys(inked, ink) | {"font.size": 10, "axes.facecolor": "none"}
    target = io.BytesIO()
    with mpl.rc_context(style):
        FIGURES[name]().savefig(
            target, dpi=130, transparent=True, bbox_inches="tight", metadata={"Software": None}
        )
    return target.getvalue()


def weight_map() -> Figure:
    """Image, cells, gaps between touching cells, and border term."""
    image, cells = _cells()
    border = border_weight_map(cells)
    gap = (separate_touching(cells) > 0).astype(int)
    figure, axes = _row(4, 2.6)
    pictures = grey_picture(image), label_picture(cells), label_picture(gap), heat_picture(border)
    names = "image", "cells", "classes with gaps", f"border term, up to {border.max():.1f}"
    for axis, picture, name in zip(axes, pictures, names, strict=True):
        _show(axis, picture, name)
    return figure


def sigmas() -> Figure:
    """Border term of one image for three sigmas."""
    _, cells = _cells()
    figure, axes = _row(3, 2.9)
    for axis, sigma in zip(axes, (2.0, 5.0, 10.0), strict=True):
        border = border_weight_map(cells, sigma=sigma)
        _show(axis, heat_picture(border / 10), f"sigma {sigma:g} pixels")
    return figure


def border_term() -> Figure:
    """Border term by the width of the gap between two cells."""
    figure = Figure(figsize=(6, 2.8))
    axis = figure.subplots()
    widths = np.arange(1, 26)
    for sigma, colour in ((2.0, GREEN), (5.0, BLUE), (10.0, ORANGE)):
        weights = [_in_the_middle(int(width), sigma) for width in widths]
        axis.plot(widths, weights, "o-", color=colour, markersize=3, label=f"sigma {sigma:g}")
    axis.set(xlabel="width of the gap (pixels)", ylabel="weight in the middle")
    axis.legend(frameon=False)
    return _without_frame(figure)


def deformation() -> Figure:
    """Tile with a grid, displacement field, and deformed tile."""
    with quiet_tensorflow():
        from keras_unet.data.augmentation import displacement_field
    image, _ = draw_cells(SEED, size=(256, 256))
    lines = _with_grid(grey_picture(image)[..., 0].astype(float))
    vectors = 10 * np.random.default_rng(SEED).standard_normal((2, 3, 3))
    field = np.asarray(displacement_field(vectors, image.shape))
    warped = ndimage.map_coordinates(lines, np.indices(image.shape) + field, order=1, mode="mirror")
    figure, axes = _row(3, 3.2)
    _show(axes[0], lines, "tile")
    _show(axes[1], np.zeros((*image.shape, 4)), "displacement field")
    rows, columns = np.indices(image.shape)[:, 16::32, 16::32]
    _arrows(axes[1], rows, columns, field[:, 16::32, 16::32], BLUE)
    nodes = np.meshgrid(np.linspace(0, 255, 3), np.linspace(0, 255, 3), indexing="ij")
    _arrows(axes[1], *nodes, vectors, ORANGE)
    axes[1].set(xlim=(-32, 288), ylim=(288, -32))
    _show(axes[2], warped, "deformed")
    return figure


def tiles() -> Figure:
    """Figure 2 of the paper: input and output of a tile, and the mirrored border."""
    network = Architecture()
    image, _ = draw_cells(SEED, size=(512, 700), cells=160)
    beyond = network.margin + 8
    around = tuple(slice(-beyond, size + beyond) for size in image.shape)
    picture = grey_picture(mirrored_window(image, *around))
    inside = np.zeros(picture.shape[:2], bool)
    inside[beyond:-beyond, beyond:-beyond] = True
    figure = Figure(figsize=(7.4, 5.4))
    axis = figure.subplots()
    dimmed = np.where(inside[..., None], picture, picture // 2)
    axis.imshow(dimmed, extent=(-beyond, 700 + beyond, 512 + beyond, -beyond))
    tiling = Tiling(image.shape, (572, 572), network)
    for tile in tiling:
        axis.add_patch(_window(tile.write, edgecolor=ORANGE, linewidth=1))
    first = next(iter(tiling))
    axis.add_patch(_window(first.read, edgecolor=BLUE, linewidth=2.5))
    axis.add_patch(_window(first.write, edgecolor=ORANGE, linewidth=3))
    axis.set(xlim=(-beyond, 700 + beyond), ylim=(512 + beyond, -beyond))
    axis.set_axis_off()
    return figure


def lattice() -> Figure:
    """Pixels that are pooled together, for tiles that start at 0, 4 and 3."""
    figure = Figure(figsize=(6.6, 2.2))
    axis = figure.subplots()
    for row, (start, colour) in enumerate(((0, BLUE), (4, GREEN), (3, ORANGE))):
        for left in range(start, 13, 4):
            width = min(4, 16 - left)
            axis.add_patch(Rectangle((left + 0.06, -row), width - 0.12, 0.7, color=colour))
        word = "same groups" if start % 4 == 0 else "other groups"
        axis.text(16.3, 0.35 - row, f"tile from pixel {start}: {word}", va="center")
    axis.set(xlim=(0, 28), ylim=(-2.2, 1), xticks=range(0, 17, 4), yticks=[])
    axis.xaxis.tick_top()
    return _without_frame(figure, "top", "right", "left", "bottom")


def instances() -> Figure:
    """Probabilities with missed gaps, connected components, and watershed."""
    _, cells = _cells()
    probability = _probability_with_gaps_missed(cells)
    components = label_instances(probability)
    parted = label_instances(probability, InstanceOptions(markers="distance", minimum_size=20))
    figure, axes = _row(3, 3.2)
    _show(axes[0], heat_picture(probability), "probability of cell")
    _show(axes[1], label_picture(components), f"connected components: {components.max()}")
    _show(axes[2], label_picture(parted), f"watershed: {parted.max()}")
    return figure


def overlap() -> Figure:
    """A cell and shifted predictions, with their IoU."""
    _, cells = _cells()
    truth = (cells == cells[86, 82]).astype(int)[56:120, 50:118]
    figure, axes = _row(4, 2.4)
    for axis, pixels in zip(axes, (1, 3, 6, 9), strict=True):
        found = np.roll(truth, pixels, axis=1)
        picture = outline_picture(grey_picture(0 * truth), truth, found, factor=4, width=4)
        _show(axis, picture, f"IoU {_iou(truth, found):.2f}")
    return figure


def measurements() -> Figure:
    """Outlines of cells, and their mean intensity by area."""
    image, cells = draw_cells(SEED)
    columns = measure_objects(cells, image, pixel_size=0.65)
    whole = ~columns["touches_border"]
    figure, axes = _row(2, 3.2)
    _show(axes[0], grey_picture(image), "image, with the outlines of whole cells")
    for number, outline in outlines_of(cells).items():
        if whole[columns["number"] == number].all():
            corners = np.array(outline.exterior.xy) - 0.5  # 0 is the center of the first pixel
            axes[0].plot(*corners, color=ORANGE, linewidth=1)
    axes[1].set_axis_on()
    axes[1].plot(columns["area_um2"][whole], columns["intensity_mean"][whole], "o", color=BLUE)
    axes[1].set(xlabel="area (µm²)", ylabel="mean intensity")
    return _without_frame(figure)


def learning_rate() -> Figure:
    """Learning rate by step."""
    plan = Schedule(steps=2500)
    steps = np.arange(2501)
    figure = Figure(figsize=(6, 2.4))
    axis = figure.subplots()
    axis.plot(steps, [plan.rate(plan.progress(int(step), 0)) for step in steps], color=BLUE)
    axis.set(xlabel="step", ylabel="learning rate")
    return _without_frame(figure)


FIGURES: dict[str, Callable[[], Figure]] = {
    "border-term": border_term,
    "deformation": deformation,
    "instances": instances,
    "lattice": lattice,
    "learning-rate": learning_rate,
    "measurements": measurements,
    "overlap": overlap,
    "sigmas": sigmas,
    "tiles": tiles,
    "weight-map": weight_map,
}


def first_row(sheet: Path, target: Path) -> None:
    """Writes the first row of the demo's figure in 128 colors, for README.md."""
    with Image.open(sheet) as picture:
        strip = picture.convert("RGB").crop((0, 0, picture.width, 300))
    strip.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)


def _cells() -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    return draw_cells(SEED, size=(128, 128), cells=10)


def _row(panels: int, side: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(panels * side, side), layout="constrained")
    return figure, figure.subplots(1, panels)


def _show(axis: Any, picture: NDArray[Any], title: str) -> None:
    axis.imshow(picture, cmap="gray", interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def _arrows(axis: Any, rows: Any, columns: Any, vectors: NDArray[Any], colour: str) -> None:
    """Draws vectors (rows, columns) at twice their length."""
    style = {"angles": "xy", "scale_units": "xy", "scale": 0.5, "width": 0.012}
    axis.quiver(columns, rows, vectors[1], vectors[0], color=colour, **style)


def _window(window: tuple[slice, slice], **style: Any) -> Rectangle:
    rows, columns = window
    size = columns.stop - columns.start, rows.stop - rows.start
    return Rectangle((columns.start, rows.start), *size, fill=False, **style)


def _without_frame(figure: Figure, *sides: str) -> Figure:
    for side in sides or ("top", "right"):
        figure.axes[0].spines[side].set_visible(False)
    return figure


def _with_grid(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    lined = picture.copy()
    for axis_of_lines in (lined, lined.T):
        axis_of_lines[::32], axis_of_lines[1::32] = 255, 255
    return lined


def _in_the_middle(width: int, sigma: float) -> float:
    row = np.concatenate([[1], np.zeros(width, int), [2]])[None]
    return float(border_weight_map(row, sigma=sigma)[0, 1 + (width - 1) // 2])


def _probability_with_gaps_missed(cells: NDArray[np.int32]) -> NDArray[np.float32]:
    """Blurs the labels; in some places the gap between two cells is almost closed."""
    parted, whole = (
        ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.9)
        for labels in (separate_touching(cells), cells)
    )
    noise = np.random.default_rng(SEED).standard_normal(cells.shape)
    missed = ndimage.gaussian_filter(noise, 5) > 0.06
    return np.where(missed, 0.2 * parted + 0.8 * whole, parted).clip(0, 1)


def _iou(truth: NDArray[Any], found: NDArray[Any]) -> float:
    overlaps = Overlaps.of(truth, found)
    common = overlaps.common[0]
    return float(common / (overlaps.reference_sizes[0] + overlaps.result_sizes[0] - common))


def main(arguments: Sequence[str]) -> None:
    """Writes all figures to a folder; with `SHEET TARGET`, the figure of README.md."""
    if len(arguments) == 2:
        first_row(*map(Path, arguments))
        return
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        for theme in INKS:
            (folder / f"{name}-{theme}.png").write_bytes(draw(name, theme))


if __name__ == "__main__":
    main(sys.argv[1:])
