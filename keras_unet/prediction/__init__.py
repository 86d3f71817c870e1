"""Prediction: from images to label images."""
