"""U-Net of Ronneberger, Fischer and Brox (2015) in Keras and TensorFlow.

From a folder of images to label images: `train_folder`, `predict_files`, `evaluate_folders`. In a
notebook: `build_unet`, `tile_dataset`, `WeightedCrossEntropy`, `train`, `predict_image`,
`label_instances`. Names are loaded on first use, so that importing the package
does not import TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Architecture": "architecture",
    "Augmentation": "data.augmentation",
    "InstanceRule": "instances.label",
    "MeanIoU": "losses",
    "PixelAccuracy": "losses",
    "Run": "runs",
    "TrainingImage": "data.tiles",
    "TrainingOptions": "training.options",
    "TrainingPlan": "training.schedule",
    "WeightedCrossEntropy": "losses",
    "border_weight_map": "data.weights",
    "build_dataset": "data.pipeline",
    "build_unet": "model",
    "class_weight_map": "data.weights",
    "draw_cells": "data.synthetic",
    "evaluate_folders": "evaluation.evaluate",
    "export_bioimageio": "export.bioimageio",
    "export_onnx": "export.onnx",
    "export_saved_model": "export.saved_model",
    "export_tflite": "export.tflite",
    "label_instances": "instances.label",
    "load_tflite": "prediction.tflite",
    "predict_files": "prediction.folder",
    "predict_files_on_server": "prediction.server",
    "predict_image": "prediction.predict",
    "read_samples": "data.samples",
    "separate_touching": "data.distances",
    "show_progress": "console",
    "tile_dataset": "training.dataset",
    "train": "training.loop",
    "train_folder": "training.train",
    "weight_map": "data.weights",
    "with_fast_gradients": "training.gradients",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a sorted list of strings


def __getattr__(name: str) -> Any:
    """Loads a public name from its module on first use."""
    if name == "__version__":
        value = import_module("importlib.metadata").version("keras-unet-biomedical")
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names."""
    return [*__all__, "__version__"]
