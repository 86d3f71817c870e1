"""Pixel size, distance of planes and interval of frames reach tables and outputs."""

import csv

import numpy as np
import pytest
import tifffile
import zarr

from keras_unet.data.headers import read_header
from keras_unet.data.images import read_image
from keras_unet.prediction.folder import predict_files
from keras_unet.prediction.outputs import OutputOptions

HEIGHT, WIDTH, DISTANCE, INTERVAL = 0.5, 0.25, 2.0, 30.0


def ome_tiff(folder, pixels, unit="µm", factor=1.0):
    metadata = {"axes": "TZYX", "TimeIncrement": INTERVAL, "TimeIncrementUnit": "s"}
    for axis, size in (("Y", HEIGHT), ("X", WIDTH), ("Z", DISTANCE)):
        metadata |= {f"PhysicalSize{axis}": size * factor, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(folder / "a.ome.tif", pixels, metadata=metadata, photometric="minisblack")
    return folder / "a.ome.tif"


def ome_tiff_in_nanometers(folder, pixels):
    return ome_tiff(folder, pixels, "nm", 1000.0)


def imagej(folder, pixels, unit="um"):
    metadata = {"axes": "TZYX", "unit": unit, "spacing": DISTANCE, "finterval": INTERVAL}
    options = {"imagej": True, "resolution": (1 / WIDTH, 1 / HEIGHT), "metadata": metadata}
    tifffile.imwrite(folder / "a.tif", pixels, **options)
    return folder / "a.tif"


def imagej_in_microns(folder, pixels):
    return imagej(folder, pixels, "micron")


def ome_zarr(folder, pixels, version="0.5"):
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("0", data=pixels, chunks=(1, 1, 64, 64))
    axes = [{"name": "t", "type": "time", "unit": "second"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [INTERVAL, DISTANCE, HEIGHT, WIDTH]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    if version == "0.5":
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [image | {"version": version}]
    return folder / "a.zarr"


def ome_zarr_of_version_4(folder, pixels):
    return ome_zarr(folder, pixels, "0.4")


@pytest.mark.parametrize(
    "write",
    [
        *(ome_tiff, ome_tiff_in_nanometers, imagej, imagej_in_microns),
        *(ome_zarr, ome_zarr_of_version_4),
    ],
)
def test_calibration_reaches_tables_and_outputs(trained, cells, tmp_path, write):
    picture = tifffile.imread(cells / "images" / "c3.tif")
    path = write(tmp_path, np.stack([picture] * 4).reshape(2, 2, *picture.shape))
    stated = read_header(path).spacing
    assert stated.pixel_size == pytest.approx((HEIGHT, WIDTH))
    assert stated.steps["T"] == INTERVAL
    assert stated.units["T"] == "second"
    storage = OutputOptions(form="tiff")
    predict_files(trained, path, tmp_path / "out", save=["instances", "table"], storage=storage)
    spacing = read_image(tmp_path / "out" / "a.tif").spacing
    assert spacing.pixel_size == pytest.approx((HEIGHT, WIDTH))
    factor = {"micrometer": 1.0, "nanometer": 1000.0}[spacing.units["Z"]]
    assert spacing.steps["Z"] == pytest.approx(DISTANCE * factor)
    assert (spacing.steps["T"], spacing.units["T"]) == (INTERVAL, "second")
    with (tmp_path / "out" / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert float(row["area_um2"]) == pytest.approx(int(row["area_px"]) * HEIGHT * WIDTH)


@pytest.mark.parametrize("write", [ome_zarr, ome_zarr_of_version_4])
def test_calibration_of_zarr_is_kept_in_zarr(trained, cells, tmp_path, write):
    picture = tifffile.imread(cells / "images" / "c3.tif")
    path = write(tmp_path, np.stack([picture] * 2)[:, None])
    predict_files(trained, path, tmp_path / "out")
    spacing = read_header(tmp_path / "out" / "a.ome.zarr").spacing
    assert {axis: spacing.steps[axis] for axis in "YX"} == {"Y": HEIGHT, "X": WIDTH}
    assert spacing.pixel_size == (HEIGHT, WIDTH)
