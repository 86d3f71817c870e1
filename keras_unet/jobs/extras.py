"""Packages that only some jobs need, looked for before any work is done."""

from __future__ import annotations

from importlib.util import find_spec


def require(extra: str, *packages: str) -> None:
    """Makes sure that packages are installed.

    Args:
        extra: The extra of this distribution that brings them.
        packages: What is imported, such as `bioimageio.core`.

    Raises:
        ModuleNotFoundError: If one is missing; the message names all that are.

    >>> require("onnx", "json")
    """
    missing = [name for name in packages if not _is_installed(name)]
    if missing:
        raise ModuleNotFoundError(
            f"expected the packages of the extra {extra}. Received an environment without "
            f'{", ".join(missing)}; pip install ".[{extra}]"'
        )


def _is_installed(package: str) -> bool:
    parent = package.rpartition(".")[0]
    return (not parent or _is_installed(parent)) and find_spec(package) is not None
