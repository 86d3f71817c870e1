import pytest
from logs import logged

from keras_unet.data.fingerprint import Fingerprint, Percentiles
from keras_unet.training.autoconfig import (
    BYTES_PER_PIXEL,
    PROGRAM_BYTES,
    MemoryEstimate,
    autoconfigure,
)
from keras_unet.training.options import TrainingOptions

FINGERPRINT = Fingerprint(
    images=10,
    pixels=10 * 512 * 512,
    median_side=512.0,
    longest_side=512,
    shares=(0.7, 0.3),
    cells=500,
    diameters=Percentiles(20, 50, 80),
    touching=0.2,
    gap=4.0,
    greys=Percentiles(0, 100, 255),
    grey_between=5.0,
    grey_within=50.0,
)


def options(**given):
    return TrainingOptions(**{"precision": "float32", "steps": 1, "base_filters": 32} | given)


def resolved(**given):
    with logged() as messages:
        return autoconfigure(options(**given), FINGERPRINT, "instances"), "\n".join(messages)


def test_program_images_and_network_add_up():
    network = options().network(4)
    fixed = PROGRAM_BYTES + BYTES_PER_PIXEL * FINGERPRINT.pixels
    expected = fixed + network.training_memory(300, optimizer="adam")
    assert MemoryEstimate(options(), FINGERPRINT).peak(4, 300) == expected


def test_without_a_limit_the_tile_is_left_alone():
    configured, messages = resolved()
    assert configured.tile == 572
    assert "--memory-limit" not in messages
    assert MemoryEstimate(options(), FINGERPRINT).largest_tile(4) is None


def test_a_limit_chooses_the_largest_tile_that_fits_and_says_so():
    configured, messages = resolved(memory_limit=1_600_000_000)
    memory = MemoryEstimate(options(), FINGERPRINT)
    assert 188 <= configured.tile < 572
    assert memory.peak(4, configured.tile) <= 1_600_000_000 < memory.peak(4, configured.tile + 16)
    assert f"--tile {configured.tile} " in messages
    assert "the most that --memory-limit allows; without it, 572" in messages
    assert configured.memory_limit == 1_600_000_000


@pytest.mark.parametrize(
    "more",
    [{"base_filters": 64}, {"batch_size": 4}, {"norm_layer": "batch"}, {"optimizer": "adam"}],
)
def test_what_takes_more_memory_leaves_a_smaller_tile(more):
    limit = {"memory_limit": 2_000_000_000, "depth": 3, "optimizer": "sgd"}
    largest = [
        MemoryEstimate(options(**given), FINGERPRINT).largest_tile(3)
        for given in (limit | more, limit)
    ]
    assert 92 < largest[0] < largest[1]


def test_a_limit_that_leaves_room_for_all_changes_nothing():
    configured, messages = resolved(memory_limit=100_000_000_000)
    assert configured.tile == 572
    assert "--memory-limit" not in messages


def test_a_given_tile_beyond_the_limit_is_refused_with_the_one_that_fits():
    most = resolved(memory_limit=1_600_000_000)[0].tile
    with pytest.raises(
        ValueError,
        match=rf"^tile must be at most {most} for memory_limit=1.6GB. Received: 572, which .*GB$",
    ):
        resolved(memory_limit=1_600_000_000, tile=572, depth=4)
    assert resolved(memory_limit=1_600_000_000, tile=most, depth=4)[0].tile == most


def test_a_limit_too_small_for_any_tile_is_refused_with_one_that_is_not():
    with pytest.raises(ValueError, match=r"memory_limit must be at least .*: 0\.9GB") as e:
        resolved(memory_limit=900_000_000)
    assert "\n" not in str(e.value)
    enough = float(str(e.value).split("at least ")[1].split("GB")[0])
    assert resolved(memory_limit=round(enough * 1e9))[0].tile >= 188


def test_a_training_that_takes_more_than_is_free_is_warned_of(monkeypatch):
    monkeypatch.setattr("keras_unet.training.autoconfig.free_memory", lambda: 900_000_000)
    line = resolved()[1].splitlines()[-1]
    assert line.startswith("Warning: training needs about ")
    assert "0.9GB are free" in line
    limit = line.rsplit("--memory-limit ", 1)[1]
    assert limit == "1.7GB"
    assert "Warning" not in resolved(memory_limit=1_700_000_000)[1]


def test_one_that_takes_less_is_not(monkeypatch):
    monkeypatch.setattr("keras_unet.training.autoconfig.free_memory", lambda: 50_000_000_000)
    assert "Warning" not in resolved()[1]
