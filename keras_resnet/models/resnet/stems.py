"""The layers before the residual units: the first convolutions, and ImageNet's first pool.

A stem is a function of the image `x` (batch, height, width, channels), the `width` (channels of its
result), and the network's `order` and `style`.
"""

from __future__ import annotations

from keras import layers

from keras_resnet.models.resnet.blocks import (
    Conv,
    Order,
    Style,
    Tensor,
    convolution,
    operations,
    subsample,
)


def cifar_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """Build one 3×3 convolution (He 2015, section 4.2)."""
    return _stem_convolution(x, Conv(3, width), order, style, "stem_conv")


def imagenet_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """Build a 7×7 convolution of stride 2 and a 3×3 max-pool of stride 2 (He 2015, Table 1).

    The pool pads with zeros. After a ReLU this equals padding with -inf.
    """
    return _stem_pool(_stem_convolution(x, Conv(7, width, 2), order, style, "stem_conv"))


def deep_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """Build three 3×3 convolutions in place of the 7×7 (ResNet-C and D, arXiv:1812.01187, Fig. 2b).

    The first has stride 2. The first and second have half the width.
    """
    for number, conv in enumerate((Conv(3, width // 2, 2), Conv(3, width // 2), Conv(3, width)), 1):
        x = _stem_convolution(x, conv, order, style, f"stem_conv{number}")
    return _stem_pool(x)


def imagenet_preact_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """Build `imagenet_stem` (He 2015, Table 1) for pre-activation units (arXiv:1603.05027).

    The first unit applies the ReLU, so the pooled features may be negative. The pool must therefore
    pad with -inf (Keras Applications' ResNet50V2 pads with zeros). Stock layers do so only at
    stride 1, so the stem pools at stride 1 and then subsamples.
    """
    x = _stem_convolution(x, Conv(7, width, 2), order, style, "stem_conv")
    x = layers.MaxPooling2D(3, strides=1, padding="same", name="stem_pool")(x)
    return subsample(x, 2, "stem_subsample")


def _stem_convolution(x: Tensor, conv: Conv, order: Order, style: Style, name: str) -> Tensor:
    """Build a convolution and the operations after it; pre-activation has none."""
    x = convolution(x, conv, style, name, followed_by_bn="bn" in order.after)
    return operations(x, order.after, style, name.replace("conv", "{}"))


def _stem_pool(x: Tensor) -> Tensor:
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
