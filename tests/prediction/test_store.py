"""Whatever happened: a chunk that is there is whole, and tiles are those of the whole image."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import logged

from keras_unet.architecture import Architecture
from keras_unet.data.normalization import Normalization
from keras_unet.instances.blockwise import WindowBuffer
from keras_unet.prediction import store as stores
from keras_unet.prediction.predict import SYMMETRIES, predict_image
from keras_unet.prediction.store import Stage, Store, Task, TilePlan, bytes_of_labels

NETWORK = Architecture(depth=1)
SIZES = st.tuples(st.integers(1, 190), st.integers(1, 190))
BASIS = {"image": "abc", "tiles": [1, 2]}
PLAN = TilePlan((90, 100), NETWORK, (60, 60))  # 3 x 3 tiles that fill 44
STAGES = tuple(Stage.of(0, TilePlan((90, 100), NETWORK, (60, 60), v), 1, 8) for v in range(8))
SINGLE = Stage.of(0, PLAN, 1, 1)


def network(tile):
    """Returns what looks sideways, so that it matters how an image is turned."""
    lost = NETWORK.margin
    beside = tile[:, lost - 1 : -lost - 1, lost + 2 : tile.shape[2] - lost + 2]
    height = tile[:, lost:-lost, lost:-lost] + 0.3 * beside
    return np.concatenate([-height, height], axis=-1)


def image_of(size):
    return np.random.default_rng(0).normal(size=(*size, 1)).astype(np.float32)


def predict(store, stage, numbers=None, pixels=None):
    """Predicts tiles of a plane into a store."""
    size = stage.tiles.size
    numbers = tuple(range(len(stage.tiles.tiles)) if numbers is None else numbers)
    store.create(0, stage)
    place = (Path("a.tif"), None, (1, *size, 1), 0)
    task = Task(store.folder, *place, Normalization("image"), stage, numbers)
    pixels = image_of(size) if pixels is None else pixels(task)
    assert sum(1 for _ in task.predict(network, pixels)) == len(numbers)


def whole(store, stage=SINGLE):
    return store.probabilities(0, stage)[:, :]


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(0, 7), st.integers(1, 5))
def test_row_groups_hold_every_tile_once_in_order_and_of_the_same_rows(size, version, most):
    plan = TilePlan(size, NETWORK, (60, 68), version)
    groups = list(plan.row_groups(range(len(plan.tiles)), most))
    assert [number for group in groups for number in group] == list(range(len(plan.tiles)))
    for group in groups:
        assert 1 <= len(group) <= most
        assert len({plan.source_window(plan.tiles[number])[0].start for number in group}) == 1
    covered = np.zeros(size, int)
    for tile in plan.tiles:
        covered[plan.source_window(tile)] += 1
    assert (covered == 1).all()
    grid = [-(-side // chunk) for side, chunk in zip(plan.view_size, plan.chunk_size, strict=True)]
    assert sorted(map(plan.chunk_index, range(len(plan.tiles)))) == list(np.ndindex(*grid))


class OnlyWindow:
    """An image of which nothing can be read but one window."""

    def __init__(self, image, window):
        self.shape = image.shape
        self.pixels = np.full(image.shape, np.nan, np.float32)
        self.pixels[window] = image[window]

    def __getitem__(self, window):
        return self.pixels[window]


@settings(deadline=None, max_examples=25)
@given(SIZES, st.integers(0, 7), st.integers(1, 5), st.booleans())
def test_a_task_needs_no_more_than_it_says_and_gives_its_share_of_the_whole(
    size, version, most, in_memory
):
    mirrored, turns = SYMMETRIES[version]
    image = image_of(size)
    turned = np.rot90(image[::-1] if mirrored else image, turns)
    expected = np.rot90(predict_image(network, turned, tile_size=60, architecture=NETWORK), -turns)
    expected = expected[::-1] if mirrored else expected
    stage = Stage(0, 0, TilePlan(size, NETWORK, (60, 60), version), ((None, 1),))
    hold = WindowBuffer.of if in_memory else OnlyWindow
    with tempfile.TemporaryDirectory() as out, Store.opened(Path(out), "a", BASIS) as store:
        for numbers in stage.tiles.row_groups(range(len(stage.tiles.tiles)), most):
            predict(store, stage, numbers, lambda task: hold(image, task.read_window))
        np.testing.assert_array_equal(whole(store, stage), expected)
        rows, columns = slice(size[0] // 3, size[0]), slice(0, 1 + size[1] // 2)
        found = store.probabilities(0, stage)[rows, columns]
        np.testing.assert_array_equal(found, expected[rows, columns])


def test_stages_add_versions_and_then_networks():
    plans = [TilePlan((90, 100), NETWORK, (60, 60), version) for version in (0, 1, 2)]
    stages = [Stage.of(member, plan, 2, 3) for member in (0, 1) for plan in plans]
    assert [stage.number for stage in stages] == [0, 1, 2, 3, 4, 5]
    assert [stage.sums for stage in stages] == [
        ((None, 1),),
        ((0, 1),),
        ((1, 3), (None, 1)),
        ((None, 1),),
        ((3, 1),),
        ((4, 3), (2, 2)),
    ]
    assert [stage.needs for stage in stages] == [set(), {0}, {1}, {2}, {3, 2}, {4, 2}]
    assert SINGLE.sums == ((None, 1), (None, 1))


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_labels_are_written_and_read_as_those_of_an_array(data):
    size = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 1100))
    expected = np.zeros(size, np.int32)
    with tempfile.TemporaryDirectory() as out, Store.opened(Path(out), "a", BASIS) as store:
        labels = store.labels("cells0", size)
        for number in range(1, 5):
            ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in size]
            window = tuple(slice(*pair) for pair in ends)
            values = np.random.default_rng(number).integers(-9, 9, expected[window].shape, np.int32)
            labels[window] = values
            expected[window] = values
            np.testing.assert_array_equal(labels[:, :], expected)
            np.testing.assert_array_equal(labels[window], expected[window])


class InterruptedHereError(Exception):
    """What ends a prediction."""


@contextmanager
def interrupted(out, stem="a", basis=BASIS, **options):
    """Opens a store, and ends the prediction after the body."""
    with suppress(InterruptedHereError), Store.opened(out, stem, basis, **options) as store:
        yield store
        raise InterruptedHereError


def left(out, numbers, stage=SINGLE, basis=BASIS):
    """Predicts some tiles, and is interrupted; returns the folder of the array."""
    with interrupted(out, basis=basis) as store:
        predict(store, stage, numbers)
    (folder,) = (path for path in out.iterdir() if path.name.startswith(".a."))
    return folder / f"plane0-stage{stage.number}"


def chunk_file(array, number, stage=SINGLE):
    row, column = stage.tiles.chunk_index(number)
    return array / "c" / str(row) / str(column) / "0"


def test_chunks_that_were_written_are_kept_and_all_is_gone_at_the_end(tmp_path):
    array = left(tmp_path, [0, 1, 5])
    times = {number: chunk_file(array, number).stat().st_mtime_ns for number in (0, 1, 5)}
    with Store.opened(tmp_path, "a", BASIS) as store:
        assert (store.missing(0, SINGLE), store.damaged) == ([2, 3, 4, 6, 7, 8], 0)
        predict(store, SINGLE, store.missing(0, SINGLE))
        assert times == {number: chunk_file(array, number).stat().st_mtime_ns for number in times}
        expected = predict_image(network, image_of(PLAN.size), tile_size=60, architecture=NETWORK)
        np.testing.assert_array_equal(whole(store), expected)
    assert list(tmp_path.iterdir()) == []


def spoil(path):
    path.write_bytes(b"x" + path.read_bytes()[1:])


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


HARM = {
    "a bit": spoil,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "two bytes": lambda path: path.write_bytes(b"xy"),
    "zeros, as a power cut leaves": zero,
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_chunk_of_another_checksum_is_no_chunk(harm, tmp_path):
    array = left(tmp_path, [0, 1, 5])
    harm(chunk_file(array, 1))
    with interrupted(tmp_path) as store:
        assert (store.missing(0, SINGLE), store.damaged) == ([1, 2, 3, 4, 6, 7, 8], 1)
    chunk_file(array, 5).unlink()
    with Store.opened(tmp_path, "a", BASIS) as store:
        assert (store.missing(0, SINGLE), store.damaged) == ([1, 2, 3, 4, 5, 6, 7, 8], 0)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (spoil, r"Received a damaged one \(Stored and computed checksum do not match"),
        (os.unlink, "Received one that is missing"),
    ],
)
def test_a_chunk_that_changes_later_is_not_read(harm, message, tmp_path):
    with Store.opened(tmp_path, "a", BASIS) as store:
        predict(store, SINGLE)
        harm(chunk_file(store.folder / "plane0-stage0", 4))
        probabilities = store.probabilities(0, SINGLE)
        assert np.isfinite(probabilities[0:44, 0:100]).all()
        with pytest.raises(OSError, match=rf"stage0: expected .*{message}.*; run the same") as e:
            probabilities[43:45, 43:45]
    assert "\n" not in str(e.value)


def test_a_chunk_is_there_only_when_all_of_it_is_written(tmp_path, full_disk):
    with interrupted(tmp_path) as store:
        predict(store, SINGLE, [0, 1])
        with full_disk(store.folder, room=100), pytest.raises(OSError, match="No space left"):
            predict(store, SINGLE, [2])
    (folder,) = tmp_path.iterdir()
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "zarr.json"]
    array = folder / "plane0-stage0"
    assert sorted(files) == sorted([folder / ".lock", chunk_file(array, 0), chunk_file(array, 1)])


@pytest.mark.parametrize("name", ["zarr.json", "plane0-stage0/zarr.json"])
@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_damaged_records_are_written_anew(name, content, tmp_path):
    array = left(tmp_path, [0, 1])
    (array.parent / name).write_text(content)
    with Store.opened(tmp_path, "a", BASIS) as store:
        assert store.missing(0, SINGLE) == ([] if "/" not in name else [0, 1]) + list(
            range(2, 9)
        ) or (store.missing(0, SINGLE) == list(range(2, 9)))
        predict(store, SINGLE)
        assert np.isfinite(whole(store)).all()


def test_another_basis_begins_anew_and_leaves_others_alone(tmp_path):
    first = left(tmp_path, [0]).parent
    with interrupted(tmp_path, "a.b") as other:
        predict(other, SINGLE, [0])
    (tmp_path / ".a.mine.zarr").mkdir()
    with Store.opened(tmp_path, "a", BASIS | {"image": "other"}) as second:
        assert second.missing(0, SINGLE) == list(range(9))
        names = {".a.mine.zarr", other.folder.name, second.folder.name}
        assert {path.name for path in tmp_path.iterdir()} == names
        record = json.loads((second.folder / "zarr.json").read_text())
        assert record["attributes"]["basis"]["image"] == "other"
    assert not first.exists()


@pytest.mark.parametrize("basis", [BASIS, {}], ids=["same", "other"])
def test_two_predictions_of_one_image_do_not_meet(basis, tmp_path):
    with Store.opened(tmp_path, "a", BASIS) as store:
        predict(store, SINGLE, [0])
        with (
            pytest.raises(BlockingIOError, match="for this prediction only") as caught,
            Store.opened(tmp_path, "a", basis),
        ):
            pass
        assert "\n" not in str(caught.value)
        predict(store, SINGLE)
        assert np.isfinite(whole(store)).all()


def test_what_is_kept_of_what_failed_is_said(tmp_path):
    with logged() as said:
        array = left(tmp_path, [0])
    assert [
        line for line in said if "kept, to resume the prediction by the same command" in line
    ] == said
    with interrupted(tmp_path) as store:
        store.create(1, SINGLE)
        store.labels("cells0", (9, 9))[:, :] = 1
    assert sorted(path.name for path in array.parent.iterdir()) == [
        ".lock",
        "plane0-stage0",
        "zarr.json",
    ]


@pytest.mark.parametrize(("numbers", "is_kept"), [([], True), ([0, 1], False)])
def test_nothing_is_kept_of_what_nobody_goes_on_with(numbers, is_kept, tmp_path):
    with logged() as said, interrupted(tmp_path, is_kept=is_kept) as store:
        predict(store, SINGLE, numbers)
        store.labels("draft", (9, 9))
    assert list(tmp_path.iterdir()) == []
    assert said == []


def test_labels_that_were_left_are_not_gone_on_with(tmp_path):
    array = left(tmp_path, [0])
    shutil.copytree(array, array.with_name("cells0"))  # as a kill leaves it
    with Store.opened(tmp_path, "a", BASIS) as store:
        assert store.names == ["plane0-stage0"]


def test_it_is_gone_on_with_the_last_stage_whose_summands_are_whole(tmp_path):
    with interrupted(tmp_path) as store:
        assert store.next_stage(0, STAGES) == 0
        for stage in STAGES[:3]:
            predict(store, stage)
        predict(store, STAGES[3], [0])
        store.keep(0, STAGES[3].needs | {3})
        assert sorted(store.names) == ["plane0-stage2", "plane0-stage3"]
    with interrupted(tmp_path) as store:
        assert store.next_stage(0, STAGES) == 3
        assert store.missing(0, STAGES[3]) == list(range(1, 9))
        spoil(chunk_file(store.folder / "plane0-stage2", 4, STAGES[2]))
    with Store.opened(tmp_path, "a", BASIS) as store:
        assert store.next_stage(0, STAGES) == 0
        assert store.next_stage(1, STAGES) == 0
        for stage in STAGES:
            predict(store, stage, store.missing(0, stage))
        options = {"tile_size": 60, "architecture": NETWORK, "tta": True}
        expected = predict_image(network, image_of(PLAN.size), **options)
        np.testing.assert_array_equal(whole(store, STAGES[-1]), expected)


def test_arrays_take_no_more_than_is_said(tmp_path):
    with Store.opened(tmp_path, "a", BASIS) as store:
        before = store.size
        predict(store, SINGLE)
        checksums = 9 * 4
        record = (store.folder / "plane0-stage0" / "zarr.json").stat().st_size
        assert store.size - before == SINGLE.size + checksums + record
        assert SINGLE.size == 9 * 44 * 44 * 2 * 4
        store.labels("cells0", (300, 1500))[:, :] = 1
        assert bytes_of_labels((300, 1500)) == 512 * 1500 * 4
        assert store.size - before > SINGLE.size + bytes_of_labels((300, 1500))


@pytest.mark.parametrize(("views", "outputs"), [(1, 2 + 12), (8, 2 + 2 * 12)])
def test_arrays_of_affinities_have_room_for_both_sides_of_each_pair(tmp_path, views, outputs):
    plan = replace(PLAN, architecture=replace(NETWORK, affinities=True))
    stage = Stage.of(0, plan, members=1, views=views)
    with Store.opened(tmp_path, "a", BASIS) as store:
        store.create(0, stage)
        array = store.probabilities(0, stage).array
        assert array.shape == (*PLAN.view_size, outputs)
        assert stage.size == array.nchunks * np.prod(array.chunks) * array.dtype.itemsize


class Usage(NamedTuple):
    """What the system says of a disk."""

    free: int


def test_a_disk_without_room_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda _: Usage(7_900_000_000))
    message = r"with 8\.0 GB of free space for temporary files\. Received 7\.9 GB; free some, or"
    with Store.opened(tmp_path, "a", BASIS) as store:
        store.check_room(7_900_000_000)
        with pytest.raises(OSError, match=message) as caught:
            store.check_room(8_000_000_000)
        predict(store, SINGLE)
        store.check_room(7_900_000_000 + store.size)  # what is there needs no room
    assert "\n" not in str(caught.value)
