import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from keras_unet.architecture import Architecture
from keras_unet.report.charts import boxes_of, network_svg

FIGURE_1 = [
    *[572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28],
    *[56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388],
]
CHANNELS = [
    *[1, 64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512, 1024, 1024],
    *[1024, 512, 512, 512, 256, 256, 256, 128, 128, 128, 64, 64, 2],
]
NETWORKS = [
    (Architecture(), 572),
    (Architecture(depth=1, base_filters=2), 60),
    (Architecture(depth=3, padding="same", classes=5, channels=3), 64),
    (Architecture(depth=5), 572),
]


def drawn(network, tile):
    return ET.fromstring(network_svg(network, tile))  # noqa: S314 - made here


def test_the_paper_s_network_is_figure_1():
    boxes = boxes_of(Architecture(), 572)
    assert [box.size for box in boxes] == FIGURE_1
    assert [box.channels for box in boxes] == CHANNELS


@pytest.mark.parametrize(("network", "tile"), NETWORKS)
def test_the_last_box_is_the_output(network, tile):
    last = boxes_of(network, tile)[-1]
    assert (last.size, last.channels) == (network.output_size(tile), network.classes)


@pytest.mark.parametrize(("network", "tile"), NETWORKS)
def test_the_sizes_are_those_of_the_model(network, tile):
    from keras_unet.model import unet_of

    small = Architecture(**network.to_dict() | {"base_filters": 2})
    model = unet_of(small, (tile, tile))
    shapes = {
        (layer.output.shape[1], layer.output.shape[3])
        for layer in model.layers
        if "conv" in layer.name or "concatenate" in layer.name
    }
    assert shapes <= {(box.size, box.channels) for box in boxes_of(small, tile)}


def groups(svg, pattern):
    """The groups of a drawing whose names match."""
    found = svg.iterfind(".//{http://www.w3.org/2000/svg}g")
    return [one for one in found if re.fullmatch(pattern, one.get("id", ""))]


def extent(group):
    """The left, top, right and bottom of a box."""
    path = group[0].get("d")
    x, y = np.array(re.findall(r"[-\d.]+", path), float).reshape(-1, 2).T
    return x.min(), y.min(), x.max(), y.max()


@pytest.mark.parametrize(("network", "tile"), NETWORKS)
def test_every_operation_has_its_arrow(network, tile):
    svg, depth = drawn(network, tile), network.depth
    counts = {"conv": 2 * (2 * depth + 1), "pool": depth, "up": depth, "copy": depth, "last": 1}
    assert {kind: len(groups(svg, rf"{kind}-\d+")) for kind in counts} == counts


@pytest.mark.parametrize(("network", "tile"), NETWORKS)
def test_nothing_lies_outside_the_drawing_or_over_a_box(network, tile):
    svg = drawn(network, tile)
    _, _, width, height = map(float, svg.get("viewBox").split())
    boxes = [extent(group) for group in groups(svg, r"box-\d+")]
    assert len(boxes) == len(boxes_of(network, tile))
    (legend,) = groups(svg, "legend_1")
    line = min(extent(one) for one in legend.iter() if one.get("id", "").startswith("line2d"))
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert top >= 12
        assert right <= width
        assert bottom + 12 <= height
        assert right < line[0] or bottom < line[1]
        for other_left, other_top, other_right, other_bottom in boxes[:number]:
            apart = left >= other_right or other_left >= right
            assert apart or top >= other_bottom or other_top >= bottom


@pytest.mark.parametrize(("network", "tile"), NETWORKS)
def test_channels_and_sizes_are_written(network, tile):
    words = [one.text.strip() for one in drawn(network, tile).iter() if one.text]
    for box in boxes_of(network, tile):
        assert {f"{box.channels}", f"{box.size}"} <= {*words}
    assert "2 x 2 max pooling" in words


def test_a_tile_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="tile_size must be 16k"):
        network_svg(Architecture(), 570)
