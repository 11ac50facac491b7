"""Networks without branches, AlexNet to VGG: convolutions and pools in a row, then dense layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Literal

import keras
from keras import layers

from keras_resnet.errors import UserError
from keras_resnet.layers import BatchNormalization, Conv2D, LocalResponseNormalization
from keras_resnet.models.network import Network, Tensor, Trunk, classifier

Initializer = Callable[[], keras.initializers.Initializer]  # a fresh one for every layer

GLOROT: Initializer = keras.initializers.GlorotUniform
GAUSSIAN: Initializer = partial(keras.initializers.RandomNormal, stddev=0.01)
# PyTorch's default for every convolution and dense layer: uniform within ±1/sqrt(fan-in).
PYTORCH: Initializer = partial(
    keras.initializers.VarianceScaling, scale=1 / 3, mode="fan_in", distribution="uniform"
)


@dataclass(frozen=True)
class Conv:
    """A convolution and its ReLU.

    Attributes:
        kernel: height and width of the kernel.
        filters: number of output channels.
        stride: stride in height and width.
        pad: zeros on every side.
        groups: groups of channels, each with its own convolution.
        bias: initial bias.
    """

    kernel: int
    filters: int
    stride: int = 1
    pad: int = 0
    groups: int = 1
    bias: float = 0.0

    def side(self, size: int) -> int:
        """Return the output size for the input `size`. Below 1, the image is too small."""
        return (size + 2 * self.pad - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class Norm:
    """Local response normalization, by the layer `LocalResponseNormalization`.

    Attributes:
        size: number of channels in the sum, odd.
        alpha: alpha of the layer, which divides it by `size`.
        beta: beta of the layer.
        bias: bias of the layer.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def side(self, size: int) -> int:
        """Return the output size, which is the input `size`."""
        return size


@dataclass(frozen=True)
class Pool:
    """A maximum over windows. It ends a resolution.

    Attributes:
        kernel: height and width of a window.
        stride: distance between windows in pixels.
        ceil: True if a last window that is not full counts (Caffe), False if it does not (PyTorch,
            TensorFlow's "valid").
    """

    kernel: int
    stride: int = 2
    ceil: bool = False

    @property
    def pad(self) -> int:
        """Zeros at bottom and right that fill the last window. After a ReLU they change nothing."""
        return self.stride - 1 if self.ceil else 0

    def side(self, size: int) -> int:
        """Return the output size for the input `size`. Below 1, the image is too small."""
        return (size + self.pad - self.kernel) // self.stride + 1


@dataclass(frozen=True, kw_only=True)
class ChainSpec(Network):
    """A network without branches. `build` turns it into a Keras model.

    The dense layers read the flattened last map, so the network takes one image size and its
    weights belong to that size. torchvision first averages the last map to 6×6 (AlexNet) or 7×7
    (VGG). At 224 pixels that changes nothing. At other sizes it differs from this network, which
    flattens the whole map, as Keras Applications does.

    Layers are named `stage1_conv1`, `stage1_relu1`, `stage1_pool`, ..., `head_dense1`, ..., `head`.
    A stage ends in its pool. Features are taken before the pools.

    The other fields are those of `Network`.

    Attributes:
        chain: the layers up to the last map, in order.
        hidden: units of the dense layers before the classifier.
        batch_norm: True adds BN after every convolution, which keeps its bias (torchvision).
        initializer: makes the initializer of the kernels of convolutions and hidden layers.
        hidden_bias: initial bias of the hidden layers.
        drop: "after" puts dropout after every hidden layer (the papers, Caffe, torchvision's VGG).
            "before" puts it before every hidden layer, so that it acts on the flattened map and not
            on the last hidden layer (torchvision's AlexNet).
        dropout: rate of that dropout.
    """

    chain: tuple[Conv | Norm | Pool, ...]
    hidden: tuple[int, ...] = (4096, 4096)
    batch_norm: bool = False
    initializer: Initializer = GLOROT
    hidden_bias: float = 0.0
    drop: Literal["after", "before"] = "after"
    dropout: float = 0.5

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels that leaves one pixel in the last feature map."""
        return next(size for size in count(1) if self._leaves_a_pixel(size))

    def _leaves_a_pixel(self, size: int) -> bool:
        for layer in self.chain:
            size = layer.side(size)
            if size < 1:
                return False
        return True

    def trunk(self, x: Tensor) -> Trunk:
        """Build the convolutions, norms and pools."""
        features: dict[str, Tensor] = {}
        number = 0
        for layer in self.chain:
            name = f"stage{len(features) + 1}"
            if isinstance(layer, Conv):
                number += 1
                x = self._convolution(x, layer, f"{name}_{{}}{number}")
            elif isinstance(layer, Norm):
                x = LocalResponseNormalization(
                    layer.size, layer.alpha, layer.beta, layer.bias, name=f"{name}_lrn"
                )(x)
            else:
                features[name], number = x, 0
                x = _pool(x, layer, name)
        return Trunk(x, features)

    def _convolution(self, x: Tensor, conv: Conv, name: str) -> Tensor:
        same = conv.stride == 1 and 2 * conv.pad == conv.kernel - 1
        if conv.pad and not same:
            x = layers.ZeroPadding2D(conv.pad, name=name.format("pad"))(x)
        x = Conv2D(
            conv.filters,
            conv.kernel,
            strides=conv.stride,
            padding="same" if same else "valid",
            groups=conv.groups,
            kernel_initializer=self.initializer(),
            bias_initializer=keras.initializers.Constant(conv.bias),
            name=name.format("conv"),
        )(x)
        if self.batch_norm:  # PyTorch's constants
            x = BatchNormalization(momentum=0.9, epsilon=1e-5, name=name.format("bn"))(x)
        return layers.Activation("relu", name=name.format("relu"))(x)

    def head(self, x: Tensor, classes: int) -> Tensor:
        """Build the flattening, the hidden dense layers and the classifier; return the logits.

        Raises:
            UserError: the image size is free.
        """
        if None in x.shape[1:]:
            raise UserError(
                "This network's dense layers need one fixed image size; received a free size. Give "
                f"input_shape, such as ({self.input_size}, {self.input_size}, 3), or use "
                "include_top=False with pooling='avg'."
            )
        x = layers.Flatten(name="head_flatten")(x)
        for number, units in enumerate(self.hidden, start=1):
            if self.drop == "before":
                x = self._dropout(x, number)
            x = layers.Dense(
                units,
                kernel_initializer=self.initializer(),
                bias_initializer=keras.initializers.Constant(self.hidden_bias),
                name=f"head_dense{number}",
            )(x)
            x = layers.Activation("relu", name=f"head_relu{number}")(x)
            if self.drop == "after":
                x = self._dropout(x, number)
        return classifier(x, classes, dropout=0.0)

    def _dropout(self, x: Tensor, number: int) -> Tensor:
        if not self.dropout:
            return x
        return layers.Dropout(self.dropout, name=f"head_dropout{number}")(x)


def _pool(x: Tensor, pool: Pool, name: str) -> Tensor:
    if pool.pad:
        x = layers.ZeroPadding2D(((0, pool.pad), (0, pool.pad)), name=f"{name}_pool_pad")(x)
    return layers.MaxPooling2D(pool.kernel, strides=pool.stride, name=f"{name}_pool")(x)
