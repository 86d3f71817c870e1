"""Scores of a segmentation against its reference, as challenges and papers define them."""

from keras_unet.metrics.ctc import seg
from keras_unet.metrics.pixels import dice, iou, pixel_error

__all__ = ["dice", "iou", "pixel_error", "seg"]
