# %% [markdown]
# # A first model
#
# Train a small U-Net on synthetic cells, segment a held-out image, and export the model. No
# download; about three minutes on two cores.

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
folder = Path("first_model")  # output; must be new or empty
pictures = 24  # number of training images
size = 128  # their height and width in pixels
steps = 1500  # number of weight updates

# %% [markdown]
# ## Images and labels
#
# Training takes two lists of arrays: grey-value images, and label images of the same size in which
# background is 0 and each cell has its own number. Integer and floating-point images of any range
# are accepted; the sizes of the images may differ.

# %%
pairs = [keras_unet.draw_cells(seed, size=(size, size), cells=10) for seed in range(pictures)]
images, labels = zip(*pairs, strict=True)
print(images[0].shape, images[0].dtype, labels[0].max(), "cells")

# %%
folder.mkdir(exist_ok=True)


def show(name, panels):
    """Plots arrays side by side, and saves the figure."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.4 * len(panels), 2.7))
    for axis, (title, array) in zip(axes, panels.items(), strict=True):
        axis.imshow(array)
        axis.set(title=title)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png")


show("training_image", {"image": images[0], "labels": label2rgb(labels[0], bg_label=0)})

# %% [markdown]
# ## Training
#
# `train` normalizes the images, separates touching cells by a gap of background, computes the
# weight maps of the paper's equation 2, deforms tiles elastically, and keeps the weights with the
# best score on the fifth of the images that it holds out. `depth` and `base_filters` set the size
# of the network; the defaults of `TrainingOptions` are close to the paper's.

# %%
segmenter = keras_unet.train(
    images, labels, run=folder / "run", steps=steps, depth=3, base_filters=16
)
outcome = segmenter.info.record["outcome"]
print(f"{outcome['score_name']} of the validation images: {outcome['best_score']:.2f}")

# %%
history = np.genfromtxt(folder / "run" / "history.csv", delimiter=",", names=True)
figure, axes = plt.subplots(1, 2, figsize=(7, 2.5), layout="constrained")
for axis, column in zip(axes, ("loss", "score"), strict=True):
    axis.plot(history["step"], history[column])
    axis.set(xlabel="step", ylabel=column)
figure.savefig(folder / "history.png")

# %% [markdown]
# ## Segmentation
#
# `segment` takes an image of any size as it was measured, and returns a label image. `predict`
# returns the class probabilities, `(height, width, classes)`.

# %%
image, cells = keras_unet.draw_cells(seed=100, size=(size, size), cells=10)
found = segmenter.segment(image)
probabilities = segmenter.predict(image)
print(f"{found.max()} cells found, {cells.max()} drawn")

# %%
show(
    "first_model",
    {
        "image": image,
        "probability of cell": probabilities[..., 1],
        "cells found": label2rgb(found, bg_label=0),
        "cells drawn": label2rgb(cells, bg_label=0),
    },
)

# %% [markdown]
# ## Export
#
# `load` reads the folder of a run. `export_model` writes a file or folder that runs without this
# package; the extension sets the format: `.tflite`, `.onnx`, `.zip` for Fiji and the BioImage Model
# Zoo, and no extension for TensorFlow Serving. The export is compared with the model before it gets
# its final name.

# %%
segmenter = keras_unet.load(folder / "run")
exported = keras_unet.export_model(segmenter, folder / "cells.tflite")
same = keras_unet.load(exported).segment(image) == found
print(f"{exported.name}: {exported.stat().st_size / 1e6:.1f} MB, {same.mean():.1%} of labels equal")

# %% [markdown]
# ## Exercise: your own images
#
# 1. Read your images and label images, for example by `tifffile.imread`, and train on them. Leave
#    out `depth`, `base_filters` and `steps`: the first and the last are set from the images.
#    `train("DATA", run="RUN")` reads a folder with `images/` and `labels/`.
# 2. Segment an image that was not among them. Are neighbors merged, or cells split? Instance
#    options can be given by name, such as `segmenter.segment(image, minimum_size=40)`
#    ([all options](../docs/pages/explanation/instances.md)).
# 3. Continue with more images: `keras_unet.train(images, labels, initial=segmenter)` starts from
#    the trained weights.
#
# Next: [weight maps at touching cells](02_touching_cells.ipynb).
