import pytest

from keras_unet.choices import given_of, names_of, share_or_names
from keras_unet.cli import main


def test_what_was_not_given_is_left_out():
    assert given_of({"depth": None, "seed": 0, "validation": "0.5"}) == {
        "seed": 0,
        "validation": 0.5,
    }


@pytest.mark.parametrize(
    ("text", "meant"),
    [("0", 0.0), (".25", 0.25), ("-0.5", -0.5), ("1", 1.0), ("07", ("07",)), ("a,b", ("a", "b"))],
)
def test_a_share_or_names(text, meant):
    assert share_or_names(text) == meant


def test_names_are_parted_at_commas():
    assert names_of(" a ,b,, ") == ("a", "b")


def test_train_and_inspect_share_the_options_of_data():
    train, inspect = (
        {option.name: option.help for option in main.commands[name].params}
        for name in ("train", "inspect")
    )
    shared = {"labels", "ignore", "allow_empty", "sigma", "border_weight", "tile", "amplitude"}
    assert shared | {"zoom", "seed", "depth", "validation", "engine"} <= inspect.keys()
    assert all(train[name] == inspect[name] for name in inspect.keys() - {"data", "out"})
