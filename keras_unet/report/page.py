"""HTML page of a report, rendered from its values."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from keras_unet.files import SOFTWARE, atomic, make_folder
from keras_unet.report.pictures import Picture
from keras_unet.report.tables import Table

_QUALITY = 88  # of lossy compression, out of 100


@dataclass(frozen=True)
class ShownImage:
    """An image of the slider, or the surroundings of a cell.

    Attributes:
        name: Name of the image.
        caption: Caption, such as its scores.
        layers: Pictures of one size, as data URIs by title, the lowest first.
    """

    name: str
    caption: str
    layers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Objects that were found in the images of a report.

    Attributes:
        text: Line about their number.
        charts: Histograms, as SVG.
        table: Table of the objects.
        download: Table of all objects and columns, as the data URI of a CSV file.
    """

    text: str
    charts: Sequence[str]
    table: Table
    download: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """Values of a report; empty sections are omitted.

    Attributes:
        title: Heading.
        summary: Line below the heading.
        data: Lines about the data.
        warnings: Warnings about the data or the report.
        network: Diagram of the network, as SVG.
        network_text: Line about the network.
        curves: Training curves, as SVG.
        images: Images with labels and prediction.
        images_text: Line about the images.
        worst: Cells with the lowest IoU.
        best: Cells with the highest IoU.
        tables: Tables of scores.
        scores_text: Line about the scores.
        objects: Objects that were found; None for none.
        provenance: Provenance, values by name.
        command: Command that repeats the run.
        next_steps: Commands by purpose.
    """

    title: str
    summary: str
    data: Sequence[str] = ()
    warnings: Sequence[str] = ()
    network: str = ""
    network_text: str = ""
    curves: Sequence[str] = ()
    images: Sequence[ShownImage] = ()
    images_text: str = ""
    worst: Sequence[ShownImage] = ()
    best: Sequence[ShownImage] = ()
    tables: Sequence[Table] = ()
    scores_text: str = ""
    objects: Objects | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    next_steps: Mapping[str, str] = field(default_factory=dict)


def render(page: Page) -> str:
    """Renders a page as HTML; values are escaped."""
    environment = Environment(
        loader=PackageLoader("keras_unet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(page=page, software=SOFTWARE)


def write_page(path: Path, page: Page) -> Path:
    """Writes a page, whole or not at all.

    Args:
        path: File to write; its folder is created if missing.
        page: The page.

    Returns:
        The path.
    """
    make_folder(path.parent)
    with atomic(path) as temporary:
        # File names hold surrogates if the locale's encoding cannot decode them.
        html = render(page).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        temporary.write_text(html, encoding="utf-8")
    return path


def lossy_uri(picture: Picture) -> str:
    """Encodes a photographic picture as a data URI, with invisible losses."""
    return _data_uri(picture, {"quality": _QUALITY})


def lossless_uri(picture: Picture) -> str:
    """Encodes a picture of flat colors as a data URI, without losses."""
    return _data_uri(picture, {"lossless": True})


def _data_uri(picture: Picture, options: dict[str, Any]) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="WEBP", method=4, **options)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
