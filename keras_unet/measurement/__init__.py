"""Measurements and outlines of the objects in label images, as tables, ROIs and GeoJSON."""
