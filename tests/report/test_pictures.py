import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from keras_unet.report.pictures import (
    center_crop,
    difference_picture,
    grey_picture,
    heat_picture,
    label_picture,
    montage,
    outline_picture,
    probability_picture,
    write_png,
)

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def distinct(picture):
    return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}


def plain(height, width, colour):
    return np.full((height, width, 3), colour, np.uint8)


class TestGreyPicture:
    def test_stretches_between_the_percentiles_and_clips_beyond(self):
        image = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
        image[0, 0], image[-1, -1] = 0, 65535
        picture = grey_picture(image)
        assert picture.shape == (100, 100, 3)
        assert picture.dtype == np.uint8
        assert picture.min() == 0
        assert picture.max() == 255
        assert picture[50, 0, 0] == pytest.approx(127, abs=2)

    @settings(deadline=None, max_examples=30)
    @given(
        hnp.arrays(np.float32, (6, 7), elements=st.integers(-50, 50)),
        st.floats(0.5, 100),
        st.floats(-100, 100),
    )
    def test_brightness_and_contrast_of_the_image_do_not_matter(self, image, gain, offset):
        picture = grey_picture(image).astype(int)
        other = grey_picture(gain * image + offset).astype(int)
        assert np.abs(picture - other).max() <= 1

    def test_constant_image_is_drawn(self):
        assert distinct(grey_picture(np.full((4, 5), 7.0))) == {BLACK}

    def test_bool_image_is_drawn(self):
        assert distinct(grey_picture(np.eye(4, dtype=bool))) == {BLACK, WHITE}

    def test_channels_are_averaged(self):
        channels = np.random.default_rng(0).normal(size=(8, 9, 4)).astype(np.float32)
        np.testing.assert_array_equal(grey_picture(channels), grey_picture(channels.mean(axis=2)))

    def test_other_axes_are_refused(self):
        with pytest.raises(ValueError, match=r"image must be .* Received shape \(3,\); draw one"):
            grey_picture(np.zeros(3))


class TestLabelPicture:
    def test_a_number_keeps_its_colour_whatever_else_is_there(self):
        one = label_picture([[0, 7, 7]])
        other = label_picture([[7, 7, 0, 3, 3, 900, 900]])
        np.testing.assert_array_equal(one[0, 1], other[0, 0])

    def test_numbers_one_to_sixty_differ_in_colour_from_each_other_and_from_background(self):
        labels = np.kron(np.arange(61), [1, 0])[None].astype(np.int32)
        assert len(distinct(label_picture(labels))) == 61

    def test_consecutive_numbers_differ_clearly_in_hue(self):
        labels = np.kron(np.arange(1, 40), [1, 0])[None]
        colours = label_picture(labels)[0, ::2] / 255
        hues = np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in colours])
        apart = np.abs(np.diff(hues))
        assert np.minimum(apart, 1 - apart).min() > 0.3

    def test_touching_instances_are_parted_by_a_black_line(self):
        picture = label_picture(np.repeat([[1, 1, 2, 2, 0]], 3, axis=0))
        np.testing.assert_array_equal(picture[:, 1], np.zeros((3, 3)))
        assert distinct(picture[:, [0, 2, 3]]) == distinct(label_picture([[1]])) | distinct(
            label_picture([[2]])
        )

    def test_over_an_image_background_shows_the_image_and_labels_tint_it(self):
        image = np.arange(40.0).reshape(5, 8)
        labels = np.zeros((5, 8), np.int32)
        labels[1:3, 1:3] = 5
        picture, grey = label_picture(labels, image), grey_picture(image)
        np.testing.assert_array_equal(picture[labels == 0], grey[labels == 0])
        assert (picture[labels == 5] != grey[labels == 5]).any(axis=1).all()

    def test_classes_and_bool_masks_are_drawn(self):
        assert len(distinct(label_picture(np.array([[False, True]])))) == 2

    def test_another_size_than_the_image_is_refused(self):
        message = r"labels and image must have one size\. Received \(2, 2\) and \(2, 3\)"
        with pytest.raises(ValueError, match=message):
            label_picture(np.zeros((2, 2), int), np.zeros((2, 3)))

    def test_a_stack_is_refused(self):
        with pytest.raises(ValueError, match=r"labels must be \(height, width\)\. Received shape"):
            label_picture(np.zeros((2, 2, 2), int))


class TestHeatPicture:
    def test_lightness_rises_all_the_way(self):
        ramp = heat_picture(np.linspace(0, 12, 60)[None])[0].astype(float)
        luminance = ramp @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(luminance) > 0).all()
        assert distinct(ramp[[0, -1]]) == {(0, 0, 3), (252, 254, 164)}

    def test_a_map_of_zeros_is_as_dark_as_zero(self):
        assert distinct(heat_picture(np.zeros((3, 4)))) == {(0, 0, 3)}

    def test_values_below_zero_are_drawn_as_zero(self):
        np.testing.assert_array_equal(heat_picture([[-5, 0, 2]]), heat_picture([[0, 0, 2]]))

    def test_channels_are_refused(self):
        with pytest.raises(ValueError, match=r"values must be .* Received shape \(2, 2, 1\)"):
            heat_picture(np.zeros((2, 2, 1)))


class TestDifferencePicture:
    def test_each_case_has_its_colour(self):
        picture = difference_picture([[0, 4, 4, 0]], [[0, 1, 0, 9]])[0].tolist()
        assert picture == [[24] * 3, [150] * 3, [230, 159, 0], [86, 180, 233]]

    def test_another_size_is_refused(self):
        message = r"reference and result must have one size\. Received \(2, 2\) and \(3, 2\)"
        with pytest.raises(ValueError, match=message):
            difference_picture(np.zeros((2, 2)), np.zeros((3, 2)))


class TestOutlinePicture:
    def test_truth_is_orange_and_the_prediction_lies_over_it(self):
        truth, found = np.zeros((2, 12, 12), int)
        truth[2:6, 2:6], found[2:6, 5:9] = 1, 1
        picture = outline_picture(grey_picture(np.zeros((12, 12))), truth, found)
        assert picture[4, 1].tolist() == [230, 159, 0]
        assert picture[4, 5].tolist() == picture[4, 9].tolist() == [86, 180, 233]
        assert picture[10, 10].tolist() == [0, 0, 0]

    def test_pixels_are_repeated_and_outlines_are_not(self):
        truth = np.repeat([[0, 0, 1, 1]], 4, axis=0)
        picture = outline_picture(grey_picture(np.zeros((4, 4))), truth, truth * 0, factor=5)
        assert picture.shape == (20, 20, 3)
        assert np.flatnonzero(picture[0, :, 0]).tolist() == [9, 10]

    def test_outlines_are_as_wide_as_asked_for(self):
        truth = np.repeat([[0, 0, 1, 1]], 4, axis=0)
        picture = outline_picture(
            grey_picture(np.zeros((4, 4))), truth, truth * 0, factor=5, width=4
        )
        assert np.flatnonzero(picture[0, :, 0]).tolist() == [8, 9, 10, 11]

    def test_another_size_is_refused(self):
        with pytest.raises(ValueError, match=r"picture and result must have one size"):
            outline_picture(
                grey_picture(np.zeros((4, 4))), np.zeros((4, 4), int), np.zeros((4, 5), int)
            )


class TestMontage:
    RED, BLUE = (200, 0, 0), (0, 0, 200)

    def test_large_pictures_are_shown_pixel_for_pixel_beside_each_other(self):
        left, right = plain(200, 180, self.RED), plain(190, 170, self.BLUE)
        sheet = montage([[left, right]], ["image", "truth"])
        reds, blues = (np.argwhere((sheet == colour).all(2)) for colour in (self.RED, self.BLUE))
        assert (len(reds), len(blues)) == (200 * 180, 190 * 170)
        assert blues[:, 1].min() > reds[:, 1].max() + 1
        assert blues[:, 0].min() == reds[:, 0].min()

    def test_a_tiny_row_is_enlarged_by_one_whole_factor(self):
        tiny, smaller = plain(50, 40, self.RED), plain(10, 10, self.BLUE)
        sheet = montage([[tiny, smaller]], ["image", "truth"])
        assert (sheet == self.RED).all(2).sum() == 16 * 50 * 40
        assert (sheet == self.BLUE).all(2).sum() == 16 * 10 * 10

    def test_a_row_with_one_large_picture_is_not_enlarged(self):
        sheet = montage([[plain(160, 20, self.RED), plain(9, 9, self.BLUE)]], ["a", "b"])
        assert (sheet == self.BLUE).all(2).sum() == 81

    def test_rows_lie_below_each_other_between_white_gutters(self):
        sheet = montage([[plain(160, 160, self.RED)], [plain(160, 160, self.BLUE)]], ["a"])
        assert sheet.dtype == np.uint8
        edge = np.concatenate([sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]])
        assert distinct(edge) == {WHITE}
        rows = [np.flatnonzero((sheet == c).all(2).any(1)) for c in (self.RED, self.BLUE)]
        assert rows[1].min() > rows[0].max() + 4

    def test_titles_stand_above_their_columns_and_widen_them(self):
        pictures = [plain(160, 20, self.RED), plain(160, 20, self.BLUE)]
        sheet = montage([pictures], ["a long title above it", "b"])
        blue = np.argwhere((sheet == self.BLUE).all(2))
        ink = np.argwhere((sheet < 128).all(2))
        assert ink[:, 0].max() < blue[:, 0].min()
        first = ink[ink[:, 1] < blue[:, 1].min()]
        assert first[:, 1].max() - first[:, 1].min() > 100

    @pytest.mark.parametrize(
        ("rows", "titles"),
        [
            ([], ["a"]),
            ([[]], []),
            ([[plain(2, 2, 0)]], ["a", "b"]),
            ([[plain(2, 2, 0)], []], ["a"]),
        ],
    )
    def test_a_grid_that_does_not_fit_the_titles_is_refused(self, rows, titles):
        with pytest.raises(ValueError, match=rf"Received rows of .* and {len(titles)} titles"):
            montage(rows, titles)


class TestWritePng:
    def test_what_is_read_back_is_what_was_written(self, tmp_path):
        picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        write_png(tmp_path / "picture.png", picture)
        with Image.open(tmp_path / "picture.png") as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), picture)
        assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

    def test_a_failure_leaves_no_file(self, tmp_path):
        with pytest.raises((TypeError, ValueError)):
            write_png(tmp_path / "picture.png", np.zeros((2, 2, 7), np.uint8))
        assert list(tmp_path.iterdir()) == []


def test_large_images_are_drawn_in_their_middle():
    image = np.arange(600 * 700).reshape(600, 700)
    np.testing.assert_array_equal(center_crop(image, 512), image[44:556, 94:606])
    np.testing.assert_array_equal(center_crop(image[:50, :60], 512), image[:50, :60])
    assert center_crop(np.zeros((5, 600, 3)), 512).shape == (5, 512, 3)


def test_probabilities_are_drawn_by_themselves_not_by_the_largest_of_them():
    faint = probability_picture(np.full((2, 3), 0.1, np.float32))
    assert (faint == 25).all()
    assert faint.shape == (2, 3, 3)
    with pytest.raises(ValueError, match=r"values must be \(height, width\)"):
        probability_picture(np.zeros((2, 3, 2)))
