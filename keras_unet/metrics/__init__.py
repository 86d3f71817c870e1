"""Scores of a segmentation against a reference, as defined by challenges and papers."""

from keras_unet.metrics.isbi2012 import isbi2012
from keras_unet.metrics.objects import Matching, matching, mean_ap, seg
from keras_unet.metrics.pixels import dice, iou, mean_iou, pixel_error

__all__ = [
    "Matching",
    "dice",
    "iou",
    "isbi2012",
    "matching",
    "mean_ap",
    "mean_iou",
    "pixel_error",
    "seg",
]
