"""What TensorBoard shows of a training: curves, pictures, histograms of weights, hyperparameters.

Several runs are compared by `tensorboard --logdir` on the folder above theirs. A resumed run goes
on in its curves; since a validation is logged after the checkpoint that it leaves is written, no
point is there twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.backend import tf
from keras_unet.training.schedule import Progress

_CURVES = ("loss", "score", "learning_rate", "skipped_updates", "seconds")


@dataclass(frozen=True)
class Logged:
    """What is logged of a training besides its curves and pictures.

    Attributes:
        histograms: Whether to log a histogram of each of the weights at every validation.
        hyperparameters: What tells this run from others, by name; bool, int, float or str.
    """

    histograms: bool = False
    hyperparameters: Mapping[str, bool | float | str] = field(default_factory=dict)


PLAIN = Logged()


class Curves:
    """The log of a training under way."""

    def __init__(self, folder: Path, model: Any, logged: Logged) -> None:
        """Takes the folder to write to, the network, and what to log."""
        self.folder, self.model, self.logged = folder, model, logged
        with self._errors_of_the_system():
            self.writer = tf.summary.create_file_writer(str(folder))

    def begin(self) -> None:
        """Logs the hyperparameters, under the name of the run's folder and the one above.

        TensorBoard finds out by itself which of them differ between runs, if nobody lists them, and
        puts the latest value of each curve beside them.
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
        with self._errors_of_the_system():
            with self.writer.as_default(step=step):
                yield
            self.writer.flush()

    @contextmanager
    def _errors_of_the_system(self) -> Iterator[None]:
        """Turns what TensorFlow says of a folder into an OSError; it calls a full disk a shortage.

        TensorFlow's words are `.../events.out; No space left on device`, and more in further lines.
        """
        try:
            yield
        except tf.errors.OpError as error:
            reason = error.message.splitlines()[0].rpartition("; ")[2]
            raise OSError(
                f"{self.folder}: expected a place that can be written to, with room for "
                f"TensorBoard's curves. The system said: {reason}. See to that, and go on."
            ) from error
