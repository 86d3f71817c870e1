"""TensorFlow and Keras, imported in one place and checked once.

The network, the loss, the pipeline and the training are graph code of TensorFlow; Keras 3 can run
on others. Modules that need it write `from keras_unet.backend import keras, tf`; all others import
without it.
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
    """Resolves "auto" to the precision that is fast here, and checks any other name.

    Args:
        name: "auto", "float32", "bfloat16" or "float16".

    Raises:
        ValueError: If the name is unknown, or if float16 is asked for without a GPU.
    """
    if name == "auto":
        return fast_precision()[0]
    if name not in get_args(Precision):
        raise ValueError(
            f'precision must be "auto", "float32", "bfloat16" or "float16". Received: {name!r}'
        )
    if name == "float16" and not tf.config.list_physical_devices("GPU"):
        raise ValueError(
            'precision="float16" needs a GPU, and TensorFlow sees none. '
            'Take "bfloat16" or "float32" on a CPU'
        )
    return name  # type: ignore[return-value]  # checked against the literal above


def fast_precision() -> tuple[Precision, str]:
    """Finds the precision that is fast here, which "auto" stands for, and says why."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return _fast_on_gpu(details.get("compute_capability", (0, 0)))
    units = sorted(_FAST_FLAGS & _processor_flags())
    if units:
        return "bfloat16", f"the processor multiplies it in units of its own ({', '.join(units)})"
    return "float32", f"the processor has no unit for bfloat16 ({', '.join(sorted(_FAST_FLAGS))})"


def _fast_on_gpu(capability: tuple[int, int]) -> tuple[Precision, str]:
    number, least = (".".join(map(str, one)) for one in (capability, _AMPERE))
    if capability >= _AMPERE:
        return "bfloat16", f"the GPU multiplies it fast (compute capability {number})"
    return "float32", f"the GPU's compute capability is {number}; bfloat16 is fast from {least} on"


def _processor_flags() -> set[str]:
    """Reads the processor's flags where the system lists them (Linux), else none."""
    lines = _PROCESSORS.read_text().splitlines() if _PROCESSORS.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


@contextmanager
def precision_policy(precision: Precision) -> Iterator[None]:
    """Builds the Keras layers made inside the `with` block in this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
