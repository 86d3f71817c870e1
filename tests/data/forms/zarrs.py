"""Zarr arrays and OME-Zarr images, as zarr, ngff-zarr and others write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .drawing import HEIGHT, WIDTH, Form, drawn


def write_ome_zarr(
    path: Path, array: NDArray[Any], axes: str, version: str, **options: Any
) -> None:
    """Writes an OME-Zarr image of one resolution by zarr alone.

    Args:
        path: Folder to be made.
        array: An axis for each letter.
        axes: Letters of the axes, small, which are their names.
        version: Version of OME-Zarr: 0.1 to 0.4 are Zarr 2, 0.5 is Zarr 3.
        options: What `zarr.create_array` takes besides.
    """
    import zarr

    kinds = {"t": "time", "c": "channel"}
    described: dict[str, Any] = {"version": version, "datasets": [{"path": "0"}]}
    if version == "0.3":
        described["axes"] = list(axes)
    elif version > "0.3":
        described["axes"] = [{"name": one, "type": kinds.get(one, "space")} for one in axes]
        scale = {"type": "scale", "scale": [1.0] * len(axes)}
        described["datasets"][0]["coordinateTransformations"] = [scale]
    stated = {"multiscales": [described]}
    form = 3 if version == "0.5" else 2
    attributes = {"ome": {"version": version, **stated}} if form == 3 else stated
    group = zarr.create_group(path, zarr_format=form, attributes=attributes)
    names = {"dimension_names": axes} if form == 3 else {}
    chunks = tuple(min(size, 7) for size in array.shape)
    group.create_array("0", data=array, **({"chunks": chunks} | names | options))


def _five_axes() -> tuple[NDArray[Any], NDArray[Any]]:
    """Draws 2 times of 2 channels of 3 depths: in the order tczyx, and as planes."""
    planes = drawn(2, 3, channels=2)
    return np.moveaxis(planes, -1, 1), planes.reshape(-1, HEIGHT, WIDTH, 2)


def ome_zarr(version: str, **options: Any) -> Form:
    def written(path: Path) -> NDArray[Any]:
        stored, planes = _five_axes()
        write_ome_zarr(path, stored.astype(np.uint16), "tczyx", version, **options)
        return planes

    return Form(written, ".ome.zarr", "T and Z as planes, C as channels", "zarr")


def by_ngff(version: str) -> Form:
    def written(path: Path) -> NDArray[Any]:
        import ngff_zarr

        stored, planes = _five_axes()
        image = ngff_zarr.to_ngff_image(stored, dims=list("tczyx"))
        pyramid = ngff_zarr.to_multiscales(image, scale_factors=[{"t": 1, "z": 1, "y": 2, "x": 2}])
        ngff_zarr.to_ngff_zarr(str(path), pyramid, version=version)
        return planes

    return Form(written, ".ome.zarr", "T and Z as planes, C as channels", "ngff-zarr")


def by_bioformats2raw(version: str) -> Form:
    def written(path: Path) -> NDArray[Any]:
        import zarr

        layout = {"bioformats2raw.layout": 3}
        attributes = layout if version == "0.4" else {"ome": {"version": version, **layout}}
        form = 3 if version == "0.5" else 2
        zarr.create_group(path, zarr_format=form, attributes=attributes).create_group("OME")
        (path / "OME" / "METADATA.ome.xml").write_text("<OME/>")
        stored, planes = _five_axes()
        write_ome_zarr(path / "0", stored, "tczyx", version)
        return planes

    return Form(written, ".zarr", "the image in it", "bioformats2raw's layout")


def zarr_by_xarray(path: Path) -> NDArray[Any]:
    import zarr

    planes = drawn(3, channels=2)
    stored = np.moveaxis(planes, -1, 0)
    names = {"_ARRAY_DIMENSIONS": ["channel", "z", "y", "x"]}
    zarr.create_array(path, data=stored, zarr_format=2, attributes=names)
    return planes
