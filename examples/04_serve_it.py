# %% [markdown]
# # Serve it
#
# A trained network is of use to others when they need neither this package nor its author: a
# microscope's software, a colleague's script, a web page. This notebook trains, exports, and asks
# the export, as a server does. With the address of a server, it asks that, too.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
from PIL import Image

from keras_unet.console import quiet_tensorflow

with quiet_tensorflow():
    import tensorflow as tf  # without its greetings
tf.get_logger().setLevel("ERROR")

from keras_unet import (
    TrainingOptions,
    export_model,
    predict_files,
    train_folder,
)
from keras_unet.data.synthetic import draw_cells
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
folder = Path("serve_it")  # new, or removed before it is run again
pictures = 10  # to learn from
size = 128  # height and width of each, in pixels
steps = 1500  # of the training
server = None  # such as "http://localhost:8501/v1/models/cells"

# %% [markdown]
# ## Something to serve
#
# Images and labels go into a folder, `train_folder` does what `keras-unet train` does.

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
# ## Export
#
# `keras-unet export RUN models/cells --format saved_model` does the same. What is written is loaded
# by a fresh process and compared with the run before it gets its name: a difference beyond rounding
# is refused.

# %%
version = export_model(folder / "run", folder / "models" / "cells")
for path in sorted(version.rglob("*")):
    if path.is_file():
        print(path.relative_to(folder).as_posix())

# %% [markdown]
# The folder `1` is a version, as TensorFlow Serving wants it. Standardisation, mirrored borders,
# tiles and stitching are inside the graph: raw grey values of any size go in, classes of that size
# come out.
#
# ## Ask it, as a server does
#
# Nothing of `keras_unet` from here on: TensorFlow's loader is all that a client in Python needs.

# %%
served = tf.saved_model.load(str(version))
image, cells = draw_cells(
    200, size=(size + 35, size + 70), cells=14
)  # another size than in training
ask = served.signatures["serving_default"]
answer = ask(image=tf.constant(image[np.newaxis, ..., np.newaxis], tf.float32))
probabilities = answer["probabilities"].numpy()[0, ..., 1]
print({name: tuple(value.shape) for name, value in answer.items()})

# %% [markdown]
# Clients that have no arrays send a PNG, and get one back. This is what travels over the wire.

# %%
Image.fromarray(image).save(folder / "new.png")
ask = served.signatures["classify_bytes"]
answer = ask(image_bytes=tf.constant([(folder / "new.png").read_bytes()]))
classes = tf.io.decode_png(answer["classes_bytes"][0]).numpy()[..., 0]
print(f"{classes.shape[0]} x {classes.shape[1]} pixels, {(classes > 0).mean():.0%} of them cell")

# %% [markdown]
# The run itself says the same:

# %%
predict_files(
    folder / "run",
    [folder / "new.png"],
    folder / "predictions",
    save=["instances", "classes"],
)
same = tifffile.imread(folder / "predictions" / "new_classes.tif") == classes
print(f"{same.mean():.2%} of the pixels alike")
show(
    "served",
    {
        "image": grey_picture(image),
        "probability, served": heat_picture(probabilities),
        "classes, served": classes,
        "cells": label_picture(tifffile.imread(folder / "predictions" / "new.tif")),
    },
)

# %% [markdown]
# ## A real server
#
# In the folder `export` of the checkout lies all that TensorFlow Serving needs but the model;
# Docker is the one thing to install ([more](../export/README.md)).
#
# ```
# cd export
# keras-unet export ../run models/cells --format saved_model
# docker compose up --detach --wait
# python client.py http://localhost:8501/v1/models/cells image.png --out results
# ```
#
# or, with cells numbered by the rule that training has chosen:
#
# ```
# keras-unet predict --server http://localhost:8501/v1/models/cells NEW_IMAGES --out PREDICTIONS
# ```
#
# Set `server` above, and the next cell asks it.

# %%
if server is None:
    print("no server was named")
else:
    predict_files(server, [folder / "new.png"], folder / "from_server")
    here, there = (
        tifffile.imread(folder / place / "new.tif") for place in ("predictions", "from_server")
    )
    show(
        "compared",
        {"cells, served": label_picture(there), "other": difference_picture(here, there)},
    )

# %% [markdown]
# ## Exercise: your own images
#
# 1. Export a run of your own, `keras-unet export RUN models/mine --format saved_model`, load it as
#    above, and ask it for an image larger than any that it was trained on.
# 2. Which image does it refuse? Send one with another number of channels, or with a value that is
#    not a number, and read the error: it names the rule.
# 3. `--format tflite`, `bioimageio` and `onnx` are for a small device, for Fiji, and for other
#    languages ([how](../export/README.md)).
#
# Next: [images larger than memory](05_big_images.ipynb).
