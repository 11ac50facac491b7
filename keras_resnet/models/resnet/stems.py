"""What comes before the residual units: the first convolutions, and ImageNet's first pool.

A stem is a function of the image `x` (batch, height, width, channels), of its `width`, the channels
of its result, and of the network's `order` and `style`.
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
    """One 3×3 convolution (He 2015, section 4.2)."""
    return _stem_convolution(x, Conv(3, width), order, style, "stem_conv")


def imagenet_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """7×7 convolution of stride 2 and a 3×3 max-pool of stride 2 (He 2015, Table 1).

    The pool pads with zeros, which after a ReLU equals padding with -inf.
    """
    return _stem_pool(_stem_convolution(x, Conv(7, width, 2), order, style, "stem_conv"))


def deep_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """Three 3×3 convolutions in the place of the 7×7 (ResNet-C and D, arXiv:1812.01187, Fig. 2b).

    The first, of stride 2, and the second have half the width.
    """
    for number, conv in enumerate((Conv(3, width // 2, 2), Conv(3, width // 2), Conv(3, width)), 1):
        x = _stem_convolution(x, conv, order, style, f"stem_conv{number}")
    return _stem_pool(x)


def imagenet_preact_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """`imagenet_stem` (He 2015, Table 1) before pre-activation units (arXiv:1603.05027).

    The pooled features are not ReLU'd yet: the first unit does that. They may be negative, so the
    pool must pad with -inf (Keras Applications' ResNet50V2 pads zeros). Stock layers pad so only at
    stride 1, hence pool first and subsample then.
    """
    x = _stem_convolution(x, Conv(7, width, 2), order, style, "stem_conv")
    x = layers.MaxPooling2D(3, strides=1, padding="same", name="stem_pool")(x)
    return subsample(x, 2, "stem_subsample")


def _stem_convolution(x: Tensor, conv: Conv, order: Order, style: Style, name: str) -> Tensor:
    """A convolution with what follows those of the units: in pre-activation nothing."""
    x = convolution(x, conv, style, name, followed_by_bn="bn" in order.after)
    return operations(x, order.after, style, name.replace("conv", "{}"))


def _stem_pool(x: Tensor) -> Tensor:
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
