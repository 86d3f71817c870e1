"""Faster gradients of crops, convolutions and batch normalization, on a CPU in particular.

They were chosen by a profile of the training of figure 1 on a CPU (`benchmarks/NOTES.md`). The
layers here are never saved: models and checkpoints hold Keras' own classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from keras_unet.backend import keras, tf, uses_onednn
from keras_unet.training.kernel_norm import normalize_kernel

if TYPE_CHECKING:
    from keras import Model

_WIDE = 128**2
"""Product of incoming and outgoing features from which on matrix products beat oneDNN."""


def with_fast_gradients(model: Model) -> Model:
    """Returns a model that shares all weights and computes some gradients faster.

    - Crops: the gradient is padded, which copies rows, where TensorFlow copies single numbers.
    - Kernels of up-convolutions and wide convolutions, on a CPU: the gradients are matrix products,
      which are faster than oneDNN's convolutions.
    - Kernels and inputs of all 3 x 3 convolutions, on a CPU where TensorFlow does not use oneDNN:
      the gradients are matrix products and forward convolutions, which are several times as fast as
      Eigen's gradients.
    - Batch normalization in training, on a CPU: one operation of TensorFlow, and one of its
      gradients, in place of Keras' many.

    Logits are equal to the bit, but for the rounding of batch normalization; gradients are sums in
    another order. `keras_unet.train` uses it. In a training with `model.fit`, compile and fit the
    returned model, and save the given one:

        fast = keras_unet.with_fast_gradients(model)
        fast.compile("sgd", keras_unet.WeightedCrossEntropy())
        fast.fit(dataset, steps_per_epoch=100)
        model.save("model.keras")

    Args:
        model: A functional model, for example of `build_unet`. Other layers, and convolutions with
            strides, dilation or groups, are unchanged.

    Raises:
        ValueError: If the model is neither functional nor sequential.
    """
    return keras.models.clone_model(model, clone_function=_fast_layer)


class FusedSGD(keras.optimizers.SGD):  # type: ignore[misc]  # Keras is untyped
    """SGD with Nesterov momentum, in a single pass over each variable."""

    def __init__(self, momentum: float, normalized: Collection[int] = ()) -> None:
        """Creates the optimizer with a learning rate of 0.

        Args:
            momentum: The momentum.
            normalized: Numbers of the variables that are normalized after each update.
        """
        super().__init__(0.0, momentum=momentum, nesterov=True)
        self.normalized = frozenset(normalized)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a TensorFlow variable, and its momentum."""
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )
        if index in self.normalized:
            variable.assign(normalize_kernel(variable.read_value()))


class FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]  # Keras is untyped
    """Adam (D. Kingma, J. Ba, ICLR 2015), in a single pass over each variable."""

    def __init__(self, normalized: Collection[int] = ()) -> None:
        """Creates the optimizer with a learning rate of 0.

        Args:
            normalized: Numbers of the variables that are normalized after each update.
        """
        super().__init__(0.0)
        self.normalized = frozenset(normalized)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a TensorFlow variable, and its moments."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
        if index in self.normalized:
            variable.assign(normalize_kernel(variable.read_value()))


class _Crop(keras.layers.Cropping2D):  # type: ignore[misc]  # Keras is untyped
    def call(self, features: Any) -> Any:
        around = [(0, 0), *self.cropping, (0, 0)]

        @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow is untyped
        def crop(features: Any) -> Any:
            cropped = super(_Crop, self).call(features)
            return cropped, lambda gradient: tf.pad(gradient, around)

        return crop(features)


class _Convolution(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """A convolution layer with another gradient of its kernel."""

    def __init__(self, convolution: Any, convolve: Callable[[Any, Any, str], Any]) -> None:
        super().__init__(name=convolution.name, dtype=convolution.dtype_policy)
        self.convolution, self.convolve = convolution, convolve

    def call(self, features: Any) -> Any:
        inner = self.convolution
        kernel = tf.convert_to_tensor(inner.kernel)  # in the precision of this layer
        convolved = self.convolve(features, kernel, inner.padding.upper())
        return inner.activation(tf.nn.bias_add(convolved, inner.bias))

    def compute_output_shape(self, shape: Any) -> Any:
        return self.convolution.compute_output_shape(shape)


class _BatchNormalization(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Batch normalization with the variables of Keras' layer, by one operation in training."""

    def __init__(self, norm: Any) -> None:
        super().__init__(name=norm.name, dtype=norm.dtype_policy, autocast=False)
        self.norm = norm

    def call(self, features: Any, training: bool = False, mask: Any = None) -> Any:
        norm = self.norm
        if not training or mask is not None:
            return norm(features, training=training, mask=mask)
        empty = tf.zeros(0)  # statistics are not given, but computed
        output, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=features,
            scale=tf.convert_to_tensor(norm.gamma),
            offset=tf.convert_to_tensor(norm.beta),
            mean=empty,
            variance=empty,
            epsilon=norm.epsilon,
            is_training=True,
        )
        number = tf.cast(tf.size(features) / features.shape[-1], variance.dtype)
        variance *= (number - 1) / number  # Keras divides by the number of pixels
        for moving, latest in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
            moving.assign(moving * norm.momentum + latest * (1 - norm.momentum))
        return output

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def _convolve(features: Any, kernel: Any, padding: str) -> Any:
    """Convolves by a 3 x 3 kernel, whose gradient is nine matrix products."""
    # Eigen's gradient of the input takes up to eight times as long as its convolution.
    of_input = _gradient_of_input if uses_onednn() else _gradient_by_convolution
    options = {"strides": [1, 1, 1, 1], "padding": padding}

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def convolve(features: Any, kernel: Any) -> Any:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            around = [(0, 0), (1, 1), (1, 1), (0, 0)]
            read = tf.pad(features, around) if padding == "SAME" else features
            of_features = of_input(tf.shape(features), kernel, upstream, padding)
            return of_features, _gradient_by_products(read, upstream)

        return tf.raw_ops.Conv2D(input=features, filter=kernel, **options), gradients

    return convolve(features, kernel)


def _gradient_of_input(shape: Any, kernel: Any, upstream: Any, padding: str) -> Any:
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=shape,
        filter=kernel,
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding=padding,
    )


def _gradient_by_convolution(_: Any, kernel: Any, upstream: Any, padding: str) -> Any:
    """Computes the gradient of the input as a convolution by the kernel, turned by 180 degrees."""
    turned = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    if padding == "VALID":
        upstream = tf.pad(upstream, [(0, 0), (2, 2), (2, 2), (0, 0)])
    return tf.nn.conv2d(upstream, turned, 1, padding)


def _convolve_up(features: Any, kernel: Any, padding: str) -> Any:
    """Up-convolves by a 2 x 2 kernel, whose gradient is one product, as no two pixels overlap."""
    options = {"strides": [1, 2, 2, 1], "padding": padding}

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def convolve(features: Any, kernel: Any) -> Any:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            blocks = _pixels(tf.nn.space_to_depth(upstream, 2))
            of_kernel = tf.matmul(blocks, _pixels(features), transpose_a=True)
            of_features = tf.raw_ops.Conv2D(input=upstream, filter=kernel, **options)
            return of_features, tf.reshape(of_kernel, kernel.shape)

        size = tf.shape(features) * [1, 2, 2, 0] + [0, 0, 0, kernel.shape[2]]
        convolved = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=size, filter=kernel, out_backprop=features, **options
        )
        return convolved, gradients

    return convolve(features, kernel)


def _gradient_by_products(features: Any, upstream: Any) -> Any:
    """Computes the gradient of a 3 x 3 kernel from its input and the gradient of its output."""
    # Both become lists of pixels, row by row; the upstream gradient is padded to rows of the same
    # length. Each position in the kernel is then an offset in the list, and its gradient the
    # product of two contiguous ranges.
    width = tf.shape(features)[2]
    read, given = _pixels(features), _pixels(tf.pad(upstream, [(0, 0), (0, 2), (0, 2), (0, 0)]))
    length = tf.shape(read)[0] - (2 * width + 2)
    products = [
        tf.matmul(read[first : first + length], given[:length], transpose_a=True)
        for first in [row * width + column for row in range(3) for column in range(3)]
    ]
    return tf.reshape(tf.stack(products), (3, 3, features.shape[-1], upstream.shape[-1]))


def _pixels(features: Any) -> Any:
    return tf.reshape(features, (-1, features.shape[-1]))


def _fast_layer(layer: Any) -> Any:
    if isinstance(layer, keras.layers.Cropping2D):
        return _Crop.from_config(layer.get_config())
    if tf.config.list_physical_devices("GPU"):
        return layer
    if type(layer) is keras.layers.BatchNormalization and _is_fusible(layer):
        return _BatchNormalization(layer)
    if type(layer) is keras.layers.Conv2DTranspose and _is_plain(layer, (2, 2), (2, 2)):
        return _Convolution(layer, _convolve_up)
    if (
        type(layer) is keras.layers.Conv2D
        and _is_plain(layer, (3, 3), (1, 1))
        and _is_faster_by_products(layer)
    ):
        return _Convolution(layer, _convolve)
    return layer


def _is_plain(layer: Any, kernel_size: tuple[int, int], strides: tuple[int, int]) -> bool:
    """Returns whether a convolution has no option that the functions here lack."""
    return (
        (layer.kernel_size, layer.strides, layer.dilation_rate) == (kernel_size, strides, (1, 1))
        and (layer.data_format, layer.use_bias) == ("channels_last", True)
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "output_padding", None) is None
        and (strides == (1, 1) or layer.padding == "valid")
    )


def _is_fusible(norm: Any) -> bool:
    """Returns whether a batch normalization is of the last of four axes, and not synchronized."""
    is_last = len(norm.moving_mean.shape) == 1 and norm.axis in (-1, 3)
    is_of_images = norm.input_spec is not None and norm.input_spec.ndim == 4
    return bool(is_last and is_of_images and norm.scale and norm.center and not norm.synchronized)


def _is_faster_by_products(layer: Any) -> bool:
    incoming, outgoing = layer.kernel.shape[2:]
    return not uses_onednn() or bool(incoming * outgoing >= _WIDE)
