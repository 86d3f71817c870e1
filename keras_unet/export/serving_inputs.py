"""Input checks and image decoding inside the graph of a served model.

A failed check ends the request with a message; the server continues. The graph takes tensors of
unknown shape: TensorFlow would drop a check of a known shape, and fail elsewhere.
"""

from __future__ import annotations

from typing import Any

from keras_unet.architecture import Architecture
from keras_unet.backend import tf
from keras_unet.prediction.scale import LARGEST, SMALLEST

MOST_PIXELS = 2**26
"""Largest number of pixels of a file, 8192 x 8192; a file of a few bytes can claim more."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_DCT_METHOD = "INTEGER_ACCURATE"
"""Arithmetic of JPEG of other readers; TensorFlow's default is less exact."""

_PNG_HEADER = 26
"""Bytes of a PNG up to width and height, bits per sample, and color type: 8, 1 and 1 bytes."""


def check_images(images: Any, channels: int) -> Any:
    """Checks a batch of images: `(batch, height, width, channels)`, finite.

    Args:
        images: float32 tensor of a request.
        channels: Number of channels that the network takes.

    Returns:
        The same images, of known rank and channels.
    """
    with _require(_image_rules("image", images, channels), tf.shape(images)):
        return _with_known_channels(images, channels)


def check_scales(scales: Any, images: Any) -> Any:
    """Checks the scales of a batch of images: one for all, or one for each, from 1/8 to 8.

    Args:
        scales: float32 tensor of a request.
        images: The images, checked.

    Returns:
        A scale for each image, `(batch,)`.
    """
    number, count = tf.size(scales), tf.shape(images)[0]
    rules = [
        (
            tf.equal(tf.rank(scales), 1) & (tf.equal(number, 1) | tf.equal(number, count)),
            "scale must be (1,) or (batch,)",
        ),
        (
            tf.reduce_all((scales >= SMALLEST) & (scales <= LARGEST)),
            f"scale must be from {SMALLEST:g} to {LARGEST:g}",
        ),
    ]
    with _require(rules, tf.strings.format("{}", scales)):
        return tf.broadcast_to(tf.reshape(scales, (-1,)), count[None])


def check_tiles(tiles: Any, network: Architecture) -> Any:
    """Checks a batch of tiles, also that the network accepts their size.

    Args:
        tiles: float32 tensor of a request.
        network: Architecture of the network.

    Returns:
        The same tiles, `(batch, height, width, channels)`.
    """
    surplus = _four_sizes(tiles)[1:3] - network.minimum_size
    fits = tf.reduce_all((surplus >= 0) & (surplus % network.step == 0))
    rule = (
        f"tile must have a height and width of {network.minimum_size} pixels plus a multiple of "
        f"{network.step}"
    )
    with _require([*_image_rules("tile", tiles, network.channels), (fits, rule)], tf.shape(tiles)):
        return _with_known_channels(tiles, network.channels)


def check_files(files: Any) -> Any:
    """Checks a list of image files, `(batch,)`, at least one."""
    fits = tf.equal(tf.rank(files), 1) & (tf.size(files) > 0)
    with _require([(fits, "image_bytes must be (batch,), at least one file")], tf.shape(files)):
        return tf.reshape(files, (-1,))


def decode_image(file: Any, channels: int) -> Any:
    """Decodes a PNG or JPEG file to the grey values it stores.

    As in a prediction from files, nothing is scaled, an alpha channel is dropped, and three equal
    channels count as one if the network takes one. Palettes are decoded to colors, samples of 1 bit
    to 0 and 1. Width and height are read from the header first, to refuse files of more than
    `MOST_PIXELS`.

    Args:
        file: Scalar string tensor.
        channels: Number of channels that the network takes.

    Returns:
        float32 tensor `(height, width, channels)`.
    """
    header = tf.strings.substr(tf.strings.join([file, bytes(_PNG_HEADER)]), 0, _PNG_HEADER)
    is_png = tf.equal(tf.strings.substr(header, 0, len(_PNG)), _PNG)
    is_jpeg = tf.equal(tf.strings.substr(header, 0, len(_JPEG)), _JPEG)
    rule = "image_bytes must hold PNG or JPEG files only"
    received = tf.strings.format("another file of {} bytes", tf.strings.length(file))
    with _require([(is_png | is_jpeg, rule)], received):
        file = tf.identity(file)
    size = tf.cond(is_png, lambda: _png_size(header), lambda: _jpeg_size(file))
    limit = f"at most {MOST_PIXELS} pixels; send larger ones as pixels, to serving_default"
    rules = [
        (tf.reduce_all(size > 0), "image_bytes must hold images of at least one pixel"),
        (tf.reduce_prod(size) <= MOST_PIXELS, f"image_bytes must hold images of {limit}"),
    ]
    with _require(rules, tf.strings.format("{} pixels", size)):
        file = tf.identity(file)
    return _with_channels(_decode(file, is_jpeg, header), channels)


def _png_size(header: Any) -> Any:
    width_and_height = tf.strings.substr(header, 16, 8)
    size = tf.io.decode_raw(width_and_height, tf.int32, little_endian=False)
    return tf.cast(tf.reverse(size, [0]), tf.int64)


def _jpeg_size(file: Any) -> Any:
    return tf.image.extract_jpeg_shape(file, tf.int64)[:2]


def _decode(file: Any, is_jpeg: Any, header: Any) -> Any:
    """Decodes the values as stored; TensorFlow would scale a PNG of 8 bits decoded as 16."""
    bits, color_type = tf.unstack(tf.io.decode_raw(header, tf.uint8)[-2:], num=2)
    is_mask = tf.equal(bits, 1) & tf.equal(color_type, 0)
    white = tf.where(is_mask, 255.0, 1.0)
    return tf.case(
        [
            (is_jpeg, lambda: _as_float(tf.io.decode_jpeg(file, dct_method=_DCT_METHOD))),
            (tf.equal(bits, 16), lambda: _as_float(tf.io.decode_png(file, dtype=tf.uint16))),
        ],
        default=lambda: _as_float(tf.io.decode_png(file)) / white,
    )


def _as_float(pixels: Any) -> Any:
    return tf.cast(pixels, tf.float32)


def _with_channels(pixels: Any, channels: int) -> Any:
    received = tf.shape(pixels)[2]
    colors = received - tf.cast(tf.equal(received, 2) | tf.equal(received, 4), tf.int32)
    opaque = pixels[..., :colors]
    fits = tf.equal(colors, channels)
    if channels == 1:
        fits |= tf.reduce_all(tf.equal(opaque, opaque[..., :1]))
    alternative = " or 3 equal ones" if channels == 1 else ""
    rule = f"image_bytes must hold files of channels={channels}{alternative}, without alpha"
    with _require([(fits, rule)], tf.shape(pixels)):
        return tf.ensure_shape(opaque[..., :channels], (None, None, channels))


def _image_rules(name: str, batch: Any, channels: int) -> list[tuple[Any, str]]:
    """Returns conditions, and the messages of those that fail."""
    sizes = _four_sizes(batch)
    return [
        (
            tf.equal(tf.rank(batch), 4),
            f"{name} must be (batch, height, width, channels), of four dimensions",
        ),
        (
            tf.reduce_all(sizes[:3] > 0),
            f"{name} must have a batch of at least one, of at least one pixel",
        ),
        (tf.equal(sizes[3], channels), f"{name} must have channels={channels}, as in training"),
        (
            tf.reduce_all(tf.math.is_finite(tf.reshape(batch, [-1]))),
            f"{name} must hold finite numbers, no NaN and no infinity",
        ),
    ]


def _with_known_channels(batch: Any, channels: int) -> Any:
    # By a reshape: TensorFlow would assume the shape of `tf.ensure_shape` before the checks.
    sizes = _four_sizes(batch)
    return tf.reshape(batch, tf.stack([sizes[0], sizes[1], sizes[2], channels]))


def _four_sizes(batch: Any) -> Any:
    """Returns the first four sizes, 0 if missing, since all checks run whatever the rank is."""
    return tf.concat([tf.shape(batch), tf.zeros(4, tf.int32)], 0)[:4]


def _require(rules: list[tuple[Any, str]], received: Any) -> Any:
    """Returns a context whose operations wait for conditions; the first failed one is reported."""
    message = tf.constant("")
    for condition, rule in reversed(rules):
        message = tf.where(condition, message, f"{rule}. Received:")
    holds = tf.reduce_all(tf.stack([condition for condition, _ in rules]))
    return tf.control_dependencies([tf.debugging.Assert(holds, [message, received], summarize=8)])
