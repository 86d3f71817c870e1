"""What a worker writes, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from keras_unet.data.standardisation import Moments
from keras_unet.prediction.ledger import checksum_of
from keras_unet.prediction.networks import load_network
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.sweeps import Sweep
from keras_unet.prediction.worker import Networks, Task, checksum_of_file, predict_part
from keras_unet.runs import Run


@pytest.fixture
def task(trained, cells, tmp_path):
    path, run = cells / "images" / "c3.tif", Run.load(trained)
    image = tifffile.imread(path)[..., None]
    return Task(
        Networks(trained, None, (checksum_of_file(trained / "best.keras"),)),
        member=0,
        image=path,
        axes=None,
        shape=(1, 96, 96, 1),
        plane=0,
        standardisation=run.standardisation.settled(Moments.of([image])),
        sweep=Sweep((96, 96), run.architecture, (60, 60)),
        numbers=range(2, 4),
        part=tmp_path / "part",
    )


def test_tiles_are_those_of_the_whole_image(task, trained):
    name, checksum = predict_part(task)
    content = task.part.read_bytes()
    assert (name, checksum) == ("part", checksum_of(content))
    run = Run.load(trained)
    image = run.standardise(tifffile.imread(task.image)[..., None], task.image)
    whole = predict_image(load_network(run), image, tile_size=60)
    expected = [whole[task.sweep.place(task.sweep.tiles[number])] for number in task.numbers]
    np.testing.assert_array_equal(
        np.frombuffer(content, np.float32), np.concatenate([one.ravel() for one in expected])
    )


REFUSED = {
    "another image": (
        {"shape": (1, 96, 95, 1)},
        r"c3\.tif: expected the image of \(1, 96, 95, 1\)",
    ),
    "other weights": ({"networks": None}, r"run: expected the weights that the prediction was"),
    "no image": ({"image": None}, r"no such file"),
}


@pytest.mark.parametrize(("changed", "message"), REFUSED.values(), ids=REFUSED)
def test_other_files_than_those_of_who_asks_are_refused(changed, message, task):
    others = {
        "networks": replace(task.networks, checksums=("0",)),
        "image": task.image.with_name("none.tif"),
    }
    changed = {name: others.get(name, value) for name, value in changed.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        predict_part(replace(task, **changed))
    assert "\n" not in str(caught.value)
    assert not task.part.exists()
