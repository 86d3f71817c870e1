"""The machine as a program finds it: system, cores, memory, disk. No TensorFlow, no names."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USED = Path("/sys/fs/cgroup/memory.current")
_PROCESSORS = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Machine that a training runs on.

    Attributes:
        python: Version and kind of Python.
        platform: The operating system.
        processor: The processor's name.
        cores: Cores that this process may use.
        memory: Bytes of memory, no more than a container allows.
        free_memory: Bytes that are still to be had.
        free_disk: Bytes that are free where files would be written.
    """

    python: str
    platform: str
    processor: str
    cores: int
    memory: int
    free_memory: int
    free_disk: int

    @classmethod
    def here(cls, folder: Path) -> Self:
        """Looks at this machine, and at the disk that a folder lies on."""
        memory, free = _memory()
        return cls(
            python=f"{platform.python_version()} ({platform.python_implementation()})",
            platform=platform.platform(),
            processor=_processor(),
            cores=_cores(),
            memory=memory,
            free_memory=free,
            free_disk=shutil.disk_usage(folder).free,
        )


def in_gigabytes(size: int) -> str:
    """Writes bytes in units of 2**30.

    >>> in_gigabytes(3 * 2**29)
    '1.5 GiB'
    """
    return f"{size / 2**30:.1f} GiB"


def total_memory() -> int:
    """Returns the bytes of memory, no more than a container allows."""
    return _memory()[0]


def free_memory() -> int:
    """Returns the bytes of memory that are still to be had."""
    return _memory()[1]


def _memory() -> tuple[int, int]:
    """Reads total and available memory; a container (cgroup 2) may allow less than there is."""
    memory = psutil.virtual_memory()
    limit = _LIMIT.read_text().strip() if _LIMIT.is_file() else "max"
    if limit == "max":
        return memory.total, memory.available
    left = int(limit) - int(_USED.read_text())
    return min(memory.total, int(limit)), max(0, min(memory.available, left))


def _cores() -> int:
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # not on macOS
        return len(process.cpu_affinity())
    return psutil.cpu_count() or 1


def _processor() -> str:
    lines = _PROCESSORS.read_text().splitlines() if _PROCESSORS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
