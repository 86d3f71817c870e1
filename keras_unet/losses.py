"""The energy of the paper's equation 1, as a loss that reads the weight map."""

from __future__ import annotations

from typing import Any

from keras_unet.backend import keras

ops = keras.ops


@keras.saving.register_keras_serializable(package="keras_unet")
class WeightedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]  # Keras is untyped
    """Computes the weighted softmax cross-entropy of equation 1 from logits.

    The paper writes the energy as E = sum over pixels of w(x) log p_l(x)(x), which is never
    positive and would have to be maximised. What is minimised here is its negative,
    w(x) * -log p_l(x)(x), averaged over the pixels of the batch instead of summed, so that the
    learning rate does not depend on the tile.

    `y_true` has shape `(batch, height, width, 2)`: the label (a whole number in [0, classes)) and
    the weight of each pixel. A weight of 0 takes a pixel out, whatever its label. `y_pred` are the
    logits of shape `(batch, height, width, classes)`.

    A model that was compiled with this loss and saved loads where `keras_unet.WeightedCrossEntropy`
    has been imported, and everywhere by `keras.models.load_model(path, compile=False)`.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "weighted_cross_entropy",
        dtype: str = "float32",
    ) -> None:
        """Creates the loss.

        Args:
            reduction: Keras' word for how pixels are joined: "sum_over_batch_size" averages them,
                "sum" is the paper's, "none" keeps them apart, shape `(batch, height, width)`.
            name: Name of the loss.
            dtype: Precision of the loss; float32 whatever the precision of the network.
        """
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the weighted cross-entropy of each pixel, shape `(batch, height, width)`.

        Raises:
            ValueError: If `y_true` does not carry exactly a label and a weight channel.
        """
        if y_true.shape[-1] != 2:
            raise ValueError(
                "y_true must have two channels, the label and the weight of each pixel. "
                f"Received: y_true.shape={tuple(y_true.shape)}"
            )
        weights = ops.cast(y_true[..., 1], self.dtype)
        labels = ops.cast(ops.where(weights == 0, 0, y_true[..., 0]), "int32")
        logits = ops.cast(y_pred, self.dtype)
        return weights * ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {"name": self.name, "reduction": self.reduction, "dtype": self.dtype}
