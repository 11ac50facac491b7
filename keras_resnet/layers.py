"""The custom layers. Saved runs and exports contain none of them (see `to_stock`)."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.arguments import checked
from keras_resnet.errors import UserError


@keras.saving.register_keras_serializable(package="keras_resnet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' BatchNormalization with TensorFlow's fused kernel.

    Keras 3 computes the moments and the normalisation as separate operations. The fused kernel does
    both in one pass over memory and keeps float32 statistics for half-precision inputs. Config
    keys, weights and results are those of the stock layer, so `to_stock` only changes the class.
    This includes the biased moving variance; `tf_keras` and PyTorch keep the unbiased one.

    The layer uses the stock code for everything that the kernel does not support (`synchronized`,
    `renorm`, masks, other ranks or axes, float64, parameters that are not float32), and with other
    Keras backends.

    A batch without images does not change the statistics. Under `tf.distribute`, the last batch of
    an epoch may have no images for a device; stock Keras' statistics become NaN there.

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
        empty = tf.zeros([0])  # the kernel takes no statistics when it computes them itself
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
    """Return True if TensorFlow can train a grouped convolution of `dtype` here; tested once."""
    with tf.init_scope():  # works while a graph is being traced
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
    """Convolve with TensorFlow's kernel, channels last. The shapes determine the groups."""
    return tf.nn.conv2d(
        inputs,
        keras.ops.convert_to_tensor(kernel),
        strides=list(layer.strides),
        padding=layer.padding.upper(),
        dilations=list(layer.dilation_rate),
    )


@keras.saving.register_keras_serializable(package="keras_resnet")
class Conv2D(keras.layers.Conv2D):
    """Keras' Conv2D with TensorFlow's own kernel for grouped convolutions.

    On the CPU, Keras 3 compiles a grouped convolution with XLA. Its gradient takes hundreds of
    times as long as the kernel's (`benchmarks/grouped_convolution.py`). With one group the layer
    uses the stock code. So it does with dtypes and on machines for which TensorFlow has no such
    gradient (float16 on CPUs; CPUs without oneDNN). Config keys, weights and results are those of
    the stock layer, so `to_stock` only changes the class.

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

    Krizhevsky et al., 2012, section 3.3. The arguments are those of Caffe, PyTorch and ONNX. The
    paper and TensorFlow's operation do not divide `alpha` by the window. The paper has `alpha` 5e-4
    (1e-4 undivided) and `bias` 2; Caffe's AlexNet has 1e-4 and 1.

    The layer computes in float32 under every dtype policy. In half precision the squares overflow,
    or are too small to change `bias`. `to_stock` replaces it by stock layers.

    Shapes: `(batch, height, width, channels)` in and out.

    Raises:
        UserError: `size` is not an odd number.
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
            raise UserError(f"size must be an odd number of channels; received {size}.")
        self.size, self.alpha, self.beta, self.bias = size, alpha, beta, bias

    def call(self, inputs: Any) -> Any:
        """Divide `inputs` by a function of their neighbours along the channels."""
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
        """Build the same function on the Keras tensor `x` with stock layers and operations.

        Channels are padded and pooled as if they were the width of a channels_first image.
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
    """Return `y^-beta`. int8 TFLite has no power, only inverse roots, which suffice for 3/4."""
    if beta != 0.75:
        return keras.ops.power(y, -beta)
    root = keras.ops.rsqrt(y)
    return root * root * keras.ops.rsqrt(root)


_STOCK: dict[type, Any] = {
    BatchNormalization: keras.layers.BatchNormalization,
    Conv2D: keras.layers.Conv2D,
}


def require_dtype(dtype: Any) -> None:
    """Refuse what is no dtype policy.

    Raises:
        UserError: the message has an example.
    """
    try:
        keras.dtype_policies.get(dtype)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"dtype must be a Keras dtype policy, such as 'mixed_bfloat16'; received {dtype!r}."
        ) from error


@checked
def to_stock(model: keras.Model, dtype: str = "float32") -> keras.Model:
    """Return the same network and weights in stock Keras layers of one `dtype`.

    Saved files and exports are made from this copy. It loads without keras_resnet. A
    mixed-precision model must be rebuilt in float32 before any runtime can convert it.

    A `LocalResponseNormalization` becomes several layers; the last one has its name. Layers that
    are not from this package keep their class. Models inside the model are rebuilt in the same way.

    Args:
        model: a functional or sequential Keras model. A classifier maps (batch, height, width,
            channels) to (batch, classes).
        dtype: dtype of every layer.

    Returns:
        A model with the same name and with inputs and outputs of the same shapes.

    Raises:
        ValueError: `model` is not a functional (or sequential) Keras model.
        UserError: there is no such dtype.
    """
    require_dtype(dtype)

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

    # For a Sequential model, Keras does not call the layers here; this package builds none.
    called = {} if isinstance(model, keras.Sequential) else {"call_function": call}
    copy = keras.models.clone_model(model, clone_function=rebuild, **called)
    copy.set_weights(model.get_weights())
    return copy
