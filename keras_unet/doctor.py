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
_SECONDS = 30  # time limit for the driver
_HIDING = {"", "-1", "NoDevFiles"}  # values of CUDA_VISIBLE_DEVICES
_GPU_WORDS = ("gpu", "cuda", "cudnn", "dlopen")

_PROBE = "keras_unet.doctor_probe"
_PROBE_SECONDS = 300  # time limit, for a slow disk
_MINIMUM_MEMORY, _MINIMUM_DISK = 4 * 2**30, 2**30
_NAMESAKE = "keras-unet"  # another project with the same import name
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s:'\"]+)+[\\/](?=[^\\/\s:'\"])")
_STAGES = {  # of the probe, and the message if one fails
    "devices": "TensorFlow does not start",
    "precision": "TensorFlow cannot list its devices",
    "benchmark": "a small network does not train and predict",
}

_SETTINGS = {  # environment variables and their effect
    "MPLBACKEND": "no effect on commands, which draw with Agg",
    "KERAS_BACKEND": "must be tensorflow",
    "KERAS_HOME": "the folder of keras.json",
    "TF_USE_LEGACY_KERAS": "no effect unless tf_keras is installed; networks are of Keras 3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "whether TensorFlow allocates GPU memory as needed",
    "CUDA_VISIBLE_DEVICES": "GPUs that CUDA can use",
    "TF_ENABLE_ONEDNN_OPTS": "0 makes TensorFlow slower on most CPUs",
    "PYTHONIOENCODING": "characters that it lacks are printed as escapes",
}
_KERAS_SETTINGS = {  # of keras.json: default, and effect of another value
    "backend": ("tensorflow", "must be tensorflow, unless KERAS_BACKEND is"),
    "floatx": ("float32", "no effect; --precision chooses the types"),
    "image_data_format": ("channels_last", "no effect; channels are always last"),
}
_MAX_CHARACTERS = 60  # of a setting
_OTHER_CAUSES = re.compile(r"KERAS_BACKEND|keras\.json|MPLBACKEND")  # not the installation
_NO_MODULE = re.compile(r"No module named '(?P<name>\w+)")
_TENSORFLOW_PACKAGES = {"tensorflow", "keras", "keras_unet"}

Facts = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """Facts about the GPUs of a machine.

    Attributes:
        used: GPUs that TensorFlow uses.
        with_cuda: Whether TensorFlow was built with CUDA.
        listed: GPUs that NVIDIA's driver lists; None without a driver.
        visible: Value of CUDA_VISIBLE_DEVICES; None if it is not set.
        missing: Packages of TensorFlow's CUDA libraries that are not installed.
        stderr: Messages of TensorFlow on standard error.
    """

    used: Sequence[str]
    with_cuda: bool
    listed: Sequence[str] | None
    visible: str | None
    missing: Sequence[str]
    stderr: str = ""


class GpuStatus(NamedTuple):
    """Use of the GPU, with the reason.

    Attributes:
        summary: Used GPUs, or the reason why none is used.
        problem: Problem with its solution; None if there is none.
    """

    summary: str
    problem: str | None = None


def gpu_status(facts: GpuFacts) -> GpuStatus:
    """Determines why a GPU is used or not.

    Example:
        >>> bare = GpuFacts(used=[], with_cuda=True, listed=None, visible=None, missing=[])
        >>> gpu_status(bare).summary
        'not used: no driver of NVIDIA is installed (no nvidia-smi), so that TensorFlow cannot...'
    """
    if facts.used:
        return GpuStatus(f"used: {', '.join(facts.used)}")
    if facts.listed is None:
        return GpuStatus(
            f"not used: no driver of NVIDIA is installed (no {_NVIDIA}), so that TensorFlow cannot "
            "use a GPU"
        )
    reason, solution = _reason_and_solution(facts, facts.listed)
    return GpuStatus(f"not used: {reason}", f"no GPU is used: {reason}; {solution}")


def listed_gpus() -> list[str] | None:
    """Returns the GPUs that NVIDIA's driver lists: None without a driver, none if it fails."""
    program = shutil.which(_NVIDIA)
    if program is None:
        return None
    try:
        process = subprocess.run(  # noqa: S603 - the driver's own program, without a shell
            [program, *_QUERY], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in process.stdout.splitlines() if line.strip()]


def missing_libraries() -> list[str]:
    """Returns the packages of TensorFlow's CUDA libraries that are not installed."""
    libraries = [package for package in packages_of("tensorflow") if package.extra == "and-cuda"]
    return [package.name for package in libraries if package.version is None]


def _reason_and_solution(facts: GpuFacts, listed: Sequence[str]) -> tuple[str, str]:
    if not listed:
        return f"{_NVIDIA} fails or lists none", "read its message, reboot, update the driver"
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
    return f"TensorFlow cannot use it{_gpu_message(facts.stderr)}", (
        "compare the driver's version with TensorFlow's list of tested configurations"
    )


def _gpu_message(stderr: str) -> str:
    """Returns TensorFlow's last message about GPUs, in parentheses, or ""."""
    lines = [
        line for line in stderr.splitlines() if any(word in line.lower() for word in _GPU_WORDS)
    ]
    return f" ({lines[-1].rpartition('] ')[2].strip()})" if lines else ""


class Problem(NamedTuple):
    """Problem of an environment.

    Attributes:
        words: Description and solution.
        breaks: Whether it breaks the package.
    """

    words: str
    breaks: bool = False


class Probed(NamedTuple):
    """Output of the probe, the subprocess that runs TensorFlow.

    Attributes:
        results: Results of the finished stages, by name.
        stderr: Standard error.
        code: Exit code; the negative number of the signal that ended it.
    """

    results: Mapping[str, Mapping[str, Any]]
    stderr: str
    code: int


@dataclass(frozen=True)
class Diagnosis:
    """Result of the environment report.

    Attributes:
        facts: Names and values by section.
        problems: Problems of the environment.
        figures: Results of the benchmark; empty if it failed.
    """

    facts: Facts
    problems: Sequence[Problem]
    figures: Mapping[str, Any]

    @property
    def is_broken(self) -> bool:
        """True if a problem breaks the package."""
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
        """Returns the report as Markdown, to paste into an issue."""
        width = max(len(name) for section in self.facts.values() for name in section)
        lines = [
            line
            for title, section in self.facts.items()
            for line in (f"{title}:", *(f"  {name:{width}}  {section[name]}" for name in section))
        ]
        problems = [f"- {problem.words}" for problem in self.problems] or ["- no problems"]
        return "\n".join(["```", *lines, "```", *problems])


def diagnose(folder: Path = Path(), *, environment: Mapping[str, str] | None = None) -> Diagnosis:
    """Checks this environment, and times a small network for two seconds.

    Args:
        folder: Folder on the disk to write to.
        environment: Environment variables as the user set them; None for the current ones.
    """
    machine, packages, probed = Machine.here(folder), packages_of(), _probe()
    gpu = _gpu(probed)
    facts = {
        "machine": _machine_facts(machine),
        "packages": _packages_facts(packages),
        "settings": _settings_facts(os.environ if environment is None else environment),
        "TensorFlow": _tensorflow_facts(probed, gpu),
        "speed": _speed_facts(probed),
    }
    problems = (
        *_machine_problems(machine),
        *_package_problems(packages),
        *([Problem(gpu.problem)] if gpu and gpu.problem else []),
        *_probe_problems(probed),
    )
    return Diagnosis(facts, problems, dict(probed.results.get("benchmark", {})))


def _probe() -> Probed:
    """Runs TensorFlow in a fresh process, with all of its messages."""
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
        return Probed({}, f"no result within {_PROBE_SECONDS} seconds", 1)
    return Probed(_stages(process.stdout), process.stderr, process.returncode)


def _stages(output: str) -> dict[str, Any]:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return {name: result for line in lines for name, result in json.loads(line).items()}


def _gpu(probed: Probed) -> GpuStatus | None:
    devices = probed.results.get("devices")
    if devices is None:
        return None
    return gpu_status(
        GpuFacts(
            used=devices["gpus"],
            with_cuda=devices["with_cuda"],
            listed=listed_gpus(),
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
            missing=missing_libraries(),
            stderr=without_paths(probed.stderr),
        )
    )


def _machine_facts(machine: Machine) -> dict[str, str]:
    return {
        "Python": machine.python,
        "system": machine.platform,
        "processor": f"{machine.processor}, {machine.cores} cores to use",
        "memory": f"{in_gigabytes(machine.memory)}, {in_gigabytes(machine.free_memory)} available",
        "disk": f"{in_gigabytes(machine.free_disk)} free in the current folder",
    }


def _packages_facts(packages: Sequence[Package]) -> dict[str, str]:
    """Returns the versions of this package, required packages and installed optional ones."""
    versions = {DISTRIBUTION: installed_version(DISTRIBUTION) or "not installed"}
    for package in packages:
        if package.extra is None:
            versions[package.name] = package.version or "missing"
    for package in packages:
        if package.extra is not None and package.version is not None:
            versions.setdefault(package.name, f"{package.version} ({package.extra})")
    return versions


def _settings_facts(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the relevant settings that are set, with their effect."""
    settings = {
        name: f"{_short(environment[name])} ({effect})"
        for name, effect in _SETTINGS.items()
        if environment.get(name)
    } | {
        f"{name} in keras.json": f"{_short(str(value))} ({_KERAS_SETTINGS[name][1]})"
        for name, value in _keras_settings(environment).items()
    }
    return settings | _home_facts() or {"settings": "no relevant ones"}


def _home_facts() -> dict[str, str]:
    """Returns a fact if the home folder is not writable, without its path, which has a name."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - never raises
    if home.is_dir() and os.access(home, os.W_OK):
        return {}
    return {
        "HOME": "cannot be written to (no effect except on keras-unet data, which keeps its "
        "archives there unless XDG_CACHE_HOME is set)"
    }


def _keras_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns the settings of keras.json that are not the defaults; none of an invalid file."""
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


def _short(value: str) -> str:
    """Returns a setting in one short line; "set" if it may be a path, which can name people."""
    is_path = "/" in value.replace("module://", "") or "\\" in value
    plain = ascii(value)[1:-1]
    return "set" if is_path else plain[:_MAX_CHARACTERS]


def _tensorflow_facts(probed: Probed, gpu: GpuStatus | None) -> dict[str, str]:
    devices, precision = probed.results.get("devices"), probed.results.get("precision")
    if devices is None or gpu is None:
        return {"TensorFlow": "does not start"}
    cuda = f"with CUDA {devices['cuda']}, cuDNN {devices['cudnn']}"
    facts = {"built": cuda if devices["with_cuda"] else "without CUDA", "GPU": gpu.summary}
    if precision is None:
        return facts
    return facts | {"--precision auto": f"{precision['auto']}: {precision['why']}"}


def _speed_facts(probed: Probed) -> dict[str, str]:
    figures = probed.results.get("benchmark")
    if figures is None:
        return {"benchmark": "failed"}
    rates = {name: f"{figures[name]:,.0f} useful pixels/s" for name in ("training", "prediction")}
    return {"network": figures["network"], **rates}


def _machine_problems(machine: Machine) -> Iterator[Problem]:
    if machine.free_memory < _MINIMUM_MEMORY:
        yield Problem(
            f"only {in_gigabytes(machine.free_memory)} of memory is available; close other "
            "programs, or train with a smaller --tile and fewer --base-filters"
        )
    if machine.free_disk < _MINIMUM_DISK:
        yield Problem(
            f"only {in_gigabytes(machine.free_disk)} of disk space is free in the current folder; "
            "write runs to another disk"
        )


def _package_problems(packages: Sequence[Package]) -> Iterator[Problem]:
    for package in packages:
        name, version, required = package.name, package.version, package.required
        if version is None and package.extra is None:
            yield Problem(f"{name} is missing; pip install '{name}{required}'", True)
        elif version is not None and not package.is_valid:
            yield Problem(
                f"{name} {version} is installed, but {required} is needed; "
                f"pip install '{name}{required}'",
                package.extra is None,
            )
    if installed_version(_NAMESAKE):
        yield Problem(
            f"{_NAMESAKE} is installed too, another project with the same import name; "
            f"pip uninstall {_NAMESAKE}, then install {DISTRIBUTION} again",
            True,
        )


def _probe_problems(probed: Probed) -> Iterator[Problem]:
    for stage, failure in _STAGES.items():
        if stage not in probed.results:
            yield Problem(f"{failure}: {_cause(probed)}", True)
            return
    if not probed.results["benchmark"]["finite"]:
        yield Problem(
            "the benchmark gave numbers that are not finite; use --precision float32, and update "
            "TensorFlow and the driver",
            True,
        )


def _cause(probed: Probed) -> str:
    """Returns why the probe failed, by its signal or its last message, with a solution."""
    if probed.code == -signal.SIGILL:
        return (
            "the CPU lacks instructions (AVX) that TensorFlow's wheels need; use another machine, "
            "or a TensorFlow built for this one"
        )
    if probed.code == -signal.SIGKILL:
        return "the system ended it, probably out of memory; close other programs"
    if probed.code < 0:
        return f"it was ended by signal {-probed.code}; pip install --force-reinstall tensorflow"
    lines = [line.strip() for line in probed.stderr.splitlines() if line.strip()]
    last = without_paths(lines[-1]) if lines else "without a message"
    if _OTHER_CAUSES.search(last):
        return last
    missing = _NO_MODULE.search(last)
    if missing and missing["name"] not in _TENSORFLOW_PACKAGES:
        return f"{last}; pip install --force-reinstall the package that contains {missing['name']}"
    return f"{last}; if that is not enough to solve it, pip install --force-reinstall tensorflow"


def without_paths(text: str) -> str:
    """Shortens paths to the last part, since folders can name people.

    >>> without_paths("File '/home/ann/venv/x.py', line 3: no /opt/lib/y.so")
    "File 'x.py', line 3: no y.so"
    """
    return _PATH.sub("", text)
