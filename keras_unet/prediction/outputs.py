"""Outputs of a prediction: their forms, and what they may replace."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import counted, some, track
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import (
    ImageFile,
    image_files,
    is_hidden,
    smallest_unsigned,
    stem_of,
    write_tiff,
)
from keras_unet.data.lazy import is_zarr
from keras_unet.data.pairs import Unused, map_labels_to_images, unused_in
from keras_unet.data.stacks import axes_of_stack
from keras_unet.data.tiff_planes import repeated_in
from keras_unet.files import check_writable, created_folder, is_own, own_kind, printable
from keras_unet.instances.label import InstanceOptions, cell_probability, label_instances
from keras_unet.runs import ModelInfo

_log = logging.getLogger(__name__)

Output = Literal["instances", "classes", "probabilities"]
Form = Literal["tiff", "ome-zarr"]

ENDINGS: Mapping[str, str] = {"tiff": ".tif", "ome-zarr": ".ome.zarr"}


@dataclass(frozen=True)
class OutputOptions:
    """Form in which outputs are stored, and images held.

    Attributes:
        form: "tiff", or "ome-zarr" for OME-Zarr images with a pyramid; None for OME-Zarr of what is
            Zarr, and TIFF of all else.
        stream: Whether images are read, predicted and written by parts, with the same result, so
            that they may be larger than memory; TIFF and Zarr alone. None: those of more than
            2**26 pixels, and Zarr.
    """

    form: Form | None = None
    stream: bool | None = None


def output_path(out: Path, stem: str, output: str, kind: Kind, form: str = "tiff") -> Path:
    """Returns where an output of an image is written.

    Args:
        out: Folder of the outputs.
        stem: Stem of the image.
        output: "instances", "classes" or "probabilities".
        kind: Kind of labels that the run was trained on.
        form: "tiff" or "ome-zarr".

    Example:
        >>> output_path(Path(), "a", "classes", kind="classes").name
        'a.tif'
        >>> output_path(Path(), "a", "instances", kind="classes").name
        'a_instances.tif'
    """
    return out / f"{stem}{'' if output == kind else f'_{output}'}{ENDINGS[form]}"


def owner_of(stem: str) -> str | None:
    """Returns the stem of the image that an output with an ending of its own belongs to, or None.

    Example:
        >>> owner_of("a_probabilities"), owner_of("a"), owner_of("a_b")
        ('a', None, None)
    """
    image, _, ending = stem.rpartition("_")
    return image if image and ending in get_args(Output) else None


PARTS_OF_DATA_SETS = ("images", "labels", "masks", "SEG")
"""Names of the folders that data sets consist of."""

_RESULTS = ("_GT", "_ST")  # of the Cell Tracking Challenge: 01_GT/SEG stands beside 01


def check_outputs(out: Path, targets: Sequence[Path], images: Sequence[Path]) -> None:
    """Makes sure that outputs replace no file of a person, nor come to lie among such files.

    Args:
        out: Folder to write to; it may be missing.
        targets: The files to write there.
        images: The files that are predicted.

    Raises:
        ValueError: A target is there that this program has not written, or the folder is one of
            images or labels: it holds such files of others, is called so beside another part of a
            data set or beside the images, or is the folder of one of the images.
    """
    for path in track(targets, "checking outputs"):
        if path.exists() and own_kind(path) != ("ome-zarr" if path.suffix == ".zarr" else "tiff"):
            raise ValueError(
                f"{path}: expected no file, or one that keras-unet has written. Received another; "
                "choose another --out, or replace it by --overwrite"
            )
    reason = _reason_against(out.resolve(), set(targets), images)
    if reason:
        raise ValueError(
            f"{out}: expected a folder for predictions alone. Received one {reason}; choose "
            "another --out, or write there by --overwrite"
        )


def _reason_against(out: Path, known: Collection[Path], images: Sequence[Path]) -> str:
    """Says why a folder looks like one of images or labels; nothing where it does not."""
    folders = {folder.resolve() for folder in {path.parent for path in images}}
    if out in folders:
        return "that holds an image to predict"
    beside = _parts_beside(out) or _images_beside(out, folders)
    if beside:
        return f"that is called {out.name} beside {beside}, as in a data set"
    names = {path.name for path in known}
    foreign = next((path for path in _images_besides(out, names) if not is_own(path)), None)
    return f"with {foreign.name}, which keras-unet has not written" if foreign else ""


def _parts_beside(out: Path) -> str:
    """Names another part of the data set that a folder is called a part of, if there is one."""
    names = {name.lower(): name for name in PARTS_OF_DATA_SETS}
    if out.name.lower() not in names:
        return ""
    above = out.parent
    if above.name.endswith(_RESULTS) and (above.parent / above.name[:-3]).is_dir():
        return above.name[:-3]
    folders = (path.name for path in above.iterdir() if path.is_dir()) if above.is_dir() else ()
    return next((one for one in folders if one.lower() in names and one != out.name), "")


def _images_beside(out: Path, folders: Collection[Path]) -> str:
    """Names a folder of images that a folder called a part of a data set lies beside, or in."""
    if out.name.lower() not in {name.lower() for name in PARTS_OF_DATA_SETS}:
        return ""
    return next((one.name for one in folders if out.parent in (one, one.parent)), "")


def _images_besides(folder: Path, besides: Collection[str]) -> Iterator[Path]:
    """Yields the images of a folder, Zarr among them, apart from those of some names."""
    if folder.is_dir():
        arrays = [path for path in folder.iterdir() if not is_hidden(path) and is_zarr(path)]
        for path in (*image_files(folder), *arrays):
            if path.name not in besides:
                yield path


_LISTED = 5


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction of one image by a network.

    Attributes:
        classes: The most probable class of each pixel, `(height, width)`.
        probabilities: float32 `(height, width, classes)`; without a class where nobody needs them.
    """

    classes: NDArray[np.integer]
    probabilities: NDArray[np.float32]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32]) -> Prediction:
        """Takes the largest probability."""
        return cls(probabilities.argmax(axis=-1), probabilities)

    def rendered(self, output: str, encoding: LabelEncoding) -> NDArray[Any]:
        """Returns "probabilities", `(classes, height, width)`, or "classes" as labels hold them."""
        if output == "probabilities":
            return np.moveaxis(self.probabilities, -1, 0)
        return encoding.from_classes(self.classes)


@dataclass(frozen=True)
class Result:
    """Result of one image.

    Attributes:
        files: The files written.
        classes: The classes that occur.
    """

    files: tuple[Path, ...]
    classes: frozenset[int]


@dataclass(frozen=True)
class OutputPlan:
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
        instances: Mapping[str, Any] | None,
        form: Form | None = None,
        *,
        overwrite: bool = False,
    ) -> OutputPlan:
        """Takes an output_plan as a person gives it.

        Args:
            info: Facts of the model that predicts.
            files: Image files, or folders of them.
            out: Folder to write to.
            save: Of "instances", "classes" and "probabilities"; empty for the run's kind of labels.
            instances: Values of `InstanceOptions` that replace those of the run.
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
        info = replace(info, instances=_rule(info.instances, instances or {}, outputs))
        images = list(_image_files(files))
        repeated = repeated_in(images)
        images = [path for path in images if path not in repeated]
        output_plan = cls(info, tuple(images), out, outputs, form, repeated)
        _refuse_same_names(output_plan.images)
        check_writable(out)
        output_plan.refuse_to_replace_images()
        if not overwrite:
            check_outputs(out, output_plan.targets, output_plan.images)
        return output_plan

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
        kind = self.info.encoding.kind
        return output_path(self.out, stem_of(path), output, kind, self.form_of(path))

    def write_all(self, make: Callable[[Path], Result]) -> list[Path]:
        """Predicts one image after the other, and writes what was ordered.

        Args:
            make: Predicts an image and writes its outputs.

        Returns:
            The files written.
        """
        if "instances" in self.outputs:
            _log.info(self.info.instances.describe())
        written: list[Path] = []
        found: set[int] = set()
        with created_folder(self.out):
            for path in track(self.images, "predicting images"):
                made = make(path)
                written += made.files
                found |= made.classes
                _log.info(printable(path))
        if len(found) == 1:
            _log.warning(_one_class(self.info, found.pop()))
        return written

    def make(self, path: Path, image: ImageFile, planes: Iterable[Prediction]) -> Result:
        """Writes the outputs of an image that is predicted whole, with its axes and calibration."""
        rendered, classes = _render(self.info, planes, self.outputs)
        return Result(tuple(self._write(path, image, rendered)), frozenset(classes))

    def _write(
        self, path: Path, image: ImageFile, rendered: Mapping[str, NDArray[Any]]
    ) -> Iterator[Path]:
        letters, sizes = axes_of_stack(image.stack)
        for name, planes in rendered.items():
            target = self.target(path, name)
            array = smallest_unsigned(planes) if name == "instances" else planes
            axes = f"{letters}CYX" if name == "probabilities" else f"{letters}YX"
            shaped = array.reshape(*sizes, *array.shape[1:])
            spacing = replace(image.spacing, channels=self.info.encoding.names)
            write_tiff(target, shaped, axes=axes, spacing=spacing)
            yield target


def unread(paths: Sequence[Path], repeated: Mapping[Path, Path] | None = None) -> Iterator[str]:
    """Says of each folder of images what of it is not read, and why; hidden files aside.

    Args:
        paths: Image files, or folders of them.
        repeated: LazyImage of an image that another of the files begins; None to look for them.
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
            masks = map_labels_to_images(images)
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
    return tuple(dict.fromkeys(save)) or (info.encoding.kind,)


def _rule(
    recorded: InstanceOptions, asked: Mapping[str, Any], outputs: Sequence[str]
) -> InstanceOptions:
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
            masks = map_labels_to_images(images)
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
    info: ModelInfo, planes: Iterable[Prediction], outputs: Sequence[str]
) -> tuple[Mapping[str, NDArray[Any]], set[int]]:
    """Turns the planes of a file into its outputs, and lists the classes that occur."""
    rendered: dict[str, list[NDArray[Any]]] = {name: [] for name in outputs}
    found: set[int] = set()
    for plane in planes:
        found.update(np.unique(plane.classes).tolist())
        for name, finished in rendered.items():
            if name == "instances":
                finished.append(
                    label_instances(cell_probability(plane.probabilities), info.instances)
                )
            else:
                finished.append(plane.rendered(name, info.encoding))
    return {name: np.stack(finished) for name, finished in rendered.items()}, found


def _one_class(info: ModelInfo, found: int) -> str:
    names = ("background", "cell") if info.encoding.kind == "instances" else info.encoding.values
    return (
        f"every pixel of every image is predicted as class {found} ({names[found]}). Look "
        "at the run's pictures, and at whether these images are like its training images."
    )
