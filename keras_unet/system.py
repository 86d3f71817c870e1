"""Properties of the machine and the environment: cores, memory, disk, installed packages.

Does not import TensorFlow, and does not name a user, a host or a path.
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
    """Properties of a machine.

    Attributes:
        python: Version and implementation of Python.
        platform: Operating system.
        processor: Name of the CPU.
        cores: Number of cores that this process may use.
        memory: Memory in bytes, limited by a container.
        free_memory: Available memory in bytes.
        free_disk: Free space in bytes on the disk of a folder.
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
        """Returns the properties of this machine, and of the disk of a folder."""
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
    """Formats a number of bytes in units of 2**30.

    >>> in_gigabytes(3 * 2**29)
    '1.5 GiB'
    """
    return f"{size / 2**30:.1f} GiB"


def total_memory() -> int:
    """Returns the memory in bytes, limited by a container."""
    return _memory()[0]


def free_memory() -> int:
    """Returns the available memory in bytes, limited by a container."""
    return _memory()[1]


def _memory() -> tuple[int, int]:
    """Returns total and available memory, limited by a container (cgroup 2)."""
    memory = psutil.virtual_memory()
    limit = _LIMIT.read_text().strip() if _LIMIT.is_file() else "max"
    if limit == "max":
        return memory.total, memory.available
    left = int(limit) - int(_USED.read_text())
    return min(memory.total, int(limit)), max(0, min(memory.available, left))


def _cores() -> int:
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # missing on macOS
        return len(process.cpu_affinity())
    return psutil.cpu_count() or 1


def _processor() -> str:
    lines = _PROCESSORS.read_text().splitlines() if _PROCESSORS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Package:
    """Required package of a distribution.

    Attributes:
        name: Name of the package.
        version: Installed version; None if it is not installed.
        required: Required versions, such as ">=2.18"; empty for any.
        extra: Extra that requires it; None if it is always required.
        is_valid: Whether the installed version is one of the required ones.
    """

    name: str
    version: str | None
    required: str
    extra: str | None
    is_valid: bool


def packages_of(distribution: str = DISTRIBUTION) -> list[Package]:
    """Returns the packages that an installed distribution requires on this system.

    Args:
        distribution: Name of the distribution on PyPI.

    Raises:
        importlib.metadata.PackageNotFoundError: If it is not installed.
    """
    installed = metadata.distribution(distribution)
    extras = installed.metadata.get_all("Provides-Extra") or []
    texts = installed.requires or []
    return [package for text in texts for package in _packages_of(Requirement(text), extras)]


def installed_version(name: str) -> str | None:
    """Returns the version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages_of(requirement: Requirement, extras: list[str]) -> Iterator[Package]:
    """Yields the package of a requirement, unless it is for other systems."""
    version = installed_version(requirement.name)
    is_valid = version is not None and requirement.specifier.contains(version, prereleases=True)
    extra = _extra_of(requirement, extras)
    if extra is not None or _is_always_required(requirement):
        yield Package(requirement.name, version, str(requirement.specifier), extra, is_valid)


def _is_always_required(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _extra_of(requirement: Requirement, extras: list[str]) -> str | None:
    """Returns the first extra that requires a package; None if it is always required."""
    if _is_always_required(requirement) or requirement.marker is None:
        return None
    marker = requirement.marker
    return next((extra for extra in extras if marker.evaluate({"extra": extra})), None)


def require(extra: str, *packages: str) -> None:
    """Checks that optional packages are installed and can be imported.

    Args:
        extra: Extra of this distribution that requires them.
        packages: Packages to import, such as `bioimageio.core`.

    Raises:
        ModuleNotFoundError: If packages are missing; the message names all of them.
        ImportError: If the import of a package fails, as with versions that do not match.

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
