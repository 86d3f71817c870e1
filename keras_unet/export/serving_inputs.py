"""Checks of requests, and decoding of image files, inside the graph.

A check that fails ends the request with a message that names the rule; the server goes on. The
graph must take tensors of no known shape for this: of what is known when it is built, or optimised,
TensorFlow removes the check and fails somewhere inside.
"""

from __future__ import annotations

from typing import Any

from keras_unet.architecture import Architecture
from keras_unet.backend import tf

MOST_PIXELS = 2**26
"""Pixels that a file may decode to: those of 8192 x 8192. A file of a few bytes can state more."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_AS_OTHERS = "INTEGER_ACCURATE"
"""Arithmetic of JPEG that other readers take, TensorFlow's own being a rougher one."""

_PNG_HEADER = 26
"""Bytes of a PNG up to width and height, bits a sample, and kind of colour: 8, 1 and 1 bytes."""


def checked_images(images: Any, channels: int) -> Any:
    """Refuses what is no batch of images: `(batch, height, width, channels)`, finite.

    Args:
        images: float32 tensor of whatever a client has sent.
        channels: Channels that the network takes.

    Returns:
        The same images, of known rank and channels.
    """
    with _required(_image_rules("image", images, channels), tf.shape(images)):
        return _of_known_channels(images, channels)


def checked_tiles(tiles: Any, network: Architecture) -> Any:
    """Refuses tiles that the network does not take.

    Args:
        tiles: float32 tensor of whatever a client has sent.
        network: The network.

    Returns:
        The same tiles, `(batch, height, width, channels)`.
    """
    beyond = _four_sizes(tiles)[1:3] - network.minimum_size
    fits = tf.reduce_all((beyond >= 0) & (beyond % network.step == 0))
    rule = (
        f"tile must have a height and width of {network.minimum_size} pixels and any multiple of "
        f"{network.step} more"
    )
    with _required([*_image_rules("tile", tiles, network.channels), (fits, rule)], tf.shape(tiles)):
        return _of_known_channels(tiles, network.channels)


def checked_files(files: Any) -> Any:
    """Refuses what is no list of image files, `(batch,)`, and an empty one."""
    fits = tf.equal(tf.rank(files), 1) & (tf.size(files) > 0)
    with _required([(fits, "image_bytes must be (batch,), at least one file")], tf.shape(files)):
        return tf.reshape(files, (-1,))


def decoded(file: Any, channels: int) -> Any:
    """Decodes a PNG or JPEG file into the grey values it stores.

    As in a prediction from files, nothing is scaled, an alpha channel is dropped, and three equal
    channels are taken for one where the network takes one.

    A palette stands for its colours, and samples of 1 bit are 0 and 1. Width and height are read
    from the header first, so that no file takes more memory than an image of MOST_PIXELS.

    Args:
        file: Scalar string tensor.
        channels: Channels that the network takes.

    Returns:
        float32 tensor `(height, width, channels)`.
    """
    header = tf.strings.substr(tf.strings.join([file, bytes(_PNG_HEADER)]), 0, _PNG_HEADER)
    is_png = tf.equal(tf.strings.substr(header, 0, len(_PNG)), _PNG)
    is_jpeg = tf.equal(tf.strings.substr(header, 0, len(_JPEG)), _JPEG)
    rule = "image_bytes must hold PNG or JPEG files, neither of which one is"
    received = tf.strings.format("a file of {} bytes", tf.strings.length(file))
    with _required([(is_png | is_jpeg, rule)], received):
        file = tf.identity(file)
    size = tf.cond(is_png, lambda: _png_size(header), lambda: _jpeg_size(file))
    most = f"at most {MOST_PIXELS} pixels; send larger ones as pixels, to serving_default"
    rules = [
        (tf.reduce_all(size > 0), "image_bytes must hold images of at least one pixel"),
        (tf.reduce_prod(size) <= MOST_PIXELS, f"image_bytes must hold images of {most}"),
    ]
    with _required(rules, tf.strings.format("{} pixels", size)):
        file = tf.identity(file)
    return _with_channels(_pixels(file, is_jpeg, header), channels)


def _png_size(header: Any) -> Any:
    width_and_height = tf.strings.substr(header, 16, 8)
    stated = tf.io.decode_raw(width_and_height, tf.int32, little_endian=False)
    return tf.cast(tf.reverse(stated, [0]), tf.int64)


def _jpeg_size(file: Any) -> Any:
    return tf.image.extract_jpeg_shape(file, tf.int64)[:2]


def _pixels(file: Any, is_jpeg: Any, header: Any) -> Any:
    """Grey values as stored; a PNG of 8 bits that is decoded to 16 would be scaled."""
    bits, colours = tf.unstack(tf.io.decode_raw(header, tf.uint8)[-2:], num=2)
    is_mask = tf.equal(bits, 1) & tf.equal(colours, 0)
    white = tf.where(is_mask, 255.0, 1.0)
    return tf.case(
        [
            (is_jpeg, lambda: _grey_values(tf.io.decode_jpeg(file, dct_method=_AS_OTHERS))),
            (tf.equal(bits, 16), lambda: _grey_values(tf.io.decode_png(file, dtype=tf.uint16))),
        ],
        default=lambda: _grey_values(tf.io.decode_png(file)) / white,
    )


def _grey_values(pixels: Any) -> Any:
    return tf.cast(pixels, tf.float32)


def _with_channels(pixels: Any, channels: int) -> Any:
    received = tf.shape(pixels)[2]
    colours = received - tf.cast(tf.equal(received, 2) | tf.equal(received, 4), tf.int32)
    opaque = pixels[..., :colours]
    fits = tf.equal(colours, channels)
    if channels == 1:
        fits |= tf.reduce_all(tf.equal(opaque, opaque[..., :1]))
    equal_ones = " or 3 equal ones" if channels == 1 else ""
    rule = f"image_bytes must hold files of channels={channels}{equal_ones}, alpha apart"
    with _required([(fits, rule)], tf.shape(pixels)):
        return tf.ensure_shape(opaque[..., :channels], (None, None, channels))


def _image_rules(name: str, sent: Any, channels: int) -> list[tuple[Any, str]]:
    sizes = _four_sizes(sent)
    return [
        (
            tf.equal(tf.rank(sent), 4),
            f"{name} must be (batch, height, width, channels), of four dimensions",
        ),
        (
            tf.reduce_all(sizes[:3] > 0),
            f"{name} must have a batch of at least one, of at least one pixel",
        ),
        (tf.equal(sizes[3], channels), f"{name} must have channels={channels}, as in training"),
        (
            tf.reduce_all(tf.math.is_finite(tf.reshape(sent, [-1]))),
            f"{name} must hold finite numbers, no NaN and no infinity",
        ),
    ]


def _of_known_channels(sent: Any, channels: int) -> Any:
    """States the shape by a reshape: `tf.ensure_shape` would be taken to hold before the checks."""
    sizes = _four_sizes(sent)
    return tf.reshape(sent, tf.stack([sizes[0], sizes[1], sizes[2], channels]))


def _four_sizes(sent: Any) -> Any:
    """The shape, filled up by zeros: the checks are made side by side, whatever was sent."""
    return tf.concat([tf.shape(sent), tf.zeros(4, tf.int32)], 0)[:4]


def _required(rules: list[tuple[Any, str]], received: Any) -> Any:
    """Lets what stands in the `with` block wait for conditions; the first that fails is named."""
    broken = tf.constant("")
    for condition, rule in reversed(rules):
        broken = tf.where(condition, broken, f"{rule}. Received:")
    kept = tf.reduce_all(tf.stack([condition for condition, _ in rules]))
    return tf.control_dependencies([tf.debugging.Assert(kept, [broken, received], summarize=8)])
