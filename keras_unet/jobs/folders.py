"""The folders that a person names, looked at before any work is done. Nothing is created here."""

from __future__ import annotations

from pathlib import Path

from keras_unet.files import make_folder

_LISTED = 3


def check_writable(folder: Path) -> None:
    """Makes sure that files can be written to a folder, or that it can be created.

    Raises:
        OSError: The folder, or the nearest one above that exists, cannot be written to.
    """
    make_folder(next(path for path in (folder, *folder.absolute().parents) if path.exists()))


def check_new(folder: Path, purpose: str) -> None:
    """Makes sure that a folder is empty or missing, and can be written to.

    Args:
        folder: The folder; hidden files in it do not count.
        purpose: What it is for, for the message.

    Raises:
        OSError: The folder holds files, or cannot be written to.
    """
    check_writable(folder)
    entries = visible(folder)
    if entries:
        more = ", ..." if len(entries) > _LISTED else ""
        raise FileExistsError(
            f"{folder}: expected a new or empty folder for {purpose}. Received one with "
            f"{', '.join(entries[:_LISTED])}{more}; choose another, or remove it first"
        )


def visible(folder: Path) -> list[str]:
    """Lists the names in a folder by the alphabet, hidden ones apart; none where it is missing."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
