"""Skeleton of an export: it is written, compared with its model, and only then gets its name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_unet.console import status
from keras_unet.export.artefact import Artefact
from keras_unet.export.graph import GraphTiling, joined
from keras_unet.export.parity import LARGEST, Measure, check_parity
from keras_unet.precision import Precision
from keras_unet.prediction.segmenter import Segmenter

_log = logging.getLogger(__name__)

Write = Callable[[Path, Artefact, Any], None]
"""Writes an export to a path: its metadata, and the one Keras network of all members."""

Answer = Callable[[Path, NDArray[np.float32]], NDArray[Any]]
"""Answers by an export, from raw pixels to probabilities."""


def write_and_compare(
    segmenter: Segmenter,
    draft: AbstractContextManager[Path],
    write: Write,
    answer: Answer,
    tolerance: float,
    *,
    tiling: GraphTiling,
    precision: Precision = "float32",
    frozen: bool = True,
    measure: Measure = LARGEST,
) -> None:
    """Writes an export under a temporary name, and compares it with the segmenter.

    Args:
        segmenter: The model.
        draft: Yields the temporary path, and moves what was written there when all has gone well.
        write: Writes the export.
        answer: Answers by it, in a fresh process.
        tolerance: Difference of probabilities that is due to rounding.
        tiling: How the graph tiles.
        precision: Precision that the graph computes in.
        frozen: Whether the weights are constants of the graph.
        measure: Which difference is held against the tolerance.

    Raises:
        ValueError: If what was written does not answer, or differs by more than the tolerance.
        OSError: If it cannot be written.
    """
    exact = segmenter.with_precision(precision)
    with draft as path:
        artefact = Artefact(exact, tiling, precision, frozen)
        network = joined(
            [member.network for member in exact.members],
            [member.info.standardisation for member in exact.members],
        )
        with status("writing the graph"):
            write(path, artefact, network)
        _log.info(check_parity(exact, tiling, tolerance, partial(answer, path), measure=measure))
