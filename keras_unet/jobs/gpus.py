"""Why a GPU is used or is not: facts from the system and from TensorFlow, and a verdict."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras_unet.packages import packages_of

_NVIDIA = "nvidia-smi"
_QUERY = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
_SECONDS = 30  # a driver that hangs answers nothing
_HIDING = {"", "-1", "NoDevFiles"}  # values of CUDA_VISIBLE_DEVICES
_OF_GPUS = ("gpu", "cuda", "cudnn", "dlopen")


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What is known of GPUs before a verdict.

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


class Verdict(NamedTuple):
    """Whether a GPU is used.

    Attributes:
        words: Which, or why none is.
        problem: What is amiss with the way out; None where nothing is.
    """

    words: str
    problem: str | None = None


def verdict(facts: GpuFacts) -> Verdict:
    """Says why a GPU is used or is not.

    Example:
        >>> bare = GpuFacts(used=[], with_cuda=True, listed=None, visible=None, missing=[])
        >>> verdict(bare).words
        'not used: there is no driver of NVIDIA here (no nvidia-smi), so no GPU that TensorFlow...'
    """
    if facts.used:
        return Verdict(f"used: {', '.join(facts.used)}")
    if facts.listed is None:
        return Verdict(
            f"not used: there is no driver of NVIDIA here (no {_NVIDIA}), so no GPU that "
            "TensorFlow could use"
        )
    why, way_out = _hindrance(facts, facts.listed)
    return Verdict(f"not used: {why}", f"no GPU is used: {why}; {way_out}")


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


def _hindrance(facts: GpuFacts, listed: Sequence[str]) -> tuple[str, str]:
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
