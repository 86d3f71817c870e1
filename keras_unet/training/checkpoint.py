"""Checkpoint, models, history and TensorBoard curves in the folder of a run.

Each file is written whole or not at all. The checkpoint suffices to resume a training: it holds the
progress and all variables, with the momentum and the random state of dropout.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import tf
from keras_unet.files import atomic
from keras_unet.runs import BEST
from keras_unet.training.schedule import Progress

_CURVES = ("loss", "score", "learning_rate", "skipped_updates", "seconds")


@dataclass(frozen=True)
class Logged:
    """Values to log for TensorBoard besides curves and pictures.

    Attributes:
        histograms: Whether to log a histogram of each weight at every validation.
        hyperparameters: Hyperparameters of the run, by name; bool, int, float or str.
    """

    histograms: bool = False
    hyperparameters: Mapping[str, bool | float | str] = field(default_factory=dict)


PLAIN = Logged()


class Curves:
    """TensorBoard log of a training."""

    def __init__(self, folder: Path, model: Any, logged: Logged) -> None:
        """Creates the log.

        Args:
            folder: Folder to write to.
            model: Keras network whose weights may be logged.
            logged: Values to log.
        """
        self.folder, self.model, self.logged = folder, model, logged
        with self._system_errors():
            self.writer = tf.summary.create_file_writer(str(folder))

    def begin(self) -> None:
        """Logs the hyperparameters, named by the run's folder and its parent.

        They are not declared, because TensorBoard then finds those that differ between runs.
        """
        from tensorboard.plugins.hparams import api

        name = "/".join(self.folder.absolute().parent.parts[-2:])
        with self._writing(0):
            api.hparams(dict(self.logged.hyperparameters), trial_id=name)

    def add(self, progress: Progress, picture: NDArray[np.uint8] | None) -> None:
        """Logs a validation."""
        row = progress.rows[-1]
        values = {**{name: row[name] for name in _CURVES}, "best_score": progress.best_score}
        with self._writing(progress.step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(name, value)
            if picture is not None:
                tf.summary.image("validation", picture[None])
            if self.logged.histograms:
                for variable in self.model.trainable_variables:
                    tf.summary.histogram(f"weights/{variable.path}", variable)

    @contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        with self._system_errors():
            with self.writer.as_default(step=step):
                yield
            self.writer.flush()

    @contextmanager
    def _system_errors(self) -> Iterator[None]:
        """Turns TensorFlow's errors about files into an OSError."""
        # The first line of the message ends in the reason: "events.out; No space left on device".
        try:
            yield
        except tf.errors.OpError as error:
            reason = error.message.splitlines()[0].rpartition("; ")[2]
            raise OSError(
                f"{self.folder}: expected a writable folder with free space for TensorBoard's "
                f"curves. The system said: {reason}. Resolve this, then resume."
            ) from error


LAST, CHECKPOINT, HISTORY = "last.keras", "checkpoint.npz", "history.csv"
VALIDATED = "validated.keras"
"""Best weights before the images held out were trained on as well, see `Schedule.final_share`."""
CURVES = "tensorboard"


class RunFiles:
    """Files of a training."""

    def __init__(self, folder: Path, model: Any, optimizer: Any, logged: Logged = PLAIN) -> None:
        """Collects the variables and creates the TensorBoard log.

        Args:
            folder: Existing folder of the run.
            model: Keras network.
            optimizer: Its optimizer.
            logged: Values to log for TensorBoard.
        """
        self.folder = folder
        self.model = model
        self.variables = {  # with the random state of dropout
            f"{owner}{number}": variable
            for owner, object_ in (("model", model), ("optimizer", optimizer))
            for number, variable in enumerate(object_.variables)
        }
        self.curves = Curves(folder / CURVES, model, logged)

    def record(self, progress: Progress, picture: NDArray[np.uint8] | None) -> None:
        """Writes the files of a validation."""
        if progress.is_best:
            self._save_model(BEST)
        self._write_history(progress.rows)
        self.save_checkpoint(progress)
        self.curves.add(progress, picture)  # last, or a resumed run might add it again

    def save_last(self, progress: Progress) -> None:
        """Writes the current model, also as the best one if there is no score."""
        self._save_model(LAST)
        if progress.best_score is None:
            self._save_model(BEST)

    def save_checkpoint(self, progress: Progress) -> None:
        """Writes progress and variables to the checkpoint."""
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        with atomic(self.folder / CHECKPOINT) as temporary, temporary.open("wb") as stream:
            np.savez(stream, progress=np.array(json.dumps(asdict(progress))), **arrays)

    def restore(self) -> Progress:
        """Restores model and optimizer from the checkpoint and returns its progress.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            ValueError: If the checkpoint is damaged or of another network.
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


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)
