"""Sample data for napari: cells that are drawn, as `keras-unet demo` trains on."""

from __future__ import annotations

import numpy as np

from keras_unet.data.synthetic import draw_cells
from keras_unet.napari_plugin.layers import LayerData

_PICTURES = 8


def drawn_cells() -> list[LayerData]:
    """Draws a stack of pictures of touching cells, and the labels of all of them."""
    drawn = [draw_cells(seed) for seed in range(_PICTURES)]
    images, labels = (np.stack(part) for part in zip(*drawn, strict=True))
    return [(images, {"name": "cells"}, "image"), (labels, {"name": "cells truth"}, "labels")]
