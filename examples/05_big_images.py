# %% [markdown]
# # Big images
#
# A slide of 100,000 x 100,000 pixels does not fit into memory, and one process is slow with it.
# Stored as OME-Zarr, it is read part by part, predicted by several processes, and the result, part
# by part again, is that of one piece: to the bit, with no seams, and every cell has one number.
#
# `pip install ".[dask]"` brings what this needs. The image here is of a size that suits a notebook.

# %%
import subprocess
import sys
from pathlib import Path

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import tifffile

from keras_unet.console import quiet_tensorflow

with quiet_tensorflow():
    import keras  # noqa: F401 - TensorFlow, without its greetings

from keras_unet import (
    TrainingOptions,
    predict_files,
    train_folder,
)
from keras_unet.data.synthetic import draw_cells
from keras_unet.report.pictures import grey_picture, label_picture
from keras_unet.tiling import Tiling

plt.rcParams.update({"figure.dpi": 80, "image.interpolation": "nearest", "image.cmap": "gray"})


# %% tags=["parameters"]
folder = Path("big_images")  # new, or removed before it is run again
pictures = 10  # to learn from
size = 128  # height and width of each, in pixels
steps = 1500  # of the training
side = 1024  # height and width of the big image
chunk = 256  # height and width of what is stored in one piece
workers = 2  # processes that predict

# %% [markdown]
# ## A network

# %%
for place in ("images", "labels"):
    (folder / "data" / place).mkdir(parents=True, exist_ok=True)
for seed in range(pictures):
    image, cells = draw_cells(seed, size=(size, size), cells=10)
    tifffile.imwrite(folder / "data" / "images" / f"cells{seed}.tif", image)
    tifffile.imwrite(folder / "data" / "labels" / f"cells{seed}.tif", cells.astype(np.uint16))

options = TrainingOptions(steps=steps, depth=3, base_filters=16, tile=220, precision="float32")
run = train_folder(folder / "data", folder / "run", options)
print(f"best score of images held out: {run.record['outcome']['best_score']:.3f}")

# %% [markdown]
# ## A big image, in chunks
#
# Dask stores an array as Zarr: a folder with one file a chunk. `keras-unet predict` takes it as it
# is; TIFF and OME-Zarr, too. Here it is drawn; yours would come from the microscope.

# %%
image, cells = draw_cells(300, size=(side, side), cells=round(side**2 / 2500))
da.from_array(image, chunks=chunk).to_zarr(folder / "slide.zarr", overwrite=True)
slide = da.from_zarr(folder / "slide.zarr")
print(f"{slide.shape}, {slide.dtype}, in chunks of {slide.chunksize}")

# %% [markdown]
# ## Tiles on a lattice
#
# A network with poolings gives the same answer for a shifted image only if the shift is a multiple
# of 2^depth. So the tiles, cut from one image, start on a lattice of that step, and read a margin
# that overlaps with their neighbours': what a tile writes is what the whole image would have given
# there.

# %%
tiling = Tiling.covering(image.shape, run.architecture, (220, 220))
figure, axis = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
axis.imshow(grey_picture(image))
for number, tile in enumerate(tiling):
    rows, columns = tile.write
    corner = columns.start, rows.start
    extent = columns.stop - columns.start, rows.stop - rows.start
    axis.add_patch(plt.Rectangle(corner, *extent, fill=False, color="white", linewidth=0.6))
    if number == 0:
        corner = tile.read[1].start, tile.read[0].start
        axis.add_patch(plt.Rectangle(corner, 220, 220, fill=False, color="orange", linewidth=2))
axis.set(xlim=(-50, side), ylim=(side, -50), title="what tiles write; what the first of them reads")
axis.set_axis_off()
figure.savefig(folder / "tiles.png")

# %% [markdown]
# ## Several processes
#
# Typed into a terminal, it is
#
# ```
# keras-unet predict big_images/run big_images/slide.zarr --out big_images/predictions --workers 2
# ```
#
# Each worker predicts some tiles at a time, and this process makes cells of what they write. If it
# is interrupted, the same command goes on. For workers on other machines, `--dask tcp://HOST:8786`
# names a scheduler.

# %%
command = [sys.executable, "-m", "keras_unet", "predict", str(folder / "run")]
command += [str(folder / "slide.zarr"), "--out", str(folder / "predictions")]
command += ["--workers", str(workers), "--quiet"]
subprocess.run(command, check=True)
found = da.from_zarr(folder / "predictions" / "slide.ome.zarr" / "0")
print(f"{found.shape}, {found.dtype}, in chunks of {found.chunksize}")
print(f"{found.max().compute()} cells found, {cells.max()} drawn")

# %%
labels = found.compute()
figure, axes = plt.subplots(1, 2, figsize=(8, 4.3), layout="constrained")
axes[0].imshow(label_picture(labels))
middle = slice(side // 2 - 100, side // 2 + 100)
axes[1].imshow(label_picture(labels)[middle, middle])
for line in range(chunk, side, chunk):
    axes[0].axhline(line, color="white", linewidth=0.6)
    axes[0].axvline(line, color="white", linewidth=0.6)
for place in (axes[1].axhline, axes[1].axvline):
    place(100, color="white", linewidth=0.6)
for axis, title in zip(
    axes, ("cells, and the chunks of the slide", "where four chunks meet"), strict=True
):
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
figure.savefig(folder / "cells.png")

# %% [markdown]
# ## The same as in one piece?
#
# This slide is small enough to be predicted at once, in memory. The label images should be equal,
# down to the numbers of the cells.

# %%
tifffile.imwrite(folder / "slide.tif", image)
predict_files(folder / "run", [folder / "slide.tif"], folder / "at_once")
at_once = tifffile.imread(folder / "at_once" / "slide.tif")
print(f"{(at_once != labels).sum()} of {labels.size:,} pixels differ")

# %% [markdown]
# ## Measure without loading
#
# Dask computes chunk by chunk, so measurements of all cells need no more memory than prediction
# did.

# %%
areas = da.bincount(found.ravel(), minlength=int(found.max().compute()) + 1).compute()[1:]
figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.hist(areas, bins=30)
axis.set(xlabel="pixels of a cell", ylabel="cells")
figure.savefig(folder / "areas.png")

# %% [markdown]
# ## Exercise: your own images
#
# 1. Take your largest image, TIFF or OME-Zarr, and a run of yours. `keras-unet predict RUN SLIDE
#    --out OUT --workers 2`; watch Dask's dashboard, whose address is printed.
# 2. Interrupt it with Ctrl-C and type it again. What does it say of the tiles that are kept?
# 3. Open the result in napari, QuPath or Fiji: an OME-Zarr has a pyramid, so it opens at once.
#
# Back to [all lessons](../docs/pages/tutorial/index.md).
