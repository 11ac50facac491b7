"""Shortcuts h(x), and junctions, which combine h(x) and F(x) into y.

A shortcut is a function of `x`, `activated` and `unit`. `x` is the unit's input (batch, height,
width, unit.in_channels). `activated` is its first activation; without pre-activation it is x.

A junction is a function of `h`, `f` and `unit`. `h` is h(x) and `f` is F(x), both (batch, height /
stride, width / stride, unit.out_channels).
"""

from __future__ import annotations

from keras import initializers, layers

from keras_resnet.errors import UserError
from keras_resnet.models.resnet.blocks import (
    Conv,
    Junction,
    Tensor,
    Unit,
    convolution,
    operations,
    subsample,
)

# Shortcuts h -------------------------------------------------------------------------------------


def option_a(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """Build an identity that fills new channels with zeros (He 2015, section 3.3, option A).

    It has no parameters.

    Raises:
        UserError: the unit has fewer channels than its input.
    """
    x = subsample(x, unit.stride, f"{unit.name}_shortcut_subsample")
    new = unit.out_channels - unit.in_channels
    if new == 0:
        return x
    if new < 0:
        raise UserError(
            f"Option A can only add channels, but {unit.name} goes from {unit.in_channels} to "
            f"{unit.out_channels}. Make the stem no wider than the first stage, or use option B."
        )
    # Half on either side, as in the public CIFAR weights. channels_first here only means "pad the
    # last axis".
    pad = layers.ZeroPadding2D(
        ((0, 0), (new // 2, new - new // 2)),
        data_format="channels_first",
        name=f"{unit.name}_shortcut_pad",
    )
    return pad(x)


def option_b(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """Build an identity, or a projection if channels change (He 2015, section 3.3, option B)."""
    if unit.in_channels == unit.out_channels:
        return subsample(x, unit.stride, f"{unit.name}_shortcut_subsample")
    return option_c(x, activated, unit)


def option_c(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """Build a projection (He 2015, section 4.1, option C; arXiv:1603.05027, Fig. 2e).

    Pre-activation units project the activated input. The projection ends in BN if F does
    (arXiv:1603.05027, section 4 and appendix).
    """
    return _projection(activated, unit.stride, unit)


def option_d(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """Build option B with an average pool in place of the projection's stride, so that the
    projection sees every pixel (ResNet-D, arXiv:1812.01187, Fig. 2c)."""
    if unit.downsamples:
        activated = _average_pool(activated, unit)
    elif unit.in_channels == unit.out_channels:
        return x
    return _projection(activated, 1, unit)


def _average_pool(x: Tensor, unit: Unit) -> Tensor:
    """Average `x` over 2×2 pixels with the unit's stride. At the edges, count existing pixels only.

    If `output_stride` removes the stride, timm still pools, and counts the zeros beyond the right
    and the lower edge as pixels. So does this function.
    """
    padding, name = "same", f"{unit.name}_shortcut_pool"
    if unit.stride == 1:
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
        padding = "valid"
    return layers.AveragePooling2D(2, strides=unit.stride, padding=padding, name=name)(x)


def _projection(x: Tensor, stride: int, unit: Unit) -> Tensor:
    style, name = unit.style, f"{unit.name}_shortcut"
    bn = style.shortcut_bn and "bn" in unit.order.last
    conv = Conv(1, unit.out_channels, stride)
    x = convolution(x, conv, style, f"{name}_conv", followed_by_bn=bn)
    return operations(x, ("bn",) if bn else (), style, name + "_{}")


# Junctions of h(x) and F(x) (arXiv:1603.05027, Fig. 2 and section 3.1) ----------------------------


def addition(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
    """Build `y = h(x) + F(x)` (arXiv:1603.05027, Fig. 2a)."""
    return layers.Add(name=f"{unit.name}_add")([h, f])


def no_shortcut(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
    """Return `y = F(x)`, as in the plain nets of He 2015 (section 3.3)."""
    return f


def constant_scaling(shortcut: float, residual: float) -> Junction:
    """Return a junction `y = shortcut · h(x) + residual · F(x)` (arXiv:1603.05027, Fig. 2b)."""

    def junction(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
        h = layers.Rescaling(shortcut, name=f"{unit.name}_shortcut_scale")(h)
        f = layers.Rescaling(residual, name=f"{unit.name}_residual_scale")(f)
        return addition(h, f, unit)

    return junction


def exclusive_gating(bias: float, kernel: int = 1) -> Junction:
    """Return a junction `y = (1 - g) · h(x) + g · F(x)` (arXiv:1603.05027, Fig. 2c).

    Highway networks use it. g is the sigmoid of a convolution with this `kernel`: 1 in the
    ablation, F's own in a highway network. `bias` is its initial bias; values such as -6 shut F out
    at first.
    """

    def junction(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
        gate = _gate(h, bias, unit, kernel)
        f = layers.Multiply(name=f"{unit.name}_residual_gate")([gate, f])
        return addition(_carried(h, gate, unit), f, unit)

    return junction


def shortcut_only_gating(bias: float) -> Junction:
    """Return a junction `y = (1 - g) · h(x) + F(x)` (arXiv:1603.05027, Fig. 2d).

    g is that of `exclusive_gating` with kernel 1. `bias` is its initial bias.
    """

    def junction(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
        return addition(_carried(h, _gate(h, bias, unit), unit), f, unit)

    return junction


def dropout_shortcut(rate: float) -> Junction:
    """Return a junction `y = dropout(h(x)) + F(x)` with this `rate` (arXiv:1603.05027, Fig. 2f)."""

    def junction(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
        return addition(layers.Dropout(rate, name=f"{unit.name}_shortcut_drop")(h), f, unit)

    return junction


def _gate(h: Tensor, bias: float, unit: Unit, kernel: int = 1) -> Tensor:
    """Build g = σ(W h + b), a convolution without BN.

    The paper defines g on x, in units that change neither size nor channels. In units that do, we
    use h(x), which has the size of y. The channels that option A pads are zeros for the gate, too.
    """
    g = layers.Conv2D(
        unit.out_channels,
        kernel,
        padding="same",
        kernel_initializer="he_normal",
        bias_initializer=initializers.Constant(bias),
        name=f"{unit.name}_gate_conv",
    )(h)
    return layers.Activation("sigmoid", name=f"{unit.name}_gate")(g)


def _carried(h: Tensor, gate: Tensor, unit: Unit) -> Tensor:
    carry = layers.Rescaling(-1.0, offset=1.0, name=f"{unit.name}_carry")(gate)
    return layers.Multiply(name=f"{unit.name}_shortcut_gate")([carry, h])
