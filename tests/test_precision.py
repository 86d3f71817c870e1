"""The choice of the precision, on processors and GPUs that this machine need not have."""

from __future__ import annotations

import pytest

from keras_unet import backend
from keras_unet.backend import choose_precision, fast_precision, keras, precision_policy, tf


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Returns a function that lends the machine a processor with the given flags and no GPU."""
    listing = tmp_path / "cpuinfo"
    monkeypatch.setattr(backend, "_PROCESSORS", listing)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])

    def lend(*flags):
        one = f"model name\t: Any amx_bf16 look-alike\nflags\t\t: fpu {' '.join(flags)} sse2\n"
        listing.write_text(f"{one}\n{one}")

    return lend


@pytest.fixture
def gpu(monkeypatch):
    """Returns a function that lends the machine a GPU of the given compute capability."""

    def lend(details):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0"])
        monkeypatch.setattr(
            tf.config.experimental, "get_device_details", lambda device: {"GPU:0": details}[device]
        )

    return lend


@pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16"])
def test_auto_takes_bfloat16_where_the_processor_multiplies_it(processor, flag):
    processor(flag)
    assert choose_precision("auto") == "bfloat16"


@pytest.mark.parametrize("flags", [(), ("avx512f", "avx512_bf16x", "amx_int8")])
def test_auto_takes_float32_on_other_processors(processor, flags):
    processor(*flags)
    assert choose_precision("auto") == "float32"


@pytest.mark.usefixtures("processor")
def test_auto_takes_float32_where_no_flags_are_listed():
    assert choose_precision("auto") == "float32"


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"compute_capability": (7, 5)}, "float32"),
        ({"compute_capability": (8, 0)}, "bfloat16"),
        ({"compute_capability": (12, 1)}, "bfloat16"),
        ({}, "float32"),
    ],
)
def test_auto_asks_the_gpu_where_there_is_one(processor, gpu, details, expected):
    processor("amx_bf16")
    gpu(details)
    assert choose_precision("auto") == expected


def test_the_choice_is_given_with_its_reason(processor, gpu):
    processor("amx_bf16", "sse4")
    assert fast_precision() == (
        "bfloat16",
        "the processor has instructions for it (amx_bf16)",
    )
    processor()
    assert fast_precision()[1].startswith(
        "the processor has no instructions for bfloat16 (amx_bf16, "
    )
    gpu({"compute_capability": (8, 6)})
    assert fast_precision()[1] == "the GPU is fast with it (compute capability 8.6)"
    gpu({"compute_capability": (7, 5)})
    assert fast_precision() == (
        "float32",
        "the GPU's compute capability is 7.5; bfloat16 is fast from 8.0 on",
    )


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_precision_that_is_named_is_taken_anywhere(processor, name):
    processor()
    assert choose_precision(name) == name


def test_float16_is_for_gpus(processor, gpu):
    processor("amx_bf16")
    with pytest.raises(ValueError, match="float16") as refusal:
        choose_precision("float16")
    assert str(refusal.value) == (
        'precision="float16" needs a GPU, and TensorFlow finds none. '
        'Use "bfloat16" or "float32" on a CPU'
    )
    gpu({"compute_capability": (7, 0)})
    assert choose_precision("float16") == "float16"


@pytest.mark.parametrize("name", ["float64", "mixed_bfloat16", "Auto", ""])
def test_an_unknown_precision_is_refused(name):
    with pytest.raises(ValueError, match="precision") as refusal:
        choose_precision(name)
    assert str(refusal.value) == (
        f'precision must be "auto", "float32", "bfloat16" or "float16". Received: {name!r}'
    )


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_the_policy_multiplies_in_the_precision_and_keeps_float32_weights(name):
    with precision_policy(name):
        layer = keras.layers.Dense(1)
    assert (layer.compute_dtype, layer.variable_dtype) == (name, "float32")
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_the_policy_before_comes_back_even_after_an_error():
    with precision_policy("bfloat16"):
        with pytest.raises(ZeroDivisionError), precision_policy("float16"):
            _ = 1 / 0
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
