"""Images of cells of two classes, some of which touch."""

import numpy as np

from keras_unet.architecture import Architecture
from keras_unet.data.distances import separate_touching
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.data.object_classes import CLASSES, ObjectClass, write_table
from keras_unet.data.synthetic import draw_cells
from keras_unet.prediction.segmenter import Member, Segmenter
from keras_unet.runs import ModelInfo

NAMES = ("bright", "dark")


def draw_kinds(seed, size=(96, 96), cells=12, *, separated=False):
    """Returns an image, its label image, and the class of each object.

    Cells that touch are separated by background, if requested.
    """
    _, labels = draw_cells(seed, size=size, cells=cells)
    labels = separate_touching(labels) if separated else labels
    classes = {number: NAMES[number % 2] for number in np.unique(labels[labels > 0]).tolist()}
    steps = {number: 45 + number // 2 % 4 * 12 for number in classes}
    signs = {"bright": 1, "dark": -1}
    grey = np.array([100, *(100 + signs[classes[number]] * steps[number] for number in classes)])
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


def by_grey(class_names=NAMES):
    """Returns a segmenter that knows the classes of `draw_kinds` by their grey values."""
    values = tuple(range(1 + len(class_names))) if class_names else (0, 1)
    info = ModelInfo(
        architecture=Architecture(classes=len(values), depth=1, padding="same"),
        encoding=LabelEncoding("instances", values, class_names=class_names),
        normalization=Normalization("dataset", mean=(100.0,), std=(1.0,)),
    )

    def network(tiles):
        grey = tiles[..., 0]
        outputs = [np.full_like(grey, 30), grey, -grey]
        return np.stack(outputs if class_names else [outputs[0], np.abs(grey)], axis=-1)

    network.get_weights = list
    return Segmenter(info, (Member(info, lambda _: network),))
