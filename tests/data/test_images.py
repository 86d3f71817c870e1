from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from keras_unet.data.images import (
    IMAGE_SUFFIXES,
    as_channels,
    image_files,
    is_grey,
    pixels_of,
    read_image,
    read_planes,
    smallest_unsigned,
    stem_of,
    write_tiff,
)

HERE = Path("a.png")


def numbers(*shape: int, dtype: str = "uint8", top: int = 256) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


def test_suffixes_are_lower_case() -> None:
    assert {".tif", ".png", ".jpg"} < IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)


def test_image_files_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.TIF", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.TIF"]


@pytest.mark.parametrize("name", ["a", "a.svs", "a.TF8", "a.dat", "a.0", "a.Tif8"])
@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG", "BMP", "GIF"])
def test_image_files_are_told_by_their_first_bytes(tmp_path: Path, name: str, kind: str) -> None:
    Image.new("L", (3, 4)).save(tmp_path / name, format=kind)
    assert image_files(tmp_path) == [tmp_path / name]
    assert read_planes(tmp_path / name).shape[:3] == (1, 4, 3)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bigtiff", [False, True])
def test_all_kinds_of_tiff_are_listed(tmp_path: Path, order: str, bigtiff: bool) -> None:
    array = numbers(4, 5)
    tifffile.imwrite(tmp_path / "a", array, bigtiff=bigtiff, byteorder=order)
    assert image_files(tmp_path) == [tmp_path / "a"]


def test_files_that_are_no_images_are_not_listed(tmp_path: Path) -> None:
    texts = {"a.txt": "BMW is a car, not an image", "b.ini": "[a]", "c": "", "d": "II", "e": "BM"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    Image.new("L", (3, 4)).save(tmp_path / "Thumbs.db", format="PNG")
    Image.new("L", (3, 4)).save(tmp_path / "._a.tif")
    assert image_files(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["im3.OME.TIF", "im3.ome.tif", "im3.ome.tiff", "im3.ome.btf", "im3.Ome.Zarr", "im3.TF8"]
)
def test_stems_are_without_the_whole_ending(name: str) -> None:
    assert stem_of(Path(name)) == "im3"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "bool", ">u2"])
def test_tiff_keeps_its_dtype(tmp_path: Path, dtype: str) -> None:
    array = numbers(5, 6, dtype=dtype, top=2 if dtype == "bool" else 250)
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=">" if dtype[0] == ">" else "<")
    planes = read_planes(tmp_path / "a.tif")
    assert planes.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(planes, array[np.newaxis, ..., np.newaxis])


@pytest.mark.parametrize("compression", ["lzw", "zlib", "deflate", "packbits", "zstd"])
def test_tiff_is_decompressed(tmp_path: Path, compression: str) -> None:
    array = numbers(40, 50, dtype="uint16", top=65536)
    tifffile.imwrite(tmp_path / "a.tif", array, compression=compression)
    np.testing.assert_array_equal(read_planes(tmp_path / "a.tif")[0, ..., 0], array)


def test_tiff_with_jpeg_inside_gives_colors(tmp_path: Path) -> None:
    Image.new("RGB", (32, 24), (200, 100, 50)).save(tmp_path / "a.tif", compression="jpeg")
    planes = read_planes(tmp_path / "a.tif")
    assert planes.shape == (1, 24, 32, 3)
    np.testing.assert_allclose(planes[0, 3, 5].astype(int), [200, 100, 50], atol=3)


@pytest.mark.parametrize(
    ("axes", "shape", "expected", "moved"),
    [
        ("TZCYX", (2, 3, 2, 5, 6), (6, 5, 6, 2), (0, 1, 3, 4, 2)),
        ("TZCYXS", (2, 3, 1, 5, 6, 3), (6, 5, 6, 3), (0, 1, 3, 4, 2, 5)),
        ("ZYX", (4, 5, 6), (4, 5, 6, 1), (0, 1, 2)),
        ("CYX", (2, 5, 6), (1, 5, 6, 2), (1, 2, 0)),
    ],
)
def test_imagej_axes_become_planes_and_channels(
    tmp_path: Path,
    axes: str,
    shape: tuple[int, ...],
    expected: tuple[int, ...],
    moved: tuple[int, ...],
) -> None:
    array = numbers(*shape)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": axes})
    planes = read_planes(tmp_path / "a.tif")
    np.testing.assert_array_equal(planes, array.transpose(moved).reshape(expected))


def test_pages_are_planes(tmp_path: Path) -> None:
    array = numbers(3, 5, 6)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in array:
            file.write(page, metadata=None)
    np.testing.assert_array_equal(read_planes(tmp_path / "a.tif"), array[..., np.newaxis])


def test_axes_without_names_are_planes(tmp_path: Path) -> None:
    array = numbers(2, 3, 5, 6)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    np.testing.assert_array_equal(read_planes(tmp_path / "a.tif"), array.reshape(6, 5, 6, 1))


def test_ome_channels_are_channels(tmp_path: Path) -> None:
    array = numbers(4, 2, 5, 6)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, ome=True, metadata={"axes": "ZCYX"})
    planes = read_planes(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(planes, np.moveaxis(array, 1, -1))


def test_planar_colors_are_channels(tmp_path: Path) -> None:
    array = numbers(3, 5, 6)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_planes(tmp_path / "a.tif")[0], np.moveaxis(array, 0, -1))


@pytest.mark.parametrize(
    ("samples", "photometric", "extra", "channels"),
    [
        (4, "rgb", "unassalpha", 3),
        (2, "minisblack", "unassalpha", 1),
        (2, "minisblack", "unspecified", 2),
        (3, "rgb", None, 3),
    ],
)
def test_tiff_alpha_is_dropped(
    tmp_path: Path, samples: int, photometric: str, extra: str | None, channels: int
) -> None:
    array = numbers(5, 6, samples)
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        photometric=photometric,
        planarconfig="contig",
        extrasamples=extra and [extra],
    )
    np.testing.assert_array_equal(read_planes(tmp_path / "a.tif")[0], array[..., :channels])


def test_palette_tiff_gives_indices(tmp_path: Path) -> None:
    array = numbers(5, 6)
    colors = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="palette", colormap=colors)
    np.testing.assert_array_equal(read_planes(tmp_path / "a.tif")[0, ..., 0], array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("samples", "channels"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_png_keeps_full_depth_and_drops_alpha(
    tmp_path: Path, dtype: str, samples: int, channels: int
) -> None:
    array = numbers(5, 6, samples, dtype=dtype, top=np.iinfo(dtype).max)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array.squeeze()))
    planes = read_planes(tmp_path / "a.png")
    assert planes.dtype == dtype
    np.testing.assert_array_equal(planes[0], array[..., :channels])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif"])
def test_palette_gives_indices_or_colors(tmp_path: Path, suffix: str) -> None:
    indices = numbers(5, 6, top=3)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_planes(tmp_path / f"a{suffix}")[0, ..., 0], indices)
    colors = read_planes(tmp_path / f"a{suffix}", palette="colors")
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]])
    np.testing.assert_array_equal(colors[0], palette[indices])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_one_bit_gives_bool(tmp_path: Path, suffix: str) -> None:
    array = numbers(5, 9, top=2).astype(bool)
    Image.fromarray(array).save(tmp_path / f"a{suffix}")
    planes = read_planes(tmp_path / f"a{suffix}")
    assert planes.dtype == bool
    np.testing.assert_array_equal(planes[0, ..., 0], array)


def test_jpeg_is_read(tmp_path: Path) -> None:
    Image.new("L", (6, 5), 77).save(tmp_path / "grey.jpg")
    Image.new("CMYK", (6, 5), (0, 0, 0, 0)).save(tmp_path / "print.jpg")
    assert np.array_equal(read_planes(tmp_path / "grey.jpg"), np.full((1, 5, 6, 1), 77))
    assert np.array_equal(read_planes(tmp_path / "print.jpg"), np.full((1, 5, 6, 3), 255))


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.png", numbers(5, 6))
    np.testing.assert_array_equal(read_planes(tmp_path / "a.png")[0, ..., 0], numbers(5, 6))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no\.tif: no such file. Expected an image \(\.bmp"
    ):
        read_planes(tmp_path / "no.tif")


def write_damaged(path: Path) -> None:
    """Writes the kind of file that the name says, damaged as the name says."""
    whole = path.with_name("whole" + path.suffix)
    if path.suffix == ".tif":
        tifffile.imwrite(whole, numbers(40, 50))
    else:
        Image.fromarray(numbers(40, 50)).save(whole)
    data = whole.read_bytes()
    ends = {"empty": 0, "head": 20, "half": len(data) // 2, "tail": len(data) - 30}
    path.write_bytes(b"no image at all" if path.stem == "text" else data[: ends[path.stem]])


@pytest.mark.parametrize("damage", ["empty", "head", "half", "text"])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".bmp"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"{damage}{suffix}"
    write_damaged(path)
    expected = rf"{damage}\{suffix}: cannot be read as an image \(.+\)\. Expected an intact \.bmp"
    with pytest.raises(ValueError, match=expected) as error:
        read_planes(path)
    assert "\n" not in str(error.value)


def test_png_that_lacks_its_last_bytes_is_refused(tmp_path: Path) -> None:
    write_damaged(tmp_path / "tail.png")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_planes(tmp_path / "tail.png")


def test_folder_animation_and_bomb_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_planes(tmp_path)
    frames = [Image.fromarray(numbers(5, 6) + i) for i in range(2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(
        ValueError, match=r"\(it is an animation of 2 frames; save them as the pages"
    ):
        read_planes(tmp_path / "a.gif")
    Image.fromarray(numbers(40, 50)).save(tmp_path / "a.bmp")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"a\.bmp: cannot be read as an image \(.*decompression"):
        read_planes(tmp_path / "a.bmp")


def test_of_several_pictures_in_a_photograph_the_first_is_read(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (6, 5), (40 * i, 80, 90)) for i in (1, 2)]
    options = {"format": "MPO", "save_all": True, "append_images": pictures[1:]}
    pictures[0].save(tmp_path / "a.jpg", **options)
    read = read_image(tmp_path / "a.jpg")
    assert abs(read.planes.astype(int) - (40, 80, 90)).max() < 4
    assert "further images" in read.notes[0]


@pytest.mark.filterwarnings("ignore:.*zero-size array")
def test_no_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((0, 5), np.uint8))
    with pytest.raises(ValueError, match=r"cannot be read as an image \(.+\)\. Expected"):
        read_planes(tmp_path / "a.tif")


def test_pixels_of_counts_what_is_not_finite() -> None:
    planes = np.ones((1, 2, 2, 1))
    planes[0, 0] = [[np.nan], [-np.inf]]
    with pytest.raises(ValueError, match=r"a\.png: 2 of 4 pixels are NaN or infinite\. Expected"):
        pixels_of(planes, HERE)
    with pytest.raises(ValueError, match="1 of 1 pixels are NaN or infinite"):
        pixels_of(np.array([1e300]), HERE)
    with pytest.raises(ValueError, match=r"a\.png: holds complex numbers \(complex64\)"):
        pixels_of(np.ones(2, np.complex64), HERE)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "float64"])
def test_pixels_of_keeps_the_numbers(dtype: str) -> None:
    planes = np.array([0, 1]).astype(dtype)
    assert pixels_of(planes, HERE).dtype == np.float32
    assert pixels_of(planes, HERE).tolist() == [0.0, 1.0]


def test_as_channels() -> None:
    grey, color = np.repeat(numbers(2, 5, 6, 1), 3, axis=-1), numbers(5, 6, 3)
    assert as_channels(color, 3, HERE) is color
    np.testing.assert_array_equal(as_channels(grey, 1, HERE), grey[..., :1])
    with pytest.raises(
        ValueError, match=r"a\.png: expected 1 channel or 3 equal ones, received 3\. .*3 channels\."
    ):
        as_channels(color, 1, HERE)
    with pytest.raises(ValueError, match=r"expected 3 channels, received 1\. .*for 1 channel"):
        as_channels(grey[..., :1], 3, HERE)


def test_is_grey_looks_at_every_channel() -> None:
    for channel in range(3):
        image = np.zeros((4, 4, 3))
        assert is_grey(image)
        image[1, 2, channel] = 1
        assert not is_grey(image)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32", "float32"])
@pytest.mark.parametrize(
    ("axes", "shape", "read"),
    [
        ("YX", (5, 6), (1, 5, 6, 1)),
        ("ZYX", (3, 5, 6), (3, 5, 6, 1)),
        ("ZYX", (1, 5, 3), (1, 5, 3, 1)),
        ("ZYX", (4, 5, 4), (4, 5, 4, 1)),
        ("CYX", (3, 5, 6), (1, 5, 6, 3)),
        ("ZCYX", (2, 3, 5, 6), (2, 5, 6, 3)),
    ],
)
def test_written_tiff_reads_back(
    tmp_path: Path, axes: str, shape: tuple[int, ...], read: tuple[int, ...], dtype: str
) -> None:
    array = numbers(*shape, dtype=dtype, top=2)
    write_tiff(tmp_path / "a.tif", array, axes=axes)
    again = tifffile.imread(tmp_path / "a.tif")
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)
    planes = read_planes(tmp_path / "a.tif")
    assert planes.shape == read
    expected = np.moveaxis(array, -3, -1) if "C" in axes else array[..., np.newaxis]
    np.testing.assert_array_equal(planes, expected.reshape(read))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("axes", ["ZYX", "XY", "TYX", "Y"])
def test_write_tiff_refuses_other_axes(tmp_path: Path, axes: str) -> None:
    with pytest.raises(ValueError, match=rf"axes must be .* Received '{axes}' for shape \(5, 6\)"):
        write_tiff(tmp_path / "a.tif", numbers(5, 6), axes=axes)
    assert not (tmp_path / "a.tif").exists()


def test_smallest_unsigned_refuses_what_does_not_fit() -> None:
    assert smallest_unsigned(np.array([True])).dtype == np.uint8
    assert smallest_unsigned(np.zeros((0, 3), int)).dtype == np.uint8
    for value in (-1, 2**32):
        message = re.escape(f"Received values from {value} to {value}.")
        with pytest.raises(
            ValueError, match=f"labels must lie between 0 and 4294967295. {message}"
        ):
            smallest_unsigned(np.array([value]))


def test_real_images_read_as_pillow_reads_them(shared_data: Path) -> None:
    for folder, dtype, channels in (
        ("isbi2012", "uint8", 1),
        ("usiigaci", "uint16", 1),
        ("dsb2018", "uint8", 3),
    ):
        path = min((shared_data / folder / "images").iterdir())
        planes = read_planes(path)
        with Image.open(path) as image:
            oracle = np.atleast_3d(np.array(image))[..., :channels]
        assert planes.dtype == dtype
        np.testing.assert_array_equal(planes[0], oracle)
        assert is_grey(planes)


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a.nii", "NIfTI"),
        ("a.nii.gz", "NIfTI"),
        ("a.NRRD", "NRRD"),
        ("a.vsi", "VSI of Olympus"),
        ("a.dcm", "DICOM"),
    ],
)
def test_formats_that_are_not_read_are_named(tmp_path, name, format_):
    (tmp_path / name).write_bytes(b"\x00" * 400)
    with pytest.raises(ValueError, match=rf"{name} is {format_}, which is not read; save it as"):
        read_planes(tmp_path / name)


def test_an_image_with_the_name_of_another_format_is_read(tmp_path):
    for name in ("a.nd2", "a.nrrd"):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / name, "PNG")
        assert read_planes(tmp_path / name).shape == (1, 4, 5, 1)


def test_nd2_of_old_microscopes_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a.nd2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99))
    with pytest.raises(
        ValueError, match=r"a.nd2: .*JPEG 2000, as are ND2 files of before 2010; sav"
    ):
        read_planes(tmp_path / "a.nd2")
