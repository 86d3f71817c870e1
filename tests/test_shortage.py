import subprocess
import sys

import pytest

from keras_unet.shortage import is_memory_shortage


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("ResourceExhaustedError", "OOM when allocating tensor", True),
        ("AbortedError", "Status: 1, message: could not create a primitive", True),
        ("AbortedError", "Status: 2, message: could not create a primitive", False),
        ("InvalidArgumentError", "OOM", False),
    ],
)
def test_shortages_in_tensorflow_are_told_from_other_errors(kind, text, expected):
    from keras_unet.backend import tf

    assert is_memory_shortage(getattr(tf.errors, kind)(None, None, text)) is expected


def test_tensorflow_is_not_imported_to_look():
    program = (
        "import sys; from keras_unet.shortage import is_memory_shortage as found\n"
        "print(found(MemoryError()), found(ValueError()), 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "False", "False"]
