# %% [markdown]
# # A first model
#
# From nothing to a picture: cells are drawn, a small U-Net learns them, and labels cells that it
# has not seen. Nothing is downloaded. It takes two minutes on two cores.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from keras_unet.console import quiet_tensorflow

with quiet_tensorflow():
    import keras  # without TensorFlow's greetings

from keras_unet import (
    Architecture,
    InstanceRule,
    TrainingImage,
    TrainingPlan,
    build_dataset,
    build_unet,
    label_instances,
    predict_image,
    separate_touching,
    train,
    weight_map,
)
from keras_unet.data.standardisation import Standardisation
from keras_unet.data.synthetic import draw_cells
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


# %% [markdown]
# Everything that you may want to change stands in one cell.

# %% tags=["parameters"]
folder = Path("first_model")  # where the network is written
pictures = 12  # to learn from
size = 128  # height and width of each, in pixels
steps = 1000  # of the training


# %% [markdown]
# ## The network
#
# `build_unet()` without arguments is figure 1 of the paper: 572 x 572 pixels in, 388 x 388 out.
# This one is smaller. Its convolutions are unpadded, as in the paper, so it loses a margin on each
# side: at the edge of a tile it cannot see what lies beyond, and does not guess.

# %%
folder.mkdir(exist_ok=True)
keras.utils.set_random_seed(0)
model = build_unet((None, None, 1), classes=2, depth=3, base_filters=16)
architecture = Architecture.of(model)
tile_size = architecture.fitting_size(size + 2 * architecture.margin)
print(f"{model.count_params():,} parameters, {architecture.margin} pixels lost a side")
print(f"tiles: {tile_size} pixels in, {architecture.output_size(tile_size)} out")

# %% [markdown]
# ## What it learns from
#
# An image and its cells, each with a number of its own. `separate_touching` parts neighbours by a
# gap, so that the classes alone, 1 in cells and 0 elsewhere, say where a cell ends. `weight_map` is
# equation 2 of the paper: pixels between cells count more.


# %%
def standardised(image):
    """Gives grey values a mean of 0 and a deviation of 1, and a channel axis."""
    return Standardisation("image").apply(image[..., np.newaxis])


def training_image(seed):
    """Draws an image, and says what its pixels are and how much each counts."""
    image, cells = draw_cells(seed, size=(size, size), cells=10)
    classes = (separate_touching(cells) > 0).astype(np.uint8)
    return TrainingImage(standardised(image), classes, weight_map(classes, cells))


images = [training_image(seed) for seed in range(pictures)]
first = images[0]
show(
    "training_image",
    {
        "image": grey_picture(first.image),
        "classes": first.classes,
        "weights": heat_picture(first.weights),
    },
)

# %% [markdown]
# ## Training
#
# Every batch is one tile, cut anywhere, turned, mirrored and deformed elastically. What `train`
# adds to Keras: a rate that warms up and has come down by the end, a bound on the gradient, and a
# checkpoint from which an interrupted training goes on.

# %%
losses = []


def watch(step, logs):
    """Keeps the loss of every step, and prints some."""
    losses.append(logs["loss"])
    if (step + 1) % 200 == 0:
        print(f"step {step + 1} of {steps}: loss {np.mean(losses[-100:]):.3f}")


_ = train(
    model,
    lambda step: build_dataset(images, architecture, tile_size=tile_size, first=step),
    TrainingPlan(steps=steps),
    folder=folder,
    callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=watch)],
)

# %%
figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.plot(losses, linewidth=0.8)
axis.set(xlabel="step", ylabel="weighted loss", yscale="log")
figure.savefig(folder / "loss.png")

# %% [markdown]
# ## Cells that it has not seen
#
# `predict_image` takes an image of any height and width. It mirrors the border, cuts tiles that lie
# on the network's own lattice, and puts the answers together, without seams. `label_instances`
# makes cells of probabilities.

# %%
image, cells = draw_cells(seed=100, size=(size, size), cells=10)
probabilities = predict_image(model, standardised(image))  # (height, width, classes)
found = label_instances(probabilities[..., 1], InstanceRule(minimum_size=40))
print(f"{found.max()} cells found, {cells.max()} drawn")

# %%
show(
    "first_model",
    {
        "image": grey_picture(image),
        "truth": label_picture(cells),
        "probability of cell": heat_picture(probabilities[..., 1]),
        "cells found": label_picture(found),
    },
)

# %% [markdown]
# ## Exercise: your own images
#
# 1. Put images into `DATA/images` and their labels, one number a cell, into `DATA/labels`, under
#    the same names. `samples = read_samples("DATA").samples` (from `keras_unet`) reads them:
#    `sample.image` is `(height, width, channels)`, `sample.instances` holds the cells.
# 2. Make `images` of them: `TrainingImage(Standardisation("image").apply(sample.image), classes,
#    weights)`, as above. Keep some of them out, and predict those.
# 3. Are neighbours apart? Then type `keras-unet train DATA --run RUN`, which does the same with all
#    that this notebook leaves out, and [read on](../docs/pages/how-to/your-images.md).
#
# Next: [what the weights at touching cells are for](02_touching_cells.ipynb).
