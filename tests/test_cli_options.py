import pytest

from keras_unet.cli import main
from keras_unet.cli_options import fraction_or_names, given_options, parse_bytes, split_names


def test_what_was_not_given_is_left_out():
    assert given_options({"depth": None, "seed": 0, "validation": "0.5"}) == {
        "seed": 0,
        "validation": 0.5,
    }


@pytest.mark.parametrize(
    ("text", "meant"),
    [("0", 0.0), (".25", 0.25), ("-0.5", -0.5), ("1", 1.0), ("07", ("07",)), ("a,b", ("a", "b"))],
)
def test_a_share_or_names(text, meant):
    assert fraction_or_names(text) == meant


def test_names_are_parted_at_commas():
    assert split_names(" a ,b,, ") == ("a", "b")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8GB", 8 * 10**9),
        ("8 gb", 8 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("500MB", 5 * 10**8),
        ("64kib", 2**16),
        ("1TB", 10**12),
    ],
)
def test_an_amount_of_memory(text, number):
    assert parse_bytes(text) == number
    assert given_options({"memory_limit": text}) == {"memory_limit": number}


@pytest.mark.parametrize("text", ["8", "GB", "8 potatoes", "-1GB", "8GBs", ""])
def test_an_amount_without_a_unit_is_refused(text):
    with pytest.raises(ValueError, match=r"--memory-limit must be .* such as 8GB.*Received: '"):
        parse_bytes(text)


def test_train_and_inspect_share_the_options_of_data():
    train, inspect = (
        {option.name: option.help for option in main.commands[name].params}
        for name in ("train", "inspect")
    )
    shared = {"kind", "ignore", "allow_empty", "sigma", "border_weight", "tile", "amplitude"}
    assert shared | {"zoom", "seed", "depth", "validation", "engine"} <= inspect.keys()
    assert all(train[name] == inspect[name] for name in inspect.keys() - {"data", "out", "quiet"})
