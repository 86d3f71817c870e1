"""TensorFlow and Keras, imported in one place and checked once.

The network, the loss, the pipeline and the training are graph code of TensorFlow; Keras 3 can run
on others. Modules that need it write `from keras_unet.backend import keras, tf`; all others import
without it.
"""

from __future__ import annotations

import os

_OTHERS = ("jax", "torch", "openvino")


def _refusal(name: str) -> ImportError:
    return ImportError(
        f"keras_unet needs Keras 3 on the TensorFlow backend. Received: backend={name!r}; unset "
        'KERAS_BACKEND or set KERAS_BACKEND=tensorflow, and look at "backend" in '
        "~/.keras/keras.json"
    )


# Keras would fail with a message of its own where the other backend is not installed.
_named = os.environ.get("KERAS_BACKEND") or "tensorflow"
if _named != "tensorflow":
    raise _refusal(_named)
try:
    import keras
except ModuleNotFoundError as error:
    if error.name not in _OTHERS:
        raise
    raise _refusal(error.name) from error
if keras.backend.backend() != "tensorflow":
    raise _refusal(keras.backend.backend())

import tensorflow as tf  # noqa: E402 - after Keras has been found to run on it

__all__ = ["keras", "tf"]
