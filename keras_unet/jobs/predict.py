"""From image files to label images of the same size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.images import (
    image_files,
    read_planes,
    smallest_unsigned,
    stem_of,
    write_tiff,
)
from keras_unet.files import make_folder
from keras_unet.instances import InstanceRule, cell_probability, label_instances
from keras_unet.jobs.folders import check_writable
from keras_unet.jobs.networks import load_network, load_runs
from keras_unet.jobs.outputs import Output, output_path, owner_of
from keras_unet.prediction import predict_image
from keras_unet.runs import Run
from keras_unet.tiling import Tiling


def predict_files(
    run_folder: Path,
    files: Sequence[Path],
    out: Path,
    *,
    save: Sequence[str] = (),
    tile_size: int | None = None,
    precision: str | None = None,
    symmetries: bool = False,
    rule: Mapping[str, Any] | None = None,
    on_file: Callable[[Path], None] = lambda _: None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Predicts image files with a run, or with an ensemble, whose probabilities are averaged.

    `<stem>.tif` holds the label image, of the kind the run was trained on: instances, or classes
    with the values of the training labels. The other kind gets its own ending, `<stem>_classes.tif`
    or `<stem>_instances.tif`; `<stem>_probabilities.tif` is float32 (classes, height, width). Every
    output has its image's height and width; a stack gives stacks.

    All files are read and checked before the first is predicted, so bad input leaves nothing
    behind.

    Args:
        run_folder: A folder that training wrote, a run or an ensemble.
        files: Image files, or folders of them.
        out: Folder to write to.
        save: Of "instances", "classes" and "probabilities"; empty for the run's kind of labels.
        tile_size: Height and width of the input tile in pixels; None chooses.
        precision: Precision to predict in; None for that of the training.
        symmetries: Whether to average over the eight symmetries of the square, in eight times the
            time.
        rule: Numbers of the `InstanceRule` to take instead of the run's.
        on_file: Called when a file is done.
        say: Takes a line for a person.

    Returns:
        The files written.

    Raises:
        ValueError: If an image cannot be read or does not suit the run, outputs of two files would
            have one name, an output would replace an image, an output is unknown, or a number of
            the rule is out of range or of no effect.
        OSError: If a file or the run is missing, or the folder cannot be written.
    """
    runs = load_runs(run_folder)
    outputs = _outputs(save, runs[0])
    run = replace(runs[0], rule=_rule(runs[0].rule, rule or {}, outputs))
    images = list(_image_files(files))
    _refuse_same_names(images)
    _refuse_to_replace_images(images, out, outputs, run)
    check_writable(out)
    members = [(one, load_network(one, precision)) for one in runs]
    for path in images:
        _check_image(run, path, tile_size)
    make_folder(out)
    if "instances" in outputs:
        say(run.rule.describe())
    written: list[Path] = []
    found: set[int] = set()
    for path in images:
        probabilities = _probabilities(members, path, tile_size, symmetries)
        rendered, classes = _render(run, probabilities, outputs)
        written += _write(rendered, out, stem_of(path), run)
        found |= classes
        on_file(path)
    if len(found) == 1:
        say(_one_class(run, found.pop()))
    return written


def _outputs(save: Sequence[str], run: Run) -> tuple[str, ...]:
    unknown = [name for name in save if name not in get_args(Output)]
    if unknown:
        raise ValueError(
            f"save must be of {', '.join(get_args(Output))}. Received: {', '.join(unknown)}"
        )
    return tuple(dict.fromkeys(save)) or (run.scheme.kind,)


def _rule(recorded: InstanceRule, asked: Mapping[str, Any], outputs: Sequence[str]) -> InstanceRule:
    if asked and "instances" not in outputs:
        raise ValueError(
            f"{', '.join(sorted(asked))}: numbers for instances, which must be among the outputs. "
            f"Received: {', '.join(outputs)}; save instances as well"
        )
    return replace(recorded, **asked)


def _image_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from _images_in(path)
        else:
            raise FileNotFoundError(
                f"{path}: no such file. Expected an image or a folder of images"
            )


def _images_in(folder: Path) -> list[Path]:
    found = image_files(folder)
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
    for stem in stems:
        if owner_of(stem) in stems:
            raise ValueError(
                f"{stem}: an output of this name would pass for one of {owner_of(stem)}. "
                "Rename the image, or predict the two into different folders"
            )


def _refuse_to_replace_images(
    images: Sequence[Path], out: Path, outputs: Sequence[str], run: Run
) -> None:
    sources = {path.resolve() for path in images}
    for path in images:
        for name in outputs:
            target = output_path(out, stem_of(path), name, run.scheme.kind)
            if target.resolve() in sources:
                raise ValueError(
                    f"{target}: expected an output that replaces none of the images. Received "
                    f"the folder of {path.name} itself; choose another"
                )


def _check_image(run: Run, path: Path, tile_size: int | None) -> None:
    for plane in read_planes(path, palette="colours"):
        run.standardise(plane, path)
        Tiling.covering(plane.shape[:2], run.architecture, (tile_size, tile_size))


def _probabilities(
    members: Sequence[tuple[Run, Any]], path: Path, tile_size: int | None, symmetries: bool
) -> Iterator[NDArray[np.float32]]:
    """Yields `(height, width, classes)` for each plane of a file, the mean of the networks."""
    for plane in read_planes(path, palette="colours"):
        scores = [
            predict_image(
                model,
                run.standardise(plane, path),
                tile_size=tile_size,
                architecture=run.architecture,
                symmetries=symmetries,
            )
            for run, model in members
        ]
        yield np.mean(scores, axis=0, dtype=np.float32)


def _render(
    run: Run, probabilities: Iterable[NDArray[np.float32]], outputs: Sequence[str]
) -> tuple[Mapping[str, NDArray[Any]], set[int]]:
    """Turns the planes of a file into its outputs, and lists the classes that occur."""
    planes: dict[str, list[NDArray[Any]]] = {name: [] for name in outputs}
    found: set[int] = set()
    for plane in probabilities:
        classes = plane.argmax(axis=-1)
        found.update(np.unique(classes).tolist())
        for name, rendered in planes.items():
            rendered.append(_rendered(name, run, plane, classes))
    return {name: np.stack(rendered) for name, rendered in planes.items()}, found


def _rendered(
    name: str, run: Run, probabilities: NDArray[np.float32], classes: NDArray[np.intp]
) -> NDArray[Any]:
    if name == "probabilities":
        return np.moveaxis(probabilities, -1, 0)
    if name == "classes":
        return run.scheme.from_classes(classes)
    return label_instances(cell_probability(probabilities), run.rule)


def _write(rendered: Mapping[str, NDArray[Any]], out: Path, stem: str, run: Run) -> list[Path]:
    written = []
    for name, planes in rendered.items():
        path = output_path(out, stem, name, run.scheme.kind)
        array = smallest_unsigned(planes) if name == "instances" else planes
        axes = "ZCYX" if name == "probabilities" else "ZYX"
        single = len(array) == 1
        write_tiff(path, array[0] if single else array, axes=axes[1:] if single else axes)
        written.append(path)
    return written


def _one_class(run: Run, found: int) -> str:
    names = ("background", "cell") if run.scheme.kind == "instances" else run.scheme.values
    return (
        f"Warning: every pixel of every image is predicted as class {found} ({names[found]}). Look "
        "at the run's pictures, and at whether these images are like its training images."
    )
