"""Exports of trained models: TensorFlow Serving, LiteRT, ONNX Runtime, BioImage.IO."""
