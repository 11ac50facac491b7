"""Layers of our own: few, and none of them is left in a run's or an export's files."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_resnet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' BatchNormalization through TensorFlow's fused kernel.

    Keras 3 computes the moments and the normalisation as separate operations; the fused kernel
    does both in one pass over memory and keeps float32 statistics for half-precision inputs.
    Config keys, weights and results are those of the stock layer (biased moving variance
    included: `tf_keras` and PyTorch keep the unbiased one), so `to_stock` is a change of class.
    Whatever the kernel does not do (`synchronized`, `renorm`, masks, other ranks or axes, float64)
    takes the stock path.

    Shapes: `(batch, height, width, channels)` in and out.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise `inputs`; in training also update the moving statistics."""
        if mask is not None or not self._fuses(inputs):
            return super().call(inputs, training=training, mask=mask)
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
                moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs

    def _fuses(self, inputs: Any) -> bool:
        return (
            len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and inputs.dtype in (tf.float32, tf.bfloat16, tf.float16)
            and not self.synchronized
            and not self.renorm
        )


@keras.saving.register_keras_serializable(package="keras_resnet")
class Conv2D(keras.layers.Conv2D):
    """Keras' Conv2D whose grouped convolutions run through TensorFlow's own kernel.

    On the CPU Keras 3 compiles a grouped convolution with XLA, whose gradient takes hundreds of
    times as long as the kernel's (`benchmarks/grouped_convolution.py`). One group takes the stock
    path, and config keys, weights and results are those of the stock layer, so `to_stock` is a
    change of class.

    Shapes: `(batch, height, width, channels)` in and out.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve `inputs` with `kernel`; the layer adds bias and activation."""
        if self.groups == 1:
            return super().convolution_op(inputs, kernel)
        return tf.nn.conv2d(
            inputs,
            keras.ops.convert_to_tensor(kernel),
            strides=list(self.strides),
            padding=self.padding.upper(),
            dilations=list(self.dilation_rate),
        )


_STOCK: dict[type, type] = {
    BatchNormalization: keras.layers.BatchNormalization,
    Conv2D: keras.layers.Conv2D,
}


def to_stock(model: keras.Model, dtype: str = "float32") -> keras.Model:
    """Return the same network and weights in stock Keras layers of one `dtype`.

    Saved files and exports are made of this copy: it loads without keras_resnet, and a
    mixed-precision model converts to no runtime before it is rebuilt in float32.
    Layers that are not ours keep their class; models inside the model are rebuilt likewise.

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

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(model.get_weights())
    return copy
