"""Exports of a trained model for others to run: TensorFlow Serving, LiteRT, ONNX Runtime, Fiji."""
