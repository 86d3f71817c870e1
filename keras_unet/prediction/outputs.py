"""Output files of a prediction: their names and formats."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import track
from keras_unet.data.encoding import Kind, LabelEncoding
from keras_unet.data.images import (
    ImageFile,
    as_channels,
    smallest_unsigned,
    stem_of,
    write_tiff,
)
from keras_unet.data.lazy import is_zarr
from keras_unet.data.object_classes import CLASSES, ObjectClass, read_table, update_table
from keras_unet.data.stacks import axes_of_stack
from keras_unet.data.tiff_planes import repeated_in
from keras_unet.files import check_writable, created_folder, own_kind, printable
from keras_unet.instances.label import InstanceOptions, cell_probability, label_instances
from keras_unet.instances.link import Along, Links, link_objects
from keras_unet.measurement.geojson import write_geojson
from keras_unet.measurement.objects import ImageObjects, PlaneObjects
from keras_unet.measurement.properties import Columns, classes_of_objects
from keras_unet.measurement.rois import write_rois
from keras_unet.measurement.table import write_table
from keras_unet.prediction.inputs import list_images
from keras_unet.prediction.replacing import check_outputs
from keras_unet.prediction.resampling import ResampledLabels, resample
from keras_unet.prediction.scale import Sizes, advice
from keras_unet.prediction.tracks import (
    TRACKS,
    check_film_folders,
    film_folder,
    table_of_tracks,
    write_film,
)
from keras_unet.runs import ModelInfo

_log = logging.getLogger(__name__)

ImageOutput = Literal["instances", "classes", "probabilities"]
"""Outputs of an image that are images of its size."""

ObjectOutput = Literal["table", "rois", "geojson"]
"""Outputs of the objects: a table of measurements, and outlines for ImageJ and QuPath."""

Form = Literal["tiff", "ome-zarr"]

ENDINGS: Mapping[str, str] = {"tiff": ".tif", "ome-zarr": ".ome.zarr"}

TABLE = "objects.csv"
"""Name of the table of the objects of all images."""


@dataclass(frozen=True)
class OutputOptions:
    """File format of the outputs, and whether images are streamed.

    Attributes:
        form: File format: "tiff", or "ome-zarr" for OME-Zarr images with a pyramid; None for
            OME-Zarr if the image is Zarr, and TIFF otherwise.
        stream: Whether to read, predict and write images in parts, so that they may be larger than
            memory, with the same result; for TIFF and Zarr images. None for images of more than
            2**26 pixels, and Zarr.
    """

    form: Form | None = None
    stream: bool | None = None


def output_path(out: Path, stem: str, output: str, kind: Kind, form: str = "tiff") -> Path:
    """Returns the path of an output of an image.

    Args:
        out: Folder of the outputs.
        stem: Stem of the image.
        output: "instances", "classes" or "probabilities".
        kind: Kind of the training labels; the output of this kind has no suffix.
        form: File format, "tiff" or "ome-zarr".

    Example:
        >>> output_path(Path(), "a", "classes", kind="classes").name
        'a.tif'
        >>> output_path(Path(), "a", "instances", kind="classes").name
        'a_instances.tif'
    """
    return out / f"{stem}{'' if output == kind else f'_{output}'}{ENDINGS[form]}"


def object_path(out: Path, stem: str, output: str) -> Path:
    """Returns the path of an output of the objects of an image; the table is that of all images.

    Args:
        out: Folder of the outputs.
        stem: Stem of the image.
        output: "table", "rois" or "geojson".

    Example:
        >>> object_path(Path(), "a", "rois").name, object_path(Path(), "a", "table").name
        ('a_rois.zip', 'objects.csv')
    """
    names = {"table": TABLE, "rois": f"{stem}_rois.zip", "geojson": f"{stem}.geojson"}
    return out / names[output]


def write_outlines(out: Path, objects: ImageObjects, outputs: Collection[str]) -> list[Path]:
    """Writes the outlines of the objects of an image, and returns the files.

    Args:
        out: Folder of the outputs.
        objects: The objects, with outlines.
        outputs: Outputs to write, of which "rois" and "geojson" are outlines.
    """
    written = []
    for output, write in (("rois", write_rois), ("geojson", write_geojson)):
        if output in outputs:
            path = object_path(out, stem_of(objects.path), output)
            write(path, objects)
            written.append(path)
    return written


def owner_of(stem: str) -> str | None:
    """Returns the stem of the image of an output with a suffix; None for any other name.

    Example:
        >>> owner_of("a_probabilities"), owner_of("a"), owner_of("a_b")
        ('a', None, None)
    """
    image, _, ending = stem.rpartition("_")
    return image if image and ending in get_args(ImageOutput) else None


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction of one image plane.

    Attributes:
        classes: Most probable class of each pixel, `(height, width)`.
        probabilities: float32 `(height, width, classes)`; of zero classes if not requested.
        resampled: Probabilities of the resampled plane, if it was predicted at another scale.
    """

    classes: NDArray[np.integer]
    probabilities: NDArray[np.float32]
    resampled: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, probabilities: NDArray[np.float32], size: tuple[int, int] | None = None
    ) -> Prediction:
        """Returns the prediction of class probabilities `(height, width, classes)`.

        Args:
            probabilities: Class probabilities of a plane, which may be resampled.
            size: Height and width of the plane; None for those of the probabilities.
        """
        if size is None or size == probabilities.shape[:2]:
            return cls(probabilities.argmax(axis=-1), probabilities)
        back = resample(probabilities, size)
        return cls(back.argmax(axis=-1), back, probabilities)

    def instances(self, options: InstanceOptions) -> NDArray[np.int32]:
        """Returns the label image of the cells, `(height, width)`.

        The cells of a resampled plane are labeled at its scale, in which the lengths of the options
        are those of the training, and gaps between cells are as wide as the network learned them;
        each pixel then gets the label at its center. A cell smaller than a pixel may be lost.
        """
        if self.resampled is None:
            return label_instances(cell_probability(self.probabilities), options)
        labels = label_instances(cell_probability(self.resampled), options)
        height, width = self.classes.shape
        found: NDArray[np.int32] = ResampledLabels(labels, (height, width))[:, :]
        return found

    def as_output(self, output: str, encoding: LabelEncoding) -> NDArray[Any]:
        """Returns "probabilities", `(classes, height, width)`, or "classes" as label values."""
        if output == "probabilities":
            return np.moveaxis(self.probabilities, -1, 0)
        return encoding.from_classes(self.classes)


@dataclass(frozen=True)
class Result:
    """Files and classes that the prediction of one image produced.

    Attributes:
        files: Files written.
        classes: Classes that occur in the image.
        sizes: Sizes of its pixels and objects.
        table: Measurements of its objects, if requested.
        tracks: Table of its tracks, if its objects were linked.
        objects: Class of each object, if objects have classes and are written.
    """

    files: tuple[Path, ...]
    classes: frozenset[int]
    sizes: Sizes = field(default_factory=Sizes)
    table: Columns | None = None
    tracks: Columns | None = None
    objects: Sequence[ObjectClass] = ()


@dataclass(frozen=True)
class OutputPlan:
    """Images to predict, and the output files of each.

    Attributes:
        info: Metadata of the model, with its labels and instance options.
        images: Image files.
        out: Folder to write to.
        outputs: Some of "instances", "classes" and "probabilities".
        objects: Some of "table", "rois" and "geojson".
        form: File format, "tiff" or "ome-zarr"; None for OME-Zarr if the image is Zarr, and TIFF
            otherwise.
        repeated: Further files of a multi-file image, to its first file; it is predicted once.
        link: Axis along which the objects of a stack are linked, see `link_objects`; or None.
    """

    info: ModelInfo
    images: tuple[Path, ...]
    out: Path
    outputs: tuple[str, ...]
    objects: tuple[str, ...] = ()
    form: Form | None = None
    repeated: Mapping[Path, Path] = field(default_factory=dict)
    link: Along | None = None

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
        link: Along | None = None,
        overwrite: bool = False,
    ) -> OutputPlan:
        """Makes the plan of image files and options, and checks it.

        Args:
            info: Metadata of the model that predicts.
            files: Image files, or folders of them.
            out: Folder to write to.
            save: Some of "instances", "classes", "probabilities", "table", "rois" and "geojson";
                empty for the kind of the training labels.
            instances: Fields of `InstanceOptions` that override the model's.
            form: File format, "tiff" or "ome-zarr"; None for that of each image.
            link: Axis along which the objects of a stack are linked, "z" or "t"; or None.
            overwrite: Whether outputs may replace files that this program has not written, except
                the images, and be written among them.

        Raises:
            ValueError: If outputs of two files would have the same name, an output would replace an
                image or lie among files of others, see `check_outputs`, an output is unknown, or an
                instance option is out of range or has no effect.
            OSError: If a file is missing, or the folder cannot be written.
        """
        outputs, objects = _outputs(save, info)
        linked = {} if link is None else {"link": link}
        _check_used({**(instances or {}), **linked}, (*outputs, *objects))
        info = info.with_instances(**instances or {})
        images = list(list_images(files))
        repeated = repeated_in(images)
        images = [path for path in images if path not in repeated]
        output_plan = cls(info, tuple(images), out, outputs, objects, form, repeated, link)
        _check_stems(output_plan.images)
        check_writable(out)
        output_plan.check_images_are_kept()
        if not overwrite:
            check_outputs(out, output_plan.targets, output_plan.images)
            check_film_folders(output_plan.film_folders)
        if output_plan.changes_classes and output_plan.class_table.exists():
            read_table(output_plan.class_table)  # raises if rows could not be kept
        return output_plan

    def check_images_are_kept(self) -> None:
        """Checks that no output would replace an image.

        Raises:
            ValueError: If an output would.
        """
        sources = {path.resolve() for path in self.images}
        for path in self.images:
            for name in self.outputs:
                target = self.target(path, name)
                if target.resolve() in sources:
                    raise ValueError(
                        f"{target}: expected an output that does not replace an image. Received "
                        f"the folder of {path.name} itself; choose another"
                    )

    @property
    def targets(self) -> list[Path]:
        """Paths of all output files."""
        names = (*self.outputs, *self.objects)
        targets = [self.target(path, name) for path in self.images for name in names]
        tables = [] if self.link is None else [self.out / TRACKS]
        tables += [self.class_table] if self.has_object_classes else []
        return list(dict.fromkeys([*targets, *tables]))

    @property
    def film_folders(self) -> list[Path]:
        """Folders of the tracks of films."""
        images = self.images if self.link == "t" else ()
        return [film_folder(self.out, stem_of(path)) for path in images]

    @property
    def needs_instances(self) -> bool:
        """True if cells are labeled."""
        return "instances" in self.outputs or bool(self.objects)

    @property
    def has_object_classes(self) -> bool:
        """True if label images of objects that have classes are written."""
        return "instances" in self.outputs and bool(self.info.encoding.class_names)

    @property
    def class_table(self) -> Path:
        """Table of the classes of the objects of all images in the folder."""
        return self.out / CLASSES

    @property
    def changes_classes(self) -> bool:
        """True if label images are written whose classes are, or were, in the table of classes."""
        is_there = "instances" in self.outputs and own_kind(self.class_table) == "csv"
        return self.has_object_classes or is_there

    def form_of(self, path: Path) -> Form:
        """Returns the file format of an image's outputs."""
        return self.form or ("ome-zarr" if is_zarr(path) else "tiff")

    def target(self, path: Path, output: str) -> Path:
        """Returns the path of an output of an image; that of the table is the same for all."""
        if output in get_args(ObjectOutput):
            return object_path(self.out, stem_of(path), output)
        kind = self.info.encoding.kind
        return output_path(self.out, stem_of(path), output, kind, self.form_of(path))

    def write_all(self, predict: Callable[[Path], Result], *, compared: bool = True) -> list[Path]:
        """Predicts the images one by one.

        Args:
            predict: Predicts an image and writes its outputs.
            compared: Whether to warn of images of another scale than those of the training.

        Returns:
            The files written.
        """
        if self.needs_instances:
            _log.info(self.info.instances.describe())
        written: list[Path] = []
        tables: dict[str, list[Columns]] = {TABLE: [], TRACKS: []}
        classes: set[int] = set()
        sizes: dict[Path, Sizes] = {}
        objects: list[ObjectClass] = []
        with created_folder(self.out):
            if self.changes_classes:  # those of images that are replaced are no longer true
                update_table(self.class_table, [path.name for path in self.images], ())
            for path in track(self.images, "predicting images"):
                result = predict(path)
                written += result.files
                classes |= result.classes
                sizes[path] = result.sizes
                objects += result.objects
                for name, table in ((TABLE, result.table), (TRACKS, result.tracks)):
                    tables[name] += [] if table is None else [table]
                _log.info(printable(path))
            for name in (name for name, found in tables.items() if found):
                write_table(self.out / name, tables[name])
                written.append(self.out / name)
            if self.has_object_classes and update_table(self.class_table, (), objects):
                written.append(self.class_table)
        if len(classes) == 1:
            _log.warning(_single_class_warning(self.info, classes.pop()))
        if compared and (text := advice(self.info, sizes)):
            _log.info(text)  # no warning: a network that is hardly trained finds small objects
        return written

    def write(self, path: Path, image: ImageFile, planes: Iterable[Prediction]) -> Result:
        """Writes the outputs of an image that is predicted whole, with its axes and calibration.

        Args:
            path: Path of the image file.
            image: Content of the image file.
            planes: Predictions of its planes, in order.
        """
        outputs: dict[str, list[NDArray[Any]]] = defaultdict(list)
        classes: set[int] = set()
        measured: list[PlaneObjects] = []
        objects_of_planes: list[dict[int, str]] = []
        pixel_size, info = image.spacing.pixel_size, self.info
        for number, plane in enumerate(planes):
            classes.update(np.unique(plane.classes).tolist())
            if self.needs_instances:
                outputs["instances"].append(plane.instances(info.instances))
            if self.has_object_classes:
                labels = outputs["instances"][-1]
                objects_of_planes.append(self.classes_of(labels, plane.probabilities))
            for name in set(self.outputs) - {"instances"}:
                outputs[name].append(plane.as_output(name, info.encoding))
            if self.objects:
                pixels = as_channels(image.planes[number], info.architecture.channels, path)
                labels, probabilities = outputs["instances"][-1], plane.probabilities
                measured.append(self.measure(labels, pixels, probabilities, pixel_size))
        cells = outputs["instances"]
        sizes = self.sizes(pixel_size, cells)
        links = None if self.link is None else link_objects(cells, self.link)
        if links is not None:
            outputs["instances"] = [links.relabel(*plane) for plane in enumerate(cells)]
            measured = [*map(PlaneObjects.renumbered, measured, links.numbers)]
        objects = ImageObjects(path, measured, image.stack, info.encoding.names)
        files = [*self._write_files(path, image, outputs)]
        files += write_outlines(self.out, objects, self.objects)
        files += self.write_film(path, links, cells)
        tables = self.table_of(objects), self.tracks_of(path, links)
        rows = self.rows_of(path, objects_of_planes, links)
        return Result(tuple(files), frozenset(classes), sizes, *tables, rows)

    def measure(
        self, labels: Any, image: Any, probabilities: Any, pixel_size: tuple[float, float] | None
    ) -> PlaneObjects:
        """Measures the objects of a plane, with outlines if they are among the outputs.

        Args:
            labels: See `measure_objects`.
            image: See `measure_objects`.
            probabilities: See `measure_objects`.
            pixel_size: See `measure_objects`.
        """
        return PlaneObjects.of(
            labels,
            image,
            probabilities,
            outlined=self.objects != ("table",),
            pixel_size=pixel_size,
            classes=self.info.encoding.names,
        )

    def classes_of(self, labels: Any, probabilities: Any) -> dict[int, str]:
        """Returns the class of each object of a plane, see `classes_of_objects`."""
        return classes_of_objects(labels, probabilities, self.info.encoding.names)

    def rows_of(
        self, path: Path, planes: Sequence[Mapping[int, str]], links: Links | None
    ) -> list[ObjectClass]:
        """Returns the rows of an image in the table of classes.

        Args:
            path: Path of the image.
            planes: Class of each object of each plane.
            links: Tracks, whose numbers the objects have; or None.
        """
        return [
            ObjectClass(
                printable(path.name),
                index + 1 if len(planes) > 1 else None,
                number if links is None else links.numbers[index][number],
                name,
            )
            for index, objects in enumerate(planes)
            for number, name in objects.items()
        ]

    def write_film(self, path: Path, links: Links | None, cells: Iterable[Any]) -> list[Path]:
        """Writes the tracks of a film, and returns their folder in a list.

        Args:
            path: Path of the image.
            links: Its tracks, or None.
            cells: Label images of the planes, before they were linked.
        """
        if links is None or self.link != "t":
            return []
        folder = film_folder(self.out, stem_of(path))
        write_film(folder, links, cells)
        return [folder]

    def tracks_of(self, path: Path, links: Links | None) -> Columns | None:
        """Returns the table of the tracks of an image, if its objects were linked."""
        return None if links is None else table_of_tracks(path.name, links.tracks)

    def table_of(self, objects: ImageObjects) -> Columns | None:
        """Returns the table of an image, if it is among the outputs."""
        return objects.table if "table" in self.objects else None

    def sizes(self, pixel_size: tuple[float, float] | None, labels: Iterable[Any]) -> Sizes:
        """Measures an image, to be compared with those of the training.

        Args:
            pixel_size: Height and width of a pixel in micrometers, or None.
            labels: Label images of the planes, if the cells were labeled.
        """
        return Sizes.of(pixel_size, labels if self.info.diameters else ())

    def _write_files(
        self, path: Path, image: ImageFile, outputs: Mapping[str, Sequence[NDArray[Any]]]
    ) -> Iterator[Path]:
        letters, sizes = axes_of_stack(image.stack)
        for name in self.outputs:
            target, planes = self.target(path, name), np.stack(outputs[name])
            array = smallest_unsigned(planes) if name == "instances" else planes
            axes = f"{letters}CYX" if name == "probabilities" else f"{letters}YX"
            shaped = array.reshape(*sizes, *array.shape[1:])
            spacing = replace(image.spacing, channels=self.info.encoding.names)
            write_tiff(target, shaped, axes=axes, spacing=spacing)
            yield target


def _outputs(save: Sequence[str], info: ModelInfo) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the outputs that are images, and those of the objects."""
    images, objects = get_args(ImageOutput), get_args(ObjectOutput)
    unknown = [name for name in save if name not in (*images, *objects)]
    if unknown:
        raise ValueError(
            f"save must be of {', '.join((*images, *objects))}. Received: {', '.join(unknown)}"
        )
    names = tuple(dict.fromkeys(save)) or (info.encoding.kind,)
    return (
        tuple(name for name in names if name in images),
        tuple(name for name in names if name in objects),
    )


def _check_used(changes: Mapping[str, Any], outputs: Sequence[str]) -> None:
    unused = sorted(changes.keys() - {"affinities"})  # which change the classes, too
    if unused and not {"instances", *get_args(ObjectOutput)}.intersection(outputs):
        raise ValueError(
            f"{', '.join(unused)}: options for instances, which must be among the "
            f"outputs. Received: {', '.join(outputs)}; save instances as well"
        )


def _check_stems(images: Sequence[Path]) -> None:
    stems = [stem_of(path) for path in images]
    repeated = [stem for stem, times in Counter(stems).items() if times > 1]
    if repeated:
        raise ValueError(
            f"files must differ in their stems, which name the outputs. Received {repeated[0]} "
            "more than once; predict them into different folders"
        )
    names = set(stems)
    for stem in stems:
        if owner_of(stem) in names:
            raise ValueError(
                f"{stem}: an output of this name would be taken for one of {owner_of(stem)}. "
                "Rename the image, or predict the two into different folders"
            )


def _single_class_warning(info: ModelInfo, number: int) -> str:
    encoding = info.encoding
    names = encoding.names if encoding.kind == "instances" else encoding.values
    return (
        f"every pixel of every image is predicted as class {number} ({names[number]}). Look "
        "at the pictures of the run, and compare these images with its training images."
    )
