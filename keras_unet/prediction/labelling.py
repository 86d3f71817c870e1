"""From what a network says of images to label images of the same size, whoever asked the network.

All files are named and checked before the first is predicted, so bad input leaves nothing behind.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, some, track
from keras_unet.data.claims import repeated_in
from keras_unet.data.images import (
    ImageFile,
    image_files,
    is_hidden,
    smallest_unsigned,
    stem_of,
    write_tiff,
)
from keras_unet.data.large import is_zarr
from keras_unet.data.pairs import Unused, called_labels, unused_in
from keras_unet.data.schemes import LabelScheme
from keras_unet.data.stacks import axes_of_stack
from keras_unet.files import check_writable, made_folder, printable
from keras_unet.instances.label import InstanceRule, cell_probability, label_instances
from keras_unet.prediction.outputs import Form, Output, check_outputs, output_path, owner_of
from keras_unet.runs import ModelInfo

_log = logging.getLogger(__name__)

_LISTED = 5


@dataclass(frozen=True, eq=False)
class Plane:
    """Prediction of one image by a network.

    Attributes:
        classes: The most probable class of each pixel, `(height, width)`.
        probabilities: float32 `(height, width, classes)`; without a class where nobody needs them.
    """

    classes: NDArray[np.integer]
    probabilities: NDArray[np.float32]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32]) -> Plane:
        """Takes the largest probability."""
        return cls(probabilities.argmax(axis=-1), probabilities)

    def rendered(self, output: str, scheme: LabelScheme) -> NDArray[Any]:
        """Returns "probabilities", `(classes, height, width)`, or "classes" as labels hold them."""
        if output == "probabilities":
            return np.moveaxis(self.probabilities, -1, 0)
        return scheme.from_classes(self.classes)


@dataclass(frozen=True)
class Made:
    """Result of one image.

    Attributes:
        files: The files written.
        classes: The classes that occur.
    """

    files: tuple[Path, ...]
    classes: frozenset[int]


@dataclass(frozen=True)
class Order:
    """Images to predict, and the outputs to make of them.

    Attributes:
        info: Facts of the model: what the labels mean, and how cells are made.
        images: The image files.
        out: Folder to write to.
        outputs: Of "instances", "classes" and "probabilities".
        form: "tiff" or "ome-zarr"; None for OME-Zarr of what is Zarr, and TIFF of all else.
        repeated: Files that are parts of an image that another begins, which is predicted once.
    """

    info: ModelInfo
    images: tuple[Path, ...]
    out: Path
    outputs: tuple[str, ...]
    form: Form | None = None
    repeated: Mapping[Path, Path] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        info: ModelInfo,
        files: Sequence[Path],
        out: Path,
        save: Sequence[str],
        rule: Mapping[str, Any] | None,
        form: Form | None = None,
        *,
        overwrite: bool = False,
    ) -> Order:
        """Takes an order as a person gives it.

        Args:
            info: Facts of the model that predicts.
            files: Image files, or folders of them.
            out: Folder to write to.
            save: Of "instances", "classes" and "probabilities"; empty for the run's kind of labels.
            rule: Numbers of the `InstanceRule` to take instead of the run's.
            form: "tiff" or "ome-zarr"; None for what the images are.
            overwrite: Whether outputs may replace files that this program has not written, the
                images aside, and be written among them.

        Raises:
            ValueError: If outputs of two files would have one name, an output would replace an
                image or come to lie among files of others, see `check_outputs`, an output is
                unknown, or a number of the rule is out of range or of no effect.
            OSError: If a file is missing, or the folder cannot be written.
        """
        outputs = _outputs(save, info)
        info = replace(info, rule=_rule(info.rule, rule or {}, outputs))
        images = list(_image_files(files))
        repeated = repeated_in(images)
        images = [path for path in images if path not in repeated]
        order = cls(info, tuple(images), out, outputs, form, repeated)
        _refuse_same_names(order.images)
        check_writable(out)
        order.refuse_to_replace_images()
        if not overwrite:
            check_outputs(out, order.targets, order.images)
        return order

    def refuse_to_replace_images(self) -> None:
        """Makes sure that no output has the name of an image.

        Raises:
            ValueError: If one has.
        """
        sources = {path.resolve() for path in self.images}
        for path in self.images:
            for name in self.outputs:
                target = self.target(path, name)
                if target.resolve() in sources:
                    raise ValueError(
                        f"{target}: expected an output that replaces none of the images. Received "
                        f"the folder of {path.name} itself; choose another"
                    )

    @property
    def targets(self) -> list[Path]:
        """All files that are to be written."""
        return [self.target(path, name) for path in self.images for name in self.outputs]

    def form_of(self, path: Path) -> Form:
        """Returns in which form the outputs of an image are written."""
        return self.form or ("ome-zarr" if is_zarr(path) else "tiff")

    def target(self, path: Path, output: str) -> Path:
        """Returns where an output of an image is written."""
        kind = self.info.scheme.kind
        return output_path(self.out, stem_of(path), output, kind, self.form_of(path))

    def fulfil(self, make: Callable[[Path], Made]) -> list[Path]:
        """Predicts one image after the other, and writes what was ordered.

        Args:
            make: Predicts an image and writes its outputs.

        Returns:
            The files written.
        """
        if "instances" in self.outputs:
            _log.info(self.info.rule.describe())
        written: list[Path] = []
        found: set[int] = set()
        with made_folder(self.out):
            for path in track(self.images, "predicting images"):
                made = make(path)
                written += made.files
                found |= made.classes
                _log.info(printable(path))
        if len(found) == 1:
            _log.warning(_one_class(self.info, found.pop()))
        return written

    def make(self, path: Path, image: ImageFile, planes: Iterable[Plane]) -> Made:
        """Writes the outputs of an image that is predicted whole, with its axes and calibration."""
        rendered, classes = _render(self.info, planes, self.outputs)
        return Made(tuple(self._write(path, image, rendered)), frozenset(classes))

    def _write(
        self, path: Path, image: ImageFile, rendered: Mapping[str, NDArray[Any]]
    ) -> Iterator[Path]:
        letters, sizes = axes_of_stack(image.stack)
        for name, planes in rendered.items():
            target = self.target(path, name)
            array = smallest_unsigned(planes) if name == "instances" else planes
            axes = f"{letters}CYX" if name == "probabilities" else f"{letters}YX"
            shaped = array.reshape(*sizes, *array.shape[1:])
            spacing = replace(image.spacing, channels=self.info.scheme.names)
            write_tiff(target, shaped, axes=axes, spacing=spacing)
            yield target


def unread(paths: Sequence[Path], repeated: Mapping[Path, Path] | None = None) -> Iterator[str]:
    """Says of each folder of images what of it is not read, and why; hidden files aside.

    Args:
        paths: Image files, or folders of them.
        repeated: Parts of an image that another of the files begins; None to look for them.
    """
    parts: dict[str, list[str]] = defaultdict(list)
    if repeated is None:
        repeated = repeated_in(_image_files(list(paths)))
    for path, first in repeated.items():
        parts[first.name].append(path.name)
    for name, names in parts.items():
        yield f"{some(names)}: parts of the image that {name} begins, which is predicted once"
    for folder in paths:
        if folder.is_dir() and not is_zarr(folder):
            images = _images_in(folder)
            masks = called_labels(images)
            others = [
                *(Unused(mask, f"by its name the mask of {masks[mask].name}") for mask in masks),
                *unused_in(folder, images),
            ]
            if others:
                named = some([str(one) for one in others], _LISTED)
                yield f"{counted(len(others), 'file')} in {folder.name} not read: {named}"
            if masks:
                yield "to predict a mask as well, name its file"


def _outputs(save: Sequence[str], info: ModelInfo) -> tuple[str, ...]:
    unknown = [name for name in save if name not in get_args(Output)]
    if unknown:
        raise ValueError(
            f"save must be of {', '.join(get_args(Output))}. Received: {', '.join(unknown)}"
        )
    return tuple(dict.fromkeys(save)) or (info.scheme.kind,)


def _rule(recorded: InstanceRule, asked: Mapping[str, Any], outputs: Sequence[str]) -> InstanceRule:
    if asked and "instances" not in outputs:
        raise ValueError(
            f"{', '.join(sorted(asked))}: numbers for instances, which must be among the outputs. "
            f"Received: {', '.join(outputs)}; save instances as well"
        )
    return replace(recorded, **asked)


def _image_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file() or is_zarr(path):
            yield path
        elif path.is_dir():
            images = _images_in(path)
            masks = called_labels(images)
            yield from (image for image in images if image not in masks)
        else:
            raise FileNotFoundError(
                f"{path}: no such file. Expected an image or a folder of images"
            )


def _images_in(folder: Path) -> list[Path]:
    arrays = [path for path in folder.iterdir() if not is_hidden(path) and is_zarr(path)]
    found = sorted([*image_files(folder), *arrays])
    if not found:
        raise ValueError(f"{folder}: expected a folder of images. Received one without any")
    return found


def _refuse_same_names(images: Sequence[Path]) -> None:
    stems = [stem_of(path) for path in images]
    twice = [stem for stem, times in Counter(stems).items() if times > 1]
    if twice:
        raise ValueError(
            f"files must differ in their stems, which name the outputs. Received {twice[0]} more "
            "than once; predict them into different folders"
        )
    names = set(stems)
    for stem in stems:
        if owner_of(stem) in names:
            raise ValueError(
                f"{stem}: an output of this name would pass for one of {owner_of(stem)}. "
                "Rename the image, or predict the two into different folders"
            )


def _render(
    info: ModelInfo, planes: Iterable[Plane], outputs: Sequence[str]
) -> tuple[Mapping[str, NDArray[Any]], set[int]]:
    """Turns the planes of a file into its outputs, and lists the classes that occur."""
    rendered: dict[str, list[NDArray[Any]]] = {name: [] for name in outputs}
    found: set[int] = set()
    for plane in planes:
        found.update(np.unique(plane.classes).tolist())
        for name, finished in rendered.items():
            if name == "instances":
                finished.append(label_instances(cell_probability(plane.probabilities), info.rule))
            else:
                finished.append(plane.rendered(name, info.scheme))
    return {name: np.stack(finished) for name, finished in rendered.items()}, found


def _one_class(info: ModelInfo, found: int) -> str:
    names = ("background", "cell") if info.scheme.kind == "instances" else info.scheme.values
    return (
        f"every pixel of every image is predicted as class {found} ({names[found]}). Look "
        "at the run's pictures, and at whether these images are like its training images."
    )
