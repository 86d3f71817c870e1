"""GeoJSON files of outlines with measurements, for QuPath."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keras_unet.files import SOFTWARE, atomic
from keras_unet.measurement.objects import ImageObjects, OutlinedObject
from keras_unet.measurement.outlines import polygons_of


def write_geojson(path: Path, objects: ImageObjects) -> None:
    """Writes a GeoJSON collection of polygons, one for each object, as detections of QuPath.

    Coordinates are pixels. A feature has the name of the object, its class and its measurements; in
    a stack also the position of its plane.

    Args:
        path: Path of the file; its folder exists.
        objects: The objects.
    """
    features = [_feature(item) for item in objects]
    collection = {"software": SOFTWARE, "type": "FeatureCollection", "features": features}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(collection, allow_nan=False), encoding="utf-8")


def _feature(item: OutlinedObject) -> dict[str, Any]:
    polygons = [[ring.tolist() for ring in polygon] for polygon in polygons_of(item.outline)]
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": polygons[0]}
    if len(polygons) > 1:
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
    if item.plane:
        z, t = (item.plane.get(axis, 0) for axis in "ZT")
        geometry["plane"] = {"c": -1, "z": z, "t": t}
    properties: dict[str, Any] = {"objectType": "detection", "name": item.name}
    if item.category:
        color = {} if item.color is None else {"color": list(item.color)}
        properties["classification"] = {"name": item.category, **color}
    properties["measurements"] = item.measurements
    return {"type": "Feature", "geometry": geometry, "properties": properties}
