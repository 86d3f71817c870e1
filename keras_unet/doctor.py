"""Environment report: what is installed, which device and precision are used, and why."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from keras_unet.files import SOFTWARE
from keras_unet.system import (
    DISTRIBUTION,
    Machine,
    Package,
    in_gigabytes,
    installed_version,
    packages_of,
)

_NVIDIA = "nvidia-smi"
_QUERY = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
_SECONDS = 30  # a driver that hangs answers nothing
_HIDING = {"", "-1", "NoDevFiles"}  # values of CUDA_VISIBLE_DEVICES
_OF_GPUS = ("gpu", "cuda", "cudnn", "dlopen")


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """Facts about GPUs before a verdict.

    Attributes:
        used: The GPUs that TensorFlow sees.
        with_cuda: Whether TensorFlow was built with CUDA.
        listed: The GPUs that NVIDIA's driver lists; None where there is no driver.
        visible: What CUDA_VISIBLE_DEVICES is set to; None where it is not.
        missing: Packages of TensorFlow's CUDA libraries that are not installed.
        said: What TensorFlow wrote to standard error.
    """

    used: Sequence[str]
    with_cuda: bool
    listed: Sequence[str] | None
    visible: str | None
    missing: Sequence[str]
    said: str = ""


class GpuStatus(NamedTuple):
    """GpuStatus on the use of a GPU.

    Attributes:
        words: Which, or why none is.
        problem: What is amiss with the way out; None where nothing is.
    """

    words: str
    problem: str | None = None


def verdict(facts: GpuFacts) -> GpuStatus:
    """Says why a GPU is used or is not.

    Example:
        >>> bare = GpuFacts(used=[], with_cuda=True, listed=None, visible=None, missing=[])
        >>> verdict(bare).words
        'not used: there is no driver of NVIDIA here (no nvidia-smi), so no GPU that TensorFlow...'
    """
    if facts.used:
        return GpuStatus(f"used: {', '.join(facts.used)}")
    if facts.listed is None:
        return GpuStatus(
            f"not used: there is no driver of NVIDIA here (no {_NVIDIA}), so no GPU that "
            "TensorFlow could use"
        )
    why, way_out = _reason_not_on_gpu(facts, facts.listed)
    return GpuStatus(f"not used: {why}", f"no GPU is used: {why}; {way_out}")


def listed_gpus() -> list[str] | None:
    """Asks NVIDIA's driver for its GPUs; None where there is no driver, none where it fails."""
    program = shutil.which(_NVIDIA)
    if program is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - the driver's own program, without a shell
            [program, *_QUERY], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def missing_libraries() -> list[str]:
    """Lists the packages of TensorFlow's CUDA libraries that are not installed."""
    of_cuda = [one for one in packages_of("tensorflow") if one.extra == "and-cuda"]
    return [one.name for one in of_cuda if one.version is None]


def _reason_not_on_gpu(facts: GpuFacts, listed: Sequence[str]) -> tuple[str, str]:
    """Returns the first thing that stands in the way, and the way out."""
    if not listed:
        return f"{_NVIDIA} fails or lists none", "look at what it says, reboot, renew the driver"
    if facts.visible in _HIDING:
        hidden = f"it is hidden by CUDA_VISIBLE_DEVICES={facts.visible}"
        return hidden, "unset that variable"
    if not facts.with_cuda:
        return "this TensorFlow was built without CUDA", (
            'pip install ".[gpu]"; on Windows, within WSL 2'
        )
    if facts.missing:
        listing = ", ".join(facts.missing)
        return f"TensorFlow's CUDA libraries are missing ({listing})", 'pip install ".[gpu]"'
    return f"TensorFlow cannot use it{_reason(facts.said)}", (
        "compare the driver's version with TensorFlow's list of tested configurations"
    )


def _reason(said: str) -> str:
    """Picks the last line of TensorFlow's that speaks of GPUs, without its origin."""
    lines = [line for line in said.splitlines() if any(word in line.lower() for word in _OF_GPUS)]
    return f" ({lines[-1].rpartition('] ')[2].strip()})" if lines else ""


_PROBE = "keras_unet.doctor_probe"
_PROBE_SECONDS = 300  # for TensorFlow to start and to be timed, on a slow disk too
_LEAST_MEMORY, _LEAST_DISK = 4 * 2**30, 2**30
_NAMESAKE = "keras-unet"
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s:'\"]+)+[\\/](?=[^\\/\s:'\"])")
_STAGES = {  # of the probe, and what a person calls them
    "devices": "TensorFlow does not start",
    "precision": "TensorFlow does not tell its devices",
    "benchmark": "a small network does not train and predict",
}

_SETTINGS = {  # of the environment, and what comes of them
    "MPLBACKEND": "of no effect on commands, which draw with Agg",
    "KERAS_BACKEND": "must be tensorflow",
    "KERAS_HOME": "the folder of keras.json",
    "TF_USE_LEGACY_KERAS": "of no effect unless tf_keras is installed; networks are of Keras 3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "TensorFlow's: whether memory of a GPU is taken as needed",
    "CUDA_VISIBLE_DEVICES": "CUDA's: which GPUs there are",
    "TF_ENABLE_ONEDNN_OPTS": "TensorFlow's: 0 is slower on most processors",
    "PYTHONIOENCODING": "what it lacks is printed as an escape",
}
_KERAS_SETTINGS = {  # of keras.json: Keras's default, and what comes of another value
    "backend": ("tensorflow", "must be tensorflow, unless KERAS_BACKEND is"),
    "floatx": ("float32", "of no effect; types are chosen by --precision"),
    "image_data_format": ("channels_last", "of no effect; the last axis is that of channels"),
}
_MOST_LETTERS = 60  # of a setting
_OWN_WORDS = re.compile(r"KERAS_BACKEND|keras\.json|MPLBACKEND")  # of causes that no package mends
_NO_MODULE = re.compile(r"No module named '(?P<name>\w+)")
_OF_TENSORFLOW = {"tensorflow", "keras", "keras_unet"}

Facts = Mapping[str, Mapping[str, str]]


class Problem(NamedTuple):
    """Something amiss.

    Attributes:
        words: What, and the way out.
        breaks: Whether nothing works with it.
    """

    words: str
    breaks: bool = False


class Probed(NamedTuple):
    """Output of TensorFlow's own process.

    Attributes:
        found: What each stage found, by name; those that did not come through are missing.
        said: What was written to standard error.
        code: The process's exit code; a signal's number, negative, if one ended it.
    """

    found: Mapping[str, Mapping[str, Any]]
    said: str
    code: int


@dataclass(frozen=True)
class Diagnosis:
    """Result of the environment report.

    Attributes:
        facts: Names and values by section, for a person.
        problems: What is amiss.
        figures: The numbers of the benchmark; empty if it failed.
    """

    facts: Facts
    problems: Sequence[Problem]
    figures: Mapping[str, Any]

    @property
    def is_broken(self) -> bool:
        """Tells whether something must be mended before anything works."""
        return any(problem.breaks for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        problems = [problem._asdict() for problem in self.problems]
        return {
            "software": SOFTWARE,
            "facts": self.facts,
            "problems": problems,
            "benchmark": self.figures,
        }

    def to_markdown(self) -> str:
        """Writes all of it as text to paste into an issue."""
        width = max(len(name) for section in self.facts.values() for name in section)
        lines = [
            line
            for title, section in self.facts.items()
            for line in (f"{title}:", *(f"  {name:{width}}  {section[name]}" for name in section))
        ]
        amiss = [f"- {problem.words}" for problem in self.problems] or ["- nothing amiss"]
        return "\n".join(["```", *lines, "```", *amiss])


def diagnose(folder: Path = Path(), *, environment: Mapping[str, str] | None = None) -> Diagnosis:
    """Looks at this environment, and times a small network for two seconds.

    Args:
        folder: A folder on the disk that files would be written to.
        environment: The environment's variables as a person has set them; None for those that are.
    """
    machine, packages, probed = Machine.here(folder), packages_of(), _probe()
    gpu = _gpu(probed)
    facts = {
        "machine": _of_machine(machine),
        "packages": _of_packages(packages),
        "settings": _of_settings(os.environ if environment is None else environment),
        "TensorFlow": _of_tensorflow(probed, gpu),
        "speed": _of_speed(probed),
    }
    problems = (
        *_amiss_with_machine(machine),
        *_amiss_with_packages(packages),
        *([Problem(gpu.problem)] if gpu and gpu.problem else []),
        *_amiss_with_probe(probed),
    )
    return Diagnosis(facts, problems, dict(probed.found.get("benchmark", {})))


def _probe() -> Probed:
    """Has TensorFlow looked at by a fresh process, which tells why it uses no GPU."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0", "PYTHONUNBUFFERED": "1"}
    try:
        process = subprocess.run(  # noqa: S603 - this Python, a module of this package
            [sys.executable, "-m", _PROBE],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probed({}, f"no answer within {_PROBE_SECONDS} seconds", 1)
    return Probed(_stages(process.stdout), process.stderr, process.returncode)


def _stages(output: str) -> dict[str, Any]:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return {name: found for line in lines for name, found in json.loads(line).items()}


def _gpu(probed: Probed) -> GpuStatus | None:
    devices = probed.found.get("devices")
    if devices is None:
        return None
    return verdict(
        GpuFacts(
            used=devices["gpus"],
            with_cuda=devices["with_cuda"],
            listed=listed_gpus(),
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
            missing=missing_libraries(),
            said=without_paths(probed.said),
        )
    )


def _of_machine(machine: Machine) -> dict[str, str]:
    return {
        "Python": machine.python,
        "system": machine.platform,
        "processor": f"{machine.processor}, {machine.cores} cores to use",
        "memory": f"{in_gigabytes(machine.memory)}, {in_gigabytes(machine.free_memory)} available",
        "disk": f"{in_gigabytes(machine.free_disk)} free in the current folder",
    }


def _of_packages(packages: Sequence[Package]) -> dict[str, str]:
    """Names this package, what it always needs, and what is there of the extras."""
    ours = {DISTRIBUTION: installed_version(DISTRIBUTION) or "not installed"}
    needed = {one.name: one.version or "missing" for one in packages if one.extra is None}
    extras = {one.name: f"{one.version} ({one.extra})" for one in packages if _is_there(one)}
    return ours | needed | {name: extras[name] for name in extras if name not in needed}


def _of_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Names what is set that matters, and what this package does about it."""
    found = {
        name: f"{_shown(environment[name])} ({effect})"
        for name, effect in _SETTINGS.items()
        if environment.get(name)
    } | {
        f"{name} in keras.json": f"{_shown(str(value))} ({_KERAS_SETTINGS[name][1]})"
        for name, value in _keras_settings(environment).items()
    }
    return found | _of_home() or {"settings": "none that matters"}


def _of_home() -> dict[str, str]:
    """Says so where a person's own folder cannot be written to; its path names people."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - never raises
    if home.is_dir() and os.access(home, os.W_OK):
        return {}
    return {
        "HOME": "cannot be written to (of no effect but on keras-unet data, which keeps its "
        "archives there unless XDG_CACHE_HOME is set)"
    }


def _keras_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Reads the settings of Keras that are not its defaults; none from a file it would not read."""
    home = environment.get("KERAS_HOME")
    folder = Path(home) if home else Path(os.path.expanduser("~/.keras"))  # noqa: PTH111 - never raises
    try:
        settings = json.loads((folder / "keras.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(settings, dict):
        return {}
    return {
        name: settings[name]
        for name, (default, _) in _KERAS_SETTINGS.items()
        if settings.get(name, default) != default
    }


def _shown(value: str) -> str:
    """Shows a setting in one short line; not if it may be a path, for folders name people."""
    is_path = "/" in value.replace("module://", "") or "\\" in value
    plain = ascii(value)[1:-1]
    return "set" if is_path else plain[:_MOST_LETTERS]


def _is_there(one: Package) -> bool:
    return one.extra is not None and one.version is not None


def _of_tensorflow(probed: Probed, gpu: GpuStatus | None) -> dict[str, str]:
    devices, precision = probed.found.get("devices"), probed.found.get("precision")
    if devices is None or gpu is None:
        return {"TensorFlow": "does not start"}
    cuda = f"with CUDA {devices['cuda']}, cuDNN {devices['cudnn']}"
    of_devices = {"built": cuda if devices["with_cuda"] else "without CUDA", "GPU": gpu.words}
    if precision is None:
        return of_devices
    return of_devices | {"--precision auto": f"{precision['auto']}: {precision['why']}"}


def _of_speed(probed: Probed) -> dict[str, str]:
    figures = probed.found.get("benchmark")
    if figures is None:
        return {"benchmark": "failed"}
    rates = {name: f"{figures[name]:,.0f} useful pixels/s" for name in ("training", "prediction")}
    return {"network": figures["network"], **rates}


def _amiss_with_machine(machine: Machine) -> Iterator[Problem]:
    if machine.free_memory < _LEAST_MEMORY:
        yield Problem(
            f"only {in_gigabytes(machine.free_memory)} of memory are available; close other "
            "programs, or train with a smaller --tile and fewer --base-filters"
        )
    if machine.free_disk < _LEAST_DISK:
        yield Problem(
            f"only {in_gigabytes(machine.free_disk)} of disk are free in the current folder; write "
            "runs to another disk"
        )


def _amiss_with_packages(packages: Sequence[Package]) -> Iterator[Problem]:
    for one in packages:
        if one.version is None and one.extra is None:
            yield Problem(f"{one.name} is missing; pip install '{one.name}{one.asked}'", True)
        elif one.version is not None and not one.suits:
            yield Problem(
                f"{one.name} {one.version} is installed, but {one.asked} is needed; "
                f"pip install '{one.name}{one.asked}'",
                one.extra is None,
            )
    if installed_version(_NAMESAKE):
        yield Problem(
            f"{_NAMESAKE} is installed too, another project with the same import name; "
            f"pip uninstall {_NAMESAKE}, then install {DISTRIBUTION} once more",
            True,
        )


def _amiss_with_probe(probed: Probed) -> Iterator[Problem]:
    for stage, failure in _STAGES.items():
        if stage not in probed.found:
            yield Problem(f"{failure}: {_cause(probed)}", True)
            return
    if not probed.found["benchmark"]["finite"]:
        yield Problem(
            "the benchmark gave numbers that are not finite; take --precision float32, and renew "
            "TensorFlow and the driver",
            True,
        )


def _cause(probed: Probed) -> str:
    """Says why a process ended, by its signal or its last words."""
    if probed.code == -signal.SIGILL:
        return (
            "the processor lacks instructions (AVX) that TensorFlow's wheels are built with; take "
            "another machine, or a TensorFlow built for this one"
        )
    if probed.code == -signal.SIGKILL:
        return "the system ended it, most likely for lack of memory; close other programs"
    if probed.code < 0:
        return f"it was ended by signal {-probed.code}; pip install --force-reinstall tensorflow"
    lines = [line.strip() for line in probed.said.splitlines() if line.strip()]
    last = without_paths(lines[-1]) if lines else "it says nothing"
    if _OWN_WORDS.search(last):
        return last
    missing = _NO_MODULE.search(last)
    if missing and missing["name"] not in _OF_TENSORFLOW:
        return f"{last}; pip install --force-reinstall the package that brings {missing['name']}"
    return f"{last}; if that does not tell the way out, pip install --force-reinstall tensorflow"


def without_paths(text: str) -> str:
    """Leaves of every path the last part alone: folders name people.

    >>> without_paths("File '/home/ann/venv/x.py', line 3: no /opt/lib/y.so")
    "File 'x.py', line 3: no y.so"
    """
    return _PATH.sub("", text)
