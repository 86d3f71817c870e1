# %% [markdown]
# # Export and serve
#
# An exported model runs without this package: in microscope software, a script, or a web service.
# This notebook trains a network, exports a TensorFlow SavedModel, and calls its signatures as
# TensorFlow Serving does. Given the address of a server, it calls that as well.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
from PIL import Image
from skimage.color import label2rgb

import keras_unet

plt.rcParams.update({"figure.dpi": 80, "image.interpolation": "nearest", "image.cmap": "gray"})

# %% tags=["parameters"]
folder = Path("serve_it")  # output; must be new or empty
pictures = 24  # number of training images
size = 128  # their height and width in pixels
steps = 1200  # number of weight updates
server = None  # such as "http://localhost:8501/v1/models/cells" or "grpc://localhost:8500/cells"

# %%
folder.mkdir(exist_ok=True)


def show(name, panels):
    """Plots arrays side by side, and saves the figure."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3 * len(panels), 2.6))
    for axis, (title, array) in zip(axes, panels.items(), strict=True):
        axis.imshow(array)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png")


# %% [markdown]
# ## A model

# %%
pairs = [keras_unet.draw_cells(seed, size=(size, size), cells=10) for seed in range(pictures)]
images, labels = zip(*pairs, strict=True)
segmenter = keras_unet.train(
    images, labels, run=folder / "run", steps=steps, depth=3, base_filters=16, precision="float32"
)
outcome = segmenter.info.record["outcome"]
print(f"{outcome['score_name']} of the validation images: {outcome['best_score']:.2f}")

# %% [markdown]
# ## Export
#
# On the command line: `keras-unet export RUN models/cells --format saved_model`. A new process
# loads the export and compares its output with that of the model. A difference beyond rounding is
# an error, and the export is deleted.

# %%
version = keras_unet.export_model(segmenter, folder / "models" / "cells")
for path in sorted(version.rglob("*")):
    if path.is_file():
        print(path.relative_to(folder).as_posix())

# %% [markdown]
# The folder `1` is the version, in the layout of TensorFlow Serving. Normalization, mirrored
# borders, tiling and stitching are part of the graph: it takes grey values as measured, of any
# height and width, and the outputs have the same height and width.
#
# ## Signatures
#
# The SavedModel needs only TensorFlow; `keras_unet` is used here to draw an image.
# `serving_default` maps arrays to probabilities and classes.

# %%
import tensorflow as tf

served = tf.saved_model.load(str(version))
image, _ = keras_unet.draw_cells(200, size=(size + 35, size + 70), cells=20)
outputs = served.signatures["serving_default"](
    image=tf.constant(image[np.newaxis, ..., np.newaxis], tf.float32)
)
probabilities = outputs["probabilities"].numpy()[0, ..., 1]
print({name: tuple(value.shape) for name, value in outputs.items()})

# %% [markdown]
# `classify_bytes` maps the bytes of a PNG image to a PNG file of its classes, for clients without
# arrays.

# %%
Image.fromarray(image).save(folder / "new.png")
outputs = served.signatures["classify_bytes"](
    image_bytes=tf.constant([(folder / "new.png").read_bytes()])
)
classes = tf.io.decode_png(outputs["classes_bytes"][0]).numpy()[..., 0]
print(f"{classes.shape[0]} x {classes.shape[1]} pixels, {(classes > 0).mean():.0%} of them cell")

# %% [markdown]
# ## Comparison
#
# `predict_files`, with the original model, gives the same classes, and also numbered cells.

# %%
keras_unet.predict_files(
    segmenter, folder / "new.png", folder / "predictions", save=["instances", "classes"]
)
cells = tifffile.imread(folder / "predictions" / "new.tif")
same = tifffile.imread(folder / "predictions" / "new_classes.tif") == classes
print(f"{same.mean():.2%} of the classes are equal")
show(
    "served",
    {
        "image": image,
        "probability of cell, served": probabilities,
        "classes, served": classes,
        "cells": label2rgb(cells, bg_label=0),
    },
)

# %% [markdown]
# ## TensorFlow Serving
#
# The folder `export` of the checkout holds the configuration of TensorFlow Serving in Docker
# ([more](../export/README.md)).
#
# ```
# cd export
# keras-unet export ../RUN models/cells --format saved_model
# docker compose up --detach --wait
# python client.py http://localhost:8501/v1/models/cells image.png --out results
# ```
#
# `client.py` does not need this package. With the package, a server is used like a run:
# `keras_unet.load("grpc://localhost:8500/cells")`, `predict_files("grpc://localhost:8500/cells",
# "NEW_IMAGES", "PREDICTIONS")`, or
#
# ```
# keras-unet predict --server grpc://localhost:8500/cells NEW_IMAGES --out PREDICTIONS
# ```
#
# `grpc://` needs `pip install ".[serving]"`, `http://` needs nothing more. Set `server` above to
# call your own.

# %%
if server is None:
    print("server=None: skipped")
else:
    keras_unet.predict_files(server, folder / "new.png", folder / "from_server")
    from_server = tifffile.imread(folder / "from_server" / "new.tif")
    print(f"{(from_server == cells).mean():.2%} of the labels are equal")

# %% [markdown]
# ## Exercise: your own images
#
# 1. Export a run of yours: `keras_unet.export_model("RUN", "models/mine")`. Load it as above, and
#    segment an image that is larger than all training images.
# 2. Send an image with another number of channels, or with NaN, and read the error message.
# 3. Export for small devices with `export_model("RUN", "cells.tflite")`, for Fiji and the BioImage
#    Model Zoo with `"cells.zip"`, for other languages with `"cells.onnx"`
#    ([details](../export/README.md)).
#
# Next: [images larger than memory](05_big_images.ipynb).
