"""Precision of multiplications: bfloat16 where the processor does it fast, float32 elsewhere.

bfloat16 has float32's range and needs no loss scaling. It pays on matrix units (Intel AMX, NVIDIA
Ampere and later) and on AVX512-BF16; elsewhere it is emulated and slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from keras_unet.backend import keras, tf

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
