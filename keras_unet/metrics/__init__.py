"""Scores of a segmentation against a reference, as defined by challenges and papers."""

from keras_unet.metrics.isbi2012 import isbi2012
from keras_unet.metrics.objects import Matching, matching, seg
from keras_unet.metrics.pixels import dice, iou, pixel_error

__all__ = ["Matching", "dice", "iou", "isbi2012", "matching", "pixel_error", "seg"]
