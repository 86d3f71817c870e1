"""Import of TensorFlow and Keras, with its checks, and the precision policy.

The package needs Keras 3 on TensorFlow. Modules that need them write
`from keras_unet.backend import keras, tf`; all others load without TensorFlow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from keras_unet.console import quiet_tensorflow

_OTHER_BACKENDS = ("jax", "torch", "openvino")


def _make_matplotlib_importable() -> None:
    """Selects the matplotlib backend Agg if MPLBACKEND names one that is not installed."""
    # Keras imports matplotlib, which then raises. The kernel of a notebook passes MPLBACKEND on to
    # the processes that it starts.
    named = os.environ.pop("MPLBACKEND", "")
    import matplotlib as mpl

    for name in (named, "Agg"):
        try:
            mpl.rcParams["backend"] = name
        except ValueError:
            continue
        os.environ["MPLBACKEND"] = name
        return


def _backend_error(name: str) -> ImportError:
    return ImportError(
        f"keras_unet needs Keras 3 on the TensorFlow backend. Received: backend={name!r}; unset "
        'KERAS_BACKEND or set KERAS_BACKEND=tensorflow, and check "backend" in '
        "~/.keras/keras.json"
    )


if os.environ.get("MPLBACKEND") and "matplotlib" not in sys.modules:
    _make_matplotlib_importable()
if os.environ.get("TF_USE_LEGACY_KERAS") and find_spec("tf_keras") is None:
    # TensorBoard's HParams plugin imports tf.keras, which would fail.
    os.environ["TF_USE_LEGACY_KERAS"] = "0"
# Checked here, as Keras raises another error if the other backend is not installed.
_named = os.environ.get("KERAS_BACKEND") or "tensorflow"
if _named != "tensorflow":
    raise _backend_error(_named)
try:
    with quiet_tensorflow():
        import keras
except ModuleNotFoundError as error:
    if error.name not in _OTHER_BACKENDS:
        raise
    raise _backend_error(error.name) from error
except (AssertionError, ValueError) as error:  # depends on the version of Keras
    raise ImportError(
        "Keras cannot use its settings file keras.json (~/.keras, or the folder KERAS_HOME). "
        "Received an invalid floatx, epsilon or image_data_format; correct the file or remove it"
    ) from error
if keras.backend.backend() != "tensorflow":
    raise _backend_error(keras.backend.backend())

# The package sets data types (--precision) and the order of axes itself: the values in keras.json
# would affect the optimizer and layers without explicit ones.
keras.config.set_floatx("float32")
keras.config.set_image_data_format("channels_last")

import tensorflow as tf  # noqa: E402 - after the check of the backend

# After the import, as TensorFlow logs more if Python is interactive, as in a notebook: paths of
# files, and warnings about functions that are traced again for images of another size.
tf.get_logger().setLevel("ERROR")

__all__ = ["keras", "tf"]


Precision = Literal["float32", "bfloat16", "float16"]

_POLICIES: dict[Precision, str] = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
_FAST_FLAGS = {"amx_bf16", "avx512_bf16"}
_AMPERE = (8, 0)
_PROCESSORS = Path("/proc/cpuinfo")


def choose_precision(name: str) -> Precision:
    """Resolves "auto" to the fastest precision of this machine, and validates other names.

    Args:
        name: "auto", "float32", "bfloat16" or "float16".

    Raises:
        ValueError: If the name is unknown, or "float16" without a GPU.
    """
    if name == "auto":
        return fast_precision()[0]
    if name not in get_args(Precision):
        raise ValueError(
            f'precision must be "auto", "float32", "bfloat16" or "float16". Received: {name!r}'
        )
    if name == "float16" and not tf.config.list_physical_devices("GPU"):
        raise ValueError(
            'precision="float16" needs a GPU, and TensorFlow finds none. '
            'Use "bfloat16" or "float32" on a CPU'
        )
    return name  # type: ignore[return-value]  # checked against the literal above


def uses_onednn() -> bool:
    """Returns whether TensorFlow computes convolutions by oneDNN, else by Eigen.

    By itself, TensorFlow does so on x86 processors with instructions for neural networks.
    """
    try:  # no public function tells
        from tensorflow.python.util import _pywrap_util_port as port
    except ImportError:
        return True
    return bool(port.IsMklEnabled())


def fast_precision() -> tuple[Precision, str]:
    """Returns the precision that "auto" resolves to on this machine, with the reason."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return _fast_on_gpu(details.get("compute_capability", (0, 0)))
    units = sorted(_FAST_FLAGS & _processor_flags())
    if units:
        return "bfloat16", f"the processor has instructions for it ({', '.join(units)})"
    return (
        "float32",
        f"the processor has no instructions for bfloat16 ({', '.join(sorted(_FAST_FLAGS))})",
    )


def _fast_on_gpu(capability: tuple[int, int]) -> tuple[Precision, str]:
    number, least = (".".join(map(str, version)) for version in (capability, _AMPERE))
    if capability >= _AMPERE:
        return "bfloat16", f"the GPU is fast with it (compute capability {number})"
    return "float32", f"the GPU's compute capability is {number}; bfloat16 is fast from {least} on"


def _processor_flags() -> set[str]:
    """Returns the processor flags on Linux, otherwise an empty set."""
    lines = _PROCESSORS.read_text().splitlines() if _PROCESSORS.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


@contextmanager
def precision_policy(precision: Precision) -> Iterator[None]:
    """Sets the precision of Keras layers that are built inside the `with` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
