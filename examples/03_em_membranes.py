# %% [markdown]
# # Membranes in electron microscopy
#
# In tissue, cells fill the image and membranes part them. The ISBI 2012 challenge, which made the
# U-Net known, asked for the membranes of a fly's nerve cord, and found that counting wrong pixels
# is the wrong score. This notebook shows why, trains, and computes the challenge's scores.
#
# It draws its own tissue, so that it runs without a download. For the challenge's slices, type
# `keras-unet data isbi2012` and set `data` to `Path("isbi2012/train")`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

from keras_unet.console import quiet_tensorflow

with quiet_tensorflow():
    import keras  # without TensorFlow's greetings

from keras_unet import (
    Architecture,
    TrainingImage,
    TrainingPlan,
    build_dataset,
    build_unet,
    predict_image,
    read_samples,
    train,
    weight_map,
)
from keras_unet.data.standardisation import Standardisation
from keras_unet.data.synthetic import draw_tissue
from keras_unet.metrics import isbi2012
from keras_unet.report.pictures import difference_picture, grey_picture, heat_picture, label_picture

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
folder = Path("em_membranes")
data = None  # folder with images/ and labels/; None draws slices
slices = 16  # to draw
size = 192  # height and width of each, in pixels
held_out = 4  # the last slices, to score on
steps = 1000  # of the training

# %% [markdown]
# ## The slices
#
# Labels hold two classes: 1 in cells, 0 on membranes. Other things in the cells are dark, too.

# %%
folder.mkdir(exist_ok=True)
if data is None:
    drawn = [draw_tissue(seed, size=(size, size)) for seed in range(slices)]
    images = [image[..., np.newaxis] for image, _ in drawn]
    labels = [classes for _, classes in drawn]
else:
    samples = read_samples(data).samples
    images = [sample.image for sample in samples]
    labels = [sample.classes for sample in samples]
numbered = ndimage.label(labels[0])[0]  # a cell is what membranes enclose
show(
    "slice",
    {"slice": grey_picture(images[0]), "labels": labels[0], "cells": label_picture(numbered)},
)

# %% [markdown]
# ## Why not count pixels?
#
# Two ways to be wrong. *Thick*: every membrane is a pixel wider on each side; no cell is lost or
# merged, and a biologist would not mind. *Leaky*: every membrane is right, but for a hole in a few
# places; cells run into one another, and every measurement of them is wrong.

# %%
truth = labels[0].astype(bool)
rng = np.random.default_rng(0)
holes = np.zeros(truth.shape)
holes[tuple(rng.permutation(np.argwhere(~truth))[:36].T)] = 1
proposals = {
    "thick": ndimage.binary_erosion(truth),
    "leaky": truth | ndimage.binary_dilation(holes, iterations=3),
}
print("        pixel error   V_Rand   V_Info")
for name, proposal in proposals.items():
    scores = isbi2012(truth, proposal.astype(np.float32))
    shown = (scores[key] for key in ("pixel_error", "v_rand", "v_info"))
    print(f"{name:6}  {{:11.3f}}   {{:6.3f}}   {{:6.3f}}".format(*shown))
show(
    "wrong",
    {
        "labels": label_picture(numbered),
        "thick": label_picture(ndimage.label(proposals["thick"])[0]),
        "leaky": label_picture(ndimage.label(proposals["leaky"])[0]),
    },
)

# %% [markdown]
# The pixel error prefers the leaky one. V_Rand asks whether two pixels that share a cell in the
# labels share one in the proposal, and the other way round; V_Info asks how much the cells of one
# tell of the cells of the other. Both are best at 1, and the challenge ranks by them.
#
# ## Training
#
# Neighbouring slices of a stack are alike, so the slices held out lie together, at its end.


# %%
def training_image(image, classes):
    """Standardises a slice; between membranes there is no gap to weigh, so w_c alone counts."""
    cells = ndimage.label(classes)[0]
    weights = weight_map(classes.astype(np.uint8), cells, w0=0)
    return TrainingImage(Standardisation("image").apply(image), classes.astype(np.uint8), weights)


keras.utils.set_random_seed(0)
model = build_unet((None, None, 1), classes=2, depth=3, base_filters=16)
architecture = Architecture.of(model)
tile_size = architecture.fitting_size(128 + 2 * architecture.margin)
learned = [
    training_image(image, classes)
    for image, classes in zip(images[:-held_out], labels[:-held_out], strict=True)
]
losses = []
watch = keras.callbacks.LambdaCallback(
    on_train_batch_end=lambda _, logs: losses.append(logs["loss"])
)
_ = train(
    model,
    lambda step: build_dataset(learned, architecture, tile_size=tile_size, first=step),
    TrainingPlan(steps=steps),
    folder=folder,
    callbacks=[watch],
)
print(
    f"loss of the first steps {np.mean(losses[:50]):.2f}, of the last {np.mean(losses[-50:]):.2f}"
)

# %% [markdown]
# ## Scores on slices it has not seen
#
# The paper averages over rotated versions of a slice, and so does `symmetries=True`, over all
# eight. The network gives probabilities; each score is taken at the threshold that serves it best,
# as the challenge does.

# %%
truth = np.stack(labels[-held_out:])
seen = [Standardisation("image").apply(image) for image in images[-held_out:]]
once = np.stack([predict_image(model, image)[..., 1] for image in seen])
averaged = np.stack([predict_image(model, image, tta=True)[..., 1] for image in seen])
scores = {"once": isbi2012(truth, once), "averaged over 8": isbi2012(truth, averaged)}
names = "pixel_error", "rand_error", "v_rand", "v_info", "warping_error"
print(" " * 15, *(f"{name:>14}" for name in names))
for title, values in scores.items():
    print(f"{title:15}", *(f"{values[name]:14.4f}" for name in names))

# %%
best = scores["averaged over 8"]["v_rand_threshold"]
show(
    "scored",
    {
        "slice": grey_picture(images[-1]),
        "probability of cell": heat_picture(averaged[-1]),
        "cells": label_picture(ndimage.label(averaged[-1] > best)[0]),
        "wrong pixels": difference_picture(truth[-1], averaged[-1] > best),
    },
)

# %% [markdown]
# Drawn tissue is easier than a fly's. On the challenge's test slices, whose labels were kept
# secret, the paper reports a warping error of 0.000353, a Rand error of 0.0382 and a pixel error of
# 0.0611. What this package reaches on slices held out of the training stack, with the command for
# it, stands in the [results](../docs/pages/results.md).
#
# ## Exercise: your own images
#
# 1. Take a stack with membranes labelled: 255 in cells, 0 on membranes. Set `data`, and `held_out`
#    to slices that lie together.
# 2. Where are cells merged? Look at the slices there. Membranes that are cut obliquely are hard for
#    people, too.
# 3. `keras-unet train DATA --run RUN`, `predict --save classes,probabilities` and `evaluate
#    --metrics pixels,isbi2012` do the same for whole folders
#    ([how](../docs/pages/how-to/membranes.md)).
#
# Next: [give the network to others](04_serve_it.ipynb).
