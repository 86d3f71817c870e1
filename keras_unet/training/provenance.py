"""Provenance of a run: code, command, package versions and machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from keras_unet.backend import keras, tf
from keras_unet.system import DISTRIBUTION, Machine, installed_version

PACKAGE = Path(__file__).parents[1]

_PACKAGES = ("numpy", "scipy", "scikit-image", "tifffile", "imagecodecs", "pillow")
_VOLATILE = ("python", "free_memory", "free_disk")
_ROUNDING_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "XLA_FLAGS",
)


def now() -> str:
    """Returns date and time in ISO 8601, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """Describes this process, as plain values for the record of a run.

    Returns:
        `versions` of Python and packages, `code` of this package, `command`, `machine` with its
        GPUs, and `environment`: the variables that affect rounding.
    """
    return {
        "versions": _versions(),
        "code": _own_code(),
        "command": shlex.join(sys.argv),
        "machine": _machine(),
        "environment": {
            name: os.environ[name] for name in _ROUNDING_VARIABLES if name in os.environ
        },
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lists differences that may change the results of a repeated training.

    Args:
        before: Record of the first training; entries that it lacks are skipped.
        now: Result of `provenance`.

    Example:
        >>> differences({"versions": {"keras": "3.14"}}, {"versions": {"keras": "3.15"}})
        ['keras 3.14, now 3.15']
    """
    pairs = [(name, _flatten(before).get(name), value) for name, value in _flatten(now).items()]
    return [f"{name} {old}, now {new}" for name, old, new in pairs if old not in (None, new)]


def _flatten(record: Mapping[str, Any]) -> dict[str, Any]:
    machine = record.get("machine", {})
    code = record.get("code", {})
    return {
        **record.get("versions", {}),
        "GPUs": machine.get("gpus"),
        "code of keras_unet": code.get("digest"),
        "processor": machine.get("processor"),
        "cores": machine.get("cores"),
        **record.get("environment", {}),
    }


def _versions() -> dict[str, str | None]:
    return {
        "python": platform.python_version(),
        DISTRIBUTION: installed_version(DISTRIBUTION),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        **{name: installed_version(name) for name in _PACKAGES},
    }


@cache
def _own_code() -> dict[str, Any]:
    # Cached: files that change later are not the code that this process runs.
    return _code(PACKAGE)


def _code(package: Path) -> dict[str, Any]:
    """Returns the commit of a git checkout, else None, and a digest of the source files."""
    checksum = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        checksum.update(path.relative_to(package).as_posix().encode())
        checksum.update(path.read_bytes())
    is_checkout = (package.parent / ".git").exists()
    commit = _git(package, "rev-parse", "HEAD") if is_checkout else None
    changed = commit and _git(package, "status", "--porcelain", "--", ".")
    return {
        "commit": commit,
        "changed": None if changed is None else bool(changed),
        "digest": checksum.hexdigest()[:16],
    }


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        result = subprocess.run(  # noqa: S603 - the commands are written here
            command, cwd=folder, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _machine() -> dict[str, Any]:
    machine = asdict(Machine.here(Path()))
    constant = {name: value for name, value in machine.items() if name not in _VOLATILE}
    return {**constant, "gpus": list(_gpus())}


def _gpus() -> Iterator[str]:
    for gpu in tf.config.list_physical_devices("GPU"):
        yield tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
