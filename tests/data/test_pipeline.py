"""Tiles: one field for image, labels and weights; seeded; everywhere; any size; where they run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import elasticdeform
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.data.augmentation import NO_AUGMENTATION, Augmentation, draw_tile
from keras_unet.data.pipeline import build_dataset
from keras_unet.data.tiles import TrainingImage

VALID = Architecture(channels=3, classes=200, depth=1)  # loses 8 pixels a side
SAME = replace(VALID, padding="same")
SHAPE_ALONE = Augmentation(contrast=0.0, brightness=0.0)
ENGINES = ["graph", "elasticdeform"]
TINY_DATA = """
import numpy as np
from keras_unet.architecture import Architecture
from keras_unet.data.tiles import TrainingImage
from keras_unet.data.pipeline import build_dataset
plane = np.zeros((60, 60), np.float32)
one = TrainingImage(plane[..., None], plane.astype("u1"), plane)
network = Architecture(depth=1)
"""


def telling_image(number: int, height: int, width: int) -> TrainingImage:
    """Grey values that say where they come from: row, column, image; the rest is random."""
    random = np.random.default_rng(number)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype(np.float32)
    classes = random.integers(0, 200, (height, width)).astype(np.uint8)
    return TrainingImage(image, classes, random.random((height, width)).astype(np.float32))


IMAGES = [telling_image(0, 40, 70), telling_image(1, 90, 64), telling_image(2, 33, 33)]


def take(count: int, images: Sequence[TrainingImage] = IMAGES, **options: Any) -> list[Any]:
    options = {"architecture": VALID, "tile_size": 40, "augmentation": SHAPE_ALONE, **options}
    batches = build_dataset(images, **options).take(count)
    return [(np.asarray(image), np.asarray(y_true)) for image, y_true in batches]


def assert_same_batches(first: list[Any], second: list[Any]) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


class TestOneField:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("architecture", [VALID, SAME], ids=["valid", "same"])
    def test_labels_and_weights_are_those_of_the_place_that_the_image_shows(
        self, architecture: Architecture, engine: str
    ) -> None:
        margin, seen = architecture.margin, set()
        for image, y_true in take(6, architecture=architecture, engine=engine, batch_size=2):
            assert image.shape == (2, 40, 40, 3)
            output = architecture.output_size(40)
            assert y_true.shape == (2, output, output, 2)
            inner = image[:, margin : 40 - margin, margin : 40 - margin].astype(float)
            for (rows, columns, number), truth in zip(
                np.moveaxis(inner, -1, 1), y_true, strict=True
            ):
                source = IMAGES[round(number.mean())]
                seen.add(round(number.mean()))
                place = np.stack([rows, columns])
                weights = ndimage.map_coordinates(source.weights, place, order=1)
                np.testing.assert_allclose(truth[..., 1], weights, atol=2e-4)
                settled = (np.abs(place % 1 - 0.5) > 1e-3).all(axis=0)
                labels = source.classes[tuple(np.floor(place + 0.5).astype(int))]
                np.testing.assert_array_equal(truth[settled, 0], labels[settled])
                assert settled.mean() > 0.9
        assert seen == {0, 1, 2}

    def test_a_tile_is_bent(self) -> None:
        """Away from the mirrored border, places move by about one pixel a pixel."""
        image = telling_image(0, 400, 400)
        mild = replace(SHAPE_ALONE, amplitude=2.0, zoom=0.0)
        (tile, _), *_ = take(1, [image], seed=4, augmentation=mild)
        lengths = np.linalg.norm(np.diff(tile[0, ..., :2], axis=1), axis=-1)
        assert 0.6 < lengths.min() < 0.99
        assert 1.01 < lengths.max() < 1.4

    def test_grey_values_vary_without_labels_and_weights(self) -> None:
        plain = take(8, seed=3)
        varied = take(8, seed=3, augmentation=Augmentation(contrast=0.3, brightness=0.2))
        factors = []
        for (image, y_true), (other, other_true) in zip(plain, varied, strict=True):
            np.testing.assert_array_equal(y_true, other_true)
            factor, offset = np.polyfit(image.ravel(), other.ravel(), 1)
            np.testing.assert_allclose(other, factor * image + offset, atol=1e-3)
            factors.append(factor)
        assert len(set(np.round(factors, 4))) == 8

    def test_ignored_pixels_weigh_0_wherever_all_neighbors_do(self) -> None:
        source = IMAGES[1]
        ignored = np.zeros(source.weights.shape, np.bool_)
        ignored[20:50, 10:40] = True
        weights = np.where(ignored, np.float32(0), source.weights + 1)
        inside = ndimage.binary_erosion(ignored, iterations=2)
        found = 0
        for image, y_true in take(6, [source._replace(weights=weights)], architecture=SAME):
            place = np.floor(image[0, ..., :2] + 0.5).astype(int)
            within = inside[place[..., 0], place[..., 1]]
            found += within.sum()
            assert not y_true[0, within, 1].any()
            assert y_true[0, ~ignored[place[..., 0], place[..., 1]], 1].min() > 0
        assert found > 100


class TestSeed:
    def test_same_seed_same_tiles_and_another_seed_others(self) -> None:
        first = take(3, seed=5, augmentation=Augmentation())
        assert_same_batches(first, take(3, seed=5, augmentation=Augmentation()))
        other = take(3, seed=6, augmentation=Augmentation())
        assert all((one[0] != two[0]).any() for one, two in zip(first, other, strict=True))

    @pytest.mark.parametrize("engine", ENGINES)
    def test_first_skips_batches(self, engine: str) -> None:
        options: dict[str, Any] = {
            "batch_size": 2,
            "augmentation": Augmentation(),
            "engine": engine,
        }
        assert_same_batches(take(5, **options)[3:], take(2, first=3, **options))

    @pytest.mark.parametrize("engine", ENGINES)
    def test_parts_of_a_batch_make_the_batch(self, engine: str) -> None:
        options: dict[str, Any] = {"batch_size": 6, "engine": engine, "first": 2}
        parts = [take(2, shard=(number, 3), **options) for number in range(3)]
        joined = [
            tuple(map(np.concatenate, zip(*batch, strict=True)))
            for batch in zip(*parts, strict=True)
        ]
        assert_same_batches(joined, take(2, **options))

    def test_no_two_tiles_are_alike(self) -> None:
        tiles = take(20, batch_size=2)
        assert len({tile.tobytes() for image, _ in tiles for tile in image}) == 40


class TestPlainTiles:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_are_windows_of_the_mirrored_image(self, engine: str) -> None:
        images = [IMAGES[2], telling_image(1, 1, 30)]
        sizes = tf.constant([[0, 33, 33], [33 * 33, 1, 30]])
        drawn = [draw_tile(tf.constant(n, tf.int64), sizes, NO_AUGMENTATION, 2) for n in range(40)]
        assert len({int(draw.size[0]) for draw in drawn}) == 2
        options = {"architecture": SAME, "augmentation": NO_AUGMENTATION, "engine": engine}
        found = take(40, images, seed=2, **options)
        for draw, (image, y_true) in zip(drawn, found, strict=True):
            source = images[int(draw.size[0] > 0)]
            window = reflected_window(source, np.array(draw.center), 40)
            np.testing.assert_array_equal(image[0], window.image)
            np.testing.assert_array_equal(y_true[0, ..., 0], window.classes)
            np.testing.assert_array_equal(y_true[0, ..., 1], window.weights)

    def test_every_pixel_is_as_often_covered(self) -> None:
        """Each pixel has its own label, so labels count how often it was read."""
        height, width = 12, 16
        classes = np.arange(height * width, dtype=np.uint8).reshape(height, width)
        one = TrainingImage(np.zeros((height, width, 3), np.float32), classes, classes * 1.0)
        labels = [y_true[..., 0] for _, y_true in take(100, [one], batch_size=16, tile_size=36)]
        counts = np.bincount(np.ravel(labels).astype(int)).reshape(height, width)
        share = counts / counts[1:-1, 1:-1].mean()
        assert np.abs(share[1:-1, 1:-1] - 1).max() < 0.1
        edges = np.concatenate([share[0, 1:-1], share[-1, 1:-1], share[1:-1, 0], share[1:-1, -1]])
        assert np.abs(edges - 0.5).max() < 0.15  # mirroring does not repeat them

    def test_valid_padding_loses_the_margin_on_each_side(self) -> None:
        valid = take(3, augmentation=NO_AUGMENTATION)
        same = take(3, augmentation=NO_AUGMENTATION, architecture=SAME)
        for (image, y_true), (other, whole) in zip(valid, same, strict=True):
            np.testing.assert_array_equal(image, other)
            np.testing.assert_array_equal(y_true, whole[:, 8:-8, 8:-8])


def reflected_window(source: TrainingImage, center: NDArray[Any], tile_size: int) -> TrainingImage:
    row, column = center
    window = np.s_[row : row + tile_size, column : column + tile_size]
    before, after = tile_size // 2, tile_size

    def cut(part: NDArray[Any]) -> NDArray[Any]:
        sides = [(before, after)] * 2 + [(0, 0)] * (part.ndim - 2)
        return np.pad(part, sides, mode="reflect")[window]

    return TrainingImage(cut(source.image), cut(source.classes), cut(source.weights))


class TestElasticdeform:
    def test_is_never_ahead_of_its_reader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tiles = []
        inner = elasticdeform.deform_grid

        def counted(*arguments: Any, **options: Any) -> Any:
            tiles.append(1)
            return inner(*arguments, **options)

        monkeypatch.setattr(elasticdeform, "deform_grid", counted)
        batches = build_dataset(IMAGES, VALID, tile_size=40, batch_size=2, engine="elasticdeform")
        for number, _ in zip(range(1, 4), batches, strict=False):
            time.sleep(0.2)
            assert len(tiles) == 2 * number

    def test_a_process_that_leaves_it_in_the_middle_ends(self) -> None:
        """It waited now and then for a tile that had been begun ahead: see the test above."""
        script = f"""
{TINY_DATA}
iterator = iter(build_dataset([one], network, tile_size=40, engine="elasticdeform"))
next(iterator)
print("left")
"""
        assert run_script(script).stdout.strip() == "left"


class TestGraph:
    def test_deformation_is_compiled_and_runs_on_the_device(self) -> None:
        """Two logical CPUs stand in for CPU and GPU; the compiled function is a PartitionedCall."""
        script = f"""
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.debugging.set_log_device_placement(True)
{TINY_DATA}
for device in (None, "/CPU:1"):
    print("device =", device, file=sys.stderr)
    batch = next(iter(build_dataset([one], network, tile_size=40, device=device)))
    print("batch on", *(part.device[-5:] for part in batch))
"""
        done = run_script(script)
        by_default, asked_for = done.stderr.split("device = ")[1:]
        assert "Compiled cluster using XLA" in by_default
        assert places_of_calls(by_default) == {"CPU:0"}
        assert places_of_calls(asked_for) == {"CPU:1"}
        waiting = [line for line in done.stdout.splitlines() if line.startswith("batch on")]
        assert waiting == ["batch on CPU:0 CPU:0", "batch on CPU:1 CPU:1"]

    def test_has_no_end(self) -> None:
        batches = build_dataset(IMAGES, VALID, tile_size=40)
        assert batches.cardinality() == tf.data.INFINITE_CARDINALITY


def places_of_calls(log: str) -> set[str]:
    lines = [line for line in log.splitlines() if "PartitionedCall: (PartitionedCall)" in line]
    return {line.rsplit("device:")[-1] for line in lines}


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300, env=environment
    )


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tile_size": 39}, "tile_size must be 2k"),
            ({"tile_size": 10}, "tile_size must be .* at least 18"),
            ({"engine": "scipy"}, 'engine must be "graph" or "elasticdeform".*\'scipy\''),
            ({"batch_size": 0}, "batch_size must be at least 1.*batch_size=0"),
            ({"first": -1}, "first must be at least 0.*first=-1"),
            ({"shard": (2, 2), "batch_size": 2}, r"shard must be .*Received: shard=\(2, 2\)"),
            ({"shard": (0, 2), "batch_size": 3}, r"divide batch_size=3\. Received: shard=\(0, 2\)"),
            ({"images": []}, "at least one training image"),
            (
                {"architecture": Architecture(depth=1, classes=200)},
                r"images\[0\].*channels=1.*70, 3",
            ),
            ({"architecture": replace(VALID, classes=7)}, r"images\[0\].*from 0 to 6.*to 199"),
        ],
    )
    def test_arguments(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            take(1, **options)
