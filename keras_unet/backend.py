"""TensorFlow and Keras, imported in one place and checked once.

The network, the loss, the pipeline and the training are graph code of TensorFlow; Keras 3 can run
on others. Modules that need it write `from keras_unet.backend import keras, tf`; all others import
without it.
"""

from __future__ import annotations

import os

_WAY_OUT = (
    "keras_unet needs Keras 3 on the TensorFlow backend. Received: backend={name!r}; unset "
    'KERAS_BACKEND or set KERAS_BACKEND=tensorflow, and look at "backend" in ~/.keras/keras.json'
)

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    raise ImportError(_WAY_OUT.format(name=os.environ["KERAS_BACKEND"]))

import keras  # noqa: E402 - Keras would fail with its own message on a backend that is not installed
import tensorflow as tf  # noqa: E402

if keras.backend.backend() != "tensorflow":
    raise ImportError(_WAY_OUT.format(name=keras.backend.backend()))

__all__ = ["keras", "tf"]
