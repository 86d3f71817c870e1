"""Forms of images that are read, and what is read of each."""

from __future__ import annotations

import numpy as np

from . import by_others, by_tifffile, zarrs
from .drawing import Form, drawn, wide

_G, _RGB = drawn(3), drawn(2, channels=3)
_G16, _RGB16 = wide(_G, "uint16"), wide(_RGB, "uint16")
_TILES = ("-t", "-w", 16, "-l", 16)
_AS_SEEN, _GREY, _COLOR = "inverted, as it is seen", "grey", "red, green, blue"
_STACK = "all pages, in order"

FORMS = {
    "TIFF, pages appended one by one": Form(
        by_tifffile.pages, ".tif", "all pages of equal size, a stack"
    ),
    "TIFF, stacks appended": Form(by_tifffile.appended_stacks, ".tif", _STACK),
    "TIFF, pages compressed differently": Form(by_tifffile.compressions, ".tif", _STACK),
    "TIFF with a reduced copy": Form(by_tifffile.thumbnail, ".tif", "the image; the copy is named"),
    "OME-TIFF with positions": Form(
        by_tifffile.positions, ".ome.tif", "the planes of all positions"
    ),
    "ImageJ hyperstack": Form(by_tifffile.imagej, ".tif", "T and Z as planes, C as channels"),
    "TIFF, 0 is white": Form(by_tifffile.white_is_zero, ".tif", _AS_SEEN),
    "TIFF, 0 is white, 16 bits": Form(by_tifffile.white_is_zero_16, ".tif", _AS_SEEN),
    "TIFF, colors and a fourth channel": Form(by_tifffile.fourth_channel, ".tif", "four channels"),
    "TIFF with a palette of false colors": Form(
        by_tifffile.false_colors, ".tif", "the numbers; that the colors are not applied is said"
    ),
    "TIFF, colors, alpha and a channel": Form(
        by_tifffile.alpha_in_between, ".tif", "all but the alpha"
    ),
    "TIFF with a pyramid": Form(by_tifffile.pyramid(), ".tif", "the largest resolution"),
    "OME-TIFF with a pyramid": Form(
        by_tifffile.pyramid(ome=True), ".ome.tif", "the largest resolution"
    ),
    "ImageJ, planes behind one page": Form(by_tifffile.behind_one_page, ".tif", "all planes"),
    **{f"TIFF of {bits} bits": by_tifffile.of_bits(bits) for bits in (2, 4, 6, 8, 10, 12, 14, 16)},
    **{
        f"TIFF of {dtype}, {end} end first": by_tifffile.typed(
            wide(_G, dtype) if np.dtype(dtype).kind in "iu" else (_G / 8).astype(dtype), **options
        )
        for dtype in (
            *("uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
            *("float16", "float32", "float64"),
        )
        for end, options in (
            ("big", {"byteorder": ">"}),
            ("little", {"byteorder": "<", "compression": "zlib"}),
        )
    },
    **{
        f"TIFF, {dtype}, compressed with {name}": by_others.copied(wide(_G, dtype), "-c", name)
        for dtype in ("uint8", "uint16")
        for name in ("none", "lzw", "lzw:2", "zip", "zip:2", "packbits", "lzma", "zstd", "lerc:0")
    },
    **{
        f"TIFF, colors, compressed with {name}": by_others.copied(_RGB, "-c", name)
        for name in ("lzw:2", "zip:2", "packbits", "zstd")
    },
    **{
        f"TIFF of 1 bit, compressed with {name}": by_others.copied_bits(name)
        for name in ("none", "packbits", "g3", "g4", "lzw")
    },
    "TIFF in strips of 3 rows": by_others.copied(_G16, "-s", "-r", 3, "-c", "lzw"),
    "TIFF in tiles": by_others.copied(_G16, *_TILES, "-c", "zip:2"),
    "TIFF, joined of several files": by_others.copied(_G16, joined=True),
    "TIFF, colors, joined of several files": by_others.copied(_RGB, "-c", "lzw", joined=True),
    "TIFF, colors stored apart": by_others.copied(_RGB, "-p", "separate"),
    "TIFF, colors stored apart, in tiles": by_others.copied(
        _RGB, "-p", "separate", *_TILES, "-c", "lzw"
    ),
    "TIFF, big end first": by_others.copied(_G16, "-B"),
    "TIFF, big end first, predictor": by_others.copied(_G16, "-B", "-c", "lzw:2"),
    "TIFF, float32, predictor": by_others.copied(_G.astype(np.float32) / 8, "-c", "zip:3"),
    "TIFF of 12 bits, big end first": Form(
        by_others.copied_12_bits, ".tif", "the numbers", "libtiff's tiffcp", "tiffcp"
    ),
    "TIFF, little end first": by_others.copied(_G16, "-L"),
    "BigTIFF": by_others.copied(_G16, "-8"),
    "BigTIFF, big end first, tiles": by_others.copied(_G16, "-8", "-B", *_TILES),
    "TIFF, bits from the low end": by_others.copied(_G16, "-f", "lsb2msb"),
    **{
        f"TIFF, {kind}, {photo}": Form(
            by_others.raw(
                wide(drawn(1), dtype) if dtype[0] != "f" else drawn(1).astype(dtype), kind, photo
            ),
            ".tif",
            _AS_SEEN if photo == "miniswhite" else "the numbers",
            "libtiff's raw2tiff",
            "raw2tiff",
        )
        for kind, dtype, photos in (
            ("byte", "uint8", ("minisblack", "miniswhite")),
            ("short", "uint16", ("minisblack", "miniswhite")),
            ("long", "uint32", ("minisblack", "miniswhite")),
            ("sbyte", "int8", ("minisblack",)),
            ("sshort", "int16", ("minisblack",)),
            ("slong", "int32", ("minisblack",)),
            ("float", "float32", ("minisblack",)),
            ("double", "float64", ("minisblack",)),
        )
        for photo in photos
    },
    "TIFF, two bands": Form(
        by_others.raw(drawn(1, channels=2), "byte"),
        ".tif",
        "two channels",
        "libtiff's raw2tiff",
        "raw2tiff",
    ),
    "TIFF, three bands": Form(
        by_others.raw(drawn(1, channels=3), "byte", "rgb"),
        ".tif",
        _COLOR,
        "libtiff's raw2tiff",
        "raw2tiff",
    ),
    **{
        f"{kind}, {planes.dtype}, {what}": by_others.by_opencv(planes[:1], ending, what)
        for kind, ending, several in (
            ("PNG", ".png", (_G, _G16, _RGB, _RGB16)),
            ("TIFF", ".tif", (_G, _G16, _G.astype(np.float32), _RGB, _RGB16)),
            ("BMP", ".bmp", (_G, _RGB)),
        )
        for planes in several
        for what in (_GREY if planes.shape[-1] == 1 else _COLOR,)
    },
    "PNG, 16 bits, colors with alpha": by_others.by_opencv(
        wide(drawn(1, channels=4), "uint16"), ".png", "the colors"
    ),
    "TIFF, colors with alpha": by_others.by_opencv(drawn(1, channels=4), ".tif", "the colors"),
    **{
        f"TIFF of several pages, {planes.dtype}, {what}": by_others.by_opencv(
            planes, ".tif", _STACK
        )
        for planes in (_G, _G16, _RGB, _RGB16)
        for what in (_GREY if planes.shape[-1] == 1 else _COLOR,)
    },
    "PNG of imageio": by_others.by_imageio(_G16[:1], ".png", "pillow", _GREY),
    "PNG of imageio, colors": by_others.by_imageio(_RGB[:1], ".png", "pillow", _COLOR),
    "BMP of imageio": by_others.by_imageio(_G[:1], ".bmp", "pillow", _GREY),
    "TIFF of imageio, Pillow": by_others.by_imageio(_G16[:1], ".tif", "pillow", _GREY),
    "TIFF of imageio": by_others.by_imageio(_G16[:1], ".tif", "tifffile", _GREY),
    "TIFF of imageio, colors": by_others.by_imageio(_RGB[:1], ".tif", "tifffile", _COLOR),
    "TIFF of imageio, pages": by_others.by_imageio(drawn(6), ".tif", "tifffile", _STACK),
    "TIFF of imageio, pages of colors": by_others.by_imageio(_RGB, ".tif", "tifffile", _STACK),
    "TIFF of scikit-image, pages": by_others.by_skimage(wide(drawn(6), "uint16"), _STACK),
    "TIFF of scikit-image, colors": by_others.by_skimage(_RGB[:1], _COLOR),
    "TIFF of scikit-image, two pages of colors": by_others.by_skimage(_RGB, _STACK),
    "TIFF of scikit-image, three pages": by_others.by_skimage(
        _G,
        "colors, as it states; what to say if they are none is said",
        np.moveaxis(_G[..., 0], 0, -1)[None],
    ),
    **{
        f"TIFF of several pages, {planes.dtype}, {what}, {compression or 'not compressed'}": (
            by_others.pages_by_pillow(planes, compression)
        )
        for planes, what in ((_G, _GREY), (_G16, _GREY), (_RGB, _COLOR))
        for compression in (None, "tiff_lzw", "tiff_deflate", "packbits")
    },
    "PNG of 16 bits": by_others.mode_of_pillow("I;16", ".png", "uint16", "the numbers"),
    "TIFF of 16 bits, Pillow": by_others.mode_of_pillow("I;16", ".tif", "uint16", "the numbers"),
    "TIFF of 32 bits, Pillow": by_others.mode_of_pillow("I", ".tif", "int32", "the numbers"),
    "TIFF of float32, Pillow": by_others.mode_of_pillow("F", ".tif", "float32", "the numbers"),
    "PNG, grey with alpha": by_others.mode_of_pillow("LA", ".png", "uint8", "the grey values"),
    "TIFF, grey with alpha": by_others.mode_of_pillow("LA", ".tif", "uint8", "the grey values"),
    "TIFF, palette with alpha": by_others.mode_of_pillow("PA", ".tif", "uint8", "the numbers"),
    "PNG with alpha": Form(by_tifffile.alpha, ".png", "the colors", "Pillow"),
    "PNG of 2 bits": Form(
        by_tifffile.few_bits(2),
        ".png",
        "the numbers, 0 to 3, of labels; 0 to 255 of images",
        "Pillow",
    ),
    "PNG of 4 bits": Form(
        by_tifffile.few_bits(4),
        ".png",
        "the numbers, 0 to 15, of labels; 0 to 255 of images",
        "Pillow",
    ),
    **{
        f"PNG with EXIF orientation {number}": Form(
            by_tifffile.turned(number), ".png", "upright", "Pillow"
        )
        for number in range(1, 9)
    },
    **{f"OME-Zarr {version}": zarrs.ome_zarr(version) for version in ("0.2", "0.3", "0.4", "0.5")},
    "OME-Zarr 0.4 without compression": zarrs.ome_zarr("0.4", compressors=None, order="F"),
    "OME-Zarr 0.5 in shards": zarrs.ome_zarr(
        "0.5", chunks=(1, 1, 1, 7, 7), shards=(1, 1, 1, 21, 28)
    ),
    **{f"OME-Zarr {version}, pyramid": zarrs.by_ngff(version) for version in ("0.4", "0.5")},
    **{
        f"OME-Zarr {version}, collection": zarrs.by_bioformats2raw(version)
        for version in ("0.4", "0.5")
    },
    "Zarr 2 with names of dimensions": Form(
        zarrs.zarr_by_xarray, ".zarr", "channels as such, all others as planes", "xarray's form"
    ),
}
