"""The networks of an ensemble as one, whose softmax is the mean of theirs.

An ensemble predicts the mean of its networks' probabilities. Whatever runs an exported network
takes the softmax of its logits; here these are the logarithms of that mean, which is what comes
back. So an ensemble is exported wherever a network is, and costs what its networks cost together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import keras
from keras_unet.data.standardisation import Standardisation
from keras_unet.precision import precision_policy

layers, ops = keras.layers, keras.ops

SMALLEST = 2.0**-24
"""What smaller probabilities are taken for, so that every logarithm is finite.

Beside a probability of 1 they are nothing in float32. In int8, whose steps are even, logarithms
that went further down would leave few steps for the probabilities that matter.
"""


def joined(networks: Sequence[Any], rules: Sequence[Standardisation]) -> Any:
    """Joins networks that predict together.

    Mean, logarithm and what makes up for different standardisations are float32 in every precision.
    All is of stock Keras operations.

    Args:
        networks: Keras networks of one architecture, at least one.
        rules: How grey values are standardised for each, in one mode.

    Returns:
        A `keras.Model` from what the first rule makes of grey values to logits, float32; of one
        network, that network.
    """
    if len(networks) == 1:
        return networks[0]
    with precision_policy("float32"):
        tile = keras.Input(networks[0].input_shape[1:], name="image")
        each = [
            _probabilities(network, _restandardised(tile, rules[0], rule), number)
            for number, (network, rule) in enumerate(zip(networks, rules, strict=True), 1)
        ]
        mean = layers.Average(name="mean")(each)
        return keras.Model(tile, ops.log(ops.maximum(mean, SMALLEST)), name="ensemble")


def _probabilities(network: Any, tile: Any, number: int) -> Any:
    named = keras.Model(network.input, network.output, name=f"network{number}")
    return layers.Softmax(name=f"probabilities{number}")(named(tile))


def _restandardised(tile: Any, given: Standardisation, wanted: Standardisation) -> Any:
    """Turns grey values standardised by one rule into what another makes of them."""
    if given == wanted:
        return tile
    scale = _divisor(given) / _divisor(wanted)
    offset = (np.array(given.mean) - np.array(wanted.mean)) / _divisor(wanted)
    return layers.Rescaling(scale.tolist(), offset.tolist())(tile)


def _divisor(rule: Standardisation) -> NDArray[np.float64]:
    std = np.array(rule.std)
    return np.where(std > 0, std, 1.0)
