"""Public data sets: downloaded once, verified, and unpacked into folders that `train` takes."""

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
"""Of all files that are unpacked."""

RECORD = "dataset.json"
"""File in the folder written: where the data are from, their terms, what to cite."""

_CHUNK = 2**16


def download(
    name: str,
    out: PathLike | None = None,
    *,
    cache: PathLike | None = None,
) -> Path:
    """Downloads a public data set, verifies its checksum, and unpacks it for `train`.

    The archive is kept in a cache and downloaded once. Its SHA-256 must be the one in
    `keras_unet.data.datasets`. Where none is known, the SHA-256 of the first download is recorded
    beside the archive and logged, and later downloads must have the same.

    Only the images and labels of the data set are unpacked. After an error or Ctrl-C there is no
    folder, and no incomplete archive.

    Args:
        name: `"dsb2018"`, `"isbi2012"`, `"PhC-C2DH-U373"` or `"DIC-C2DH-HeLa"`.
        out: Folder to write, new or empty; None for a folder called `name` in the current one.
        cache: Folder of the archives; None for `keras-unet` in the user's cache folder.

    Returns:
        The folder to train on: `out`, or a folder in it.

    Raises:
        ModuleNotFoundError: If pooch is missing.
        ValueError: If the name is unknown, or the archive has another checksum.
        OSError: If the download fails, or a folder cannot be written or is not empty.

    Example:
        >>> keras_unet.download("dsb2018")  # doctest: +SKIP
        PosixPath('dsb2018/train')
    """
    require("data", "pooch")
    dataset = _dataset(name)
    out = Path(name if out is None else out)
    _check_folder(out)
    archive = _Archive(dataset, _cache() if cache is None else Path(cache))
    archive.download()
    make_folder(out.parent)
    with atomic_folder(out.resolve(), replaces=False) as folder, archive.opened() as file:
        count = _unpack(file, dataset, folder)
        write_json(folder / RECORD, archive.described())
    archive.trust()
    _log.info(f"{out}: {counted(count, 'file')}; {dataset.shows}")
    _log.info(f"terms: {dataset.terms}; cite: {dataset.cite}")
    return out / dataset.training


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise ValueError(f"name must be one of {', '.join(DATASETS)}. Received {name}.")
    return DATASETS[name]


def _check_folder(out: Path) -> None:
    if not out.name:
        raise ValueError(f"out must be a folder that may be made anew. Received {out}; name one.")
    check_new(out, "the data set", is_removed=True)


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("keras-unet"))


@dataclass(frozen=True)
class _Archive:
    """The archive of a data set, kept in a folder."""

    dataset: Dataset
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / PurePosixPath(self.dataset.url).name

    @property
    def record(self) -> Path:
        """The file that says what was trusted, in the form that `sha256sum --check` reads."""
        return self.path.with_name(f"{self.path.name}.sha256")

    @property
    def known(self) -> str | None:
        """The SHA-256 that it must have; None at the first download where none is known."""
        if self.dataset.sha256 is None and self.record.is_file():
            return self.record.read_text(encoding="ascii").partition(" ")[0] or None
        return self.dataset.sha256

    def download(self) -> None:
        """Makes sure that the archive is there, and is the one that is known."""
        import pooch
        from requests.exceptions import RequestException

        if not self.path.is_file():
            _log.info(f"downloading {self.dataset.url} to {self.path}")
        known = self.known and f"sha256:{self.known}"
        make_folder(self.folder)
        pooch.get_logger().setLevel("WARNING")  # it is said here
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
                "was kept; see to the connection, and type the same command again"
            ) from error
        except ValueError as error:  # of the checksum
            raise ValueError(
                f"{self.dataset.url}: expected an archive with the SHA-256 {self.known}. Received "
                f"another, of which nothing was kept. Try again; if it comes again, {self._advice}"
            ) from error

    @property
    def _advice(self) -> str:
        if self.dataset.sha256 is None:
            return f"it has changed since; to trust the new one, remove {self.record}"
        return "it has changed at its source, and should not be used unseen"

    @contextmanager
    def opened(self) -> Iterator[ZipFile]:
        """Opens the archive; one that turns out to be none, and was not known, is removed."""
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
        """Records the checksum of an archive that none was known of."""
        if self.known is None:
            line = f"{self.checksum}  {self.path.name}"
            with atomic(self.record) as temporary:
                temporary.write_text(f"{line}\n", encoding="ascii")
            _log.warning(
                f"no checksum of this archive is published, so it is trusted as it came, "
                f"with the SHA-256 {self.checksum}; from now on it must be the same ({self.record})"
            )

    @property
    def checksum(self) -> str:
        with self.path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    def described(self) -> dict[str, str]:
        return {
            "name": self.dataset.name,
            "url": self.dataset.url,
            "sha256": self.checksum,
            "terms": self.dataset.terms,
            "cite": self.dataset.cite,
        }


@contextmanager
def _downloader(meter: _Meter) -> Iterator[Any]:
    """Yields what downloads for pooch, and closes the connections that pooch leaves open."""
    import pooch

    with ExitStack() as answers:

        def closed_later(answer: Any, **_: Any) -> Any:
            return answers.enter_context(closing(answer))

        hooks = {"response": closed_later}
        yield pooch.HTTPDownloader(progressbar=meter, chunk_size=_CHUNK, hooks=hooks)


class _Meter:
    """Progress bar for pooch."""

    def __init__(self, task: Task) -> None:
        """Takes the task to move."""
        self.task = task
        self.total = 0  # set by pooch

    def update(self, count: int) -> None:
        """Takes how many bytes more have come, about."""
        if self.total:  # as not every server says
            self.task.total = self.total
            self.task.update(min(self.task.completed + count, self.total))

    def reset(self) -> None:
        """Is called before the last update, which tells the total."""
        self.task.completed = 0

    def close(self) -> None:
        """Is called at the end."""


def _unpack(file: ZipFile, dataset: Dataset, folder: Path) -> int:
    """Writes what is known of an archive into a folder, and counts the files."""
    places = _places([info.filename for info in file.infolist()], dataset)
    size = sum(file.getinfo(member).file_size for member in places.values())
    if size > MOST_BYTES:
        raise ValueError(f"its files are larger than {MOST_BYTES} bytes: {size}")
    for place, member in track(places.items(), "unpacking files"):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read(member))  # links in an archive come as the text they hold
    return len(places)


def _places(members: list[str], dataset: Dataset) -> dict[str, str]:
    """Finds where members of an archive go; by place, the member.

    Example:
        >>> _places(["a/train-volume.tif", "b/train-labels.tif", "test-volume.tif"],
        ...         DATASETS["isbi2012"])["train/labels/volume.tif"]
        'b/train-labels.tif'
    """
    found: dict[str, str] = {}
    for pattern, place in dataset.places:
        matches = [match for name in members if (match := re.fullmatch(pattern, name))]
        if not matches:
            raise ValueError(f"it has no file {pattern}")
        for match in matches:
            _check_inside(match[0])
            first = found.setdefault(match.expand(place), match[0])
            if first != match[0]:
                raise ValueError(f"two of its files are the same: {first} and {match[0]}")
    return found


def _check_inside(member: str) -> None:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise ValueError(f"it holds a file that is to lie outside of it: {member}")
