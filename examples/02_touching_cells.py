# %% [markdown]
# # Touching cells
#
# Where two cells touch, a handful of pixels decides whether they are counted as one or as two. A
# network that is wrong there is hardly punished: they are so few. The paper makes them count more.
# This notebook shows the weights, trains with and without them, and counts.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from keras_unet.console import quiet_tensorflow

with quiet_tensorflow():
    import keras  # without TensorFlow's greetings

from keras_unet import (
    Architecture,
    TrainingImage,
    TrainingPlan,
    border_weight_map,
    build_dataset,
    build_unet,
    class_weight_map,
    label_instances,
    predict_image,
    separate_touching,
    train,
    weight_map,
)
from keras_unet.data.standardisation import Standardisation
from keras_unet.data.synthetic import draw_cells
from keras_unet.metrics import matching, seg
from keras_unet.report.pictures import grey_picture, heat_picture, label_picture

plt.rcParams.update({"figure.dpi": 80, "image.interpolation": "nearest", "image.cmap": "gray"})


def show(name, pictures):
    """Draws pictures in a row, each under its title, here and into a file."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(2.4 * len(pictures), 2.7))
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png")


# %% tags=["parameters"]
folder = Path("touching_cells")
pictures = 16  # to learn from
held_out = 6  # pictures to count in
size = 128  # height and width of each, in pixels
steps = 1500  # of each of the two trainings

# %% [markdown]
# ## Equation 2
#
# `w(x) = w_c(x) + w_0 exp(-(d_1(x) + d_2(x))^2 / (2 sigma^2))`
#
# `w_c` makes up for classes that are rare. `d_1` and `d_2` are the distances to the nearest cell
# and to the second nearest: their sum is small only between two cells. First, cells that touch are
# parted by a gap, or there would be no pixel between them to weigh.

# %%
folder.mkdir(exist_ok=True)
image, cells = draw_cells(7, size=(size, size), cells=10)
classes = (separate_touching(cells) > 0).astype(np.uint8)
show(
    "equation",
    {
        "image": grey_picture(image),
        "cells": label_picture(cells),
        "classes: a gap": classes,
        "w_c": heat_picture(class_weight_map(classes)),
        "border term": heat_picture(border_weight_map(cells)),
    },
)

# %% [markdown]
# ## How far it reaches
#
# Between two cells that are `width` pixels apart, the border term falls off with sigma. The paper
# takes 5 pixels, for cells of its size; `keras-unet train` sets sigma by the size of yours.

# %%
widths = np.arange(1, 31)


def in_the_middle(width, sigma):
    """Returns the border term in the middle between two cells."""
    row = np.concatenate([[1], np.zeros(width, int), [2]])[np.newaxis]
    return border_weight_map(row, sigma=sigma)[0, 1 + (width - 1) // 2]


figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
for sigma in (2, 5, 10):
    axis.plot(widths, [in_the_middle(width, sigma) for width in widths], label=f"sigma {sigma}")
axis.set(xlabel="pixels between two cells", ylabel="border term")
axis.legend()
figure.savefig(folder / "reach.png")

# %% [markdown]
# ## With and without
#
# Two networks, alike in all but `w_0`: the paper's 10, or 0. They start from the same numbers and
# see the same tiles.


# %%
def standardised(image):
    """Gives grey values a mean of 0 and a deviation of 1, and a channel axis."""
    return Standardisation("image").apply(image[..., np.newaxis])


def training_image(seed, w0):
    """Draws an image, and says what its pixels are and how much each counts."""
    image, cells = draw_cells(seed, size=(size, size), cells=10)
    classes = (separate_touching(cells) > 0).astype(np.uint8)
    return TrainingImage(standardised(image), classes, weight_map(classes, cells, w0=w0))


def trained(w0):
    """Trains a network on pictures whose border term has this factor."""
    keras.utils.set_random_seed(0)
    model = build_unet((None, None, 1), classes=2, depth=3, base_filters=16)
    architecture = Architecture.of(model)
    tile_size = architecture.fitting_size(size + 2 * architecture.margin)
    images = [training_image(seed, w0) for seed in range(pictures)]
    train(
        model,
        lambda step: build_dataset(images, architecture, tile_size=tile_size, first=step),
        TrainingPlan(steps=steps),
        folder=folder / f"w0_{w0}",
    )
    return model


models = {"without": trained(0), "with": trained(10)}

# %% [markdown]
# ## Counting
#
# Pictures that neither has seen. Cells are plain connected pieces here, so that nothing but the
# network parts them. SEG is the Cell Tracking Challenge's score: the mean overlap with the true
# cells, where a merged pair counts as not found.

# %%
drawn = [draw_cells(500 + n, size=(size, size), cells=10) for n in range(held_out)]
truth = [cells for _, cells in drawn]
found = {
    name: [label_instances(predict_image(model, standardised(image))[..., 1]) for image, _ in drawn]
    for name, model in models.items()
}
print(f"drawn: {sum(cells.max() for cells in truth)} cells")
for name, labels in found.items():
    (counts,) = matching(truth, labels, thresholds=[0.5])
    total = sum(one.max() for one in labels)
    print(f"{name}: {total} found, {counts.tp} of them right; SEG {seg(truth, labels):.3f}")

# %%
for number in range(min(2, held_out)):
    show(
        f"counted_{number}",
        {
            "image": grey_picture(drawn[number][0]),
            "truth": label_picture(truth[number]),
            "without": label_picture(found["without"][number]),
            "with": label_picture(found["with"][number]),
        },
    )

# %% [markdown]
# With the weights, nearly every cell is apart. What is found too many are specks: `InstanceRule`
# has a `minimum_size` for them. What the network alone cannot part, a rule often can: `keras-unet
# predict` also parts cells where they narrow, by a rule that training has chosen
# ([how](../docs/pages/explanation/instances.md)).
#
# ## Exercise: your own images
#
# 1. `samples = read_samples("DATA").samples` reads a folder with `images/` and `labels/`. Draw
#    `border_weight_map(sample.instances, sigma=sigma)` for the sigmas above. Do the bright seams
#    lie between your cells, and only there?
# 2. `keras-unet inspect DATA` draws the weight maps of a whole data set, with the sigma it would
#    take.
# 3. Train with `keras-unet train DATA --run WITH` and with `--run WITHOUT --border-weight 0`, and
#    score both. Sparse cells gain nothing; crowded ones do.
#
# Next: [membranes in electron microscopy](03_em_membranes.ipynb).
