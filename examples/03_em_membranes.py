# %% [markdown]
# # Membranes in electron microscopy
#
# In tissue, cells fill the image and membranes separate them. The paper segments the membranes of a
# fly's nerve cord, for the ISBI 2012 challenge, which ranks by scores of the cells instead of the
# pixels. This notebook shows the difference, trains a network, and computes these scores.
#
# It uses synthetic tissue and needs no download. For the slices of the challenge, run `keras-unet
# data isbi2012` and set `data` to `Path("isbi2012/train")`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
from scipy import ndimage
from skimage.color import label2rgb

import keras_unet

plt.rcParams.update({"figure.dpi": 80, "image.interpolation": "nearest", "image.cmap": "gray"})

# %% tags=["parameters"]
folder = Path("em_membranes")  # for the figures
data = None  # folder with images/volume.tif and labels/volume.tif; None draws slices
slices = 16  # number of slices to draw
size = 192  # their height and width in pixels
held_out = 4  # number of test slices, the last ones
steps = 800  # number of weight updates

# %%
folder.mkdir(exist_ok=True)


def show(name, panels):
    """Plots arrays side by side, and saves the figure."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.4 * len(panels), 2.7))
    for axis, (title, array) in zip(axes, panels.items(), strict=True):
        axis.imshow(array)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png")


def colored(classes):
    """Gives each cell, a connected component of class 1, a color; membranes are black."""
    return label2rgb(ndimage.label(classes)[0], bg_label=0)


# %% [markdown]
# ## Slices
#
# The labels hold two classes: 1 in cells, 0 on membranes. Organelles are as dark as membranes, but
# part of the cells. An opening removes parts of cells that are narrower than three pixels.

# %%
if data is None:
    pairs = [keras_unet.draw_tissue(seed, size=(size, size)) for seed in range(slices)]
    images = np.stack([image for image, _ in pairs])
    labels = np.stack([ndimage.binary_opening(classes) for _, classes in pairs])
else:
    images, labels = (tifffile.imread(data / name / "volume.tif") for name in ("images", "labels"))
labels = (labels > 0).astype(np.uint8)
show("slice", {"slice": images[0], "labels": labels[0], "cells": colored(labels[0])})

# %% [markdown]
# ## Pixel error and cell scores
#
# Two segmentations with errors. *Thick*: every membrane is one pixel wider on each side; no cell is
# lost or merged. *Leaky*: the membranes are correct except for a few holes, which merge cells and
# make every measurement of these cells wrong.

# %%
truth = labels[0].astype(bool)
rng = np.random.default_rng(0)
holes = np.zeros(truth.shape)
holes[tuple(rng.permutation(np.argwhere(~truth))[:36].T)] = 1
wrong = {
    "thick": ndimage.binary_erosion(truth),
    "leaky": truth | ndimage.binary_dilation(holes, iterations=3),
}
print("        pixel error   V_Rand   V_Info")
for name, result in wrong.items():
    scores = keras_unet.metrics.isbi2012(truth, result.astype(np.float32))
    print(f"{name:6} {scores['pixel_error']:12.3f} {scores['v_rand']:8.3f} {scores['v_info']:8.3f}")
show(
    "wrong",
    {"labels": colored(truth), "thick": colored(wrong["thick"]), "leaky": colored(wrong["leaky"])},
)

# %% [markdown]
# The pixel error prefers the leaky segmentation, V_Rand and V_Info the thick one. V_Rand measures
# how often two pixels of one cell in the truth are in one cell of the segmentation, and vice versa;
# V_Info is the normalized mutual information of the cells. Both are 1 at best. The challenge ranks
# by them.
#
# ## Training
#
# Neighboring slices of a stack are similar, so the test slices are the last ones. Labels of
# classes have no gaps to emphasize: the weights only balance the frequencies of the two classes.
# For tissue, the network also learns affinities, which pixels belong to the same cell, and
# prediction separates cells by them where a membrane has a gap.

# %%
segmenter = keras_unet.train(
    list(images[:-held_out]),
    list(labels[:-held_out]),
    kind="classes",
    steps=steps,
    depth=3,
    base_filters=16,
)
outcome = segmenter.info.record["outcome"]
print(f"{outcome['score_name']} of the validation slices: {outcome['best_score']:.3f}")

# %% [markdown]
# ## Scores of the test slices
#
# The paper averages the probabilities over rotated versions of a slice; `tta=True`, test-time
# augmentation, averages over the eight rotations and reflections. Each score is taken at its best
# threshold on the probabilities, as in the challenge.

# %%
tests, truth = images[-held_out:], labels[-held_out:]
probabilities = {
    "single": np.stack([segmenter.predict(image)[..., 1] for image in tests]),
    "tta=True": np.stack([segmenter.predict(image, tta=True)[..., 1] for image in tests]),
}
scores = {
    name: keras_unet.metrics.isbi2012(truth, result) for name, result in probabilities.items()
}
names = "pixel_error", "rand_error", "v_rand", "v_info", "warping_error"
print(" " * 9, *(f"{name:>14}" for name in names))
for title, values in scores.items():
    print(f"{title:9}", *(f"{values[name]:14.4f}" for name in names))

# %%
result = probabilities["tta=True"][-1] > scores["tta=True"]["v_rand_threshold"]
show(
    "scored",
    {
        "slice": tests[-1],
        "probability of cell": probabilities["tta=True"][-1],
        "cells": colored(result),
        "wrong pixels": label2rgb(truth[-1] != result, tests[-1], bg_label=0, alpha=0.5),
    },
)

# %% [markdown]
# Synthetic tissue is easier than real tissue. On the test slices of the challenge, whose labels are
# not public, the paper reports a warping error of 0.000353, a Rand error of 0.0382 and a pixel
# error of 0.0611. The [results](../docs/pages/results.md) list the scores of this package on
# held-out slices of the training stack, with the command for each.
#
# ## Exercise: your own images
#
# 1. Take a stack with labeled membranes: 255 in cells, 0 on membranes. Set `data`, and `held_out`
#    to the number of test slices.
# 2. Where are cells merged? Compare with the slice: membranes cut obliquely are also hard for human
#    annotators.
# 3. `keras_unet.cross_validate(images, labels, folds=4)` trains four networks whose probabilities
#    are averaged. Is V_Rand higher? For whole folders, use the
#    [commands](../docs/pages/how-to/membranes.md).
#
# Next: [export and serving](04_serve_it.ipynb).
