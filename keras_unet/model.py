"""U-Net of figure 1 of the paper, built of Keras' own layers.

A saved model therefore loads without this package. Layers are named by level (`level0` is the top)
and path (`down`, `up`). Where figure 1 and the network released by its authors differ, the model
follows figure 1: no ReLU after an up-convolution; the skip connection is taken before dropout and
comes first in the concatenation.
"""

from __future__ import annotations

from dataclasses import fields
from math import gcd, sqrt
from typing import Any

from keras_unet import shipped
from keras_unet.architecture import OFFSETS, Architecture, NormLayer, Padding
from keras_unet.backend import keras

layers = keras.layers

_FORMAT = "channels_last"  # explicit, so that ~/.keras/keras.json has no effect

_GROUPS = 32  # of group normalization, as in Wu and He (2018); fewer for fewer features


def build_unet(
    input_shape: tuple[int | None, int | None, int] = (572, 572, 1),
    classes: int = 2,
    *,
    depth: int = 4,
    base_filters: int = 64,
    dropout: float = 0.5,
    padding: Padding = "valid",
    norm_layer: NormLayer | None = None,
    affinities: bool = False,
    weights: str | None = None,
) -> keras.Model:
    """Builds the U-Net of Ronneberger, Fischer and Brox (2015), figure 1.

    The defaults are the figure exactly: 572 x 572 pixels in, 388 x 388 out, 31,030,658 parameters.
    Weights are drawn from a Gaussian of standard deviation sqrt(2 / N), where N is the number of
    incoming nodes of one neuron (section 3); `keras.utils.set_random_seed` makes them reproducible.

    Args:
        input_shape: `(height, width, channels)` of the input. Height and width may be None, to
            accept any size that fits.
        classes: Number of classes, background included.
        depth: Number of poolings.
        base_filters: Features of the first level, doubled by each pooling.
        dropout: Rate of the two dropouts at the end of the contracting path.
        padding: "valid" as in the paper, or "same": output as large as the input.
        norm_layer: None as in the paper, or "batch" or "group" normalization between convolution
            and ReLU. With "group", scores depend on the tile.
        affinities: Whether 12 further outputs tell, for two pixels at a distance, whether they
            belong to the same object, see `keras_unet.losses.AffinityCrossEntropy`.
        weights: Name of a model of the package, such as "nuclei" (`keras-unet models` lists them),
            whose weights are loaded. The network is the model's: the arguments above, except height
            and width, must be left out or agree with it. None for random weights.

    Returns:
        A functional `keras.Model` from `(batch, height, width, channels)` to logits of shape
        `(batch, height - 2 * margin, width - 2 * margin, classes)`, float32 in every precision
        policy. The margin is 92 pixels at depth 4 with "valid" padding, and 0 with "same". Logits
        of the affinities follow those of the classes.

    Raises:
        ValueError: If a number is out of range, or contradicts `weights`; or if a size does not
            fit; the message names the nearest sizes that fit.

    Example:
        model = build_unet((None, None, 1), weights="nuclei")
    """
    if not isinstance(input_shape, tuple | list) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(
            "input_shape must be (height, width, channels) with channels given. "
            f"Received: input_shape={input_shape}"
        )
    network = Architecture(
        channels=input_shape[2],
        classes=classes,
        depth=depth,
        base_filters=base_filters,
        dropout=dropout,
        padding=padding,
        norm_layer=norm_layer,
        affinities=affinities,
    )
    if weights is not None:
        network = _network_of(weights, network)
    for size in input_shape[:2]:
        if size is not None:
            network.check_size(size, "input_shape")
    model = unet_of(network, input_shape[:2])
    if weights is not None:
        model.load_weights(shipped.find(weights) / shipped.WEIGHTS)
    return model


def _network_of(weights: str, given: Architecture) -> Architecture:
    """Returns the architecture of a model of the package; raises if arguments contradict it."""
    network = Architecture.from_dict(shipped.record(weights)["architecture"])
    wrong = [
        field.name
        for field in fields(Architecture)
        if getattr(given, field.name) not in (field.default, getattr(network, field.name))
        or (field.name == "channels" and given.channels != network.channels)
    ]
    if wrong:
        expected = ", ".join(f"{name}={getattr(network, name)!r}" for name in wrong)
        received = ", ".join(f"{name}={getattr(given, name)!r}" for name in wrong)
        raise ValueError(
            f'weights="{weights}" needs {expected}. Received: {received}; leave them out'
        )
    return network


def unet_of(network: Architecture, input_size: tuple[int | None, int | None] = (None, None)) -> Any:
    """Builds the Keras model of an architecture; by default for inputs of any size that fits."""
    image = keras.Input((*input_size, network.channels), name="image")
    features, skips = _contract(image, network)
    features = _convolve_twice(features, network, network.depth, "bottom")
    features = _drop(features, network, "bottom")
    features = _expand(features, skips, network)
    outputs = _score(features, network.classes, "logits")
    if network.affinities:
        affinities = _score(features, len(OFFSETS), "affinities")
        outputs = layers.Concatenate(dtype="float32", name="outputs")([outputs, affinities])
    return keras.Model(image, outputs, name="unet")


def _score(features: Any, channels: int, name: str) -> Any:
    """Maps the features of each pixel to scores, in float32."""
    return layers.Conv2D(
        channels,
        1,
        kernel_initializer=_initializer(features),
        data_format=_FORMAT,
        dtype="float32",
        name=name,
    )(features)


def _contract(features: Any, network: Architecture) -> tuple[Any, list[Any]]:
    skips = []
    for level in range(network.depth):
        features = _convolve_twice(features, network, level, f"level{level}_down")
        skips.append(features)
        if level == network.depth - 1:
            features = _drop(features, network, f"level{level}")
        features = layers.MaxPooling2D(2, data_format=_FORMAT, name=f"level{level}_pool")(features)
    return features, skips


def _expand(features: Any, skips: list[Any], network: Architecture) -> Any:
    for level in reversed(range(network.depth)):
        up = layers.Conv2DTranspose(
            network.filters(level),
            2,
            strides=2,
            data_format=_FORMAT,
            kernel_initializer=_initializer(features),
            name=f"level{level}_up",
        )(features)
        skip = _crop(skips[level], network, level)
        features = layers.Concatenate(name=f"level{level}_concatenate")([skip, up])
        features = _convolve_twice(features, network, level, f"level{level}_up")
    return features


def _crop(skip: Any, network: Architecture, level: int) -> Any:
    pixels = network.crop(level)
    if not pixels:
        return skip
    return layers.Cropping2D(pixels, data_format=_FORMAT, name=f"level{level}_crop")(skip)


def _convolve_twice(features: Any, network: Architecture, level: int, name: str) -> Any:
    for number in (1, 2):
        features = layers.Conv2D(
            network.filters(level),
            3,
            padding=network.padding,
            data_format=_FORMAT,
            activation=None if network.norm_layer else "relu",
            kernel_initializer=_initializer(features, window=9),
            name=f"{name}_conv{number}",
        )(features)
        if network.norm_layer:
            features = _norm(features, network, f"{name}_norm{number}")
            features = layers.ReLU(name=f"{name}_relu{number}")(features)
    return features


def _norm(features: Any, network: Architecture, name: str) -> Any:
    if network.norm_layer == "batch":
        return layers.BatchNormalization(name=name)(features)
    groups = gcd(_GROUPS, features.shape[-1])
    return layers.GroupNormalization(groups, name=name)(features)


def _drop(features: Any, network: Architecture, name: str) -> Any:
    if not network.dropout:
        return features
    return layers.Dropout(network.dropout, name=f"{name}_dropout")(features)


def _initializer(features: Any, window: int = 1) -> Any:
    """Returns the paper's Gaussian; a neuron of an up-convolution has one incoming pixel."""
    incoming = window * features.shape[-1]
    return keras.initializers.RandomNormal(stddev=sqrt(2 / incoming))
