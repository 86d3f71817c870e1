"""Centers of tiles by class: the share of each class, ignored pixels, the seed, large images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.data import sampling
from keras_unet.data.augmentation import NO_AUGMENTATION, draw_tile
from keras_unet.data.sampling import ClassPixels
from keras_unet.training.dataset import tile_dataset

SIZES = [(60, 80), (40, 50)]


def rare_classes() -> list[NDArray[np.uint8]]:
    """Class 1 has a third of the pixels, class 3 has 0.5 %, all in the second image; no class 2."""
    classes = [np.zeros(size, np.uint8) for size in SIZES]
    classes[0].ravel()[::3] = 1
    classes[1][:2, 10:27] = 3
    return classes


def drawn_pixels(
    classes: list[NDArray[np.uint8]], count: int, *, seed: int = 0, **options: Any
) -> NDArray[np.intp]:
    """Flat indices of the centers of the first tiles."""
    counted = options.pop("counted", [np.ones(image.shape, bool) for image in classes])
    options = {"foreground_only": False, "seed": seed, **options}
    centers = ClassPixels.of(classes, counted, **options)
    first = np.cumsum([0, *(image.size for image in classes)])[:-1]
    sizes = tf.constant(np.column_stack([first, [image.shape for image in classes]]), tf.int32)
    drawn = tf.data.Dataset.range(count).map(
        lambda number: draw_tile(number, sizes, NO_AUGMENTATION, seed, centers)
    )
    tiles = next(iter(drawn.batch(count)))
    size, center = np.asarray(tiles.size), np.asarray(tiles.center)
    assert (center < size[:, 1:]).all()
    return np.asarray(size[:, 0] + center[:, 0] * size[:, 2] + center[:, 1], np.intp)


def flat(classes: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate([image.ravel() for image in classes])


class TestShares:
    def test_a_class_of_half_a_percent_is_at_the_center_of_its_share_of_tiles(self) -> None:
        classes = rare_classes()
        labels = flat(classes)
        shares = np.bincount(labels, minlength=4) / labels.size
        assert shares[3] == 0.005
        expected = 0.5 * shares + 0.5 * np.array([1, 1, 0, 1]) / 3
        found = np.bincount(labels[drawn_pixels(classes, 4000)], minlength=4)
        assert found[2] == 0
        tested = [0, 1, 3]
        assert stats.chisquare(found[tested], 4000 * expected[tested]).pvalue > 1e-3
        assert found[3] > 4000 * 0.14

    def test_of_instances_half_of_the_tiles_are_centered_at_a_cell(self) -> None:
        classes = [(image == 3).astype(np.uint8) for image in rare_classes()]
        labels = flat(classes)
        found = labels[drawn_pixels(classes, 2000, foreground_only=True)].mean()
        assert abs(found - (0.5 + 0.5 * 0.005)) < 0.04

    def test_pixels_of_a_class_are_equally_likely_over_all_images(self) -> None:
        classes = [(image == 3).astype(np.uint8) for image in rare_classes()]
        classes[0][5, 5:21] = 1
        pixels = drawn_pixels(classes, 4000, foreground_only=True)
        rare = np.flatnonzero(flat(classes))
        counts = [(pixels == pixel).sum() for pixel in rare]
        assert len(rare) == 50
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_ignored_pixels_are_at_no_center_by_class(self) -> None:
        """Ignored pixels are met by the uniform half alone."""
        classes = rare_classes()
        counted = [np.ones(image.shape, bool) for image in classes]
        counted[1][:1] = False
        ignored = ~np.concatenate([mask.ravel() for mask in counted])
        pixels = drawn_pixels(classes, 4000, counted=counted)
        assert ignored[pixels].mean() < 0.5 * ignored.mean() + 0.006
        labels = flat(classes)
        assert (labels[pixels] == 3).mean() > 0.14
        half = [mask & (image != 3) for mask, image in zip(counted, classes, strict=True)]
        without = labels[drawn_pixels(classes, 2000, counted=half)]
        assert (without == 3).mean() < 0.01

    def test_other_numbers_of_a_tile_stay_the_same(self) -> None:
        classes = rare_classes()
        uniform = draw_tile(
            tf.constant(4, tf.int64), tf.constant([[0, 60, 80]]), NO_AUGMENTATION, 1
        )
        centers = ClassPixels.of(
            classes[:1], [np.ones((60, 80), bool)], foreground_only=False, seed=1
        )
        by_class = draw_tile(
            tf.constant(4, tf.int64), tf.constant([[0, 60, 80]]), NO_AUGMENTATION, 1, centers
        )
        for one, other in zip(uniform[2:], by_class[2:], strict=True):
            np.testing.assert_array_equal(one, other)


class TestPixels:
    @given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([7, 64, 10_000]))
    @settings(deadline=None, max_examples=30)
    def test_are_those_of_the_class_that_count(self, seed: int, images: int, chunk: int) -> None:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 9, (images, 2))
        classes = [rng.integers(0, 4, size).astype(np.uint8) * 3 for size in sizes]
        counted = [rng.random(size) < 0.7 for size in sizes]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling, "_CHUNK", chunk)
            patch.setattr(sampling, "MOST_PIXELS", 10)
            found = ClassPixels.of(classes, counted, foreground_only=True, seed=seed)
            same = ClassPixels.of(classes, counted, foreground_only=True, seed=seed)
        labels = flat(classes)
        usable = np.concatenate([mask.ravel() for mask in counted])
        expected = [np.flatnonzero((labels == value) & usable) for value in (3, 6, 9)]
        expected = [pixels for pixels in expected if len(pixels)]
        if not expected:
            assert found is None
            return
        assert found is not None
        assert same is not None
        np.testing.assert_array_equal(found.pixels, same.pixels)
        assert len(found.count) == len(expected)
        for pixels, first, count in zip(expected, found.first, found.count, strict=True):
            kept = np.asarray(found.pixels)[int(first) : int(first) + int(count)]
            assert len(kept) == len(set(kept.tolist())) == min(len(pixels), 10)
            assert set(kept.tolist()) <= set(pixels.tolist())
            if len(pixels) <= 10:
                np.testing.assert_array_equal(kept, pixels)

    def test_of_a_frequent_class_are_sampled_evenly(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(sampling, "MOST_PIXELS", 2000)
        monkeypatch.setattr(sampling, "_CHUNK", 1234)
        classes = [np.ones((100, 100), np.uint8), np.ones((100, 300), np.uint8)]
        counted = [np.ones(image.shape, bool) for image in classes]
        found = ClassPixels.of(classes, counted, foreground_only=False, seed=0)
        assert found is not None
        assert stats.kstest(np.asarray(found.pixels) / 40_000, "uniform").pvalue > 1e-3

    def test_are_missing_without_any(self) -> None:
        empty = np.zeros((3, 4), np.uint8)
        every = np.ones((3, 4), bool)
        assert ClassPixels.of([empty], [every], foreground_only=True, seed=0) is None
        assert ClassPixels.of([empty], [~every], foreground_only=False, seed=0) is None
        assert ClassPixels.of([empty], [every], foreground_only=False, seed=0) is not None


class TestTiles:
    """Tiles of labels: one small cell in a large image, or a rare class."""

    NETWORK = Architecture(depth=1, padding="same")

    def centers(self, labels: NDArray[Any], count: int = 100, **options: Any) -> NDArray[Any]:
        image = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
        options = {"architecture": self.NETWORK, "augmentation": None, "tile_size": 16, **options}
        batches = tile_dataset([image], [labels], batch_size=count, **options)
        _, y_true = next(iter(batches))
        return np.asarray(y_true)[:, 8, 8, 0]

    @pytest.mark.parametrize("augmentation", [None, lambda image, labels: (image, labels)])
    def test_of_instances(self, augmentation: Any) -> None:
        labels = np.zeros((90, 90), np.int32)
        labels[4:8, 60:64] = 1
        labels[80:83, 3:8] = 2
        options: dict[str, Any] = {"kind": "instances", "augmentation": augmentation}
        assert self.centers(labels, **options).mean() < 0.1
        assert 0.3 < self.centers(labels, **options, sampling="classes").mean() < 0.7

    def test_of_classes(self) -> None:
        labels = np.zeros((90, 90), np.int32)
        labels[:, :40] = 5
        labels[4:8, 60:64] = 9
        network = Architecture(depth=1, padding="same", classes=3)
        options: dict[str, Any] = {"kind": "classes", "architecture": network}
        found = self.centers(labels, 300, **options, sampling="classes")
        assert 0.09 < (found == 2).mean() < 0.25

    def test_refuses_other_names(self) -> None:
        with pytest.raises(ValueError, match=r'sampling must be "uniform" or "classes".*\'cells\''):
            self.centers(np.eye(20, dtype=int), sampling="cells")


@pytest.mark.parametrize("name", ["uniform", "classes"])
def test_of_images_labelled_in_part_every_tile_is_centered_at_a_label(name: Any) -> None:
    labels = np.zeros((200, 200), np.int32)
    labels[90:98, 20:28], labels[150:154, 100:180] = 2, 1
    data = tile_dataset(
        [np.zeros(labels.shape, np.float32)],
        [labels],
        tile_size=20,
        architecture=Architecture(depth=1),
        kind="instances",
        unlabelled=0,
        augmentation=None,
        sampling=name,
    )
    tiles = [targets.numpy()[0] for _, targets in data.take(200)]
    middle = np.array([tile[tile.shape[0] // 2, tile.shape[1] // 2] for tile in tiles])
    assert (middle[:, 1] > 0).all()  # a weight
    share = np.mean(middle[:, 0])
    expected = 64 / (64 + 320) if name == "uniform" else 1 / 2
    assert stats.binomtest(round(share * 200), 200, expected).pvalue > 1e-3
