from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from microscope_files import LifImage, write_czi, write_lif, write_nd2

from keras_unet.data.channels import Selection, select
from keras_unet.data.headers import read_header
from keras_unet.data.images import read_image, write_tiff
from keras_unet.data.lazy import open_large
from keras_unet.data.samples import read_samples

NAMES = ("DAPI", "GFP", "Cy5")
A = Path("a.tif")


def indices(channels, names=NAMES, count=3, **options):
    return Selection.of(channels, **options).indices(names, count, A)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 250, shape).astype(np.uint16)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [([0, 2], (0, 2)), ([2, 0], (2, 0)), (["GFP"], (1,)), (["Cy5", 0], (2, 0)), (["dapi"], (0,))],
)
def test_numbers_from_0_and_names_in_their_order(channels, expected):
    assert indices(channels) == expected


@given(st.permutations(NAMES), st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
def test_a_name_is_the_channel_of_this_name_in_any_order(stored, chosen):
    pixels = np.array([[NAMES.index(name) for name in stored]])
    found = [stored[index] for index in indices(chosen, stored)]
    assert found == chosen
    assert [NAMES[value] for value in pixels[0, list(indices(chosen, stored))]] == chosen


def test_a_number_beyond_the_channels_may_be_a_name():
    assert indices([488], ("405", "488"), 2) == (1,)
    assert indices(["488", 0], ("405", "488"), 2) == (1, 0)
    assert indices([1], ("0", "1"), 2) == (1,)


@pytest.mark.parametrize(
    ("channels", "names", "message"),
    [
        (
            ["RFP"],
            NAMES,
            r"a.tif: expected a channel RFP. Received 3 channels: 0 DAPI, 1 GFP, 2 Cy5",
        ),
        (
            [3],
            NAMES,
            r"expected a channel 3. Received 3 channels: 0 DAPI.*; choose among them by --",
        ),
        (
            ["RFP"],
            (),
            r"expected a channel RFP. Received 3 channels: 0 to 2, without names; choose",
        ),
        (
            ["A"],
            ("A", "B", "A"),
            r"one channel of the name A. Received several; choose by number: 0",
        ),
        (
            [1],
            ("1", "2", "3"),
            r"Received 1, which is the number of the channel 2 and the name of ch",
        ),
        (["GFP", 1], NAMES, r"expected different channels. Received GFP, 1, which are the same"),
    ],
)
def test_channels_that_are_not_there_or_ambiguous_are_refused(channels, names, message):
    with pytest.raises(ValueError, match=message):
        indices(channels, names)


@pytest.mark.parametrize("channels", [[], [-1], [0, 0], [True], [""], "DAPI", [1.5], ["A", "A"]])
def test_what_is_no_selection_is_refused(channels):
    with pytest.raises(
        ValueError, match=r"channels must be different numbers of at least 0, or na"
    ):
        Selection.of(channels)


@pytest.mark.parametrize(
    ("channels", "names", "count", "expected"),
    [
        ([2], (), 1, None),  # the channel alone
        (["DAPI"], (), 1, None),
        (["DAPI"], ("Hoechst",), 1, None),
        ([0, 2], ("A", "B"), 2, None),
        (["GFP", "DAPI"], ("DAPI", "GFP"), 2, (1, 0)),  # their names come first
        (["GFP"], NAMES, 3, (1,)),
        ([1], NAMES, 3, (1,)),
    ],
)
def test_of_a_model_an_image_of_as_many_channels_is_read_as_it_is(channels, names, count, expected):
    assert indices(channels, names, count, is_recorded=True) == expected


def test_of_a_model_other_images_must_have_its_channels():
    with pytest.raises(ValueError, match="expected a channel RFP"):
        indices(["RFP"], is_recorded=True)


def test_names_are_selected_with_the_pixels(tmp_path):
    pixels = noise(3, 6, 7)
    metadata = {"axes": "CYX", "Channel": {"Name": list(NAMES)}}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=metadata, photometric="minisblack")
    image = read_image(tmp_path / "a.ome.tif", channels=Selection((2, "DAPI")))
    np.testing.assert_array_equal(image.planes[0], np.moveaxis(pixels[[2, 0]], 0, -1))
    assert image.spacing.channels == ("Cy5", "DAPI")
    same, spacing = select(None, image.planes, image.spacing, A)
    assert same is image.planes
    assert spacing is image.spacing


def ome_tiff(folder, pixels):
    metadata = {"axes": "CYX", "Channel": {"Name": list(NAMES)}}
    path = folder / "a.ome.tif"
    tifffile.imwrite(path, pixels, metadata=metadata, photometric="minisblack")
    return path


def imagej(folder, pixels):
    path = folder / "a.tif"
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "CYX", "Labels": list(NAMES)})
    return path


def ome_zarr(folder, pixels):
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=pixels)
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")]
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
        "omero": {"channels": [{"label": name} for name in NAMES]},
    }
    return folder / "a.zarr"


def leica(folder, pixels):
    write_lif(folder / "a.lif", [LifImage("one", pixels, "CYX", {}, NAMES)])
    return folder / "a.lif"


def zeiss(folder, pixels):
    write_czi(folder / "a.czi", [pixels[None, None]], names=NAMES)
    return folder / "a.czi"


def nikon(folder, pixels):
    write_nd2(folder / "a.nd2", pixels[None, None, None], names=NAMES)
    return folder / "a.nd2"


@pytest.mark.parametrize("write", [ome_tiff, imagej, ome_zarr, leica, zeiss, nikon])
def test_names_are_read_of_every_format_that_states_them(tmp_path, write):
    pixels = noise(3, 6, 7)
    path, selection = write(tmp_path, pixels), Selection(("Cy5", "DAPI"))
    expected = np.moveaxis(pixels[[2, 0]], 0, -1)
    header = read_header(path, channels=selection)
    assert header.shape == (1, 6, 7, 2)
    assert header.spacing.channels == ("Cy5", "DAPI")
    if write is not ome_zarr:
        image = read_image(path, channels=selection)
        np.testing.assert_array_equal(image.planes[0], expected)
        assert image.spacing == header.spacing
    if write in (ome_tiff, imagej, ome_zarr):
        with open_large(path, channels=selection) as opened:
            assert opened.shape == header.shape
            assert opened.spacing == header.spacing
            (plane,) = opened
            np.testing.assert_array_equal(plane[slice(1, 5), slice(2, 7)], expected[1:5, 2:7])


def test_a_file_of_each_reader_that_lacks_a_channel_is_refused(tmp_path):
    for write in (ome_tiff, ome_zarr):
        path, selection = write(tmp_path, noise(3, 6, 7)), Selection(("RFP",))
        with pytest.raises(ValueError, match="expected a channel RFP"):
            read_header(path, channels=selection)
        with (
            pytest.raises(ValueError, match="expected a channel RFP"),
            open_large(path, channels=selection),
        ):
            pass
    with pytest.raises(ValueError, match="expected a channel RFP"):
        read_image(tmp_path / "a.ome.tif", channels=selection)


@pytest.fixture
def mixed(tmp_path):
    """A data set of two images of the same channels in different order."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    pixels = noise(3, 20, 21)
    labels = np.zeros((20, 21), np.uint8)
    labels[2:8, 2:8], labels[11:17, 11:18] = 1, 2
    for stem, order in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        names = [NAMES[index] for index in order]
        metadata = {"axes": "CYX", "Channel": {"Name": names}}
        path = tmp_path / "images" / f"{stem}.ome.tif"
        tifffile.imwrite(path, pixels[order], metadata=metadata, photometric="minisblack")
        write_tiff(tmp_path / "labels" / f"{stem}.tif", labels, axes="YX")
    return tmp_path, pixels


def test_by_name_the_channels_of_a_data_set_are_the_same(mixed):
    folder, pixels = mixed
    samples = read_samples(folder, labels="instances", channels=["GFP", "DAPI"])
    assert samples.channels == 2
    for sample in samples.samples:
        np.testing.assert_array_equal(sample.image, np.moveaxis(pixels[[1, 0]], 0, -1))
    assert not any("differ in their names" in note for note in samples.notes)
    assert read_samples(folder, labels="instances", channels=["Cy5"]).channels == 1


@pytest.mark.parametrize(("channels", "names"), [([0], "DAPI in a"), (None, "DAPI, GFP, Cy5 in a")])
def test_by_number_a_line_says_that_they_differ(mixed, channels, names):
    (note,) = [
        note
        for note in read_samples(mixed[0], labels="instances", channels=channels).notes
        if note.startswith(f"channels differ in their names: {names}.ome.tif; Cy5")
    ]
    assert note.endswith("in b.ome.tif. Choose them by name, by --channels")
