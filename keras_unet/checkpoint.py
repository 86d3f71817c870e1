"""What a training writes into its run's folder: models, checkpoint, history, TensorBoard's curves.

Each file is written whole or not at all. The checkpoint alone is enough to go on from: it holds the
progress and every number that changes, the momentum and the state of dropout's randomness included.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import tf
from keras_unet.files import atomic
from keras_unet.plan import Progress

BEST, LAST, CHECKPOINT, HISTORY = "best.keras", "last.keras", "checkpoint.npz", "history.csv"
CURVES = "tensorboard"


class RunFiles:
    """The files of a training under way."""

    def __init__(self, folder: Path, model: Any, optimizer: Any) -> None:
        """Takes what is to be written, and the folder, which exists."""
        self.folder = folder
        self.model = model
        self.variables = {  # every number that changes, the state of dropout's randomness included
            f"{owner}{number}": variable
            for owner, part in (("model", model), ("optimizer", optimizer))
            for number, variable in enumerate(part.variables)
        }
        with _errors_of_the_system(folder / CURVES):
            self.summaries = tf.summary.create_file_writer(str(folder / CURVES))

    def record(self, progress: Progress, picture: NDArray[np.uint8] | None) -> None:
        """Writes all that a validation leaves behind."""
        if progress.is_best:
            self._save_model(BEST)
        self._write_history(progress.rows)
        self._summarise(progress, picture)
        self.save_checkpoint(progress)

    def save_last(self, progress: Progress) -> None:
        """Writes the model as it is, also as the best one where none had a score."""
        self._save_model(LAST)
        if progress.best_score is None:
            self._save_model(BEST)

    def save_checkpoint(self, progress: Progress) -> None:
        """Writes all that a resumed run needs into one file."""
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        with atomic(self.folder / CHECKPOINT) as temporary, temporary.open("wb") as stream:
            np.savez(stream, progress=np.array(json.dumps(asdict(progress))), **arrays)

    def restore(self) -> Progress:
        """Puts the checkpoint's numbers into model and optimizer and returns its progress.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            ValueError: If it is damaged or of another network.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            raise FileNotFoundError(
                f"{path} must exist to resume from. Received a run without a checkpoint; start it "
                "anew without resume"
            )
        try:
            arrays = _read_arrays(path)
            values = json.loads(str(arrays.pop("progress")))
            progress = Progress(**{**values, "rows": tuple(values["rows"])})
            self._assign(arrays)
        except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}: expected the checkpoint of a training of this network. Received one that "
                f"cannot be used ({type(error).__name__}: {error}); start anew without resume"
            ) from error
        return progress

    def _assign(self, arrays: dict[str, NDArray[Any]]) -> None:
        shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
        if shapes != {name: array.shape for name, array in arrays.items()}:
            raise ValueError("the weights have other shapes")
        for name, variable in self.variables.items():
            variable.assign(arrays[name])

    def _save_model(self, name: str) -> None:
        with atomic(self.folder / name) as temporary:
            self.model.save(temporary)

    def _write_history(self, rows: tuple[dict[str, Any], ...]) -> None:
        path = self.folder / HISTORY
        with atomic(path) as temporary, temporary.open("w", newline="") as stream:
            table = csv.DictWriter(stream, rows[0].keys())
            table.writeheader()
            table.writerows(rows)

    def _summarise(self, progress: Progress, picture: NDArray[np.uint8] | None) -> None:
        row = progress.rows[-1]
        with _errors_of_the_system(self.folder / CURVES):
            with self.summaries.as_default(step=progress.step):
                for name in ("loss", "score", "learning_rate", "skipped_updates"):
                    if row[name] is not None:
                        tf.summary.scalar(name, row[name])
                if picture is not None:
                    tf.summary.image("validation", picture[None])
            self.summaries.flush()


@contextmanager
def _errors_of_the_system(path: Path) -> Iterator[None]:
    """Turns what TensorFlow says of a folder into an OSError; it calls a full disk a shortage.

    TensorFlow's words are `.../events.out; No space left on device`, and more in further lines.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0].rpartition("; ")[2]
        raise OSError(
            f"{path}: expected a place that can be written to, with room for TensorBoard's curves. "
            f"The system said: {reason}. See to that, and go on."
        ) from error


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)
