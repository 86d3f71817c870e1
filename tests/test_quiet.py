"""What compiled code writes past Python: held back, and shown where it may explain a failure."""

from __future__ import annotations

import os
import sys

import pytest

from keras_unet.quiet import compiled_code_quiet, compiled_code_silent


def greet():
    os.write(2, b"greetings\n")


def fail():
    greet()
    raise ValueError("broken")


def interrupt():
    greet()
    raise KeyboardInterrupt


def test_nothing_is_shown_and_all_is_as_before(capfd):
    with compiled_code_quiet():
        greet()
    assert capfd.readouterr() == ("", "")
    greet()
    sys.stderr.write("python\n")
    assert capfd.readouterr().err == "greetings\npython\n"


def test_what_was_held_back_is_shown_if_the_body_raises(capfd):
    with pytest.raises(ValueError, match="broken"), compiled_code_quiet():
        fail()
    assert capfd.readouterr().err == "greetings\n"
    greet()
    assert capfd.readouterr().err == "greetings\n"


def test_ctrl_c_explains_itself(capfd):
    with pytest.raises(KeyboardInterrupt), compiled_code_quiet():
        interrupt()
    assert capfd.readouterr() == ("", "")


def test_what_is_silent_is_not_heard_of_again(capfd):
    with compiled_code_silent():
        greet()
    with pytest.raises(ValueError, match="broken"), compiled_code_silent():
        fail()
    assert capfd.readouterr() == ("", "")
    greet()
    assert capfd.readouterr().err == "greetings\n"
