"""TensorFlow and Keras, imported in one place and checked once.

The network, the loss, the pipeline and the training are graph code of TensorFlow; Keras 3 can run
on others. Modules that need it write `from keras_unet.backend import keras, tf`; all others import
without it.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from keras_unet.console import quiet_tensorflow

_OTHERS = ("jax", "torch", "openvino")


def _make_matplotlib_importable() -> None:
    """Has matplotlib draw with Agg where MPLBACKEND names what is not installed here.

    Keras imports matplotlib, which refuses such a name. A notebook's kernel hands its own on to the
    processes that it starts. Setting it afterwards is what matplotlib does itself.
    """
    named = os.environ.pop("MPLBACKEND", "")
    import matplotlib as mpl

    for name in (named, "Agg"):
        try:
            mpl.rcParams["backend"] = name
        except ValueError:
            continue
        os.environ["MPLBACKEND"] = name
        return


def _refusal(name: str) -> ImportError:
    return ImportError(
        f"keras_unet needs Keras 3 on the TensorFlow backend. Received: backend={name!r}; unset "
        'KERAS_BACKEND or set KERAS_BACKEND=tensorflow, and look at "backend" in '
        "~/.keras/keras.json"
    )


if os.environ.get("MPLBACKEND") and "matplotlib" not in sys.modules:
    _make_matplotlib_importable()
if os.environ.get("TF_USE_LEGACY_KERAS") and find_spec("tf_keras") is None:
    # TensorBoard's part for HParams asks for tf.keras, which could not be imported.
    os.environ["TF_USE_LEGACY_KERAS"] = "0"
# Keras would fail with a message of its own where the other backend is not installed.
_named = os.environ.get("KERAS_BACKEND") or "tensorflow"
if _named != "tensorflow":
    raise _refusal(_named)
try:
    with quiet_tensorflow():
        import keras
except ModuleNotFoundError as error:
    if error.name not in _OTHERS:
        raise
    raise _refusal(error.name) from error
except (AssertionError, ValueError) as error:  # by the version of Keras
    raise ImportError(
        "Keras takes the settings in its file keras.json (~/.keras, or the folder KERAS_HOME) only "
        "if they are its own. Received a floatx, epsilon or image_data_format that is none; "
        "correct the file or remove it"
    ) from error
if keras.backend.backend() != "tensorflow":
    raise _refusal(keras.backend.backend())

# The types and the order of axes are this package's own (--precision): what keras.json says for
# other projects would reach the optimizer and the layers that state none.
keras.config.set_floatx("float32")
keras.config.set_image_data_format("channels_last")

import tensorflow as tf  # noqa: E402 - after Keras has been found to run on it

# After the import, for TensorFlow logs more where Python is interactive, as in a notebook: where
# files were written, and advice on functions that are traced anew for images of another size.
tf.get_logger().setLevel("ERROR")

__all__ = ["keras", "tf"]
