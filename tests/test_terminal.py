import subprocess
import sys

import click
import pytest

from keras_unet.terminal import one_line_errors


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a\n  b"),
        OSError("a b"),
        FileNotFoundError("a b"),
        ImportError("a b"),
        click.ClickException("a b"),
    ],
)
def test_errors_end_in_one_line_and_code_2(error):
    with pytest.raises(click.ClickException) as caught, one_line_errors():
        raise error
    assert caught.value.format_message() == "a b"
    assert isinstance(error, click.ClickException) or caught.value.exit_code == 2


IN_TENSORFLOW = """Graph execution error:

Detected at node unet/level0_conv1/convolution defined at (most recent call last):
  File "/home/zoom/oom.py", line 4, in <module>

{}
\t [[{{{{node unet/level0_conv1/convolution}}}}]]
Hint: If you want to see a list of allocated tensors when OOM happens, add ... [Op:__inference_7]"""
TENSOR = "OOM when allocating tensor with shape[1,64,568,568] and type float"
DEVICE = "/job:localhost/replica:0/task:0/device:GPU:0"


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        (None, "Unable to allocate 9 TiB for an array", " (Unable to allocate 9 TiB for an array)"),
        (None, "", ""),
        (
            "ResourceExhaustedError",
            f"{{{{function_node __wrapped__Fill_{DEVICE}}}}} {TENSOR} on {DEVICE} [Op:Fill] name: ",
            f" ({TENSOR})",
        ),
        (
            "ResourceExhaustedError",
            IN_TENSORFLOW.format(f"{TENSOR} on {DEVICE} by allocator GPU_0_bfc"),
            f" ({TENSOR})",
        ),
        (
            "ResourceExhaustedError",
            IN_TENSORFLOW.format("Out of memory while trying to allocate 77 bytes."),
            " (Out of memory while trying to allocate 77 bytes.)",
        ),
        (
            "AbortedError",
            IN_TENSORFLOW.format(
                "Operation received an exception:Status: 1, message: could not create a primitive, "
                "in file tensorflow/core/kernels/mkl/mkl_conv_grad_input_ops.cc:546"
            ),
            " (could not create a primitive)",
        ),
    ],
    ids=["array", "unsaid", "eager", "graph", "XLA", "oneDNN"],
)
def test_memory_that_runs_out_names_a_way_out(kind, text, found):
    if kind is None:
        error = MemoryError(text)
    else:
        from keras_unet.backend import tf

        error = getattr(tf.errors, kind)(None, None, text)
    with pytest.raises(click.ClickException) as caught, one_line_errors():
        raise error
    assert caught.value.exit_code == 2
    assert caught.value.format_message() == (
        f"not enough memory{found}; take a smaller --tile, or train with fewer --base-filters or a "
        "smaller --batch-size"
    )


@pytest.mark.parametrize("kind", ["AbortedError", "InvalidArgumentError"])
def test_other_errors_of_tensorflow_are_let_through(kind):
    from keras_unet.backend import tf

    error = getattr(tf.errors, kind)(None, None, "Status: 2, message: could not create a primitive")
    with pytest.raises(type(error)), one_line_errors():
        raise error


def test_memory_that_runs_out_does_not_import_tensorflow():
    program = (
        "import sys, click\n"
        "from keras_unet.terminal import one_line_errors\n"
        "try:\n"
        "    with one_line_errors():\n"
        "        raise MemoryError\n"
        "except click.ClickException as error:\n"
        "    print(error.format_message())\n"
        "print('tensorflow' in sys.modules)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith("not enough memory; take a smaller --tile")
    assert out.endswith("False\n")


@pytest.mark.parametrize("error", [BrokenPipeError(), KeyboardInterrupt(), AssertionError()])
def test_what_is_no_fault_of_the_input_is_let_through(error):
    with pytest.raises(type(error)), one_line_errors():
        raise error


def test_usage_names_the_command_to_ask_for_help():
    context = click.Context(click.Command("predict"), info_name="keras-unet predict")
    with pytest.raises(click.ClickException) as caught, one_line_errors():
        raise click.UsageError("Missing argument.", context)
    assert caught.value.format_message() == "Missing argument. See: keras-unet predict --help"


def test_what_an_import_says_is_shown_only_if_it_fails(tmp_path):
    (tmp_path / "chatty.py").write_text("import os\nos.write(2, b'greetings\\n')\n")
    (tmp_path / "broken.py").write_text("import chatty\nraise ImportError('no such library')\n")
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from keras_unet.terminal import import_quietly\n"
        "import_quietly(sys.argv[1])\n"
        "print('after', file=sys.stderr)\n"
    )
    said = {
        name: subprocess.run(
            [sys.executable, "-c", program, name], capture_output=True, text=True, check=False
        ).stderr
        for name in ("chatty", "broken")
    }
    assert said["chatty"] == "after\n"
    assert said["broken"].startswith("greetings\n")
    assert said["broken"].endswith("ImportError: no such library\n")
