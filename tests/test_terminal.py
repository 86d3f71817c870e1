import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import TextColumn

from keras_unet import terminal
from keras_unet.plan import Progress, TrainingPlan
from keras_unet.terminal import BarWithLines, Lines, one_line_errors, progress_shown


def row(step, score, loss=0.5):
    return {"step": step, "loss": loss, "score": score}


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


def test_a_line_a_validation(capsys):
    lines = Lines()
    lines.on_start(TrainingPlan(steps=40))
    before = Progress(step=9, seconds=27.0)
    lines.on_step(before)
    first = replace(before, step=10, seconds=30.0, rows=(row(10, 0.5),), best_score=0.5)
    lines.on_step(first)
    lines.on_step(replace(first, step=11, seconds=33.0))
    worse = replace(first, step=20, seconds=60.0, rows=(*first.rows, row(20, 0.25)), stale=1)
    lines.on_step(worse)
    lines.on_step(replace(worse, step=40, seconds=120.0, rows=(row(40, None, None),)))
    assert capsys.readouterr().out.splitlines() == [
        "step 10: loss 0.5000, score 0.5000 (the best so far), 0:01:30 left",
        "step 20: loss 0.5000, score 0.2500 (best 0.5000), 0:01:00 left",
        "step 40: loss -, 0:00:00 left",
    ]


@pytest.mark.parametrize(
    ("plan", "step", "seconds", "left"),
    [
        ({"steps": 100}, 25, 60.0, "0:03:00"),
        ({"steps": None, "max_minutes": 10.0}, 7, 60.0, "0:09:00"),
        ({"steps": 100, "max_minutes": 10.0}, 5, 60.0, "0:09:00"),
        ({"steps": 100, "max_minutes": 10.0}, 50, 60.0, "0:01:00"),
        ({"steps": None, "max_minutes": 1.0}, 9, 70.0, "0:00:00"),
        ({"steps": 100}, 0, 0.0, "-:--"),
    ],
)
def test_time_left_follows_the_limit_that_comes_first(plan, step, seconds, left):
    lines = Lines()
    lines.on_start(TrainingPlan(**plan))
    assert lines.left(Progress(step=step, seconds=seconds)) == left


def test_a_line_on_tiles_now_and_then(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    lines = Lines()
    for done in (21, 22, 23, 24):  # 20 are kept of an earlier prediction
        lines.on_tiles(Path("a.tif"), done, 1_024)
        now[0] += 25
    lines.on_tiles(Path("b.tif"), 1, 2)
    assert capsys.readouterr().out == "a.tif: tile 24 of 1,024, 6:56:40 left\n"


def test_quiet_keeps_warnings_alone(capsys):
    lines = Lines(quiet=True)
    lines.say("4 images")
    lines.say("Warning: the network has collapsed")
    assert capsys.readouterr() == ("", "Warning: the network has collapsed\n")


def test_bar_shows_loss_score_and_time_left_with_lines_above():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Bar(TextColumn("{task.description}"), console=console, auto_refresh=False) as bar:
        shown = BarWithLines(bar)
        shown.say("held out: [a]")
        assert not bar.tasks[0].visible
        shown.on_start(TrainingPlan(steps=40))
        progress = Progress(step=9, seconds=27.0, loss=0.25)
        shown.on_step(progress)
        assert bar.tasks[0].description == "step 9  loss 0.2500  0:01:33 left"
        rows = (row(10, 0.5),)
        shown.on_step(replace(progress, step=10, seconds=30.0, rows=rows, score=0.5))
        assert bar.tasks[0].description == "step 10  loss 0.2500  score 0.5000  0:01:30 left"
        assert bar.tasks[0].completed == 0.25
        shown.on_tiles(Path("slide.tif"), 30, 120)
        shown.on_tiles(Path("slide.tif"), 60, 120)
        assert re.fullmatch(r"slide\.tif: tile 60 of 120, 0:00:0\d left", bar.tasks[0].description)
        assert bar.tasks[0].completed == 0.5
    assert "held out: [a]" in screen.getvalue()
    assert "step 10: loss 0.5000, score 0.5000 (the best so far), 0:01:30 left" in screen.getvalue()


@pytest.mark.parametrize(
    ("terminal", "quiet", "shown"),
    [(True, False, BarWithLines), (True, True, Lines), (False, False, Lines)],
)
def test_a_bar_needs_a_terminal(monkeypatch, terminal, quiet, shown):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    with progress_shown(quiet=quiet) as found:
        assert type(found) is shown


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
