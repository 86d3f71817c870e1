"""Training targets of samples: the classes of their pixels and the weight maps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from keras_unet.data.distances import separate_touching
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import read_planes, write_tiff
from keras_unet.data.samples import Sample
from keras_unet.data.weight_maps import class_balance, weight_map

_DIGITS = 12  # of a digest in a file name
_SAMPLE_DIGITS = 16  # of a digest in the record of a run
_MAX_NAME_LENGTH = 80  # characters of a sample's name in a file name


@dataclass(frozen=True, eq=False)
class Target:
    """A sample and its classes to learn.

    Attributes:
        sample: The annotated image.
        classes: Classes, with background between touching cells, `(height, width)`.
        counted: Pixels to learn and to score, `(height, width)`: those that are neither ignored nor
            unlabelled, and those around a cell that is labelled in part of an image, see `of`.
    """

    sample: Sample
    classes: NDArray[np.uint8]
    counted: NDArray[np.bool_]

    @classmethod
    def of(cls, sample: Sample, encoding: LabelEncoding) -> Target:
        """Separates the touching cells of a sample by background.

        Section 3 of the paper: the network learns "a separation border" between them. Labels that
        hold classes are unchanged. In an image that is labelled in part, the unlabelled pixels
        around a cell are background: either they show it, or a cell that touches.
        """
        instances = sample.instances
        classes = _separate_classes(sample.classes, instances, encoding)
        return cls(sample, classes, _counted(instances, sample.ignored, encoding))


@dataclass(frozen=True, eq=False)
class WeightMaps:
    """Weight maps of a run, computed once each and kept in files.

    Attributes:
        folder: Folder of the files, whose names contain the sample and a hash of all that the map
            depends on; None to compute without files.
        balance: Weight of each class, w_c of equation 2, `(classes,)`.
        w0: w0 of equation 2.
        sigma: sigma of equation 2 in pixels.
    """

    folder: Path | None
    balance: NDArray[np.float64]
    w0: float
    sigma: float

    @classmethod
    def unbalanced(
        cls, folder: Path | None, classes: int, *, w0: float, sigma: float
    ) -> WeightMaps:
        """Gives every class the weight 1, which is the mean weight of balanced classes."""
        return cls(folder, np.ones(classes), w0, sigma)

    @classmethod
    def balanced(
        cls,
        folder: Path | None,
        targets: Sequence[Target],
        classes: int,
        *,
        w0: float,
        sigma: float,
    ) -> WeightMaps:
        """Balances the classes over training images."""
        balance = class_balance(
            [target.classes for target in targets],
            classes,
            [~target.counted for target in targets],
        )
        return cls(folder, balance, w0, sigma)

    def of(self, target: Target) -> NDArray[np.float32]:
        """Returns the weight map of an image, `(height, width)`, computed the first time."""
        sample = target.sample
        if self.folder is None:
            return self._compute(target.classes, sample.instances, ~target.counted)
        path = self._path(target, self.folder)
        if path.exists():
            return np.asarray(read_planes(path)[0, ..., 0], np.float32)
        weights = self._compute(target.classes, sample.instances, ~target.counted)
        write_tiff(path, weights, axes="YX")
        return weights

    def of_labels(
        self, labels: NDArray[np.int32], encoding: LabelEncoding
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
        """Computes classes, weights and objects of labels with the values of a file.

        Args:
            labels: Labels, `(height, width)`, or `(height, width, 2)`, see `LabelEncoding`.
            encoding: Their encoding.
        """
        instances = encoding.to_instances(labels)
        classes = _separate_classes(encoding.to_classes(labels), instances, encoding)
        counted = _counted(instances, encoding.ignored(labels), encoding)
        weights = self._compute(classes, instances, ~counted)
        return classes, weights, instances

    def _compute(
        self,
        classes: NDArray[np.uint8],
        instances: NDArray[np.int32],
        ignored: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        return weight_map(
            classes,
            instances,
            balance=self.balance,
            ignored=ignored,
            w0=self.w0,
            sigma=self.sigma,
        )

    def _path(self, target: Target, folder: Path) -> Path:
        sample = target.sample
        numbers = np.array([*self.balance, self.w0, self.sigma])
        key = digest(target.classes, sample.instances, ~target.counted, numbers)
        name = re.sub(r"[^\w.-]", "_", sample.name)[:_MAX_NAME_LENGTH]
        return folder / f"{name}-{key[:_DIGITS]}.tif"


def _separate_classes(
    classes: NDArray[np.uint8], instances: NDArray[np.int32], encoding: LabelEncoding
) -> NDArray[np.uint8]:
    """Puts background between touching cells, unless the labels hold classes."""
    if encoding.kind == "classes":
        return classes
    return np.where(separate_touching(instances) > 0, classes, 0).astype(np.uint8)


def _counted(
    instances: NDArray[np.int32], ignored: NDArray[np.bool_], encoding: LabelEncoding
) -> NDArray[np.bool_]:
    """Returns the pixels to learn and to score, see `Target`."""
    whole_cells = encoding.kind == "instances" and encoding.unlabelled is not None
    if not whole_cells or encoding.ignore is not None:  # pixels beside a cell may be ignored
        return ~ignored
    return ~ignored | ndimage.binary_dilation(instances > 0, np.ones((3, 3), bool))


def sample_digest(sample: Sample) -> str:
    """Computes a short SHA-256 digest of an image and its labels."""
    arrays = (sample.image, sample.classes, sample.instances, sample.ignored)
    return digest(*arrays)[:_SAMPLE_DIGITS]


def digest(*arrays: NDArray[np.generic]) -> str:
    """Computes the SHA-256 digest of arrays: their types, shapes and values."""
    checksum = hashlib.sha256()
    for array in arrays:
        checksum.update(f"{array.dtype.str}{array.shape}".encode())
        checksum.update(np.ascontiguousarray(array).tobytes())
    return checksum.hexdigest()
