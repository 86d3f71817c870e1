"""Progress to the very line, bar and cell; messages; one-line errors; compiled code kept quiet."""

import io
import logging
import os
import pty
import subprocess
import sys
import threading
from types import SimpleNamespace

import click
import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console

from keras_unet import console
from keras_unet.console import (
    Display,
    LogDisplay,
    NotebookDisplay,
    Task,
    TerminalDisplay,
    current_display,
    duration,
    is_out_of_memory,
    one_line_errors,
    quiet_stderr,
    quiet_tensorflow,
    show_progress,
    status,
    track,
    use_display,
)


@pytest.fixture
def now(monkeypatch):
    """A clock to be moved on by hand."""
    time = [100.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: time[0]))
    return time


def log(message, level=logging.INFO):
    logging.getLogger("keras_unet.test").log(level, message)


class TestTask:
    def test_time_left_is_that_of_the_steps_not_yet_done(self, now):
        reading = Task("reading images", 4)
        assert reading.describe() == "reading images: 0 of 4, -:-- left"
        now[0] += 30
        reading.advance()
        assert reading.describe() == "reading images: 1 of 4, 0:01:30 left"
        assert reading.share == 0.25

    def test_what_was_done_before_tells_nothing_of_the_pace(self, now):
        predicting = Task("a.tif", 1_024, counts="tile {:,} of {:,}", completed=21)
        now[0] += 75
        predicting.advance(3)
        assert predicting.describe() == "a.tif: tile 24 of 1,024, 6:56:40 left"

    def test_once_it_has_ended_it_tells_what_it_took(self, now):
        reading, converting = Task("reading images", 2), Task("converting the graph")
        assert converting.describe() == "converting the graph"
        now[0] += 70
        reading.advance(2)
        converting.end()
        now[0] += 1000
        reading.end()
        assert (reading.ended, reading.seconds) == (170, 70)
        assert reading.describe() == "reading images: 2 of 2, 0:01:10"
        assert converting.describe() == "converting the graph: 0:01:10"

    def test_it_may_say_itself_how_far_it_is(self, now):
        training = Task("training", 100, counts="compiling")
        assert training.describe() == "training: compiling, -:-- left"
        now[0] += 30
        training.update(25, "step 9, loss 0.2500")
        assert training.describe() == "training: step 9, loss 0.2500, 0:01:30 left"
        training.update(100, "step 36, loss 0.1250")
        assert training.ended is None  # its last validation is yet to come
        training.end()
        assert training.describe() == "training: step 36, loss 0.1250, 0:00:30"

    def test_of_one_step_progress_is_unknown(self):
        loading = Task("loading networks", 1)
        assert (loading.share, loading.describe()) == (None, "loading networks")
        assert Task("loading networks", 2).share == 0
        assert Task("converting the graph").share is None
        assert Task("reading images", 0).share is None

    def test_no_time_is_left_negative(self, now):
        resumed = Task("a.zip", 100, completed=50)
        now[0] += 10
        resumed.update(20)
        assert resumed.left == "-:--"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00:00"), (89.6, "0:01:30"), (90_000, "1 day, 1:00:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


class Heard(Display):
    """Notes what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def update(self, task):
        self.told.append((task.description, task.completed, task.total, task.ended is not None))


@pytest.fixture
def heard():
    display = Heard()
    with use_display(display):
        yield display.told


def test_items_are_counted_as_they_are_done(heard):
    items = track(iter("ab"), "reading", 2)
    assert heard == []
    assert next(items) == "a"
    assert heard == [("reading", 0, 2, False)]
    assert list(items) == ["b"]
    assert heard[1:] == [("reading", 1, 2, False), ("reading", 2, 2, True)]


@pytest.mark.parametrize(("items", "total"), [([1, 2, 3], 3), (iter([1]), None), ({"a": 1}, 1)])
def test_the_number_of_items_is_their_length(heard, items, total):
    list(track(items, "reading"))
    assert {one[2] for one in heard} == {total}


def test_a_task_that_fails_or_is_left_has_ended(heard):
    with pytest.raises(ZeroDivisionError), status("dividing"):
        _ = 1 / 0
    assert heard == [("dividing", 0, None, False), ("dividing", 0, None, True)]
    for _ in track("abc", "reading"):
        break
    assert heard[-1] == ("reading", 0, 3, True)


def test_a_task_that_was_not_started_is_not_shown(heard):
    training = Task("training", 100)
    training.update(50)
    training.end()
    assert heard == []


class TestLog:
    def test_a_line_after_some_seconds_then_every_minute_then_at_the_end(self, capsys, now):
        with use_display(LogDisplay()):
            for _ in track(range(100), "reading images"):
                now[0] += 2
        assert capsys.readouterr().out.splitlines() == [
            "reading images: 10 of 100, 0:03:00 left",
            "reading images: 40 of 100, 0:02:00 left",
            "reading images: 70 of 100, 0:01:00 left",
            "reading images: 100 of 100, 0:03:20",
        ]

    def test_a_line_on_tiles_now_and_then_and_at_the_end(self, capsys, now):
        tiles = {"counts": "tile {:,} of {:,}"}
        with use_display(LogDisplay()):
            with Task("a.tif", 1_024, completed=20, **tiles) as task:  # kept of an earlier one
                for done in (1, 1, 1, 1_001):
                    now[0] += 25
                    task.advance(done)
            with Task("b.tif", 2, **tiles) as task:
                task.advance()
                task.advance()
        assert capsys.readouterr().out.splitlines() == [
            "a.tif: tile 21 of 1,024, 6:57:55 left",
            "a.tif: tile 1,024 of 1,024, 0:01:40",
        ]

    @pytest.mark.parametrize(("seconds", "said"), [(59, ""), (61, "converting: 0:01:01\n")])
    def test_without_steps_a_line_at_the_end_if_it_took_a_minute(self, capsys, now, seconds, said):
        with use_display(LogDisplay()), status("converting"):
            now[0] += seconds
        assert capsys.readouterr().out == said

    def test_a_training_has_the_lines_that_are_logged(self, capsys, now):
        with use_display(LogDisplay()), Task("training", 100, logged=False) as task:
            now[0] += 1000
            task.update(50)
            log("step 10: loss 0.5000")
        assert capsys.readouterr().out == "step 10: loss 0.5000\n"

    def test_warnings_go_to_standard_error(self, capsys):
        with use_display(LogDisplay()):
            log("4 images")
            log("one class", logging.WARNING)
        assert capsys.readouterr() == ("4 images\n", "Warning: one class\n")

    def test_quiet_keeps_warnings_alone(self, capsys, now):
        with show_progress(quiet=True):
            log("4 images")
            for _ in track("ab", "reading images"):
                now[0] += 100
            log("the network has collapsed", logging.WARNING)
        assert capsys.readouterr() == ("", "Warning: the network has collapsed\n")


class TestTerminal:
    @pytest.fixture
    def bars(self, monkeypatch):
        """Bars on a screen of text, each shown at once."""
        monkeypatch.setattr(console, "LATE", 0.0)
        screen = io.StringIO()
        shown = TerminalDisplay(Console(file=screen, force_terminal=True, width=120))
        with use_display(shown):
            yield SimpleNamespace(shown=shown, screen=screen)

    @staticmethod
    def rows(bars):
        drawn = Console(file=io.StringIO(), width=120)
        drawn.print(bars.shown)
        lines = (line.strip(" ━╸╺") for line in drawn.file.getvalue().splitlines())
        return [line for line in lines if line]

    def test_a_training_has_loss_score_and_time_left_and_lines_above(self, bars, now):
        log("held out: [a]")
        assert self.rows(bars) == []
        with Task("training", 100, counts="compiling") as task:
            assert self.rows(bars) == ["0% training: compiling, -:-- left"]
            now[0] += 30
            task.update(25, "step 10, loss 0.2500, score 0.5000")
            said = "25% training: step 10, loss 0.2500, score 0.5000, 0:01:30 left"
            assert self.rows(bars) == [said]
        assert self.rows(bars) == []
        assert "held out: [a]" in bars.screen.getvalue()

    def test_a_warning_is_yellow(self, bars):
        log("one class", logging.WARNING)
        assert bars.screen.getvalue() == "\x1b[33mWarning: one class\x1b[0m\n"

    def test_each_task_has_a_bar_until_it_has_ended(self, bars):
        with Task("predicting images", 2), Task("slide.tif", 4, counts="tile {:,} of {:,}") as task:
            task.advance(3)
            assert self.rows(bars) == [
                "0% predicting images: 0 of 2, -:-- left",
                "75% slide.tif: tile 3 of 4, 0:00:00 left",
            ]
            task.advance()
            assert self.rows(bars) == ["0% predicting images: 0 of 2, -:-- left"]
        assert bars.shown.tasks == []

    def test_a_bar_is_drawn_once_its_task_has_taken_a_second(self, bars, monkeypatch):
        with Task("reading [images]", 3):
            assert self.rows(bars) == ["0% reading [images]: 0 of 3, -:-- left"]
            monkeypatch.setattr(console, "LATE", 3600.0)
            assert self.rows(bars) == []

    def test_a_task_without_steps_has_a_bar_without_a_share(self, bars):
        with status("converting the graph"):
            assert self.rows(bars) == ["converting the graph"]


class TestNotebook:
    @pytest.fixture
    def cell(self, monkeypatch, now):
        """A display of cells, and what was shown: the text of each display, renewed in place."""
        texts = []

        class Handle:
            def __init__(self):
                texts.append("")
                self.number = len(texts) - 1

            def update(self, bundle, raw):
                assert raw
                lines = bundle["text/plain"].splitlines()
                texts[self.number] = "\n".join(line.strip(" ━╸╺") for line in lines)
                self.html = bundle["text/html"]

        def display(bundle, *, raw, display_id):
            assert display_id
            handle = Handle()
            handle.update(bundle, raw)
            return handle

        monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
        shell = SimpleNamespace(execution_count=1)
        shown = NotebookDisplay(shell)
        with use_display(shown):
            yield SimpleNamespace(shown=shown, shell=shell, texts=texts, now=now)

    @staticmethod
    def carry_out(cell, what, seconds, steps=4):
        for _ in track(range(steps), what):
            cell.now[0] += seconds / steps

    def test_a_cell_has_one_display_and_keeps_a_line_of_what_took_long(self, cell):
        self.carry_out(cell, "reading images", 8)
        self.carry_out(cell, "checking labels", 0.5)
        for _ in range(20):
            self.carry_out(cell, "predicting tiles", 4)
        assert cell.texts == [
            "100% reading images: 4 of 4, 0:00:08\n100% predicting tiles: 4 of 4, 0:00:04"
        ]
        cell.shell.execution_count = 2
        self.carry_out(cell, "drawing <images>", 2)
        assert cell.texts[1:] == ["100% drawing <images>: 4 of 4, 0:00:02"]
        assert "drawing &lt;images&gt;: 4 of 4" in cell.shown.handle.html
        assert cell.shown.handle.html.startswith("<pre ")

    def test_it_keeps_the_latest_lines(self, cell):
        for number in range(20):
            self.carry_out(cell, f"reading {number}", 2)
        assert len(cell.texts[0].splitlines()) == 8
        assert cell.texts[0].endswith("reading 19: 4 of 4, 0:00:02")

    def test_what_is_quick_shows_nothing(self, cell):
        self.carry_out(cell, "reading images", 0.5)
        assert cell.texts == []

    def test_a_task_without_steps_is_shown_as_it_begins(self, cell):
        with status("converting the graph"):
            assert cell.texts == ["converting the graph"]
            cell.now[0] += 5
        assert cell.texts == ["100% converting the graph: 0:00:05"]

    def test_tasks_within_others_are_shown_while_they_last(self, cell):
        with Task("predicting images", 2), Task("predicting tiles", 10) as inner:
            cell.now[0] += 3
            inner.advance(3)
            outer = "0% predicting images: 0 of 2, -:-- left"
            assert cell.texts == [f"{outer}\n30% predicting tiles: 3 of 10, 0:00:07 left"]
            inner.end()
            assert cell.texts == [outer]

    def test_it_is_renewed_a_few_times_a_second_and_at_the_end(self, cell):
        with Task("training", 100, logged=False) as training:
            cell.now[0] += 2
            for step in (1, 2, 3):
                cell.now[0] += 0.1
                training.update(step, f"step {step}")
            assert cell.texts == ["1% training: step 1, 0:03:28 left"]
            training.update(100, "step 100")
        first = "100% training: step 100, 0:00:02"
        assert cell.texts == [first]
        with Task("training", 100, logged=False):  # the next fold
            cell.now[0] += 5
        assert cell.texts == [f"{first}\n100% training: {{:,}} of {{:,}}, 0:00:05".format(0, 100)]

    def test_what_an_interrupted_cell_leaves_is_not_shown_in_the_next(self, cell):
        Task("training", 100).start()
        cell.shell.execution_count = 2
        self.carry_out(cell, "reading images", 4)
        assert cell.texts == ["100% reading images: 4 of 4, 0:00:04"]


@pytest.mark.parametrize(
    ("terminal", "kind", "quiet", "shown"),
    [
        (True, "xterm", False, TerminalDisplay),
        (True, "dumb", False, LogDisplay),
        (True, "xterm", True, Display),
        (False, "xterm", False, LogDisplay),
    ],
)
def test_a_bar_needs_a_terminal(monkeypatch, terminal, kind, quiet, shown):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("FORCE_COLOR", "1")
    logger = logging.getLogger("keras_unet")
    before = [*logger.handlers], logger.level
    with show_progress(quiet=quiet):
        assert type(current_display()) is shown
        assert logger.handlers[-1] is current_display()
        with show_progress(quiet=True):
            assert type(current_display()) is Display
            assert sum(isinstance(one, Display) for one in logger.handlers) == 1
        assert type(current_display()) is shown
    assert ([*logger.handlers], logger.level) == before


class Shell:
    """IPython's, as a notebook's kernel has it."""

    kernel = "a kernel"
    execution_count = 1


def test_a_script_shows_nothing_unasked(monkeypatch, capsys, now):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert type(current_display()) is Display
    for _ in track("ab", "reading images"):
        now[0] += 100
    assert capsys.readouterr() == ("", "")


def test_a_notebook_shows_progress_unasked_in_its_main_thread(monkeypatch):
    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    display = current_display()
    assert type(display) is NotebookDisplay
    with show_progress():
        assert current_display() is display
    with show_progress(quiet=True):
        assert type(current_display()) is Display
    kinds = []
    thread = threading.Thread(target=lambda: kinds.append(type(current_display())))
    thread.start()
    thread.join()
    assert kinds == [Display]
    shell.kernel = None  # IPython in a terminal
    assert type(current_display()) is Display


SLOW = """
import logging, time
from keras_unet import show_progress
from keras_unet.console import track
with show_progress():
    logging.getLogger("keras_unet.slow").info("a line")
    for _ in track(range(16), "reading images"):
        time.sleep(0.1)
"""


def test_no_control_characters_in_a_file_but_a_bar_in_a_terminal():
    command = [sys.executable, "-c", SLOW]
    environment = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm"}
    file = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert (file.stdout, file.stderr) == (b"a line\n", b"")
    ours, theirs = pty.openpty()
    terminal = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 1024):
            said += part
    except OSError:  # so ends a terminal on Linux
        pass
    os.close(ours)
    assert terminal.wait() == 0
    assert b"a line" in said
    assert b"reading images: 1" in said
    assert b"\x1b[" in said


def test_rich_is_not_imported_for_a_log():
    program = SLOW.replace("0.1", "0") + "import sys; print('rich' in sys.modules)"
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["a", "line", "False"]


TWICE = """
for _ in "ab":
    for _ in track(range(25), "reading images"):
        time.sleep(0.05)
"""
QUICK = """
for _ in track(range(5), "reading letters"):
    pass
print("done")
"""
CELLS = ["import time\nfrom keras_unet.console import track", TWICE, QUICK]


def test_a_notebook_has_one_display_a_cell_that_stays_as_text():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in CELLS])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    outputs = [cell["outputs"] for cell in notebook.cells]
    assert [one["output_type"] for one in outputs[1]] == ["display_data"]
    data = outputs[1][0]["data"]
    assert data["text/plain"].strip(" ━\n").startswith("100% reading images: 25 of 25, 0:00:0")
    assert data["text/plain"].count("\n") == 1
    assert "\x1b" not in data["text/plain"]
    assert data["text/html"].startswith("<pre ")
    assert "100% reading images: 25 of 25" in data["text/html"]
    assert [one["output_type"] for one in outputs[2]] == ["stream"]


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
        f"not enough memory{found}; choose a smaller --tile, or train with fewer --base-filters "
        "or a smaller --batch-size"
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
        "from keras_unet.console import one_line_errors\n"
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
    assert out.startswith("not enough memory; choose a smaller --tile")
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
        "from keras_unet.console import quiet_tensorflow\n"
        "with quiet_tensorflow():\n"
        "    __import__(sys.argv[1])\n"
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


def test_tensorflow_is_started_once_by_imports_within_imports(heard, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with quiet_tensorflow(), quiet_tensorflow():
        pass
    with quiet_tensorflow():
        pass
    ends = [ended for _, _, _, ended in heard]
    assert (ends.count(False), ends.count(True)) == (2, 2)


def greet():
    os.write(2, b"greetings\n")


def fail():
    greet()
    raise ValueError("broken")


def interrupt():
    greet()
    raise KeyboardInterrupt


def test_nothing_is_shown_and_all_is_as_before(capfd):
    with quiet_stderr():
        greet()
    assert capfd.readouterr() == ("", "")
    greet()
    sys.stderr.write("python\n")
    assert capfd.readouterr().err == "greetings\npython\n"


def test_what_was_held_back_is_shown_if_the_body_raises(capfd):
    with pytest.raises(ValueError, match="broken"), quiet_stderr():
        fail()
    assert capfd.readouterr().err == "greetings\n"
    greet()
    assert capfd.readouterr().err == "greetings\n"


def test_ctrl_c_explains_itself(capfd):
    with pytest.raises(KeyboardInterrupt), quiet_stderr():
        interrupt()
    assert capfd.readouterr() == ("", "")


def test_what_is_silent_is_not_heard_of_again(capfd):
    with quiet_stderr(shown_on_error=False):
        greet()
    with pytest.raises(ValueError, match="broken"), quiet_stderr(shown_on_error=False):
        fail()
    assert capfd.readouterr() == ("", "")
    greet()
    assert capfd.readouterr().err == "greetings\n"


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("ResourceExhaustedError", "OOM when allocating tensor", True),
        ("AbortedError", "Status: 1, message: could not create a primitive", True),
        ("AbortedError", "Status: 2, message: could not create a primitive", False),
        ("InvalidArgumentError", "OOM", False),
    ],
)
def test_lack_of_memory_in_tensorflow_is_told_from_other_errors(kind, text, expected):
    from keras_unet.backend import tf

    assert is_out_of_memory(getattr(tf.errors, kind)(None, None, text)) is expected


def test_tensorflow_is_not_imported_to_look():
    program = (
        "import sys; from keras_unet.console import is_out_of_memory as found\n"
        "print(found(MemoryError()), found(ValueError()), 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "False", "False"]


def test_messages_are_printed_once_if_something_configures_the_root_logger(monkeypatch, capsys):
    root = logging.getLogger()
    for handlers, printed in (([], 0), ([logging.NullHandler()], 1)):
        monkeypatch.setattr(root, "handlers", handlers)
        with use_display(LogDisplay()):
            root.addHandler(logging.StreamHandler())
            log("a message")
        shown = capsys.readouterr()
        assert shown.out == "a message\n"
        assert shown.err.count("a message") == printed  # by a program that asks for it before
    assert logging.getLogger("keras_unet").propagate
