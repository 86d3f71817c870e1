"""From a run or an ensemble to a version folder that others load without this package."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from keras_unet.export.artefact import EXTRA, Artefact
from keras_unet.export.savedmodel import write_graph
from keras_unet.export.tiling import GraphTiling
from keras_unet.export.versions import new_version
from keras_unet.export.warmup import WARMUP, write_warmup
from keras_unet.files import PathLike, check_name
from keras_unet.jobs.exporting import Source, network_of
from keras_unet.jobs.folders import check_writable
from keras_unet.jobs.parity import TOLERANCES, answer_of_saved_model, check_parity
from keras_unet.precision import choose_precision
from keras_unet.tracking import working

_log = logging.getLogger(__name__)


def export_saved_model(
    run_folder: PathLike,
    out: PathLike,
    *,
    precision: str | None = None,
    frozen: bool = False,
    tile_size: int | None = None,
    version: int = 1,
) -> Path:
    """Exports a run or an ensemble as a SavedModel for TensorFlow Serving, complete in itself.

    It takes raw pixels of any size and gives probabilities and classes of that size; the signatures
    are those of `keras_unet.export.savedmodel`. What was written is loaded by a fresh process and
    compared with the run before it gets its name.

    Args:
        run_folder: A folder that training wrote, a run or an ensemble.
        out: Folder of the model, in which `<version>/` is written.
        precision: Precision to compute in, "auto", "float32", "bfloat16" or "float16"; None for
            that of the training. Images and probabilities are float32 in each.
        frozen: Whether weights become constants of the graph, for runtimes without variables.
        tile_size: Height and width of the tile in pixels; None for one that fills 512. Memory and
            the time of small images grow with it.
        version: Number of the version, at least 1. Servers take the highest by default.

    Returns:
        The folder written, `out / str(version)`.

    Raises:
        ValueError: If the run's record or model cannot be read, the precision is unknown, the tile
            size does not fit, the name of `out` is not UTF-8, or what was written answers otherwise
            than the run.
        OSError: If the run is missing, a fold is not trained to its end, the version is there
            already, or `out` cannot be written to.
    """
    out = Path(out)
    check_name(out, "choose another folder")
    source = Source.load(run_folder)
    run = source.run
    tiling = GraphTiling.of(run.architecture, tile_size)
    chosen = choose_precision(precision or run.precision)
    check_writable(out)
    with new_version(out, version) as folder:
        members = source.members(chosen)
        artefact = Artefact(run, tiling, chosen, frozen, source.folds)
        with working("writing the graph"):
            write_graph(folder, run, network_of(members), tiling, artefact.about, frozen=frozen)
        artefact.write(folder)
        write_warmup(folder / EXTRA / WARMUP, tiling)
        answer = partial(answer_of_saved_model, folder)
        _log.info(
            check_parity(run, members, tiling.tile_size, tiling.useful, TOLERANCES[chosen], answer)
        )
    return out / str(version)
