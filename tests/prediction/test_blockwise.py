"""What is predicted by parts is what is predicted in memory, pixel by pixel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import zarr
from logs import logged, watched
from roifile import roiread
from scipy import ndimage

from keras_unet.architecture import OFFSETS, Architecture
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import ImageFile
from keras_unet.data.normalization import Normalization
from keras_unet.instances import affinities
from keras_unet.instances.affinities import class_probabilities
from keras_unet.instances.blockwise import BlockwiseLabeler
from keras_unet.instances.label import InstanceOptions
from keras_unet.measurement import windows
from keras_unet.prediction import blockwise
from keras_unet.prediction import store as stores
from keras_unet.prediction.blockwise import Blockwise, Plan, measure, predict_locally
from keras_unet.prediction.outputs import OutputPlan, Prediction
from keras_unet.prediction.predict import predict_outputs
from keras_unet.runs import Run

NETWORK = Architecture(depth=1)
SAVE = ("instances", "classes", "probabilities")


def network(factor, affinities=False):
    """Returns what looks sideways, so that it matters how an image is turned; no TensorFlow."""

    def logits(tile):
        lost = NETWORK.margin
        inner = tile[:, lost:-lost, lost:-lost]
        beside = tile[:, lost - 1 : -lost - 1, lost + 2 : tile.shape[2] - lost + 2]
        height = inner + factor * beside
        scores = [
            np.roll(height, step, axis=2) for step in range(len(OFFSETS) if affinities else 0)
        ]
        return np.concatenate([-height, height, *scores], axis=-1)

    return logits


def a_run(folder, **changed):
    fields = {
        "encoding": LabelEncoding("instances", (0, 1)),
        "normalization": Normalization("image"),
        "instances": InstanceOptions(markers="probability", merge_threshold=0.9, minimum_size=9),
    } | changed
    fields = {"architecture": NETWORK, "precision": "float32", "record": {}} | fields
    return Run(folder=folder, **fields)


@pytest.fixture
def by_small_parts(monkeypatch):
    """Reads bands of a few rows, so that a small image has many."""
    monkeypatch.setattr(blockwise, "_BAND", 5_000)
    monkeypatch.setattr(blockwise, "BlockwiseLabeler", partial(BlockwiseLabeler, band=3_000))


def grey(*shape):
    noise = np.random.default_rng(0).random(shape)
    smooth = ndimage.gaussian_filter(noise, (*(0 for _ in shape[:-2]), 2, 2))
    return (smooth * 60_000).astype(np.uint16)


def by_parts(out, members, path, *, form=None, tta=False, save=SAVE, checksums=None):
    """Predicts a file by parts."""
    runs, models = zip(*members, strict=True)
    order = OutputPlan.of(runs[0], [path], out, save, None, form)
    out.mkdir(exist_ok=True)
    plan = Plan(runs, ((60, 60),) * len(runs), tta, checksums=checksums)
    predict = partial(predict_locally, models)
    return Blockwise(order, plan, predict).predict_image(path, measure(runs[0], path))


def predicted(out, members, path, image, *, form=None, tta=False, save=SAVE):
    """Predicts a file by parts, and its planes, `(planes, height, width)`, in memory."""
    made = by_parts(out, members, path, form=form, tta=tta, save=save)
    planes = []
    for plane in image:
        scores = [
            predict_outputs(
                model,
                run.normalize(plane[..., None], path),
                run.architecture,
                tile_size=60,
                tta=tta,
            )
            for run, model in members
        ]
        mean = np.mean(scores, axis=0, dtype=np.float32)
        first = members[0][0]
        separated = first.instances.affinities
        planes.append(
            Prediction.of(class_probabilities(mean, first.architecture, separated=separated))
        )
    whole = OutputPlan.of(members[0][0], [path], out / "whole", save, None, "tiff")
    (out / "whole").mkdir()
    stack = (("Z", len(planes)),)
    pixels = np.asarray(image)[..., np.newaxis]
    return made, whole.write(path, ImageFile(pixels, stack), planes)


def stored(path):
    if path.suffix == ".zarr":
        array = zarr.open_group(path, mode="r")["0"]
        names = array.metadata.dimension_names
        return array[:].swapaxes(0, 1) if names[:2] == ("c", "z") else array[:]
    return tifffile.imread(path)


WAYS = {
    "one network": (1, False, "tiff"),
    "tta": (1, True, "tiff"),
    "ensemble": (3, False, "ome-zarr"),
    "ensemble, tta": (3, True, "tiff"),
}
WAYS_OF_AFFINITIES = {
    "affinities": (1, False, True),
    "affinities, tta": (1, True, True),
    "affinities, ensemble, tta": (2, True, True),
    "affinities left out": (2, False, False),
}


@pytest.mark.usefixtures("by_small_parts")
@pytest.mark.parametrize(
    ("networks", "tta", "used"), WAYS_OF_AFFINITIES.values(), ids=WAYS_OF_AFFINITIES
)
def test_objects_are_separated_as_in_memory(networks, tta, used, tmp_path, monkeypatch):
    monkeypatch.setattr(affinities, "BLOCK", 64)
    monkeypatch.setattr(affinities, "MARGIN", 20)
    path, image = tmp_path / "a.tif", grey(1, 233, 190)
    tifffile.imwrite(path, image, tile=(64, 64), photometric="minisblack")
    instances = InstanceOptions(markers="probability", merge_threshold=0.9, affinities=used)
    run = a_run(tmp_path, architecture=replace(NETWORK, affinities=True), instances=instances)
    members = [(run, network(0.3 + 0.1 * one, affinities=True)) for one in range(networks)]
    made, whole = predicted(tmp_path / "out", members, path, image, tta=tta)
    for one, other in zip(made.files, whole.files, strict=True):
        np.testing.assert_array_equal(stored(one).squeeze(), stored(other).squeeze())


@pytest.mark.usefixtures("by_small_parts")
@pytest.mark.parametrize(("networks", "tta", "form"), WAYS.values(), ids=WAYS)
def test_every_output_is_that_of_the_image_in_memory(networks, tta, form, tmp_path):
    path, image = tmp_path / "a.tif", grey(2, 233, 190)
    tifffile.imwrite(path, image, tile=(64, 64), compression="zlib", photometric="minisblack")
    members = [(a_run(tmp_path), network(0.3 + 0.1 * one)) for one in range(networks)]
    seen = []
    options = {"form": form, "tta": tta}
    with watched(lambda *one: seen.append(one)):
        made, whole = predicted(tmp_path / "out", members, path, image, **options)
    assert made.classes == whole.classes == {0, 1}
    for file, expected in zip(made.files, whole.files, strict=True):
        np.testing.assert_array_equal(stored(file), stored(expected))
        assert stored(file).dtype == stored(expected).dtype
    assert stored(made.files[0]).max() > 100
    total = 2 * networks * (8 if tta else 1) * 6 * 5  # tiles that fill 44 pixels
    assert seen == [(path.name, done, total) for done in range(1, total + 1)]
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(
        ["whole", *(one.name for one in made.files)]
    )


@pytest.mark.usefixtures("by_small_parts")
def test_objects_are_measured_as_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "SIDE", 40)
    image = grey(2, 90, 131)
    tifffile.imwrite(tmp_path / "image.tif", image)
    save = ("table", "rois", "geojson")
    members = [(a_run(tmp_path), network(0.5))]
    path, out = tmp_path / "image.tif", tmp_path / "out"
    parts, whole = predicted(out, members, path, image, save=save)
    assert [path.name for path in parts.files] == ["image_rois.zip", "image.geojson"]
    assert len(parts.table["number"]) > 20
    assert list(parts.table) == list(whole.table)
    for name, column in whole.table.items():
        if column.dtype.kind in "Ub":
            np.testing.assert_array_equal(parts.table[name], column)
        else:
            np.testing.assert_allclose(parts.table[name], column, rtol=1e-6, err_msg=name)
    rois = [roiread(result.files[0]) for result in (parts, whole)]
    assert [corners(roi) for roi in rois[0]] == [corners(roi) for roi in rois[1]]


def corners(roi):
    return roi.name, sorted(map(tuple, np.concatenate(roi.coordinates(multi=True)).tolist()))


@pytest.mark.usefixtures("by_small_parts")
@pytest.mark.parametrize("markers", ["components", "distance"])
def test_zarr_gives_ome_zarr(markers, tmp_path):
    path, image = tmp_path / "a.zarr", grey(150, 190)
    zarr.create_array(path, data=image, chunks=(64, 64))
    members = [
        (
            a_run(tmp_path, instances=InstanceOptions(markers=markers, merge_threshold=0.9)),
            network(0.3),
        )
    ]
    made, whole = predicted(tmp_path / "out", members, path, [image], save=["instances"])
    assert [one.name for one in made.files] == ["a.ome.zarr"]
    np.testing.assert_array_equal(stored(made.files[0]), stored(whole.files[0]))


def test_the_pixels_lie_where_the_image_says(tmp_path):
    path = tmp_path / "a.zarr"
    group = zarr.create_group(path)
    planes = grey(2, 70, 80)
    group.create_array("0", data=planes)
    axes = [
        {"name": "z", "type": "space", "unit": "micrometer"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space"},
    ]
    where = [
        {"type": "scale", "scale": [2.0, 0.5, 0.25]},
        {"type": "translation", "translation": [0.0, 30.0, 0.0]},
    ]
    datasets = [{"path": "0", "coordinateTransformations": where}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    members = [(a_run(tmp_path), network(0.3))]
    made, _ = predicted(tmp_path / "out", members, path, planes, save=["probabilities"])
    (image,) = zarr.open_group(made.files[0]).attrs["ome"]["multiscales"]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer", None]
    assert image["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 2.0, 0.5, 0.25]},
        {"type": "translation", "translation": [0.0, 0.0, 30.0, 0.0]},
    ]


def test_places_that_ome_zarr_has_no_room_for_are_said(tmp_path):
    path, planes = tmp_path / "a.ome.tif", grey(2, 70, 80)
    with tifffile.TiffWriter(path, ome=True) as file:
        for place, plane in zip((1.0, 2.0), planes, strict=True):
            where = {f"Position{axis}": [at] for axis, at in (("X", place), ("Y", 7.0))}
            where |= {f"Position{axis}Unit": ["µm"] for axis in "XY"}
            sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
            file.write(plane, metadata={"axes": "YX", "Plane": where, **sizes})
    run = a_run(tmp_path)
    said = {}
    for form in ("tiff", "ome-zarr"):
        members, options = [(run, network(0.3))], {"form": form, "save": ["classes"]}
        with logged() as said[form]:
            (written,) = by_parts(tmp_path / form, members, path, **options).files
    (image,) = zarr.open_group(written).attrs["ome"]["multiscales"]
    assert image["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 0.5, 0.5]},
        {"type": "translation", "translation": [0.0, 7.0, 0.0]},
    ]
    message = "a.ome.tif: the positions of its planes along X are not written: OME-Zarr stores"
    assert [message in line for line in said["ome-zarr"]] == [False, True]
    assert len(said["tiff"]) == 1
    planes = tifffile.xml2dict(tifffile.tiffcomment(tmp_path / "tiff" / "a_classes.tif"))
    found = planes["OME"]["Image"]["Pixels"]["Plane"]
    assert [one["PositionX"] for one in found] == [1.0, 2.0]


@pytest.mark.usefixtures("by_small_parts")
def test_values_of_the_training_labels_come_back(tmp_path):
    path, image = tmp_path / "a.tif", grey(90, 80)
    tifffile.imwrite(path, image)
    run = a_run(
        tmp_path,
        encoding=LabelEncoding("classes", (3, 250)),
        normalization=Normalization("dataset", (30_000.0,), (2_000.0,)),
    )
    made, whole = predicted(tmp_path / "out", [(run, network(0.3))], path, [image], save=[])
    assert set(np.unique(stored(made.files[0]))) == {3, 250}
    np.testing.assert_array_equal(stored(made.files[0]), stored(whole.files[0]))


def test_an_image_that_does_not_suit_is_refused_before(tmp_path):
    pixels = np.zeros((40, 50), np.float32)
    pixels[7, 7] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", pixels)
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((40, 50, 3), np.uint8) + np.uint8([1, 2, 3]))
    messages = {"nan.tif": r"nan\.tif \(rows 0 to 39\): 1 of 2,000 pixels are NaN"}
    for name, message in (messages | {"rgb.tif": r"rgb\.tif: expected 1 channel"}).items():
        with pytest.raises(ValueError, match=message) as caught:
            measure(a_run(tmp_path), tmp_path / name)
        assert "\n" not in str(caught.value)


def test_what_fails_leaves_nothing_behind_that_nobody_goes_on_with(tmp_path, monkeypatch):
    path, out = tmp_path / "a.tif", tmp_path / "out"
    tifffile.imwrite(path, grey(90, 80))
    monkeypatch.setattr(blockwise, "BlockwiseLabeler", partial(BlockwiseLabeler, band=300))
    monkeypatch.setattr(blockwise, "LARGEST_PIECE", 800)
    monkeypatch.setattr(blockwise, "free_memory", lambda: 100_000)
    with pytest.raises(ValueError, match="more than the 800 that fit in memory"):
        predicted(out, [(a_run(tmp_path), network(0.3))], path, [])
    assert list(Path(out).iterdir()) == []


def test_a_piece_of_foreground_is_cut_where_memory_holds_it(tmp_path, monkeypatch):
    path, image = tmp_path / "a.tif", grey(90, 80)
    tifffile.imwrite(path, image)
    monkeypatch.setattr(blockwise, "BlockwiseLabeler", partial(BlockwiseLabeler, band=300))
    monkeypatch.setattr(blockwise, "LARGEST_PIECE", 800)
    monkeypatch.setattr(blockwise, "free_memory", lambda: 1_000_000)
    members = [(a_run(tmp_path), network(0.3))]
    made, whole = predicted(tmp_path / "out", members, path, [image], save=["instances"])
    np.testing.assert_array_equal(stored(made.files[0]), stored(whole.files[0]))


def counting(model, limit=None):
    """Counts the tiles that a network is given, and ends as if interrupted after so many."""
    calls = []

    def count(tile):
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(1)
        return model(tile)

    return count, calls


TILES = 2 * 8 * 3 * 2  # of a plane: networks, versions, rows and columns


def ensemble(folder, model=lambda network: network):
    """Two networks, and the tiles that they are given."""
    networks = [model(network(0.3)), model(network(0.5))]
    return [(a_run(folder), one) for one in networks]


def image_file(folder, planes=1):
    """Planes of 3 x 2 tiles, or 2 x 3 where they are turned."""
    tifffile.imwrite(folder / "a.tif", grey(planes, 100, 80), photometric="minisblack")
    return folder / "a.tif"


def files_of(made):
    return {path.name: path.read_bytes() for path in made.files}


ONCE = {"tta": True, "checksums": ("first", "second")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    made = by_parts(folder / "out", ensemble(folder), image_file(folder), tta=True)
    return files_of(made)


@pytest.mark.parametrize("tiles", [1, 6, 7, 41, 48, 49, 55, 95])
def test_a_prediction_goes_on_where_it_was_interrupted(tiles, uninterrupted, tmp_path):
    path = image_file(tmp_path)
    count, calls = counting(lambda *_: None, tiles)

    def ending(model):
        return lambda tile: (count(tile), model(tile))[1]

    with logged() as said, pytest.raises(KeyboardInterrupt):
        by_parts(tmp_path / "out", ensemble(tmp_path, ending), path, **ONCE)
    assert len(calls) == tiles
    (store,) = (tmp_path / "out").iterdir()
    assert said[-1].startswith(f"{store}: kept, to resume the prediction by the same command")
    count, calls = counting(lambda *_: None)
    seen = []
    with logged() as said, watched(lambda *one: seen.append(one)):
        made = by_parts(tmp_path / "out", ensemble(tmp_path, ending), path, **ONCE)
    assert f"a.tif: resuming with {tiles} of {TILES} tiles of an earlier prediction" in said
    assert len(calls) == TILES - tiles
    assert seen[0] == (path.name, tiles + 1, TILES)
    assert files_of(made) == uninterrupted
    assert sorted((tmp_path / "out").iterdir()) == sorted(made.files)


def test_versions_whose_sum_is_damaged_are_predicted_anew(uninterrupted, tmp_path):
    path, out = image_file(tmp_path), tmp_path / "out"
    count, calls = counting(lambda *_: None, 27)

    def ending(model):
        return lambda tile: (count(tile), model(tile))[1]

    with pytest.raises(KeyboardInterrupt):
        by_parts(out, ensemble(tmp_path, ending), path, **ONCE)
    assert len(calls) == 27
    (store,) = out.iterdir()
    assert len(list((store / "plane0-stage4").rglob("c/*/*/0"))) == 3  # the sum of four and some
    chunk = next((store / "plane0-stage3").rglob("c/*/*/0"))
    chunk.write_bytes(bytes(chunk.stat().st_size))
    with logged() as said:
        made = by_parts(out, ensemble(tmp_path), path, **ONCE)
    assert f"a.tif: resuming with 0 of {TILES} tiles of an earlier prediction, 1 damaged" in said
    assert files_of(made) == uninterrupted


def killed_after(folder, tiles):
    """Predicts in a process that is killed by SIGKILL at a tile; called by the test below."""
    count, calls = counting(lambda *_: None)

    def ending(model):
        def kill(tile):
            count(tile)
            if len(calls) == tiles:
                os.kill(os.getpid(), signal.SIGKILL)
            return model(tile)

        return kill

    by_parts(folder / "out", ensemble(folder, ending), folder / "a.tif", **ONCE)


def test_a_prediction_that_was_killed_goes_on(tmp_path):
    path = image_file(tmp_path, planes=2)
    program = (
        f"import runpy; runpy.run_path({__file__!r})['killed_after'](Path({str(tmp_path)!r}), 120)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path; {program}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    whole = by_parts(tmp_path / "whole", ensemble(tmp_path), path, tta=True)
    with logged() as said:
        made = by_parts(tmp_path / "out", ensemble(tmp_path), path, **ONCE)
    assert f"a.tif: resuming with 119 of {2 * TILES} tiles of an earlier prediction" in said
    assert files_of(made) == files_of(whole)
    assert sorted((tmp_path / "out").iterdir()) == sorted(made.files)


def test_what_was_predicted_is_kept_when_cells_cannot_be_cut(tmp_path, monkeypatch):
    path, image = tmp_path / "a.tif", grey(90, 80)
    tifffile.imwrite(path, image)
    monkeypatch.setattr(blockwise, "BlockwiseLabeler", partial(BlockwiseLabeler, band=300))
    monkeypatch.setattr(blockwise, "LARGEST_PIECE", 800)
    monkeypatch.setattr(blockwise, "free_memory", lambda: 100_000)
    options = {"save": ["instances"], "checksums": ("first",)}
    with pytest.raises(ValueError, match="more than the 800 that fit in memory"):
        by_parts(tmp_path / "out", [(a_run(tmp_path), network(0.3))], path, **options)
    run, (count, calls) = a_run(tmp_path, instances=InstanceOptions()), counting(network(0.3))
    made = by_parts(tmp_path / "out", [(run, count)], path, **options)
    assert calls == []  # other numbers of the rule ask for no other probabilities
    expected = by_parts(tmp_path / "new", [(run, network(0.3))], path, **options)
    assert files_of(made) == files_of(expected)


def test_a_disk_without_room_is_said_before_the_first_tile(tmp_path, monkeypatch):
    path = image_file(tmp_path)
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**5))
    count, calls = counting(network(0.3))
    with pytest.raises(OSError, match=r"out: expected a disk with 0\.0 GB of free space"):
        by_parts(tmp_path / "out", [(a_run(tmp_path), count)], path, **ONCE)
    assert calls == []
    assert list((tmp_path / "out").iterdir()) == []


def test_no_more_room_is_taken_than_is_checked(tmp_path, monkeypatch):
    path, checked, sizes = image_file(tmp_path, planes=2), [], []
    check = stores.Store.check_room

    def checking(store, size):
        checked.append(size)
        check(store, size)

    monkeypatch.setattr(stores.Store, "check_room", checking)

    def look(*_):
        (folder,) = (tmp_path / "out").glob(".a.*")
        files = [file for file in folder.rglob("*") if file.is_file()]
        sizes.append(sum(file.stat().st_size for file in files if file.name != "zarr.json"))

    monkeypatch.setattr(blockwise._Outputs, "write", lambda *_: (look() for _ in range(1)))
    with watched(look):
        by_parts(tmp_path / "out", ensemble(tmp_path), path, **ONCE)
    checksums = 4 * 1000
    assert 0.7 * checked[0] < max(sizes) <= checked[0] + checksums
