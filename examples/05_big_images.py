# %% [markdown]
# # Images larger than memory
#
# A slide of 100,000 x 100,000 pixels does not fit into memory, and takes long in one process.
# Stored in chunks, as Zarr or OME-Zarr, it is read, predicted and written chunk by chunk, by one
# process or by several with Dask. The result equals that of the whole image: no seams, and each
# cell has one number.
#
# This notebook needs `pip install ".[dask]"`. Its image is small enough for a quick run.

# %%
import subprocess
import sys
from pathlib import Path

import dask.array as da
import matplotlib.pyplot as plt
from skimage.color import label2rgb

import keras_unet

plt.rcParams.update({"figure.dpi": 80, "image.interpolation": "nearest", "image.cmap": "gray"})

# %% tags=["parameters"]
folder = Path("big_images")  # output; must be new or empty
pictures = 24  # number of training images
size = 128  # their height and width in pixels
steps = 1200  # number of weight updates
side = 1024  # height and width of the big image in pixels
chunk = 256  # height and width of its chunks in pixels
workers = 2  # number of processes

# %% [markdown]
# ## A model

# %%
folder.mkdir(exist_ok=True)
pairs = [keras_unet.draw_cells(seed, size=(size, size), cells=10) for seed in range(pictures)]
images, labels = zip(*pairs, strict=True)
segmenter = keras_unet.train(
    images, labels, run=folder / "run", steps=steps, depth=3, base_filters=16
)
outcome = segmenter.info.record["outcome"]
print(f"{outcome['score_name']} of the validation images: {outcome['best_score']:.2f}")

# %% [markdown]
# ## A big image in chunks
#
# Dask stores an array as Zarr, a folder with one file a chunk. Your slide may also be OME-Zarr or a
# tiled TIFF.

# %%
image, cells = keras_unet.draw_cells(300, size=(side, side), cells=round(side**2 / 2500))
da.from_array(image, chunks=chunk).to_zarr(folder / "slide.zarr", overwrite=True)
slide = da.from_zarr(folder / "slide.zarr")
print(f"{slide.shape}, {slide.dtype}, in chunks of {slide.chunksize}")

# %% [markdown]
# ## Tiles on the pooling lattice
#
# A network with max pooling commutes only with shifts by multiples of `2 ** depth`. The output of a
# tile of 220 x 220 pixels is 132 pixels wide here, but tiles are placed 128 pixels apart, a
# multiple of 8. The output of a tile (white) then equals the prediction of the whole image there.
# Its input (orange) is larger by a margin on each side, mirrored at the border of the image.

# %%
network = segmenter.info.architecture
tile = 220
stride = network.output_size(tile) // 2**network.depth * 2**network.depth
origins = range(0, side, stride)
figure, axis = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
axis.imshow(image)
for origin in origins:
    axis.axhline(origin, color="white", linewidth=0.6)
    axis.axvline(origin, color="white", linewidth=0.6)
corner = origins[len(origins) // 2] - network.margin
axis.add_patch(plt.Rectangle((corner, corner), tile, tile, fill=False, color="orange", linewidth=2))
axis.set_title(f"tiles {stride} pixels apart, each reads {tile}", fontsize=10)
axis.set_axis_off()
figure.savefig(folder / "tiles.png")

# %% [markdown]
# ## One process
#
# `predict_files` reads Zarr by tiles and writes OME-Zarr, an image with a pyramid. Memory holds a
# few tiles at a time. TIFF of more than 2^26 pixels is read by tiles, too.

# %%
(path,) = keras_unet.predict_files(segmenter, folder / "slide.zarr", folder / "one_process")
found = da.from_zarr(path / "0")
print(f"{path.name}: {found.shape}, {found.dtype}, in chunks of {found.chunksize}")
print(f"{found.max().compute()} cells found, {cells.max()} drawn")

# %%
result = label2rgb(found.compute(), bg_label=0)
middle = slice(side // 2 - 100, side // 2 + 100)
figure, axes = plt.subplots(1, 2, figsize=(8, 4.3), layout="constrained")
axes[0].imshow(result)
axes[1].imshow(result[middle, middle])
for line in range(chunk, side, chunk):
    axes[0].axhline(line, color="white", linewidth=0.6)
    axes[0].axvline(line, color="white", linewidth=0.6)
axes[1].axhline(100, color="white", linewidth=0.6)
axes[1].axvline(100, color="white", linewidth=0.6)
for axis, title in zip(axes, ("cells and chunks", "where four chunks meet"), strict=True):
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
figure.savefig(folder / "cells.png")

# %% [markdown]
# ## Several processes
#
# On the command line:
#
# ```
# keras-unet predict big_images/run big_images/slide.zarr --out big_images/predictions --workers 2
# ```
#
# The workers predict probabilities, tile by tile; this process labels the cells. After an
# interruption, the same command continues. `--dask tcp://HOST:8786` uses the workers of a Dask
# cluster.

# %%
command = [sys.executable, "-m", "keras_unet", "predict", folder / "run", folder / "slide.zarr"]
command += ["--out", folder / "predictions", "--workers", str(workers), "--quiet"]
subprocess.run(command, check=True)
by_workers = da.from_zarr(folder / "predictions" / path.name / "0")

# %% [markdown]
# ## Comparison with the whole image
#
# This slide also fits into memory, so `segment` can take it as one array. The label images are
# equal, including the numbers of the cells.

# %%
whole = segmenter.segment(image)
for name, labels in {"one process": found, "workers": by_workers}.items():
    different = int((labels != whole).sum().compute())
    print(f"{name}: {different} of {whole.size:,} pixels differ from the whole image")

# %% [markdown]
# ## Measurements
#
# Dask computes the areas of all cells chunk by chunk, in as little memory as prediction.

# %%
areas = da.bincount(found.ravel(), minlength=int(found.max().compute()) + 1).compute()[1:]
figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.hist(areas, bins=30)
axis.set(xlabel="area of a cell in pixels", ylabel="cells")
figure.savefig(folder / "areas.png")

# %% [markdown]
# ## Exercise: your own images
#
# 1. Predict your largest image, TIFF or OME-Zarr: `keras-unet predict RUN SLIDE --out OUT --workers
#    2`. Open Dask's dashboard at the address that is printed. What are the workers doing?
# 2. Interrupt it with Ctrl-C and repeat the command. Which tiles are predicted again?
# 3. Open the result in napari, QuPath or Fiji.
#
# Back to [all lessons](../docs/pages/tutorial/index.md).
