import getpass
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from keras_unet import doctor
from keras_unet.cli import main
from keras_unet.doctor import Probed, diagnose, without_paths
from keras_unet.system import Machine, Package

FOUND = {
    "devices": {
        "tensorflow": "2.21.0",
        "keras": "3.15.1",
        "gpus": [],
        "with_cuda": False,
        "cuda": None,
        "cudnn": None,
    },
    "precision": {"auto": "float32", "why": "the processor has no unit for bfloat16"},
    "benchmark": {"network": "depth 3", "training": 1e5, "prediction": 5e5, "finite": True},
}
ROOMY = Machine(
    python="3.11.0 (CPython)",
    platform="Linux",
    processor="Any",
    cores=2,
    memory=2**34,
    free_memory=2**33,
    free_disk=2**34,
)


@pytest.fixture
def environment(monkeypatch):
    """Returns a function that diagnoses an environment of these findings."""

    def lend(found=FOUND, said="", code=0, machine=ROOMY, packages=(), namesake=None, gpus=None):
        monkeypatch.setattr(doctor, "_probe", lambda: Probed(found, said, code))
        monkeypatch.setattr(doctor, "packages_of", lambda: list(packages))
        monkeypatch.setattr(doctor, "listed_gpus", lambda: gpus)
        monkeypatch.setattr(doctor, "missing_libraries", list)
        monkeypatch.setattr(Machine, "here", lambda _: machine)
        versions = {"keras-unet-biomedical": "1.0", "keras-unet": namesake}
        monkeypatch.setattr(doctor, "installed_version", versions.get)
        return diagnose()

    return lend


def test_nothing_amiss(environment):
    found = environment()
    assert (found.problems, found.is_broken) == ((), False)
    assert found.facts["speed"] == {
        "network": "depth 3",
        "training": "100,000 useful pixels/s",
        "prediction": "500,000 useful pixels/s",
    }
    assert found.facts["TensorFlow"]["--precision auto"].startswith("float32: the processor has")
    assert found.figures["training"] == 1e5
    assert found.to_markdown().endswith("```\n- no problems")


def test_packages_are_named_extras_with_the_name_of_theirs(environment):
    packages = [
        Package("tensorflow", "2.21.0", ">=2.18", None, True),
        Package("tensorflow", "2.21.0", ">=2.18", "gpu", True),
        Package("onnx", "1.23", ">=1.17", "onnx", True),
        Package("grpcio", None, ">=1.60", "serving", False),
    ]
    found = environment(packages=packages)
    assert found.facts["packages"] == {
        "keras-unet-biomedical": "1.0",
        "tensorflow": "2.21.0",
        "onnx": "1.23 (onnx)",
    }
    assert found.problems == ()


SCARCE = {
    "memory": ({"free_memory": 2**31}, "only 2.0 GiB of memory is available"),
    "disk": ({"free_disk": 2**29}, "only 0.5 GiB of disk space is free"),
}


@pytest.mark.parametrize(("less", "words"), SCARCE.values(), ids=SCARCE)
def test_what_is_scarce_is_told_but_breaks_nothing(environment, less, words):
    found = environment(machine=Machine(**vars(ROOMY) | less))
    (problem,) = found.problems
    assert problem.words.startswith(words)
    assert not found.is_broken


def test_a_gpu_that_is_not_used_breaks_nothing(environment):
    found = environment(gpus=["NVIDIA L4"])
    (problem,) = found.problems
    assert problem.words.startswith("no GPU is used: this TensorFlow was built without CUDA")
    assert not found.is_broken


PACKAGES = {
    "missing": (
        {"packages": [Package("rich", None, ">=13", None, False)]},
        "rich is missing; pip install 'rich>=13'",
    ),
    "too old": (
        {"packages": [Package("keras", "3.1", ">=3.8", None, False)]},
        "keras 3.1 is installed, but >=3.8 is needed; pip install 'keras>=3.8'",
    ),
    "the other project": (
        {"namesake": "0.1"},
        "keras-unet is installed too, another project with the same import name",
    ),
}


@pytest.mark.parametrize(("given", "words"), PACKAGES.values(), ids=PACKAGES)
def test_packages_that_must_be_mended(environment, given, words):
    found = environment(**given)
    assert found.problems[0].words.startswith(words)
    assert found.is_broken


def test_an_extra_of_another_version_breaks_nothing_else(environment):
    found = environment(packages=[Package("onnx", "1.0", ">=1.17", "onnx", False)])
    assert found.problems[0].words.startswith("onnx 1.0 is installed, but >=1.17 is needed")
    assert not found.is_broken


def without(*stages):
    return {name: value for name, value in FOUND.items() if name not in stages}


FAILURES = {
    "no import": (
        {"found": {}, "said": "File '/home/ann/x.py'\nImportError: no /opt/ann/tf.so\n", "code": 1},
        "TensorFlow does not start: ImportError: no tf.so; if that is not enough to solve it",
    ),
    "silent": ({"found": {}, "code": 1}, "TensorFlow does not start: without a message"),
    "no AVX": (
        {"found": {}, "code": -signal.SIGILL},
        "TensorFlow does not start: the CPU lacks instructions (AVX)",
    ),
    "no memory": (
        {"found": without("benchmark"), "code": -signal.SIGKILL},
        "a small network does not train and predict: the system ended it, probably out of",
    ),
    "crash": (
        {"found": without("benchmark"), "code": -signal.SIGSEGV},
        f"a small network does not train and predict: it was ended by signal {signal.SIGSEGV:d}",
    ),
    "driver": (
        {"found": without("precision", "benchmark"), "said": "bad driver", "code": 1},
        "TensorFlow cannot list its devices: bad driver",
    ),
    "NaN": (
        {"found": FOUND | {"benchmark": FOUND["benchmark"] | {"finite": False}}},
        "the benchmark gave numbers that are not finite",
    ),
}


@pytest.mark.parametrize(("given", "words"), FAILURES.values(), ids=FAILURES)
def test_a_tensorflow_that_fails_is_a_finding(environment, given, words):
    found = environment(**given)
    assert found.problems[-1].words.startswith(words)
    assert found.is_broken
    assert "/home" not in found.to_markdown()


def test_a_real_failure_is_told_in_its_last_words(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    probed = doctor._probe()
    assert probed.results == {}
    assert "TensorFlow backend" in doctor._cause(probed)


def test_a_tensorflow_that_hangs_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "_PROBE_SECONDS", 0.01)
    probed = doctor._probe()
    assert "no result within 0.01 seconds" in doctor._cause(probed)


OTHER_CAUSES = {
    "backend": "ImportError: keras_unet needs Keras 3 ...; unset KERAS_BACKEND",
    "file": "ImportError: Keras takes the settings in its file keras.json only if ...",
    "module": "ModuleNotFoundError: No module named 'absl'",
}


@pytest.mark.parametrize("said", OTHER_CAUSES.values(), ids=OTHER_CAUSES)
def test_another_cause_is_not_mended_by_another_tensorflow(environment, said):
    found = environment(found={}, said=said, code=1)
    assert found.problems[-1].words.startswith(f"TensorFlow does not start: {said}")
    assert "reinstall tensorflow" not in found.to_markdown()


def test_settings_that_matter_are_named_with_what_comes_of_them(environment, monkeypatch, tmp_path):
    settings = {"floatx": "float16", "backend": "tensorflow", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", r"C:\Users\ann")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii\n")
    for name in ("KERAS_BACKEND", "TF_USE_LEGACY_KERAS", "TF_ENABLE_ONEDNN_OPTS"):
        monkeypatch.delenv(name, raising=False)
    found = environment().facts["settings"]
    assert {name: value.split(" (")[0] for name, value in found.items()} == {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "KERAS_HOME": "set",
        "CUDA_VISIBLE_DEVICES": "set",
        "PYTHONIOENCODING": r"ascii\n",
        "floatx in keras.json": "float16",
        "image_data_format in keras.json": "channels_first",
    }
    assert found["floatx in keras.json"].endswith("(no effect; --precision chooses the types)")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"floatx": "float32"}'])
def test_settings_that_are_the_defaults_are_not_named(monkeypatch, tmp_path, text):
    (tmp_path / "keras.json").write_text(text)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert doctor._keras_settings(os.environ) == {}


def test_the_command_names_settings_as_a_person_made_them(environment, monkeypatch):
    environment()
    monkeypatch.setattr(doctor, "listed_gpus", lambda: None)
    result = CliRunner().invoke(main, ["doctor", "--issue"], env={"MPLBACKEND": "nonsense"})
    assert "nonsense (no effect" in result.output


def test_paths_lose_their_folders():
    assert without_paths(r"no C:\Users\Ann\tf.dll here") == "no tf.dll here"
    assert without_paths("100 MiB/s, and/or 3 / 4") == "100 MiB/s, and/or 3 / 4"


def test_the_doctor_itself_imports_no_tensorflow():
    program = "import sys, keras_unet.doctor as d; print('tensorflow' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout == "False\n"


@pytest.fixture(scope="module")
def really():
    """What the doctor finds here: a probe and its benchmark."""
    return diagnose()


def test_here_everything_works(really):
    assert not really.is_broken, really.problems
    assert really.figures["training"] > 0
    assert really.figures["prediction"] > 0
    assert really.facts["TensorFlow"]["GPU"].partition(":")[0] in {"used", "not used"}


def test_the_report_names_no_user_and_no_path(really):
    text = really.to_markdown() + json.dumps(really.to_dict())
    here = {str(Path.cwd()), str(Path.home()), sys.prefix, os.path.dirname(doctor.__file__)}  # noqa: PTH120
    assert not [path for path in here if len(path) > 1 and path in text]
    user = getpass.getuser()
    assert user not in text.replace("/", " ").split()


def test_the_command_prints_a_table_or_text_and_writes_json(monkeypatch, really, tmp_path):
    monkeypatch.setattr(doctor, "diagnose", lambda **_: really)
    table = CliRunner().invoke(main, ["doctor", "--json", str(tmp_path / "new" / "doctor.json")])
    assert table.exit_code == 0, table.output
    assert "useful pixels/s" in table.output
    assert "keras-unet doctor --issue" in table.output
    assert json.loads((tmp_path / "new" / "doctor.json").read_text()) == really.to_dict()
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    refused = CliRunner().invoke(main, ["doctor", "--json", str(mine)])
    assert (
        "mine.json: expected no file, or a JSON file that keras-unet has written" in refused.stderr
    )
    for _ in range(2):  # the second replaces its own
        CliRunner().invoke(main, ["doctor", "--json", str(mine), "--overwrite"])
        assert json.loads(mine.read_text())["software"] == "keras_unet"
    text = CliRunner().invoke(main, ["doctor", "--issue"])
    assert text.output == really.to_markdown() + "\n"


def test_what_is_broken_gives_exit_code_1(environment, monkeypatch):
    found = environment(namesake="0.1")
    monkeypatch.setattr(doctor, "diagnose", lambda **_: found)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "Broken: keras-unet is installed too" in result.output
