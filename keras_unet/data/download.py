"""Download of public data sets: cached, verified by checksum, unpacked into training folders."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError  # noqa: N812 - it is an exception

from keras_unet.console import Task, counted, track
from keras_unet.data.datasets import DATASETS, Dataset
from keras_unet.files import PathLike, atomic, atomic_folder, check_new, make_folder, write_json
from keras_unet.system import require

_log = logging.getLogger(__name__)

MOST_BYTES = 2**32
"""Largest total size in bytes of the unpacked files."""

RECORD = "dataset.json"
"""File in the output folder with the source of the data, their terms and citations."""

_CHUNK = 2**16


def download(
    name: str,
    out: PathLike | None = None,
    *,
    cache: PathLike | None = None,
) -> Path:
    """Downloads a public data set, verifies its checksum, and unpacks it for `train`.

    The archive is downloaded once and kept in a cache. Its SHA-256 must be the one in
    `keras_unet.data.datasets`. If none is known, the SHA-256 of the first download is recorded
    beside the archive and logged, and later downloads must have the same.

    Only images and labels are unpacked. After an error or Ctrl-C there is neither an output folder
    nor an incomplete archive.

    Args:
        name: `"dsb2018"`, `"isbi2012"`, `"PhC-C2DH-U373"` or `"DIC-C2DH-HeLa"`.
        out: Output folder, new or empty; None for a folder called `name` in the current one.
        cache: Folder of the archives; None for `keras-unet` in the user's cache folder.

    Returns:
        The training folder: `out`, or a folder in it.

    Raises:
        ModuleNotFoundError: If pooch is missing.
        ValueError: If the name is unknown, or the archive has another checksum.
        OSError: If the download fails, or a folder cannot be written or is not empty.

    Example:
        >>> keras_unet.download("dsb2018")  # doctest: +SKIP
        PosixPath('dsb2018/train')
    """
    require("data", "pooch")
    dataset = _find_dataset(name)
    out = Path(name if out is None else out)
    _check_folder(out)
    archive = _Archive(dataset, _default_cache() if cache is None else Path(cache))
    archive.download()
    make_folder(out.parent)
    with atomic_folder(out.resolve(), replaces=False) as folder, archive.opened() as file:
        count = _unpack(file, dataset, folder)
        write_json(folder / RECORD, archive.to_dict())
    archive.trust()
    _log.info(f"{out}: {counted(count, 'file')}; {dataset.description}")
    _log.info(f"terms: {dataset.terms}; cite: {dataset.cite}")
    return out / dataset.training


def _find_dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise ValueError(f"name must be one of {', '.join(DATASETS)}. Received: name={name}")
    return DATASETS[name]


def _check_folder(out: Path) -> None:
    if not out.name:
        raise ValueError(f"out must be the name of a new folder. Received: out={out}")
    check_new(out, "the data set", is_removed=True)


def _default_cache() -> Path:
    import pooch

    return Path(pooch.os_cache("keras-unet"))


@dataclass(frozen=True)
class _Archive:
    """Archive of a data set in a cache folder."""

    dataset: Dataset
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / PurePosixPath(self.dataset.url).name

    @property
    def record(self) -> Path:
        """File with the checksum of the first download, in the format of `sha256sum`."""
        return self.path.with_name(f"{self.path.name}.sha256")

    @property
    def known(self) -> str | None:
        """Expected SHA-256; None at the first download if none is known."""
        if self.dataset.sha256 is None and self.record.is_file():
            return self.record.read_text(encoding="ascii").partition(" ")[0] or None
        return self.dataset.sha256

    def download(self) -> None:
        """Downloads the archive if it is missing, and verifies its checksum."""
        import pooch
        from requests.exceptions import RequestException

        if not self.path.is_file():
            _log.info(f"downloading {self.dataset.url} to {self.path}")
        known = self.known and f"sha256:{self.known}"
        make_folder(self.folder)
        pooch.get_logger().setLevel("WARNING")  # logged above
        try:
            with (
                Task(self.path.name, counts="{:,} of {:,} bytes") as task,
                _downloader(_Meter(task)) as load,
            ):
                pooch.retrieve(
                    self.dataset.url, known, self.path.name, self.folder, downloader=load
                )
        except RequestException as error:
            raise OSError(
                f"{self.dataset.url}: expected an archive to download. Received: {error}. Nothing "
                "was kept; check the connection, and run the same command again"
            ) from error
        except ValueError as error:  # wrong checksum
            raise ValueError(
                f"{self.dataset.url}: expected an archive with the SHA-256 {self.known}. Received "
                "another, which was deleted. Try again; if the error persists, "
                f"{self._advice}"
            ) from error

    @property
    def _advice(self) -> str:
        if self.dataset.sha256 is None:
            return f"the archive has changed; to trust the new one, remove {self.record}"
        return "the archive has changed at its source, and should be inspected before use"

    @contextmanager
    def opened(self) -> Iterator[ZipFile]:
        """Opens the archive, and removes it if it is damaged and its checksum is unknown."""
        try:
            with ZipFile(self.path) as file:
                yield file
        except (BadZipFile, ZlibError, EOFError, RuntimeError, ValueError) as error:
            if self.known is None:
                self.path.unlink()
            raise ValueError(
                f"{self.dataset.url}: expected a zip archive with the data set {self.dataset.name}."
                f" Received one that cannot be unpacked: {error}"
            ) from error

    def trust(self) -> None:
        """Records the checksum if none is known."""
        if self.known is None:
            line = f"{self.checksum}  {self.path.name}"
            with atomic(self.record) as temporary:
                temporary.write_text(f"{line}\n", encoding="ascii")
            _log.warning(
                "no checksum of this archive is published, so the first download is trusted, with "
                f"the SHA-256 {self.checksum}; later downloads must have the same ({self.record})"
            )

    @property
    def checksum(self) -> str:
        with self.path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    def to_dict(self) -> dict[str, str]:
        return {
            "name": self.dataset.name,
            "url": self.dataset.url,
            "sha256": self.checksum,
            "terms": self.dataset.terms,
            "cite": self.dataset.cite,
        }


@contextmanager
def _downloader(meter: _Meter) -> Iterator[Any]:
    """Yields a downloader for pooch, and closes the connections that pooch leaves open."""
    import pooch

    with ExitStack() as responses:

        def close_later(response: Any, **_: Any) -> Any:
            return responses.enter_context(closing(response))

        hooks = {"response": close_later}
        yield pooch.HTTPDownloader(progressbar=meter, chunk_size=_CHUNK, hooks=hooks)


class _Meter:
    """Progress bar for pooch."""

    def __init__(self, task: Task) -> None:
        """Stores the task to update."""
        self.task = task
        self.total = 0  # set by pooch

    def update(self, count: int) -> None:
        """Adds received bytes, approximately."""
        if self.total:  # not every server states it
            self.task.total = self.total
            self.task.update(min(self.task.completed + count, self.total))

    def reset(self) -> None:
        """Restarts the count; pooch calls it before the last update, which has the total."""
        self.task.completed = 0

    def close(self) -> None:
        """Does nothing; pooch calls it at the end."""


def _unpack(file: ZipFile, dataset: Dataset, folder: Path) -> int:
    """Unpacks the images and labels into a folder, and counts the files."""
    members = _members_by_path([info.filename for info in file.infolist()], dataset)
    size = sum(file.getinfo(member).file_size for member in members.values())
    if size > MOST_BYTES:
        raise ValueError(f"its files are larger than {MOST_BYTES} bytes: {size}")
    for relative, member in track(members.items(), "unpacking files"):
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read(member))  # a link is written as a text file
    return len(members)


def _members_by_path(members: list[str], dataset: Dataset) -> dict[str, str]:
    """Returns the member of the archive for each output path.

    Example:
        >>> names = ["a/train-volume.tif", "b/train-labels.tif", "test-volume.tif"]
        >>> _members_by_path(names, DATASETS["isbi2012"])["train/labels/volume.tif"]
        'b/train-labels.tif'
    """
    by_path: dict[str, str] = {}
    for pattern, template in dataset.paths:
        matches = [match for name in members if (match := re.fullmatch(pattern, name))]
        if not matches:
            raise ValueError(f"it has no file {pattern}")
        for match in matches:
            _check_inside(match[0])
            first = by_path.setdefault(match.expand(template), match[0])
            if first != match[0]:
                raise ValueError(f"two of its files have the same path: {first} and {match[0]}")
    return by_path


def _check_inside(member: str) -> None:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise ValueError(f"it holds a file with a path outside of the folder: {member}")
