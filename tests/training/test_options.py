import json

import pytest

from keras_unet.training.options import INTENSITY, ResolvedOptions, TrainingOptions

SAMPLING = ("sampling", "classes")
REFUSED = {
    "steps": ({"steps": 0}, "steps must be greater than 0.*steps=0"),
    "epochs": ({"epochs": 0.0}, "epochs must be greater than 0.*epochs=0.0"),
    "endless epochs": ({"epochs": float("inf")}, "epochs must be greater than 0.*inf"),
    "max_minutes": ({"max_minutes": -1.0}, "max_minutes must be greater than 0.*-1.0"),
    "two lengths": ({"steps": 5, "epochs": 1.0}, "both give the length.*steps=5, epochs=1.0"),
    "patience": ({"patience": 0}, "patience must be at least 1.*patience=0"),
    "patience alone": ({"patience": 3, "validation": 0}, "patience counts.*validation=0"),
    "a tile for one depth": ({"tile": 180, "depth": 4}, "tile must be .*180.*fits is 188"),
    "depth": ({"depth": 0}, "depth must be a whole number of at least 1.*depth=0"),
    "base_filters": ({"base_filters": 0}, "base_filters must be a whole.*base_filters=0"),
    "dropout": ({"dropout": 1.0}, r"dropout must be a rate in \[0, 1\).*dropout=1.0"),
    "padding": ({"padding": "some"}, 'padding must be "valid" or "same".*some'),
    "norm_layer": ({"norm_layer": "layer"}, "norm_layer must be None.*layer"),
    "tile": ({"tile": 570}, "tile must be 16k.*at least 188.*570.*556 and 572"),
    "batch_size": ({"batch_size": 0}, "batch_size must be a whole number of at least 1.*=0"),
    "seed": ({"seed": -1}, "seed must be a whole number of at least 0.*seed=-1"),
    "large seed": ({"seed": 2**32}, "seed must be at most 4294967295.*seed=4294967296"),
    "fractional seed": ({"seed": 0.5}, "seed must be a whole number.*seed=0.5"),
    "ignore": ({"ignore": -1}, "ignore must be a whole number of at least 0.*ignore=-1"),
    "validation": ({"validation": 1.5}, "validation must be a fraction.*less than 1.*1.5"),
    "groups": ({"groups": "(a"}, r"groups must be \"auto\".*regular expression.*'\(a'"),
    "precision": ({"precision": "float8"}, 'precision must be "auto".*float8'),
    "kind": ({"kind": "cells"}, 'kind must be one of "auto", "classes".*cells'),
    "normalization": (
        {"normalization": "no"},
        'normalization must be one of "image", "dataset".*no',
    ),
    "engine": ({"engine": "hand"}, 'engine must be one of "graph", "elasticdeform".*hand'),
    "sampling": ({"sampling": "cells"}, 'sampling must be one of "uniform", "classes".*cells'),
    "border_weight": ({"border_weight": -1.0}, "border_weight must be at least 0.*-1.0"),
    "sigma": ({"sigma": -5.0}, "sigma must be more than 0 pixels.*sigma=-5.0"),
    "no sigma": ({"sigma": float("nan")}, "sigma must be more than 0 pixels.*sigma=nan"),
    "amplitude": ({"amplitude": -1.0}, "amplitude must be .*at least 0.*-1"),
    "zoom": ({"zoom": -1.0}, "zoom must be .*at least 0.*-1"),
    "contrast": ({"contrast": -1.0}, "contrast must be .*at least 0.*-1"),
    "gamma": ({"gamma": float("nan")}, "gamma must be .*at least 0.*nan"),
    "blur": ({"blur": 11.0}, "blur must be at most 10.0 pixels.*blur=11"),
    "memory_limit": ({"memory_limit": 0}, "memory_limit must be a whole number.*least 1.*=0"),
    "learning_rate": ({"learning_rate": 0.0}, "learning_rate must be greater than 0.*0.0"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_with_is_refused_at_once(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        TrainingOptions(**given)
    assert "\n" not in str(caught.value)


def test_a_missing_engine_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setattr("keras_unet.training.options.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install --no-binary elasticdeform elasticdeform"):
        TrainingOptions(engine="elasticdeform")


@pytest.mark.parametrize("tile", [92, 180, 188, 572])
def test_a_tile_need_fit_but_one_of_the_depths_that_the_data_may_ask_for(tile):
    assert TrainingOptions(tile=tile).given == {"tile": tile}


def test_what_is_not_chosen_is_left_to_the_data():
    chosen = {"depth": 1, "tile": 60, "sigma": 2.0, "amplitude": 0.0}
    assert TrainingOptions().given == {}
    assert TrainingOptions(**chosen, steps=3).given == chosen | {"steps": 3}
    assert TrainingOptions(epochs=3.0).given == {"steps": None}
    assert TrainingOptions(max_minutes=3.0).given == {"steps": None}
    assert TrainingOptions(max_minutes=3.0, steps=5).given == {"steps": 5}


@pytest.mark.parametrize("validation", [0.25, ("a", "b"), ()])
def test_options_come_back_from_json_as_they_were(validation):
    options = ResolvedOptions(
        steps=7, validation=validation, norm_layer="group", tile=188, class_balance=False
    )
    assert ResolvedOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_a_record_without_an_optimizer_is_of_sgd():
    values = ResolvedOptions(steps=7, learning_rate=0.5).to_dict()
    del values["optimizer"]
    expected = ResolvedOptions(steps=7, learning_rate=0.5, optimizer="sgd")
    assert ResolvedOptions.from_dict(values) == expected


def test_an_option_that_the_record_lacks_is_missed():
    values = ResolvedOptions(steps=7).to_dict()
    del values["sigma"]
    with pytest.raises(KeyError, match="sigma"):
        ResolvedOptions.from_dict(values)


@pytest.mark.parametrize(("name", "value"), [*((name, 0.5) for name in INTENSITY), SAMPLING])
def test_a_record_of_an_older_run_lacks_options_of_tiles(name, value):
    given = ResolvedOptions(steps=7, **{name: value})
    values = given.to_dict()
    assert ResolvedOptions.from_dict(values) == given
    del values[name]
    assert ResolvedOptions.from_dict(values) == ResolvedOptions(steps=7)


@pytest.mark.parametrize("name", INTENSITY)
def test_changes_of_grey_values_are_as_chosen(name):
    assert getattr(ResolvedOptions(steps=7, **{name: 0.5}).augmentation(), name) == 0.5


def test_a_limit_of_memory_comes_back_from_json():
    limited = ResolvedOptions(steps=7, memory_limit=8 * 10**9)
    assert ResolvedOptions.from_dict(json.loads(json.dumps(limited.to_dict()))) == limited


@pytest.mark.parametrize("name", ["depth", "tile", "sigma", "amplitude", "steps", "learning_rate"])
def test_nothing_is_left_to_the_data_in_resolved_options(name):
    with pytest.raises(TypeError, match=f"{name} must be given; it is None"):
        ResolvedOptions(**{"steps": 7, name: None})


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"steps": 9}, 9),
        ({"max_minutes": 2.0}, None),
        ({"steps": 9, "max_minutes": 2.0}, 9),
        ({"epochs": 2.0}, 15),  # 2 x 7.5 tiles
        ({"epochs": 2.0, "batch_size": 4}, 4),  # 15 tiles in batches of 4
    ],
)
def test_length(given, steps):
    schedule = ResolvedOptions(**given).schedule(tiles_per_epoch=7.5)
    assert (schedule.steps, schedule.max_minutes) == (steps, given.get("max_minutes"))


def test_network_and_deformation_are_as_chosen():
    options = ResolvedOptions(steps=1, depth=3, base_filters=8, tile=92, amplitude=1.5)
    network = options.architecture(channels=3, classes=4)
    assert (network.depth, network.base_filters) == (3, 8)
    assert (network.channels, network.classes) == (3, 4)
    assert options.augmentation().amplitude == 1.5


def test_a_limit_of_memory_binds_the_tile_that_images_are_looked_at_by():
    assert ResolvedOptions(steps=1, tile=188).validation_tile is None
    assert ResolvedOptions(steps=1, tile=188, memory_limit=10**9).validation_tile == 188


def test_tensorboard_compares_runs_by_all_that_is_set():
    values = ResolvedOptions(steps=5, validation=("a", "b"), histograms=True).hyperparameters
    assert (values["steps"], values["validation"], values["class_balance"]) == (5, "a,b", True)
    assert values.keys().isdisjoint({"histograms", "epochs", "norm_layer"})
    assert {type(value) for value in values.values()} <= {bool, int, float, str}
