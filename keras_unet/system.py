"""System that the package runs on: cores, memory and disk, installed packages. No TensorFlow.

Nothing here names a user, a host or a path.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psutil
from packaging.requirements import Requirement

DISTRIBUTION = "keras-unet-biomedical"

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


@dataclass(frozen=True)
class Package:
    """A package that a distribution asks for.

    Attributes:
        name: Its name.
        version: The version that is installed; None where none is.
        asked: The versions asked for, such as ">=2.18"; empty for any.
        extra: The extra that asks for it; None where it is always needed.
        suits: Whether the installed version is one of those asked for.
    """

    name: str
    version: str | None
    asked: str
    extra: str | None
    suits: bool


def packages_of(distribution: str = DISTRIBUTION) -> list[Package]:
    """Lists the packages that an installed distribution asks for on this system.

    Args:
        distribution: Its name on PyPI.

    Raises:
        importlib.metadata.PackageNotFoundError: If it is not installed.
    """
    found = metadata.distribution(distribution)
    extras = found.metadata.get_all("Provides-Extra") or []
    texts = found.requires or []
    return [one for text in texts for one in _packages_of(Requirement(text), extras)]


def installed_version(name: str) -> str | None:
    """Returns the version of a distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages_of(requirement: Requirement, extras: list[str]) -> Iterator[Package]:
    version = installed_version(requirement.name)
    suits = version is not None and requirement.specifier.contains(version, prereleases=True)
    extra = _extra_of(requirement, extras)
    if extra is not None or _is_for_all(requirement):
        yield Package(requirement.name, version, str(requirement.specifier), extra, suits)


def _is_for_all(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _extra_of(requirement: Requirement, extras: list[str]) -> str | None:
    """Returns the first extra that brings a package which is not needed without one."""
    if _is_for_all(requirement) or requirement.marker is None:
        return None
    marker = requirement.marker
    return next((extra for extra in extras if marker.evaluate({"extra": extra})), None)


def require(extra: str, *packages: str) -> None:
    """Makes sure that packages are installed and can be imported.

    Args:
        extra: The extra of this distribution that brings them.
        packages: What the job is about to import, such as `bioimageio.core`.

    Raises:
        ModuleNotFoundError: If one is missing; the message names all that are.
        ImportError: If one is there but fails while it is imported, as where it does not suit
            another.

    >>> require("onnx", "json")
    """
    missing = [name for name in packages if not _is_installed(name)]
    if missing:
        raise ModuleNotFoundError(
            f"expected the packages of the extra {extra}. Received an environment without "
            f'{", ".join(missing)}; pip install ".[{extra}]"'
        )
    for name in packages:
        _import(name)


def _import(package: str) -> None:
    try:
        import_module(package)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ImportError(
            f"expected a package {package} that can be imported. Received version "
            f"{installed_version(package) or 'unknown'}, which fails ({reason}); "
            f"pip install -U {package}"
        ) from error


def _is_installed(package: str) -> bool:
    parent = package.rpartition(".")[0]
    return (not parent or _is_installed(parent)) and find_spec(package) is not None
