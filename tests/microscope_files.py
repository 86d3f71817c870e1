"""Writes files of microscopes: CZI by the library of Zeiss, LIF and ND2 byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

MICROMETER = 1e-6  # in meters


def write_czi(
    path: Path,
    scenes: Sequence[NDArray[Any]],
    *,
    names: Sequence[str] = (),
    pixel_size: float = 0.0,
    distance: float = 0.0,
) -> None:
    """Writes scenes of shape (T, Z, C, Y, X), or (T, Z, C, Y, X, 3) in blue, green, red.

    Pixel size and distance of planes are in micrometers.
    """
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as file:
        for number, scene in enumerate(scenes):
            for t, z, c in np.ndindex(scene.shape[:3]):
                pixels = scene[t, z, c] if scene.ndim == 6 else scene[t, z, c, ..., np.newaxis]
                place = {"T": t, "Z": z, "C": c}
                file.write(pixels, location=(1000 * number, 7), plane=place, scene=number)
        file.write_metadata(
            channel_names=dict(enumerate(names)),
            scale_x=pixel_size * MICROMETER,
            scale_y=pixel_size * MICROMETER,
            scale_z=distance * MICROMETER,
        )


@dataclass(frozen=True)
class LifImage:
    """Image of a LIF file.

    Attributes:
        name: Its name.
        pixels: Array with the axes.
        axes: Letters of T, Z, C, Y and X, of which those of a pixel's neighbors come last.
        steps: Distances of pixels and planes in meters, of frames in seconds.
        channels: Names of the channels.
    """

    name: str
    pixels: NDArray[Any]
    axes: str
    steps: Mapping[str, float]
    channels: Sequence[str]


_DIMENSIONS = {"X": "1", "Y": "2", "Z": "3", "T": "4", "M": "10"}


def write_lif(path: Path, images: Sequence[LifImage]) -> None:
    """Writes a LIF file of version 2: a header in XML, and a block of memory for each image."""
    root = ET.Element("LMSDataContainerHeader", Version="2")
    children = ET.SubElement(ET.SubElement(root, "Element", Name=path.stem), "Children")
    for number, image in enumerate(images):
        children.append(_element_of_lif(image, number))
    header = ET.tostring(root, encoding="unicode")
    with path.open("wb") as file:
        text = header.encode("utf-16-le")
        file.write(struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(header)) + text)
        for number, image in enumerate(images):
            name, pixels = f"MemBlock_{number}", np.ascontiguousarray(image.pixels).tobytes()
            start = struct.pack("<IIBQBI", 0x70, 0, 0x2A, len(pixels), 0x2A, len(name))
            file.write(start + name.encode("utf-16-le") + pixels)


def _element_of_lif(image: LifImage, number: int) -> ET.Element:
    element = ET.Element("Element", Name=image.name, UniqueID=str(number))
    described = ET.SubElement(
        ET.SubElement(ET.SubElement(element, "Data"), "Image"), "ImageDescription"
    )
    channels = ET.SubElement(described, "Channels")
    strides = dict(zip(image.axes, image.pixels.strides, strict=True))
    bits = str(8 * image.pixels.itemsize)
    for index, name in enumerate(image.channels):
        texts = {"DataType": "0", "ChannelTag": "0", "Resolution": bits, "LUTName": "Gray"}
        texts |= {"NameOfMeasuredQuantity": "", "Min": "0", "Max": "1", "Unit": "", "BitInc": "0"}
        texts |= {"IsLUTInverted": "0", "BytesInc": str(index * strides.get("C", 0))}
        channel = ET.SubElement(channels, "ChannelDescription", texts)
        known = ET.SubElement(channel, "ChannelProperty")
        ET.SubElement(known, "Key").text = "DyeName"
        ET.SubElement(known, "Value").text = name
    dimensions = ET.SubElement(described, "Dimensions")
    for axis, size in zip(image.axes, image.pixels.shape, strict=True):
        if axis in _DIMENSIONS:
            length = image.steps.get(axis, 0.0) * (size - 1)
            unit = "s" if axis == "T" else "m"
            texts = {"DimID": _DIMENSIONS[axis], "NumberOfElements": str(size), "Origin": "0"}
            texts |= {"Length": str(length), "Unit": unit, "BytesInc": str(strides[axis])}
            ET.SubElement(dimensions, "DimensionDescription", {**texts, "BitInc": "0"})
    memory = {"Size": str(image.pixels.nbytes), "MemoryBlockID": f"MemBlock_{number}"}
    ET.SubElement(element, "Memory", memory)
    return element


def write_nd2(
    path: Path,
    pixels: NDArray[Any],
    *,
    names: Sequence[str],
    pixel_size: float = 0.0,
    distance: float = 0.0,
    interval: float = 0.0,
    positions: Sequence[str] = (),
    stored: int | None = None,
) -> None:
    """Writes frames of shape (T, P, Z, C, Y, X) as ND2 of version 3.

    Args:
        path: Path of the file.
        pixels: uint16.
        names: Names of the channels; one for the three colors of a color camera.
        pixel_size: In micrometers; 0 for none.
        distance: Of planes, in micrometers.
        interval: Between frames, in seconds.
        positions: Names of the positions.
        stored: Number of frames that are written; None for all.
    """
    times, places, planes, channels, height, width = pixels.shape
    frames = np.moveaxis(pixels.reshape(-1, *pixels.shape[3:]), 1, -1)[:stored]
    attributes = {
        "uiWidth": width,
        "uiWidthBytes": width * channels * pixels.itemsize,
        "uiHeight": height,
        "uiComp": channels,
        "uiBpcInMemory": 8 * pixels.itemsize,
        "uiBpcSignificant": 8 * pixels.itemsize,
        "uiSequenceCount": len(frames),
        "eCompression": 2,
    }
    probe = {"m_ExcitationSpectrum": {"uiCount": 0}}
    metadata = {
        "bCalibrated": pixel_size > 0,
        "dCalibration": float(pixel_size),
        "sPicturePlanes": {
            "uiCount": len(names),
            "sPlaneNew": {
                f"a{index}": {"sDescription": name, "pFluorescentProbe": probe}
                | {"uiCompCount": channels // len(names)}
                for index, name in enumerate(names)
            },
        },
    }
    period = 1000.0 * interval
    loops: list[dict[str, Any]] = []
    if times > 1:
        pars = {"uiCount": times, "dStart": 0.0, "dPeriod": period, "dDuration": times * period}
        loops.append({"eType": 1, "uLoopPars": pars})
    if places > 1:
        points = {f"i{index:010}": {"dPosName": name} for index, name in enumerate(positions)}
        loops.append({"eType": 2, "uLoopPars": {"uiCount": places, "Points": points}})
    if planes > 1:
        pars = {"uiCount": planes, "dZStep": float(distance), "dZLow": 0.0, "dZHigh": 0.0}
        loops.append({"eType": 4, "uLoopPars": pars})
    experiment: dict[str, Any] = {}
    for loop in reversed(loops):
        inner = {"ppNextLevelEx": {"i0000000000": experiment}} if experiment else {}
        experiment = {**loop, **inner}
    chunks = {
        "ImageAttributesLV!": _lite_variant({"SLxImageAttributes": attributes}),
        "ImageMetadataSeqLV|0!": _lite_variant({"SLxPictureMetadata": metadata}),
    }
    if experiment:
        chunks["ImageMetadataLV!"] = _lite_variant({"SLxExperiment": experiment})
    for index, frame in enumerate(frames):
        time = struct.pack("<d", 0.0)  # before the pixels
        chunks[f"ImageDataSeq|{index}!"] = time + np.ascontiguousarray(frame).tobytes()
    _write_chunks(path, chunks)


_MAGIC = 0x0ABECEDA
_RESERVED = 4072  # bytes of the name of a chunk, so that pixels begin at a multiple of 4096


def _write_chunks(path: Path, chunks: Mapping[str, bytes]) -> None:
    with path.open("wb") as file:
        signature = b"ND2 FILE SIGNATURE CHUNK NAME01!"
        file.write(struct.pack("<IIQ", _MAGIC, 32, 64) + signature + b"Ver3.0".ljust(64, b"\0"))
        entries = b""
        for name, content in chunks.items():
            start = file.tell()
            entries += name.encode() + struct.pack("<QQ", start, len(content))
            header = struct.pack("<IIQ", _MAGIC, _RESERVED, len(content))
            file.write(header + name.encode().ljust(_RESERVED, b"\0") + content)
        start, end = file.tell(), b"ND2 CHUNK MAP SIGNATURE 0000001!"
        filemap = b"ND2 FILEMAP SIGNATURE NAME 0001!"
        entries += end + struct.pack("<Q", start)
        file.write(struct.pack("<IIQ", _MAGIC, len(filemap), len(entries)) + filemap + entries)


def _lite_variant(values: Mapping[str, Any]) -> bytes:
    return b"".join(_lite_value(name, value) for name, value in values.items())


def _lite_value(name: str, value: Any) -> bytes:
    """Encodes a value of the type that the first letters of its name state."""
    text = f"{name}\0".encode("utf-16-le")
    if isinstance(value, dict):
        content = _lite_variant(value)
        length = 2 + len(text) + 12 + len(content)
        head = struct.pack("<BB", 11, len(name) + 1) + text
        return head + struct.pack("<IQ", len(value), length) + content + bytes(8 * len(value))
    if isinstance(value, str):
        return struct.pack("<BB", 8, len(name) + 1) + text + f"{value}\0".encode("utf-16-le")
    if isinstance(value, bool):
        kind, form = 1, "<B"
    elif isinstance(value, float):
        kind, form = 6, "<d"
    else:
        kind, form = 3, "<I"
    return struct.pack("<BB", kind, len(name) + 1) + text + struct.pack(form, value)
