"""Image files to predict: their list, and why other files are not read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from keras_unet.console import counted, some
from keras_unet.data.images import describe_unread_format, image_files, is_hidden, unread_format
from keras_unet.data.lazy import is_zarr
from keras_unet.data.microscopes import holds_scenes, scene_paths
from keras_unet.data.pairs import Unused, map_labels_to_images, unused_in
from keras_unet.data.tiff_planes import repeated_in

_LISTED = 5


def list_images(paths: Sequence[Path]) -> Iterator[Path]:
    """Yields the images of files and folders, and each scene of a microscope's file.

    Args:
        paths: Image files, or folders of them, of which masks are left out.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a folder holds no image.
    """
    for path in paths:
        if path.is_file():
            yield from scene_paths(path)
        elif is_zarr(path) or holds_scenes(path):
            yield path
        elif path.is_dir():
            images = _images_in(path)
            masks = map_labels_to_images(images)
            yield from (image for image in images if image not in masks)
        else:
            raise FileNotFoundError(
                f"{path}: no such file. Expected an image or a folder of images"
            )


def describe_unread(
    paths: Sequence[Path], repeated: Mapping[Path, Path] | None = None
) -> Iterator[str]:
    """Describes the files that are not read, and why; hidden files excepted.

    Args:
        paths: Image files, or folders of them.
        repeated: Further files of a multi-file image, to its first file; None to find them.

    Yields:
        Messages.
    """
    parts: dict[str, list[str]] = defaultdict(list)
    if repeated is None:
        repeated = repeated_in(list_images(list(paths)))
    for path, first in repeated.items():
        parts[first.name].append(path.name)
    for name, names in parts.items():
        yield f"{some(names)}: parts of the image that begins in {name}, which is predicted once"
    for folder in paths:
        if folder.is_dir() and not is_zarr(folder):
            images = _images_in(folder)
            masks = map_labels_to_images(images)
            others = [
                *(Unused(mask, f"by its name the mask of {masks[mask].name}") for mask in masks),
                *unused_in(folder, images),
            ]
            if others:
                named = some([str(unused) for unused in others], _LISTED)
                yield f"{counted(len(others), 'file')} in {folder.name} not read: {named}"
            if masks:
                yield "to predict a mask as well, pass the path of its file"


def _images_in(folder: Path) -> list[Path]:
    arrays = [path for path in folder.iterdir() if not is_hidden(path) and is_zarr(path)]
    images = sorted([*image_files(folder), *arrays])
    if not images:
        others = [describe_unread_format(path) for path in folder.iterdir() if unread_format(path)]
        reason = f": {min(others)}" if others else ""
        raise ValueError(f"{folder}: expected a folder of images. Received one without any{reason}")
    return images
