"""Parts of a work that may be interrupted: a file for each that is finished, and their checksums.

folder/
├── manifest.jsonl     what is being made, then a line for each finished part: name, SHA-256
├── <name>             a part
└── ...

A part gets its name when all of it is on the disk, and its line after that. So whatever is
interrupted and however, a part that is listed and has its checksum is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_unet.files import atomic, make_folder

MANIFEST = "manifest.jsonl"
FORMAT = 1

_DIGITS = 12
_ENDING = ".parts"


def checksum_of(content: bytes) -> str:
    """Returns the SHA-256 of bytes.

    >>> checksum_of(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def write_part(path: Path, content: bytes) -> str:
    """Writes a part, whole or not at all, and returns its checksum; its folder exists."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return checksum_of(content)


@dataclass(frozen=True, eq=False)
class Ledger:
    """The finished parts of a work.

    Attributes:
        folder: Where they lie.
        checksums: Of each, by its name.
        damaged: Names of those that were listed, but are missing or of another checksum.
    """

    folder: Path
    checksums: dict[str, str]
    damaged: tuple[str, ...] = ()

    @classmethod
    def open(cls, out: Path, name: str, work: Mapping[str, Any]) -> Ledger:
        """Goes on with a work, or begins it.

        What is left of another work of the same name is removed.

        Args:
            out: Where the folder of the parts is, or is made.
            name: Of the work.
            work: All that its parts depend on, as JSON knows it.

        Raises:
            OSError: If nothing can be written there.
        """
        first = json.dumps({"format": FORMAT, "work": work}, sort_keys=True)
        digits = checksum_of(first.encode())[:_DIGITS]
        folder = out / f".{name}.{digits}{_ENDING}"
        for other in _folders(out, name):
            if other != folder:
                shutil.rmtree(other)
        make_folder(folder)
        listed = dict(_listed(folder / MANIFEST, first))
        whole = {one: known for one, known in listed.items() if _is_whole(folder / one, known)}
        lines = [first, *(_line(*one) for one in whole.items())]
        write_part(folder / MANIFEST, "".join(f"{line}\n" for line in lines).encode())
        return cls(folder, whole, tuple(sorted(listed.keys() - whole.keys())))

    def enter(self, name: str, checksum: str) -> None:
        """Lists a part that is written."""
        with (self.folder / MANIFEST).open("a", encoding="utf-8") as file:
            file.write(_line(name, checksum) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.checksums[name] = checksum

    def read(self, name: str) -> bytes:
        """Reads a part.

        Raises:
            OSError: If it is not what was written.
        """
        path = self.folder / name
        content = path.read_bytes()
        found = checksum_of(content)
        if found != self.checksums[name]:
            raise OSError(
                f"{path}: expected the part of checksum {self.checksums[name][:8]} that was "
                f"written. Received {found[:8]}; give the same command again, which makes it anew"
            )
        return content

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder)


def _folders(out: Path, name: str) -> list[Path]:
    ours = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{{_DIGITS}}}{re.escape(_ENDING)}")
    return [path for path in out.iterdir() if ours.fullmatch(path.name)] if out.is_dir() else []


def _listed(path: Path, first: str) -> Iterator[tuple[str, str]]:
    """Yields names and checksums up to the first line that is not whole."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    if lines[:1] != [first]:
        return
    for line in lines[1:]:
        try:
            entry = json.loads(line)
            yield str(entry["name"]), str(entry["sha256"])
        except (ValueError, KeyError, TypeError):
            return


def _is_whole(path: Path, checksum: str) -> bool:
    return path.is_file() and checksum_of(path.read_bytes()) == checksum


def _line(name: str, checksum: str) -> str:
    return json.dumps({"name": name, "sha256": checksum})
