from xml.etree import ElementTree as ET

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


@pytest.mark.parametrize(("network", "tile"), NETWORKS)
def test_every_operation_has_its_arrow(network, tile):
    kinds = [one.get("class") for one in drawn(network, tile) if "arrow" in one.get("class", "")]
    depth = network.depth
    counts = {name: kinds.count(f"arrow {name}") for name in ("conv", "pool", "up", "copy", "last")}
    assert counts == {
        "conv": 2 * (2 * depth + 1),
        "pool": depth,
        "up": depth,
        "copy": depth,
        "last": 1,
    }


@pytest.mark.parametrize(("network", "tile"), NETWORKS)
def test_nothing_lies_outside_the_drawing_or_over_a_box(network, tile):
    svg = drawn(network, tile)
    _, _, width, height = map(float, svg.get("viewBox").split())
    boxes = [
        tuple(float(one.get(name)) for name in ("x", "y", "width", "height"))
        for one in svg
        if one.get("class") == "box"
    ]
    assert len(boxes) == len(boxes_of(network, tile))
    for number, (x, y, wide, high) in enumerate(boxes):
        assert x >= 0
        assert y >= 12
        assert x + wide <= width
        assert y + high + 12 <= height
        for left, top, other_wide, other_high in boxes[:number]:
            apart = x >= left + other_wide or left >= x + wide
            assert apart or y >= top + other_high or top >= y + high


def test_a_tile_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="tile_size must be 16k"):
        network_svg(Architecture(), 570)
