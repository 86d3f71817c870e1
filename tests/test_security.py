"""What SECURITY.md promises: files from strangers run no code, reach no other file, end in time."""

from __future__ import annotations

import ast
import io
import shutil
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from keras_unet.runs import BEST
from keras_unet.training.checkpoint import CHECKPOINT

ROOT = Path(__file__).parents[1]
WEIGHTS = "model.weights.h5"


@pytest.fixture
def stranger(trained, tmp_path):
    """A run that somebody sent, to be made bad."""
    return shutil.copytree(trained, tmp_path / "folder" / "run")


def rewrite(path, **members):
    """Replaces members of an archive, or adds them."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content | members).items():
            archive.writestr(name, data)


def change_weights(path, change):
    """Changes the HDF5 file inside a model file."""
    with zipfile.ZipFile(path) as archive:
        file = io.BytesIO(archive.read(WEIGHTS))
    with h5py.File(file, "r+") as stored:
        change(stored)
    rewrite(path, **{WEIGHTS: file.getvalue()})


def kernel_of(stored):
    """The variables of a layer, and the name of one of them."""
    return next(
        (group["vars"], "0")
        for group in stored["layers"].values()
        if "vars" in group and "0" in group["vars"]
    )


def load(folder):
    from keras_unet.prediction.networks import load_network
    from keras_unet.runs import Run

    return load_network(Run.load(folder))


class _Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_model_with_code_in_it_is_loaded_without_running_it(stranger, trained, tmp_path):
    import keras

    mark = str(tmp_path / "mark")
    code = f"lambda x: (__import__('pathlib').Path({mark!r}).touch(), x)[1]"
    layer = keras.layers.Lambda(eval(code))  # noqa: S307 - of which Keras stores the byte code
    image = keras.Input((4, 4, 1))
    evil = keras.Model(image, keras.layers.Conv2D(1, 1)(layer(image)))
    Path(mark).unlink()
    evil.save(tmp_path / "evil.keras")
    with zipfile.ZipFile(tmp_path / "evil.keras") as archive:
        rewrite(stranger / BEST, **{"config.json": archive.read("config.json")})
    for one, expected in zip(load(stranger).weights, load(trained).weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), expected.numpy())
    assert not Path(mark).exists()
    with pytest.raises((ValueError, TypeError)):
        keras.models.load_model(stranger / BEST)  # Keras' safe mode, for those who load by Keras
    assert not Path(mark).exists()
    keras.models.load_model(tmp_path / "evil.keras", safe_mode=False)(np.zeros((1, 4, 4, 1)))
    assert Path(mark).exists()  # so the code is real


def test_a_checkpoint_with_a_pickle_in_it_is_refused(stranger, cells, tmp_path):
    from keras_unet.training.train import train_folder

    arrays = dict(np.load(stranger / CHECKPOINT))
    arrays["model0"] = np.array([_Payload(tmp_path / "mark")], dtype=object)
    np.savez(stranger / CHECKPOINT, **arrays)
    record = (stranger / "run.json").read_text()
    (stranger / "run.json").write_text(record.replace('"complete": true', '"complete": false'))
    with pytest.raises(ValueError, match=r"checkpoint\.npz: expected the checkpoint.*allow_pickle"):
        train_folder(cells, stranger, resume=True)
    assert not (tmp_path / "mark").exists()


def test_members_that_name_other_folders_are_not_written(stranger, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    names = ("../out.txt", "../../out.txt", str(tmp_path / "out.txt"), "assets/../../../out.txt")
    rewrite(stranger / BEST, **dict.fromkeys(names, b"out"))
    load(stranger)
    assert sorted(tmp_path.rglob("*")) == before


def external_link(stored, other):
    group, name = kernel_of(stored)
    del group[name]
    group[name] = h5py.ExternalLink(str(other), "secret")


def soft_link(stored, _other):
    group, name = kernel_of(stored)
    group.move(name, "elsewhere")
    group[name] = h5py.SoftLink(f"{group.name}/elsewhere")


def external_storage(stored, other):
    group, name = kernel_of(stored)
    shape = group[name].shape
    del group[name]
    group.create_dataset(name, shape, "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def bomb(stored, _other):
    group, name = kernel_of(stored)
    del group[name]
    group.create_dataset(name, (2**20, 2**20), "f4", chunks=(1024, 1024), compression="gzip")


@pytest.mark.parametrize("change", [external_link, soft_link, external_storage, bomb])
def test_weights_that_are_elsewhere_or_too_many_are_refused(stranger, tmp_path, change):
    other = tmp_path / "secret.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.zeros((3, 3, 1, 4), np.float32)
    change_weights(stranger / BEST, lambda stored: change(stored, other))
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"best\.keras: expected the model that train") as caught:
        load(stranger)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 30


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
FORBIDDEN_ARGUMENTS = {("allow_pickle", True), ("shell", True), ("safe_mode", False)}
FORBIDDEN_CALLS = {"eval", "exec", "load_model", "extractall", "unpack_archive"}


def forbidden(node):
    """What of a piece of code could run what a file holds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        module = node.module if isinstance(node, ast.ImportFrom) else None
        names = [module or "", *(alias.name for alias in node.names)]
        return FORBIDDEN_MODULES & {name.split(".")[0] for name in names}
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        given = {(one.arg, getattr(one.value, "value", None)) for one in node.keywords}
        return FORBIDDEN_CALLS & {name} | FORBIDDEN_ARGUMENTS & given
    return set()


def test_nothing_in_the_package_can_run_what_a_file_holds():
    modules = sorted((ROOT / "keras_unet").rglob("*.py"))
    assert len(modules) > 100
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not forbidden(node), f"{path}:{node.lineno}"
    for code in ("import pickle", "from marshal import loads", "x.load_model(y)", "f(shell=True)"):
        assert any(forbidden(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize("path", sorted((ROOT / "export").glob("compose*.yaml")), ids=str)
def test_the_server_listens_on_loopback_alone(path):
    for service in yaml.safe_load(path.read_text())["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert service.get("network_mode") is None


def test_the_server_has_a_bound_on_its_memory():
    service = yaml.safe_load((ROOT / "export" / "compose.yaml").read_text())["services"]["server"]
    assert service["mem_limit"]
    assert service["security_opt"] == ["no-new-privileges:true"]
