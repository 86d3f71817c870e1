"""Images of cells of two classes, some of which touch."""

import numpy as np

from keras_unet.data.object_classes import CLASSES, ObjectClass, write_table
from keras_unet.data.synthetic import draw_cells

NAMES = ("bright", "dark")


def draw_kinds(seed, size=(96, 96), cells=12):
    """Returns an image, its label image, and the class of each object."""
    _, labels = draw_cells(seed, size=size, cells=cells)
    classes = {number: NAMES[number % 2] for number in np.unique(labels[labels > 0]).tolist()}
    grey = np.array([100, *(160 if classes[number] == "bright" else 40 for number in classes)])
    place = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    noise = np.random.default_rng(seed).normal(0, 4, labels.shape)
    return (grey[place] + noise).clip(0, 255).astype(np.uint8), labels, classes


def with_values(labels, classes):
    """Returns labels `(height, width, 2)`, with 1 for bright and 2 for dark cells."""
    of_number = np.zeros(labels.max() + 1, np.int32)
    for number, name in classes.items():
        of_number[number] = 1 + NAMES.index(name)
    return np.stack([labels, of_number[labels]], axis=-1)


def write_classes(folder, classes):
    """Writes the table of classes of images by their name."""
    rows = [
        ObjectClass(f"{name}.tif", None, number, of_object)
        for name, objects in classes.items()
        for number, of_object in objects.items()
    ]
    write_table(folder / CLASSES, rows)
