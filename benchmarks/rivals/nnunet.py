"""nnU-Net v2, configuration 2d: its fingerprint, plan, preprocessing, network and augmentation.

The trainer has a time limit in place of 1000 epochs of 250 steps: the polynomial decay of the
learning rate follows the clock and ends at 0 with the time. It trains on all training images (fold
"all") and keeps the last weights, as nnU-Net does; the validation after each epoch, which decides
nothing then, is left out. Prediction is by sliding window with mirroring, the default.

Instances are learned as core and border, and put together again, by `acvl_utils`, which is of the
same authors. The option `batch_size` replaces that of the plan.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.instance_segmentation.instance_as_semantic_seg import (
    convert_instanceseg_to_semantic_patched,
    convert_semantic_to_instanceseg,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from numpy.typing import NDArray

from benchmarks.rivals.job import Clock, Job, Prediction, Trained, grey, run
from keras_unet.data.images import write_tiff
from keras_unet.data.samples import Sample
from keras_unet.files import make_folder, write_json

NUMBER, NAME = 1, "Dataset001_rival"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
PROCESSES = 2
SPACING = 999, 1, 1  # what nnU-Net's reader states for 2D images


class TimedTrainer(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's trainer, for a length of time.

    Attributes:
        clock: Clock of the training loop.
        steps: Number of updates.
        seconds: Seconds of the loop.
    """

    clock: Clock
    steps = 0
    seconds = 0.0

    def run_training(self) -> None:
        """Trains until the time is over."""
        self.on_train_start()
        self.network.train()
        self.clock.start()
        while not self.clock.is_over:
            self.lr_scheduler.step(self.clock.share * self.num_epochs)
            self.train_step(next(self.dataloader_train))
            self.steps += 1
        self.seconds = self.clock.seconds
        self.on_train_end()


def train(job: Job, samples: Sequence[Sample], clock: Clock) -> Trained:
    """Plans, preprocesses and trains."""
    torch.manual_seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002 - the generator that nnU-Net draws from
    os.environ |= {name: str(make_folder(job.work / name)) for name in FOLDERS}
    os.environ |= {"nnUNet_n_proc_DA": "1"}  # processes of augmentation, beside the training
    _write_data(job, samples)
    plans = _plan(job)
    device = torch.device("cpu")
    trainer = TimedTrainer(plans, _configuration(job), "all", _data_json(job), device)
    trainer.clock = clock
    trainer.run_training()
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(perform_everything_on_device=False, device=device, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network.eval(),
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    plan = trainer.configuration_manager
    about = {"batch_size": plan.batch_size, "patch_size": list(plan.patch_size)}
    return Trained(
        lambda image: _predict(predictor, image, job), trainer.steps, trainer.seconds, about
    )


def _write_data(job: Job, samples: Sequence[Sample]) -> None:
    """Writes images and classes in the layout of nnU-Net."""
    folder = job.work / "nnUNet_raw" / NAME
    images, labels = (make_folder(folder / name) for name in ("imagesTr", "labelsTr"))
    classes = 0
    for index, sample in enumerate(samples):
        target = sample.classes if job.kind == "classes" else _border_core(sample.instances)
        classes = max(classes, int(target.max()) + 1)
        write_tiff(images / f"image_{index:03}_0000.tif", grey(sample.image), axes="YX")
        write_tiff(labels / f"image_{index:03}.tif", target, axes="YX")
    names = ["background", *(f"class {number}" for number in range(1, classes))]
    description = {
        "channel_names": {"0": "grey"},
        "labels": {name: number for number, name in enumerate(names)},
        "numTraining": len(samples),
        "file_ending": ".tif",
    }
    write_json(folder / "dataset.json", description)


def _data_json(job: Job) -> dict[str, Any]:
    return _read(job.work / "nnUNet_raw" / NAME / "dataset.json")


def _plan(job: Job) -> dict[str, Any]:
    """Returns the plans, after planning and preprocessing."""
    extract_fingerprints([NUMBER], num_processes=PROCESSES, check_dataset_integrity=True)
    identifier = plan_experiments([NUMBER])
    preprocess([NUMBER], identifier, configurations=("2d",), num_processes=(PROCESSES,))
    plans = _read(job.work / "nnUNet_preprocessed" / NAME / f"{identifier}.json")
    if "batch_size" in job.options:
        changed = {"inherits_from": "2d", "batch_size": job.options["batch_size"]}
        plans["configurations"][_configuration(job)] = changed
    return plans | {"continue_training": False}


def _configuration(job: Job) -> str:
    batch = job.options.get("batch_size")
    return "2d" if batch is None else f"2d_batch_{batch}"


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def _border_core(instances: NDArray[np.int32]) -> NDArray[np.uint8]:
    volume = instances[None].astype(np.uint16)
    classes: NDArray[np.uint8] = convert_instanceseg_to_semantic_patched(volume)[0]
    return classes


def _predict(predictor: nnUNetPredictor, image: NDArray[np.float32], job: Job) -> Prediction:
    properties = {"spacing": SPACING}
    labels, probabilities = predictor.predict_single_npy_array(
        image[None, None], properties, save_or_return_probabilities=True
    )
    probabilities = probabilities[:, 0].clip(0, 1)
    if job.kind == "classes":
        return Prediction(labels[0], probabilities)
    instances = convert_semantic_to_instanceseg(labels.astype(np.uint8))[0]
    background = probabilities[0]
    return Prediction(instances, np.stack([background, 1 - background]))


if __name__ == "__main__":
    run(train, ("nnunetv2", "torch", "acvl-utils", "dynamic-network-architectures"))
