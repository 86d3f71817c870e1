"""Loss of equation 1, and metrics, for targets with a channel of weights."""

from __future__ import annotations

from typing import Any

from keras_unet.architecture import OFFSETS
from keras_unet.backend import keras, tf

ops = keras.ops


@keras.saving.register_keras_serializable(package="keras_unet")
class WeightedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]  # Keras is untyped
    """Computes the weighted softmax cross-entropy of equation 1 from logits.

    The paper writes the energy as E = sum over pixels of w(x) log p_l(x)(x), which is never
    positive and would have to be maximized. This loss is its negative, w(x) * -log p_l(x)(x),
    averaged over the pixels of the batch instead of summed, so that the learning rate does not
    depend on the tile size.

    `y_true` has shape `(batch, height, width, 2)`: the label (a whole number in [0, classes)) and
    the weight of each pixel. Pixels of weight 0 have no effect, whatever their label. `y_pred` are
    the logits of shape `(batch, height, width, classes)`.

    A saved model that was compiled with this loss needs the import of
    `keras_unet.WeightedCrossEntropy` to load, or `keras.models.load_model(path, compile=False)`.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "weighted_cross_entropy",
        dtype: str = "float32",
    ) -> None:
        """Creates the loss.

        Args:
            reduction: "sum_over_batch_size" for the mean over the pixels, "sum" as in the paper, or
                "none" for a result of shape `(batch, height, width)`.
            name: Name of the loss.
            dtype: Precision of the loss, independent of that of the network.
        """
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the weighted cross-entropy of each pixel, shape `(batch, height, width)`.

        Raises:
            ValueError: If `y_true` does not have two channels, labels and weights.
        """
        labels, weights = _labels_and_weights(y_true)
        weights = ops.cast(weights, self.dtype)
        logits = ops.cast(y_pred, self.dtype)
        return weights * ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {"name": self.name, "reduction": self.reduction, "dtype": self.dtype}


@keras.saving.register_keras_serializable(package="keras_unet")
class AffinityCrossEntropy(WeightedCrossEntropy):
    """Computes `WeightedCrossEntropy`, and the cross-entropy of affinities.

    An affinity is the probability that a pixel and another one, at one of `OFFSETS` from it, belong
    to the same object. Affinities and their use for the separation of objects: S. Wolf et al., "The
    mutex watershed and its objective", IEEE TPAMI 43, 3724-3738 (2021).

    `y_true` has shape `(batch, height, width, 3)`: label, weight, and number of the object of each
    pixel, 0 for none. `y_pred` has shape `(batch, height, width, classes + affinities)`. Each pair
    of pixels has the same weight; pairs with a pixel of weight 0, or beyond the tile, have none.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each pixel, shape `(batch, height, width)`.

        Raises:
            ValueError: If `y_true` does not have three channels.
        """
        if y_true.shape[-1] != 3:
            raise ValueError(
                "y_true must have three channels for a network with affinities, label, weight and "
                "object of each pixel, as tile_dataset(..., architecture=Architecture.of(model)) "
                f"returns them. Received: y_true.shape={tuple(y_true.shape)}"
            )
        first = y_pred.shape[-1] - len(OFFSETS)
        scores = ops.cast(y_pred[..., first:], self.dtype)
        losses = _losses_of_pairs(scores, y_true[..., 2], y_true[..., 1] != 0)
        return super().call(y_true[..., :2], y_pred[..., :first]) + losses


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # a sixth of the time on a CPU
def _losses_of_pairs(scores: Any, objects: Any, counted: Any) -> Any:
    """Returns the cross-entropy of affinities, of each pixel, `(batch, height, width)`.

    Args:
        scores: Logits, `(batch, height, width, affinities)`.
        objects: Number of the object of each pixel, 0 for none, `(batch, height, width)`.
        counted: Pixels of a weight that is not 0, `(batch, height, width)`.
    """
    same, is_pair = [], []
    for offset in OFFSETS:
        other = _shift(objects, offset)
        same.append((objects == other) & (objects > 0))
        is_pair.append(counted & _shift(counted, offset))
    pairs = ops.cast(ops.stack(is_pair, axis=-1), scores.dtype)
    targets = ops.cast(ops.stack(same, axis=-1), scores.dtype)
    losses = pairs * ops.binary_crossentropy(targets, scores, from_logits=True)
    share = ops.maximum(ops.mean(pairs), keras.config.epsilon())
    return ops.mean(losses, -1) / share


def _shift(images: Any, offset: tuple[int, int]) -> Any:
    """Returns, at each pixel, the value at an offset from it; 0 beyond the border."""
    height, width = ops.shape(images)[1:3]
    reach = [abs(distance) for distance in offset]
    padded = ops.pad(images, [(0, 0), *((distance, distance) for distance in reach)])
    down, right = (distance + along for distance, along in zip(reach, offset, strict=True))
    return padded[:, down : down + height, right : right + width]


@keras.saving.register_keras_serializable(package="keras_unet")
class PixelAccuracy(keras.metrics.SparseCategoricalAccuracy):  # type: ignore[misc]
    """Computes the share of pixels whose class is predicted correctly.

    All pixels count equally, except those of weight 0, which do not count. `y_true` and `y_pred`
    are those of `WeightedCrossEntropy`. Keras' own "accuracy" would mistake the weights for labels;
    it is correct with `tile_dataset(..., weights="sample_weight")`.
    """

    def __init__(self, name: str = "pixel_accuracy", dtype: str | None = None) -> None:
        """Creates the metric.

        Args:
            name: Name of the metric.
            dtype: Precision of the metric; None for Keras' default.
        """
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds the pixels of a batch.

        Raises:
            ValueError: If `y_true` does not have two channels, labels and weights.
        """
        labels, counts = _labels_and_counts(y_true, sample_weight)
        return super().update_state(labels, y_pred, counts)


@keras.saving.register_keras_serializable(package="keras_unet")
class MeanIoU(keras.metrics.MeanIoU):  # type: ignore[misc]  # Keras is untyped
    """Computes the intersection over union (IoU), averaged over the classes that occur.

    All pixels count equally, except those of weight 0, which do not count. `y_true` and `y_pred`
    are those of `WeightedCrossEntropy`.
    """

    def __init__(self, num_classes: int, name: str = "mean_iou", dtype: str | None = None) -> None:
        """Creates the metric.

        Args:
            num_classes: Number of classes, background included.
            name: Name of the metric.
            dtype: Precision of the metric; None for Keras' default.
        """
        super().__init__(num_classes=num_classes, name=name, dtype=dtype, sparse_y_pred=False)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds the pixels of a batch.

        Raises:
            ValueError: If `y_true` does not have two channels, labels and weights.
        """
        labels, counts = _labels_and_counts(y_true, sample_weight)
        return super().update_state(labels, y_pred, counts)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {"num_classes": self.num_classes, "name": self.name, "dtype": self.dtype}


def _labels_and_counts(y_true: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Returns labels and counts: 0 at pixels of weight 0, else 1, times Keras' sample weight."""
    labels, weights = _labels_and_weights(y_true)
    counts = ops.cast(weights != 0, "int32")
    return labels, counts if sample_weight is None else counts * sample_weight


def _labels_and_weights(y_true: Any) -> tuple[Any, Any]:
    """Splits `y_true`, with label 0 at pixels of weight 0."""
    if y_true.shape[-1] != 2:
        raise ValueError(
            "y_true must have two channels, the label and the weight of each pixel, as "
            'tile_dataset(..., weights="channel") returns them. '
            f"Received: y_true.shape={tuple(y_true.shape)}"
        )
    weights = y_true[..., 1]
    return ops.cast(ops.where(weights == 0, 0, y_true[..., 0]), "int32"), weights
