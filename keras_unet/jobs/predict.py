"""From image files to label images of the same size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_unet.data.images import IMAGE_SUFFIXES, read_planes, smallest_unsigned, write_tiff
from keras_unet.files import make_folder
from keras_unet.instances import label_instances
from keras_unet.jobs.networks import load_network
from keras_unet.prediction import predict_image
from keras_unet.runs import Run

Output = Literal["instances", "classes", "probabilities"]


def predict_files(
    run_folder: Path,
    files: Sequence[Path],
    out: Path,
    *,
    save: Sequence[str] = (),
    tile_size: int | None = None,
    precision: str | None = None,
    on_file: Callable[[Path], None] = lambda _: None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Predicts image files with a run.

    `<stem>.tif` holds the label image, of the kind the run was trained on: instances, or classes
    with the values of the training labels. The other kind gets its own ending, `<stem>_classes.tif`
    or `<stem>_instances.tif`; `<stem>_probabilities.tif` is float32 (classes, height, width). Every
    output has its image's height and width; a stack gives stacks.

    Args:
        run_folder: A folder that training wrote.
        files: Image files, or folders of them.
        out: Folder to write to.
        save: Of "instances", "classes" and "probabilities"; empty for the run's kind of labels.
        tile_size: Height and width of the input tile in pixels; None chooses.
        precision: Precision to predict in; None for that of the training.
        on_file: Called when a file is done.
        say: Takes a line for a person.

    Returns:
        The files written.

    Raises:
        ValueError: If an image cannot be read or does not suit the run, two files share a stem, or
            an output is unknown.
        OSError: If a file or the run is missing, or the folder cannot be written.
    """
    run = Run.load(run_folder)
    outputs = _outputs(save, run)
    images = list(_image_files(files))
    _refuse_same_stems(images)
    model = load_network(run, precision)
    make_folder(out)
    written: list[Path] = []
    found: Counter[int] = Counter()
    for path in images:
        probabilities = _predict_planes(run, model, path, tile_size)
        written += _write(run, probabilities, out, path.stem, outputs)
        found.update(dict(enumerate(_class_counts(probabilities))))
        on_file(path)
    if len(+found) == 1 and sum(found.values()) > 1:
        say(
            f"Warning: every pixel of every image is predicted as class {found.most_common()[0][0]}"
            ". Look at the run's pictures, and at whether these images are like its training images"
        )
    return written


def _outputs(save: Sequence[str], run: Run) -> tuple[str, ...]:
    unknown = [name for name in save if name not in get_args(Output)]
    if unknown:
        raise ValueError(
            f"save must be of {', '.join(get_args(Output))}. Received: {', '.join(unknown)}"
        )
    return tuple(save) or (run.scheme.kind,)


def _image_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise ValueError(f"{path}: expected a folder of images. Received one without any")
        yield from found


def _refuse_same_stems(files: Sequence[Path]) -> None:
    twice = [stem for stem, n in Counter(path.stem for path in files).items() if n > 1]
    if twice:
        raise ValueError(
            f"files must differ in their stems, which name the outputs. Received {twice[0]} more "
            "than once; predict them into different folders"
        )


def _predict_planes(
    run: Run, model: Any, path: Path, tile_size: int | None
) -> NDArray[np.float32]:
    planes = read_planes(path, palette="colours")
    return np.stack(
        [
            predict_image(
                model,
                run.standardise(plane, path),
                tile_size=tile_size,
                architecture=run.architecture,
            )
            for plane in planes
        ]
    )


def _class_counts(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    classes = probabilities.argmax(-1).ravel()
    return np.bincount(classes, minlength=probabilities.shape[-1])


def _write(
    run: Run, probabilities: NDArray[np.float32], out: Path, stem: str, outputs: Sequence[str]
) -> list[Path]:
    written = []
    for name in outputs:
        path = out / (f"{stem}.tif" if name == run.scheme.kind else f"{stem}_{name}.tif")
        array = _RENDER[name](run, probabilities)
        axes = "ZCYX" if name == "probabilities" else "ZYX"
        single = len(array) == 1
        write_tiff(path, array[0] if single else array, axes=axes[1:] if single else axes)
        written.append(path)
    return written


def _instances(run: Run, probabilities: NDArray[np.float32]) -> NDArray[Any]:
    planes = [label_instances(one.argmax(-1) > 0) for one in probabilities]
    return smallest_unsigned(np.stack(planes))


def _classes(run: Run, probabilities: NDArray[np.float32]) -> NDArray[Any]:
    return run.scheme.from_classes(probabilities.argmax(-1))


def _channels_first(run: Run, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.moveaxis(probabilities, -1, 1)


_RENDER = {"instances": _instances, "classes": _classes, "probabilities": _channels_first}
