import importlib.util
import sys

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from microscope_files import LifImage, write_czi, write_lif, write_nd2

from keras_unet.data import images, microscopes, tiffs
from keras_unet.data.headers import read_header
from keras_unet.data.images import image_files, read_image
from keras_unet.data.lazy import open_large
from keras_unet.data.pairs import unused_in
from keras_unet.data.samples import read_samples

LIBRARIES = {".czi": "pylibCZIrw", ".lif": "liffile", ".nd2": "nd2"}


def noise(*shape):
    return np.random.default_rng(0).integers(0, 200, shape).astype(np.uint16)


def write(path, count=1):
    """Writes a file with some images of two planes along Z and two channels."""
    if path.suffix == ".czi":
        write_czi(path, [noise(1, 2, 2, 8, 9 + index) for index in range(count)])
    elif path.suffix == ".lif":
        pixels = [noise(2, 2, 8, 9 + index) for index in range(count)]
        parts = [(f"image {index}", part) for index, part in enumerate(pixels)]
        write_lif(path, [LifImage(name, part, "ZCYX", {}, ("A", "B")) for name, part in parts])
    else:
        names = [f"P{index}" for index in range(count)]
        write_nd2(path, noise(1, count, 2, 2, 8, 9), names=("A", "B"), positions=names)
    return path


@pytest.fixture(params=LIBRARIES)
def suffix(request):
    return request.param


def test_a_single_image_keeps_the_name_of_its_file(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}")
    assert image_files(tmp_path) == [path]
    assert read_image(path).planes.shape == (2, 8, 9, 2)


def test_headers_agree_with_images(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", 3)
    paths = image_files(tmp_path)
    assert [path.name for path in paths] == [f"a_s00{number}{suffix}" for number in range(3)]
    for path in paths:
        header, image = read_header(path), read_image(path)
        assert header.shape == image.planes.shape
        assert (header.stack, header.notes) == (image.stack, image.notes)
        assert header.spacing == image.spacing


def test_the_format_is_that_of_the_first_bytes(tmp_path, suffix):
    write(tmp_path / f"a{suffix}").rename(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").planes.shape == (2, 8, 9, 2)
    assert read_header(tmp_path / "a.tif").shape == (2, 8, 9, 2)


def test_no_ending_is_needed(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", 2).rename(tmp_path / "a")
    assert image_files(tmp_path) == [tmp_path / "a_s000", tmp_path / "a_s001"]
    assert read_image(tmp_path / "a_s001").planes.shape[:2] == (2, 8)


def test_a_file_of_several_images_is_not_an_image(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", 2)
    pattern = (
        rf"name of one of its 2 images, a_s000{suffix} to a_s001{suffix}\. Received that of th"
    )
    for read in (read_image, read_header):
        with pytest.raises(ValueError, match=pattern):
            read(path)


@pytest.mark.parametrize(("count", "number"), [(2, 2), (1, 0)])
def test_an_image_that_is_not_there_is_refused(tmp_path, suffix, count, number):
    write(tmp_path / f"a{suffix}", count)
    with pytest.raises(
        ValueError, match=rf"Received number {number}, counted from 0, of {count} im"
    ):
        read_image(tmp_path / f"a_s00{number}{suffix}")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_image(tmp_path / f"b_s000{suffix}")


def test_another_file_of_the_name_of_a_scene_is_refused(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", 2)
    write(tmp_path / f"a_s001{suffix}")
    with pytest.raises(
        ValueError, match=rf"a_s001{suffix}: expected no file of this name.*; rename"
    ):
        image_files(tmp_path)


def test_damaged_files_are_refused_in_one_line(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:100])
    for read in (read_image, read_header, lambda path: image_files(path.parent)):
        with pytest.raises(
            ValueError, match=rf"a{suffix}: cannot be read as .* Expected an int"
        ) as e:
            read(path)
        assert "\n" not in str(e.value)


def test_other_content_is_refused_in_one_line(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"\0" * 400)
    assert image_files(tmp_path) == [tmp_path / f"a{suffix}"]
    for read in (read_image, read_header):
        with pytest.raises(ValueError, match=rf"a{suffix}: cannot be read as an image"):
            read(tmp_path / f"a{suffix}")


def test_a_library_that_is_missing_is_named(tmp_path, suffix, monkeypatch):
    path, find_spec = write(tmp_path / f"a{suffix}"), importlib.util.find_spec
    library = LIBRARIES[suffix]
    monkeypatch.setattr(
        microscopes, "find_spec", lambda name: None if name == library else find_spec(name)
    )
    microscopes._scenes_of.cache_clear()
    pattern = (
        rf"a{suffix}: (CZI|LIF|ND2) of \w+ is read by {library}, which is not installed; pip "
        r'install "\.\[microscopes\]", or save it as TIFF'
    )
    for read in (read_image, read_header, lambda path: image_files(path.parent)):
        with pytest.raises(ModuleNotFoundError, match=pattern):
            read(path)


def test_libraries_are_not_imported_for_other_images(tmp_path, monkeypatch):
    for name in (*LIBRARIES.values(), "keras_unet.data.zeiss"):
        monkeypatch.setitem(sys.modules, name, None)  # an import fails
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 5))
    assert read_image(tmp_path / "a.tif").planes.shape == (1, 4, 5, 1)


def test_images_larger_than_memory_are_refused(tmp_path, suffix, monkeypatch):
    path = write(tmp_path / f"a{suffix}")
    monkeypatch.setattr(tiffs, "total_memory", lambda: 100)
    with pytest.raises(ValueError, match=r"it takes 576 bytes, more than the memory"):
        read_image(path)


def test_images_larger_than_their_file_can_hold_are_refused(tmp_path, suffix, monkeypatch):
    path = write(tmp_path / f"a{suffix}")
    monkeypatch.setattr(microscopes, "SMALL", 100)
    monkeypatch.setattr(microscopes, "LARGEST_RATIO", 0)
    with pytest.raises(
        ValueError, match=r"it states 576 bytes of pixels in a file of [\d,]+ bytes"
    ):
        read_image(path)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_bytes_are_read_or_refused_in_one_line(tmp_path, suffix, data):
    path = tmp_path / f"a{suffix}"
    if not (tmp_path / ".whole").exists():
        write(path).rename(tmp_path / ".whole")
    content = bytearray((tmp_path / ".whole").read_bytes())
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=5)):
        content[place] = value
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    message = ""
    try:
        for image in image_files(tmp_path):
            read_image(image)
    except ValueError as error:
        message = str(error)
    assert "\n" not in message


def test_images_are_not_read_in_parts(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", 2)
    with (
        pytest.raises(ValueError, match=r"expected a TIFF or Zarr file, .* omit --stream"),
        open_large(tmp_path / f"a_s001{suffix}"),
    ):
        pass


def test_labels_are_named_like_the_scenes(tmp_path, suffix):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    write(tmp_path / "images" / f"a{suffix}", 3)
    for number in (0, 2):
        image = read_image(tmp_path / "images" / f"a_s00{number}{suffix}").planes
        labels = np.zeros(image.shape[:3], np.uint8)
        labels[:, 1:4, 1:4], labels[:, 5:7, 5:8] = 1, 2
        tifffile.imwrite(tmp_path / "labels" / f"a_s00{number}.tif", labels)
    samples = read_samples(tmp_path, labels="instances")
    names = ["a_s000_000", "a_s000_001", "a_s002_000", "a_s002_001"]
    assert [sample.name for sample in samples.samples] == names
    assert samples.channels == 2
    assert [unused.name for unused in samples.unused] == [f"images/a_s001{suffix}"]
    assert [unused.reason for unused in samples.unused] == ["no partner"]
    used = image_files(tmp_path / "images")
    assert list(unused_in(tmp_path / "images", used)) == []


def test_every_suffix_is_one_of_an_image():
    assert set(LIBRARIES) == set(microscopes.FORMATS)
    assert set(LIBRARIES) < images.IMAGE_SUFFIXES
