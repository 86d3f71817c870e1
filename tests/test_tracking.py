"""Who is told of work: what was chosen around it, a notebook, or nobody."""

import os
import pty
import subprocess
import sys
import threading
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from keras_unet import tracking
from keras_unet.displays import BarWithLines, CellDisplay, Lines
from keras_unet.tracking import display, progress_shown, tracked, working


class Heard(Lines):
    """Notes what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_work(self, work):
        self.told.append((work.what, work.done, work.total, work.over))


@pytest.fixture
def heard():
    lines = Heard()
    token = tracking._CHOSEN.set(lines)
    yield lines.told
    tracking._CHOSEN.reset(token)


def test_parts_are_told_of_as_they_are_done(heard):
    parts = tracked(iter("ab"), "reading", 2)
    assert heard == []
    assert next(parts) == "a"
    assert heard == [("reading", 0, 2, False)]
    assert list(parts) == ["b"]
    assert heard[1:] == [
        ("reading", 1, 2, False),
        ("reading", 2, 2, False),
        ("reading", 2, 2, True),
    ]


@pytest.mark.parametrize(("parts", "total"), [([1, 2, 3], 3), (iter([1]), None), ({"a": 1}, 1)])
def test_the_number_of_parts_is_their_length(heard, parts, total):
    list(tracked(parts, "reading"))
    assert {one[2] for one in heard} == {total}


def test_work_that_fails_or_is_left_is_over(heard):
    with pytest.raises(ZeroDivisionError), working("dividing"):
        _ = 1 / 0
    assert heard == [("dividing", 0, None, False), ("dividing", 0, None, True)]
    for _ in tracked("abc", "reading"):
        break
    assert heard[-1] == ("reading", 0, 3, True)


@pytest.mark.parametrize(
    ("terminal", "kind", "quiet", "shown"),
    [
        (True, "xterm", False, BarWithLines),
        (True, "dumb", False, Lines),
        (True, "xterm", True, Lines),
        (False, "xterm", False, Lines),
    ],
)
def test_a_bar_needs_a_terminal(monkeypatch, terminal, kind, quiet, shown):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_shown(quiet=quiet) as found:
        assert type(found) is shown
        assert display() is found
        assert found.quiet == quiet


class Shell:
    """IPython's, as a notebook's kernel has it."""

    kernel = "a kernel"
    execution_count = 1


def test_a_script_shows_nothing_unasked(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert (type(display()), display().quiet) == (Lines, True)


def test_a_notebook_shows_progress_unasked_in_its_main_thread(monkeypatch):
    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert type(display()) is CellDisplay
    with progress_shown() as found:
        assert found is display()
    with progress_shown(quiet=True) as found:
        assert (type(found), found is display()) == (Lines, True)
    kinds = []
    thread = threading.Thread(target=lambda: kinds.append(type(display())))
    thread.start()
    thread.join()
    assert kinds == [Lines]
    shell.kernel = None  # IPython in a terminal
    assert type(display()) is Lines


SLOW = """
import time
from keras_unet import progress_shown
from keras_unet.tracking import tracked
with progress_shown() as shown:
    shown.say("a line")
    for _ in tracked(range(16), "reading images"):
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


TWICE = """
for _ in "ab":
    for _ in tracked(range(25), "reading images"):
        time.sleep(0.05)
"""
QUICK = """
for _ in tracked(range(5), "reading letters"):
    pass
print("done")
"""
CELLS = ["import time\nfrom keras_unet.tracking import tracked", TWICE, QUICK]


def test_a_notebook_has_one_display_a_cell_that_stays_as_text():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in CELLS])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    outputs = [cell["outputs"] for cell in notebook.cells]
    assert [one["output_type"] for one in outputs[1]] == ["display_data"]
    data = outputs[1][0]["data"]
    assert data["text/plain"].startswith("100% reading images: 25 of 25, 0:00:0")
    assert "\n" not in data["text/plain"]
    assert data["text/html"].startswith('<div><progress max="1" value="1.000"')
    assert [one["output_type"] for one in outputs[2]] == ["stream"]
