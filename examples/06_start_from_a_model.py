# %% [markdown]
# # Start from a model
#
# A model of the package segments nuclei in fluorescence before anything is drawn, and a few labels
# of your own adapt it to other images. This notebook compares the training from a model with one
# from scratch, on the same images. No download; about four minutes on two cores.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.color import label2rgb

import keras_unet

plt.rcParams.update({"figure.dpi": 80, "image.interpolation": "nearest", "image.cmap": "gray"})

# %% [markdown]
# Parameters to change:

# %% tags=["parameters"]
folder = Path("start_from_a_model")  # output; must be new or empty
model = "nuclei"  # of the package, or the folder of a run
pictures = 5  # number of annotated images, one of which is held out
size = 128  # their height and width in pixels
steps = 150  # number of weight updates

# %% [markdown]
# ## The model as it is
#
# `keras-unet models` lists the models of the package, and prints the card of one: the images it was
# trained on, their license, scores on held-out images, and what it fails on. These synthetic cells
# look like nuclei, but touch more often.

# %%
folder.mkdir(exist_ok=True)
pairs = [keras_unet.draw_cells(seed, size=(size, size), cells=10) for seed in range(pictures)]
images, labels = zip(*pairs, strict=True)
image, cells = keras_unet.draw_cells(seed=100, size=(size, size), cells=10)  # not trained on
segmenters = {f"{model}, as it is": keras_unet.load(model)}
print(f"{segmenters[f'{model}, as it is'].segment(image).max()} cells found, {cells.max()} drawn")

# %% [markdown]
# ## Training from the model, and from scratch
#
# `initial=` takes the name, a segmenter, a run or a .keras file. The network is then that of the
# model. Its score on the held-out image is measured before the first step; the training never ends
# with less.

# %%
for name, initial in ((f"from {model}", model), ("from scratch", None)):
    segmenters[name] = keras_unet.train(
        images, labels, run=folder / name, initial=initial, steps=steps, depth=3
    )

# %%
figure, axis = plt.subplots(figsize=(5, 2.7), layout="constrained")
for name in list(segmenters)[1:]:
    history = np.genfromtxt(folder / name / "history.csv", delimiter=",", names=True)
    axis.plot(history["step"], history["score"], label=name)
axis.set(xlabel="step", ylabel="mean of SEG and AP,\nheld-out image", ylim=(0, 1))
axis.legend()
figure.savefig(folder / "scores.png")

# %% [markdown]
# ## An image that none was trained on

# %%
panels = {"image": image, "cells drawn": label2rgb(cells, bg_label=0)}
for name, segmenter in segmenters.items():
    found = segmenter.segment(image)
    seg = keras_unet.metrics.seg([cells], [found])
    panels[f"{name}: SEG {seg:.2f}"] = label2rgb(found, bg_label=0)
figure, axes = plt.subplots(1, len(panels), figsize=(2.4 * len(panels), 2.7), layout="constrained")
for axis, (title, array) in zip(axes, panels.items(), strict=True):
    axis.imshow(array)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
figure.savefig(folder / "start_from_a_model.png")

# %% [markdown]
# ## Exercise: your own images
#
# 1. Segment an image of yours by `keras_unet.load("nuclei")`. If its objects are much wider or
#    narrower than the nuclei of the training, add `scale="auto"`.
# 2. Which image should be annotated first? The one with the largest
#    `segmenter.disagreement(image)`, on which the eight rotations and reflections differ most. In
#    napari, a widget proposes it, and trains further on your corrections
#    ([in napari](../docs/pages/how-to/napari.md)).
# 3. Train from the model on it, and compare the score before and after:
#    `info.record["outcome"]` holds `start_score` and `score`.
#
# More: [start from a model](../docs/pages/how-to/start-from-a-model.md).
