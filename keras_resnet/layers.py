"""Layers of our own: few, and none of them is left in a run's or an export's files."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.errors import UserError


@keras.saving.register_keras_serializable(package="keras_resnet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' BatchNormalization through TensorFlow's fused kernel.

    Keras 3 computes the moments and the normalisation as separate operations; the fused kernel
    does both in one pass over memory and keeps float32 statistics for half-precision inputs.
    Config keys, weights and results are those of the stock layer (biased moving variance
    included: `tf_keras` and PyTorch keep the unbiased one), so `to_stock` is a change of class.
    Whatever the kernel does not do (`synchronized`, `renorm`, masks, other ranks or axes, float64,
    parameters that are not float32) takes the stock path, as does every other Keras backend.

    A batch without images leaves the statistics as they are. Under `tf.distribute` the last batch
    of an epoch may leave a device without any, and stock Keras' statistics become NaN.

    Shapes: `(batch, height, width, channels)` in and out.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise `inputs`; in training also update the moving statistics."""
        if mask is not None or not self._fuses(inputs):
            return self._stock_call(inputs, training, mask)
        is_training = bool(training and self.trainable)
        channels = inputs.shape[-1]
        scale = self.gamma if self.scale else tf.ones([channels])
        offset = self.beta if self.center else tf.zeros([channels])
        empty = tf.zeros([0])  # the kernel wants no statistics when it computes them itself
        outputs, mean, unbiased_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(scale),
            offset=tf.convert_to_tensor(offset),
            mean=empty if is_training else tf.convert_to_tensor(self.moving_mean),
            variance=empty if is_training else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=is_training,
        )
        if is_training:
            # The kernel returns Bessel's n / (n - 1); stock Keras keeps the biased variance.
            count = tf.cast(tf.size(inputs) / channels, tf.float32)
            variance = unbiased_variance * ((count - 1.0) / count)
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                updated = moving * self.momentum + batch * (1.0 - self.momentum)
                moving.assign(tf.where(count > 0, updated, moving))
        return outputs

    def _stock_call(self, inputs: Any, training: bool | None, mask: Any) -> Any:
        guarded = keras.backend.backend() == "tensorflow" and not self.synchronized
        if not (training and self.trainable and guarded):
            return super().call(inputs, training=training, mask=mask)
        moving = (self.moving_mean, self.moving_variance)
        before = [tf.identity(tf.convert_to_tensor(variable)) for variable in moving]
        outputs = super().call(inputs, training=training, mask=mask)
        for variable, value in zip(moving, before, strict=True):
            updated = tf.convert_to_tensor(variable)
            variable.assign(tf.where(tf.size(inputs) > 0, updated, value))
        return outputs

    def _fuses(self, inputs: Any) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and self.variable_dtype == "float32"  # the kernel's statistics and parameters
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and inputs.dtype in (tf.float32, tf.bfloat16, tf.float16)
            and not self.synchronized
            and not self.renorm
        )


@cache
def _has_grouped_gradients(dtype: str) -> bool:
    """Whether TensorFlow can train a grouped convolution of `dtype` here; tried once."""
    with tf.init_scope():  # also while a graph is being traced
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 4, 4, 4],
                filter=tf.zeros([3, 3, 2, 4], dtype),
                out_backprop=tf.zeros([1, 4, 4, 4], dtype),
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


def kernel_convolution(layer: keras.layers.Conv2D, inputs: Any, kernel: Any) -> Any:
    """Convolve in TensorFlow's kernel, channels last; the groups follow from the two shapes."""
    return tf.nn.conv2d(
        inputs,
        keras.ops.convert_to_tensor(kernel),
        strides=list(layer.strides),
        padding=layer.padding.upper(),
        dilations=list(layer.dilation_rate),
    )


@keras.saving.register_keras_serializable(package="keras_resnet")
class Conv2D(keras.layers.Conv2D):
    """Keras' Conv2D whose grouped convolutions run through TensorFlow's own kernel.

    On the CPU Keras 3 compiles a grouped convolution with XLA, whose gradient takes hundreds of
    times as long as the kernel's (`benchmarks/grouped_convolution.py`). One group takes the stock
    path, as do dtypes and machines for which TensorFlow has no such gradient (float16 on CPUs;
    CPUs without oneDNN). Config keys, weights and results are those of the stock layer, so
    `to_stock` is a change of class.

    Shapes: `(batch, height, width, channels)` in and out.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve `inputs` with `kernel`; the layer adds bias and activation."""
        ours = self.groups > 1 and self.data_format == "channels_last"
        ours = ours and keras.backend.backend() == "tensorflow"
        if not ours or not _has_grouped_gradients(self.compute_dtype):
            return super().convolution_op(inputs, kernel)
        return kernel_convolution(self, inputs, kernel)


@keras.saving.register_keras_serializable(package="keras_resnet")
class LocalResponseNormalization(keras.layers.Layer):
    """`y = x / (bias + alpha / size * s)^beta`, where `s` sums x² over `size` channels around each.

    Krizhevsky et al., 2012, section 3.3. The arguments are Caffe's, PyTorch's and ONNX's; the paper
    and TensorFlow's operation do not divide `alpha` by the window. Their constants: `alpha` 5e-4
    (1e-4 undivided) and `bias` 2 in the paper, 1e-4 and 1 in Caffe's AlexNet.

    Computed in float32 under every dtype policy: in half precision the squares overflow or are
    lost beside `bias`. `to_stock` writes it in stock layers.

    Shapes: `(batch, height, width, channels)` in and out.

    Raises:
        UserError: a `size` without a middle.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        bias: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if size < 1 or size % 2 == 0:
            raise UserError(f"size is an odd number of channels; received {size}.")
        self.size, self.alpha, self.beta, self.bias = size, alpha, beta, bias

    def call(self, inputs: Any) -> Any:
        """Divide `inputs` by what their neighbours along the channels amount to."""
        if keras.backend.backend() != "tensorflow":
            return self._in_keras_operations(inputs)
        outputs = tf.nn.local_response_normalization(
            tf.cast(inputs, tf.float32),
            depth_radius=self.size // 2,
            bias=self.bias,
            alpha=self.alpha / self.size,
            beta=self.beta,
        )
        return tf.cast(outputs, inputs.dtype)

    def _in_keras_operations(self, inputs: Any) -> Any:
        ops, radius = keras.ops, self.size // 2
        x = ops.cast(inputs, "float32")
        squares = ops.pad(ops.square(x), [[0, 0]] * 3 + [[radius, radius]])
        shifted = [squares[..., start : start + x.shape[-1]] for start in range(self.size)]
        base = self.bias + self.alpha / self.size * sum(shifted)
        return ops.cast(x / ops.power(base, self.beta), inputs.dtype)

    def stock(self, x: Any) -> Any:
        """Build the same on the Keras tensor `x` of stock layers and operations.

        Channels are padded and pooled as the width of a channels_first image.
        """
        of, name, radius = keras.layers, self.name, self.size // 2
        policy = {"dtype": self.dtype_policy}
        pad, first = ((0, 0), (radius, radius)), {"data_format": "channels_first", **policy}
        y = of.Multiply(name=f"{name}_square", **policy)([x, x])
        y = of.ZeroPadding2D(pad, name=f"{name}_pad", **first)(y)
        y = of.AveragePooling2D((1, self.size), strides=1, name=f"{name}_mean", **first)(y)
        y = of.Rescaling(self.alpha, self.bias, name=f"{name}_base", **policy)(y)
        return of.Multiply(name=name, **policy)([x, _inverse_power(y, self.beta)])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.bias}
        return {**super().get_config(), **own}


def _inverse_power(y: Any, beta: float) -> Any:
    """`y^-beta`. TFLite has no power in int8 but inverse roots, which give the papers' 3/4."""
    if beta != 0.75:
        return keras.ops.power(y, -beta)
    root = keras.ops.rsqrt(y)
    return root * root * keras.ops.rsqrt(root)


_STOCK: dict[type, Any] = {
    BatchNormalization: keras.layers.BatchNormalization,
    Conv2D: keras.layers.Conv2D,
}


def to_stock(model: keras.Model, dtype: str = "float32") -> keras.Model:
    """Return the same network and weights in stock Keras layers of one `dtype`.

    Saved files and exports are made of this copy: it loads without keras_resnet, and a
    mixed-precision model converts to no runtime before it is rebuilt in float32.
    A `LocalResponseNormalization` becomes several layers, the last of its name.
    Layers that are not ours keep their class; models inside the model are rebuilt likewise.

    Args:
        model: a functional or sequential Keras model: of a classifier (batch, height, width,
            channels) to (batch, classes).
        dtype: of every layer.

    Returns:
        A model of the same name, with inputs and outputs of the same shapes.

    Raises:
        ValueError: `model` is not a functional (or sequential) Keras model.
    """

    def rebuild(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return to_stock(layer, dtype)
        if not isinstance(layer, keras.Layer):  # an operator such as `x * 2` or `keras.ops.relu`
            return type(layer).from_config(layer.get_config())
        cls = _STOCK.get(type(layer), type(layer))
        return cls.from_config({**layer.get_config(), "dtype": dtype})

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, LocalResponseNormalization):
            return layer.stock(*args)
        return layer(*args, **kwargs)

    # Keras calls no layer of a Sequential model, and the zoo builds none.
    called = {} if isinstance(model, keras.Sequential) else {"call_function": call}
    copy = keras.models.clone_model(model, clone_function=rebuild, **called)
    copy.set_weights(model.get_weights())
    return copy
