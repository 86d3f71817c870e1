"""Packages that only some jobs need, looked for before any work is done."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from keras_unet.packages import installed_version


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
