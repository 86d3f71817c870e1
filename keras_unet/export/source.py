"""Source of an export: a run, or the runs of an ensemble as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from keras_unet.ensembles import Ensemble, is_ensemble
from keras_unet.export.graph import joined
from keras_unet.files import PathLike
from keras_unet.prediction.networks import Member, load_network, load_runs
from keras_unet.runs import Run


@dataclass(frozen=True)
class Source:
    """A run or an ensemble.

    Attributes:
        run: The run. Of an ensemble, what its folds have in common, under the ensemble's name:
            architecture, labels, rule, the images of all; and standardisation and precision of the
            first, which the joined network takes.
        folds: The runs of an ensemble; of a run, none.
    """

    run: Run
    folds: tuple[Run, ...] = ()

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Reads the records.

        Raises:
            OSError: If the folder is neither a run nor an ensemble whose folds are all trained.
            ValueError: If a record cannot be read, or the folds do not go together.
        """
        folder = Path(folder)
        if not is_ensemble(folder):
            return cls(Run.load(folder))
        folds = load_runs(folder)
        _check_alike(folder, folds)
        return cls(_whole(Ensemble.load(folder), folds), folds)

    def members(self, precision: str) -> list[Member]:
        """Loads the networks that predict together, or the only one.

        Args:
            precision: The one to compute in, of all.

        Raises:
            FileNotFoundError: If training has not written a model yet.
            ValueError: If a model cannot be read.
        """
        return [(one, load_network(one, precision)) for one in self.folds or (self.run,)]


def network_of(members: Sequence[Member]) -> object:
    """Returns the one Keras network that is exported of these, see `keras_unet.export.graph`."""
    return joined([network for _, network in members], [run.standardisation for run, _ in members])


def _whole(ensemble: Ensemble, folds: Sequence[Run]) -> Run:
    data = [fold.record.get("data", {}) for fold in folds]
    seen = sorted({name for one in data for name in one.get("training", ())})
    last = data[-1].get("folder", "")  # where the images were when the ensemble was finished
    record = {"options": dict(ensemble.options), "data": {"folder": last, "training": seen}}
    return replace(folds[0], folder=ensemble.folder, record=record)


def _check_alike(folder: Path, folds: Sequence[Run]) -> None:
    kinds = {(one.architecture, one.scheme, one.standardisation.mode) for one in folds}
    if len(kinds) > 1:
        raise ValueError(
            f"{folder}: expected an ensemble whose folds have one architecture, one meaning of "
            f"labels and one way of standardising. Received {len(kinds)} kinds; train it anew"
        )
