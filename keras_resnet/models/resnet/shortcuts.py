"""Shortcuts h(x), and junctions: how h(x) and F(x) become y.

A shortcut is a function of `x`, the unit's input (batch, height, width, unit.in_channels), of
`activated`, its first activation, which without pre-activation is x too, and of the `unit`. A
junction is a function of `h`, which is h(x), of `f`, which is F(x), both (batch, height / stride,
width / stride, unit.out_channels), and of the `unit`.
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
    """Identity; new channels are zeros, so no parameters (He 2015, section 3.3, option A).

    Raises:
        UserError: The unit has fewer channels than its input.
    """
    x = subsample(x, unit.stride, f"{unit.name}_shortcut_subsample")
    new = unit.out_channels - unit.in_channels
    if new == 0:
        return x
    if new < 0:
        raise UserError(
            f"Option A adds channels; {unit.name} goes from {unit.in_channels} to "
            f"{unit.out_channels} (is the stem wider than the first stage?)."
        )
    # Half on either side, as the public CIFAR weights have it. channels_first here only means
    # "pad the last axis".
    pad = layers.ZeroPadding2D(
        ((0, 0), (new // 2, new - new // 2)),
        data_format="channels_first",
        name=f"{unit.name}_shortcut_pad",
    )
    return pad(x)


def option_b(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """Identity, and a projection where the channels change (He 2015, section 3.3, option B)."""
    if unit.in_channels == unit.out_channels:
        return subsample(x, unit.stride, f"{unit.name}_shortcut_subsample")
    return option_c(x, activated, unit)


def option_c(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """A projection in every unit (He 2015, section 4.1, option C; arXiv:1603.05027, Fig. 2e).

    Pre-activation units project the activated input. Where F ends in BN, the projection does
    (arXiv:1603.05027, section 4 and appendix).
    """
    return _projection(activated, unit.stride, unit)


def option_d(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """Option B that halves the resolution by an average pool before its projection, which so sees
    every pixel (ResNet-D, arXiv:1812.01187, Fig. 2c)."""
    if unit.downsamples:
        activated = _average_pool(activated, unit)
    elif unit.in_channels == unit.out_channels:
        return x
    return _projection(activated, 1, unit)


def _average_pool(x: Tensor, unit: Unit) -> Tensor:
    """A 2×2 mean of `x`, of the unit's stride; at the edges of the pixels that there are.

    Where `output_stride` leaves the stride out, timm still pools, and there counts the zeros beyond
    the right and the lower edge as pixels.
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
    """`y = h(x) + F(x)` (arXiv:1603.05027, Fig. 2a)."""
    return layers.Add(name=f"{unit.name}_add")([h, f])


def no_shortcut(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
    """`y = F(x)`: the plain nets that residual ones are compared with (He 2015, section 3.3)."""
    return f


def constant_scaling(shortcut: float, residual: float) -> Junction:
    """`y = shortcut · h(x) + residual · F(x)` (arXiv:1603.05027, Fig. 2b)."""

    def junction(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
        h = layers.Rescaling(shortcut, name=f"{unit.name}_shortcut_scale")(h)
        f = layers.Rescaling(residual, name=f"{unit.name}_residual_scale")(f)
        return addition(h, f, unit)

    return junction


def exclusive_gating(bias: float, kernel: int = 1) -> Junction:
    """`y = (1 - g) · h(x) + g · F(x)`, as in Highway networks (arXiv:1603.05027, Fig. 2c).

    g is a convolution's sigmoid. Its `bias` begins at this value (-6 and the like shut F out), its
    `kernel` is 1 in the ablation, F's in a highway network.
    """

    def junction(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
        gate = _gate(h, bias, unit, kernel)
        f = layers.Multiply(name=f"{unit.name}_residual_gate")([gate, f])
        return addition(_carried(h, gate, unit), f, unit)

    return junction


def shortcut_only_gating(bias: float) -> Junction:
    """`y = (1 - g) · h(x) + F(x)` (arXiv:1603.05027, Fig. 2d).

    g is `exclusive_gating`'s, of kernel 1; its `bias` begins at this value.
    """

    def junction(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
        return addition(_carried(h, _gate(h, bias, unit), unit), f, unit)

    return junction


def dropout_shortcut(rate: float) -> Junction:
    """`y = dropout(h(x)) + F(x)`, at this `rate` (arXiv:1603.05027, Fig. 2f)."""

    def junction(h: Tensor, f: Tensor, unit: Unit) -> Tensor:
        return addition(layers.Dropout(rate, name=f"{unit.name}_shortcut_drop")(h), f, unit)

    return junction


def _gate(h: Tensor, bias: float, unit: Unit, kernel: int = 1) -> Tensor:
    """g = σ(W x + b) of a convolution, without BN.

    The paper says it of x, and of units that change neither size nor channels. In those that do, x
    here is h(x), which has the size of y; what option A pads is zeros to the gate, too.
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
