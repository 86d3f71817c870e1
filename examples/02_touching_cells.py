# %% [markdown]
# # Touching cells
#
# A few pixels between two touching cells decide whether one or two are counted, too few to affect
# an unweighted loss. The paper gives them more weight. This notebook plots the weight map, trains
# with and without its border term, and counts the predicted cells.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.color import label2rgb

import keras_unet

plt.rcParams.update({"figure.dpi": 80, "image.interpolation": "nearest", "image.cmap": "gray"})

# %% tags=["parameters"]
folder = Path("touching_cells")  # for the figures
pictures = 24  # number of training images
held_out = 12  # number of test images
size = 128  # height and width in pixels
steps = 1000  # weight updates of each of the two networks

# %%
folder.mkdir(exist_ok=True)


def show(name, panels):
    """Plots arrays side by side, weight maps from 0 in "inferno", and saves the figure."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.4 * len(panels), 2.7))
    for axis, (title, array) in zip(axes, panels.items(), strict=True):
        axis.imshow(array, **({"cmap": "inferno", "vmin": 0} if array.dtype == np.float32 else {}))
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png")


def draw(seeds):
    """Draws images and their label images."""
    pairs = [keras_unet.draw_cells(seed, size=(size, size), cells=10) for seed in seeds]
    return [image for image, _ in pairs], [cells for _, cells in pairs]


# %% [markdown]
# ## Equation 2
#
# $$w(x) = w_c(x) + w_0 \exp\left(-\frac{(d_1(x) + d_2(x))^2}{2 \sigma^2}\right)$$
#
# $w_c$ balances the class frequencies. $d_1$ and $d_2$ are the distances to the nearest and the
# second nearest cell; their sum is small only between two cells. `separate_touching` first inserts
# a gap of background between cells that touch, so that there are pixels to weight.

# %%
(image,), (cells,) = draw([7])
classes = (keras_unet.separate_touching(cells) > 0).astype(np.uint8)
show(
    "equation",
    {
        "image": image,
        "cells": label2rgb(cells, bg_label=0),
        "classes with gaps": classes,
        "class weights $w_c$": keras_unet.class_weight_map(classes),
        "border term": keras_unet.border_weight_map(cells),
    },
)

# %% [markdown]
# ## Range of the border term
#
# In the middle between two cells that are `width` pixels apart, $d_1 + d_2$ is about `width`:
# `sigma` sets the width of the gaps that get a large weight. The paper takes about 5 pixels;
# `train` sets it from the diameter of the cells.

# %%
widths = np.arange(1, 31)


def middle_weight(width, sigma):
    """Returns the border term in the middle between two cells."""
    row = np.concatenate([[1], np.zeros(width, int), [2]])[np.newaxis]
    return keras_unet.border_weight_map(row, sigma=sigma)[0, 1 + (width - 1) // 2]


figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
for sigma in (2, 5, 10):
    axis.plot(widths, [middle_weight(width, sigma) for width in widths], label=f"sigma={sigma}")
axis.set(xlabel="pixels between two cells", ylabel="border term")
axis.legend()
figure.savefig(folder / "reach.png")

# %% [markdown]
# ## Training with and without the border term
#
# Two networks that differ only in `border_weight`, $w_0$ of equation 2: 10 as in the paper, or 0.
# With the same seed, they have the same initial weights and training tiles.

# %%
images, labels = draw(range(pictures))
segmenters = {
    name: keras_unet.train(
        images, labels, border_weight=border_weight, steps=steps, depth=3, base_filters=16
    )
    for name, border_weight in {"without": 0, "with": 10}.items()
}

# %% [markdown]
# ## Counting
#
# Test images are labeled by connected components: `label_instances` without options, so that only
# the network separates cells. SEG, the score of the Cell Tracking Challenge, is the mean IoU over
# the true cells; a cell that is merged with a larger one counts 0.

# %%
tests, truth = draw(range(500, 500 + held_out))
found = {
    name: [keras_unet.label_instances(segmenter.predict(image)[..., 1]) for image in tests]
    for name, segmenter in segmenters.items()
}
print(f"drawn: {sum(cells.max() for cells in truth)} cells")
for name, results in found.items():
    (match,) = keras_unet.metrics.matching(truth, results, thresholds=[0.5])
    total, score = sum(result.max() for result in results), keras_unet.metrics.seg(truth, results)
    print(f"{name}: {total} found, {match.tp} of them with an IoU of 0.5; SEG {score:.3f}")

# %%
for number in range(min(2, held_out)):
    show(
        f"counted_{number}",
        {
            "image": tests[number],
            "truth": label2rgb(truth[number], bg_label=0),
            "without": label2rgb(found["without"][number], bg_label=0),
            "with": label2rgb(found["with"][number], bg_label=0),
        },
    )

# %% [markdown]
# `segment` uses the instance options that were selected on the validation images at the end of
# training, including a threshold, a minimum size, and a watershed that splits cells at
# constrictions ([details](../docs/pages/explanation/instances.md)).

# %%
for name, segmenter in segmenters.items():
    results = [segmenter.segment(image) for image in tests]
    print(f"{name}: SEG {keras_unet.metrics.seg(truth, results):.3f}")

# %% [markdown]
# ## Exercise: your own images
#
# 1. Plot `border_weight_map(labels, sigma=sigma)` of a label image of yours for the three sigmas
#    above. Are large weights only between cells?
# 2. `keras-unet inspect DATA` plots the weight maps of a data set, with the sigma that `train`
#    would set.
# 3. Train on your images with `border_weight=10` and with `border_weight=0`, and compare SEG on
#    held-out images. Expect a gain for crowded cells, and none for sparse ones.
#
# Next: [membranes in electron microscopy](03_em_membranes.ipynb).
