"""U-Net of Ronneberger, Fischer and Brox (2015) in Keras and TensorFlow.

`train` returns a `Segmenter`, which predicts, segments, saves and loads; `export_model` converts it
to SavedModel, TFLite, ONNX or BioImage.IO. `predict_files`, `evaluate_folders`, `measure_files`
and `link_files` work on folders.
`build_unet`, `tile_dataset` and `WeightedCrossEntropy` are for `model.fit` of Keras. Public names
are imported on first use: importing the package does not import TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for tools; at run time `__getattr__` does it
    from keras_unet import metrics
    from keras_unet.architecture import Architecture
    from keras_unet.console import show_progress
    from keras_unet.data.augmentation import Augmentation
    from keras_unet.data.distances import separate_touching
    from keras_unet.data.download import download
    from keras_unet.data.encoding import LabelEncoding
    from keras_unet.data.normalization import Normalization
    from keras_unet.data.synthetic import draw_cells, draw_tissue
    from keras_unet.data.weight_maps import border_weight_map, class_weight_map, weight_map
    from keras_unet.evaluation.evaluate import evaluate_folders
    from keras_unet.evaluation.link import link_files
    from keras_unet.evaluation.measure import measure_files
    from keras_unet.export.export import export_model
    from keras_unet.instances.label import InstanceOptions, label_instances
    from keras_unet.instances.link import link_objects
    from keras_unet.losses import MeanIoU, PixelAccuracy, WeightedCrossEntropy
    from keras_unet.measurement.properties import measure_objects
    from keras_unet.model import build_unet
    from keras_unet.prediction.folder import predict_files
    from keras_unet.prediction.load import load
    from keras_unet.prediction.predict import predict_image
    from keras_unet.prediction.segmenter import Segmenter
    from keras_unet.training.dataset import tile_dataset
    from keras_unet.training.folds import cross_validate
    from keras_unet.training.gradients import with_fast_gradients
    from keras_unet.training.options import TrainingOptions
    from keras_unet.training.train import train

    __version__: str

_HOMES = {
    "Architecture": "architecture",
    "Augmentation": "data.augmentation",
    "InstanceOptions": "instances.label",
    "LabelEncoding": "data.encoding",
    "MeanIoU": "losses",
    "Normalization": "data.normalization",
    "PixelAccuracy": "losses",
    "Segmenter": "prediction.segmenter",
    "TrainingOptions": "training.options",
    "WeightedCrossEntropy": "losses",
    "border_weight_map": "data.weight_maps",
    "build_unet": "model",
    "class_weight_map": "data.weight_maps",
    "cross_validate": "training.folds",
    "download": "data.download",
    "draw_cells": "data.synthetic",
    "draw_tissue": "data.synthetic",
    "evaluate_folders": "evaluation.evaluate",
    "export_model": "export.export",
    "label_instances": "instances.label",
    "link_files": "evaluation.link",
    "link_objects": "instances.link",
    "load": "prediction.load",
    "measure_files": "evaluation.measure",
    "measure_objects": "measurement.properties",
    "metrics": "metrics",
    "predict_files": "prediction.folder",
    "predict_image": "prediction.predict",
    "separate_touching": "data.distances",
    "show_progress": "console",
    "tile_dataset": "training.dataset",
    "train": "training.train",
    "weight_map": "data.weight_maps",
    "with_fast_gradients": "training.gradients",
}

__all__ = [
    "Architecture",
    "Augmentation",
    "InstanceOptions",
    "LabelEncoding",
    "MeanIoU",
    "Normalization",
    "PixelAccuracy",
    "Segmenter",
    "TrainingOptions",
    "WeightedCrossEntropy",
    "border_weight_map",
    "build_unet",
    "class_weight_map",
    "cross_validate",
    "download",
    "draw_cells",
    "draw_tissue",
    "evaluate_folders",
    "export_model",
    "label_instances",
    "link_files",
    "link_objects",
    "load",
    "measure_files",
    "measure_objects",
    "metrics",
    "predict_files",
    "predict_image",
    "separate_touching",
    "show_progress",
    "tile_dataset",
    "train",
    "weight_map",
    "with_fast_gradients",
]


if not TYPE_CHECKING:  # or every name would be of type Any

    def __getattr__(name: str) -> Any:
        """Loads a public name from its module on first use."""
        if name == "__version__":
            value = import_module("importlib.metadata").version("keras-unet-biomedical")
        elif name in _HOMES:
            module = import_module(f"{__name__}.{_HOMES[name]}")
            value = module if name == _HOMES[name] else getattr(module, name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Lists the public names."""
    return [*__all__, "__version__"]
