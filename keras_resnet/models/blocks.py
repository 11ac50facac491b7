"""The pieces of a residual network, named as in the papers.

A residual unit is `y = h(x) + F(x)`, `x_next = f(y)` (Identity Mappings, arXiv:1603.05027,
eq. 1-2): a *shortcut* is an `h`, a *transform* lists the weight layers of `F`, and an *order* says
where BN and ReLU stand around them and after the addition (that is `f`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from keras import layers

from keras_resnet.errors import UserError
from keras_resnet.models.layers import BatchNormalization

Tensor = Any  # a KerasTensor; Keras ships no types


@dataclass(frozen=True)
class Conv:
    """One weight layer of a transform."""

    kernel: int
    filters: int
    stride: int = 1


@dataclass(frozen=True)
class Order:
    """Where BN and ReLU stand in a unit (arXiv:1603.05027, Fig. 4). Operations: "bn", "relu"."""

    before: tuple[str, ...]  # before every weight layer
    after: tuple[str, ...]  # after every weight layer but the last
    last: tuple[str, ...]  # after the last weight layer
    after_add: tuple[str, ...]  # f, after the addition


POST_ACTIVATION = Order(before=(), after=("bn", "relu"), last=("bn",), after_add=("relu",))
PRE_ACTIVATION = Order(before=("bn", "relu"), after=(), last=(), after_add=())


@dataclass(frozen=True)
class Style:
    """What famous implementations of the same network disagree about."""

    # "none": every convolution is followed or preceded by BN, a bias is redundant (torchvision,
    # timm). "without_bn": those no BN follows have one (Keras Applications' ResNet50V2).
    # "all": MLPerf Tiny's ResNet-8. (Keras Applications' v1 has them too; there they fold exactly
    # into the BN's moving mean, so ours has none.)
    conv_bias: Literal["none", "without_bn", "all"] = "none"
    # "symmetric": (1, 1) around a strided 3×3, as PyTorch and Keras Applications.
    # "same": TensorFlow's, (0, 1) on even sizes, as MLPerf Tiny.
    padding: Literal["symmetric", "same"] = "symmetric"
    # Projection shortcuts end in BN (He 2015, torchvision); MLPerf Tiny's do not.
    shortcut_bn: bool = True
    bn_epsilon: float = 1e-5  # PyTorch's; Keras Applications 1.001e-5, Keras' default 1e-3
    bn_momentum: float = 0.9  # PyTorch's 0.1 counted from the other end; Keras' default is 0.99


@dataclass(frozen=True)
class Unit:
    """One residual unit in its network."""

    name: str
    style: Style
    order: Order
    stride: int
    in_channels: int
    out_channels: int


Transform = Callable[[int, int], tuple[Conv, ...]]
Shortcut = Callable[[Tensor, Tensor, Unit], Tensor]
Stem = Callable[[Tensor, int, Order, Style], Tensor]


# Operations -------------------------------------------------------------------------------------


def convolution(x: Tensor, conv: Conv, style: Style, name: str, *, followed_by_bn: bool) -> Tensor:
    """A convolution with the style's padding and bias. `name` holds "conv" ("stem_conv")."""
    same = style.padding == "same" or conv.stride == 1  # at stride 1 "same" is symmetric
    if not same and conv.kernel > 1:
        x = layers.ZeroPadding2D(conv.kernel // 2, name=name.replace("conv", "pad"))(x)
    biased = {"none": False, "without_bn": not followed_by_bn, "all": True}[style.conv_bias]
    return layers.Conv2D(
        conv.filters,
        conv.kernel,
        strides=conv.stride,
        padding="same" if same else "valid",
        use_bias=biased,
        kernel_initializer="he_normal",  # arXiv:1502.01852, the papers' initialisation
        name=name,
    )(x)


def operations(x: Tensor, kinds: tuple[str, ...], style: Style, name: str) -> Tensor:
    """Apply "bn" and "relu" in turn. `name` has a `{}` for the kind: "stage1_block1_{}2"."""
    for kind in kinds:
        if kind == "bn":
            layer = BatchNormalization(
                momentum=style.bn_momentum, epsilon=style.bn_epsilon, name=name.format(kind)
            )
        else:
            layer = layers.Activation(kind, name=name.format(kind))
        x = layer(x)
    return x


def subsample(x: Tensor, stride: int, name: str) -> Tensor:
    """Every `stride`-th pixel, as the shortcut of a strided unit without projection."""
    return layers.AveragePooling2D(1, strides=stride, name=name)(x) if stride > 1 else x


# Stems ------------------------------------------------------------------------------------------


def cifar_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """One 3×3 convolution (He 2015, section 4.2)."""
    return _stem_convolution(x, Conv(3, width), order, style)


def imagenet_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """7×7 convolution of stride 2 and a 3×3 max-pool of stride 2 (He 2015, Table 1).

    The pool pads with zeros, which after a ReLU equals padding with -inf.
    """
    x = _stem_convolution(x, Conv(7, width, 2), order, style)
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def imagenet_preact_stem(x: Tensor, width: int, order: Order, style: Style) -> Tensor:
    """The ImageNet stem before pre-activation units, where the pooled features are not ReLU'd yet.

    They may be negative, so the pool must pad with -inf (Keras Applications' ResNet50V2 pads
    zeros). Stock layers pad so only at stride 1, hence pool first and subsample then.
    """
    x = _stem_convolution(x, Conv(7, width, 2), order, style)
    x = layers.MaxPooling2D(3, strides=1, padding="same", name="stem_pool")(x)
    return subsample(x, 2, "stem_subsample")


def _stem_convolution(x: Tensor, conv: Conv, order: Order, style: Style) -> Tensor:
    """Pre-activation units bring their own first BN and ReLU; others need them in the stem."""
    follow = () if order.before else order.after
    x = convolution(x, conv, style, "stem_conv", followed_by_bn="bn" in follow)
    return operations(x, follow, style, "stem_{}")


# Transforms F -----------------------------------------------------------------------------------


def basic(width: int, stride: int) -> tuple[Conv, ...]:
    """Two 3×3 convolutions (He 2015, Fig. 5 left)."""
    return Conv(3, width, stride), Conv(3, width)


def bottleneck(width: int, stride: int) -> tuple[Conv, ...]:
    """1×1, 3×3, 1×1 with the stride in the first 1×1 (He 2015; Keras Applications)."""
    return Conv(1, width, stride), Conv(3, width), Conv(1, 4 * width)


def bottleneck_v1_5(width: int, stride: int) -> tuple[Conv, ...]:
    """1×1, 3×3, 1×1 with the stride in the 3×3 (torchvision, timm, TF Model Garden, MLPerf)."""
    return Conv(1, width), Conv(3, width, stride), Conv(1, 4 * width)


# Shortcuts h: of the unit's input x and its first activation (the same without pre-activation) ----


def option_a(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """Identity; new channels are zeros, so no parameters (He 2015, section 3.3, option A)."""
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
    """Identity, and a projection where the channels change (option B)."""
    if unit.in_channels == unit.out_channels:
        return subsample(x, unit.stride, f"{unit.name}_shortcut_subsample")
    return option_c(x, activated, unit)


def option_c(x: Tensor, activated: Tensor, unit: Unit) -> Tensor:
    """A projection in every unit (option C).

    Pre-activation units project the activated input and have no BN of their own on the shortcut
    (arXiv:1603.05027, section 4 and appendix).
    """
    style = unit.style
    bn = style.shortcut_bn and not unit.order.before
    conv = Conv(1, unit.out_channels, unit.stride)
    name = f"{unit.name}_shortcut"
    x = convolution(activated, conv, style, f"{name}_conv", followed_by_bn=bn)
    return operations(x, ("bn",) if bn else (), style, name + "_{}")


# The unit ---------------------------------------------------------------------------------------


def residual_unit(
    x: Tensor, unit: Unit, transform: tuple[Conv, ...], shortcut: Shortcut, *, activate_x: bool
) -> Tensor:
    """`y = h(x) + F(x)`, `x_next = f(y)`.

    `activate_x`: take the first activation before the two paths split, as the paper's first
    pre-activation unit does (arXiv:1603.05027, appendix).
    """
    activated = operations(x, unit.order.before, unit.style, unit.name + "_{}1")
    if activate_x:
        x = activated
    y = layers.Add(name=f"{unit.name}_add")(
        [shortcut(x, activated, unit), _transform(activated, unit, transform)]
    )
    return operations(y, unit.order.after_add, unit.style, unit.name + "_out_{}")


def _transform(x: Tensor, unit: Unit, convs: tuple[Conv, ...]) -> Tensor:
    """F(x), from the already activated input."""
    order, style, name = unit.order, unit.style, unit.name
    for index, conv in enumerate(convs, start=1):
        if index > 1:
            x = operations(x, order.before, style, f"{name}_{{}}{index}")
        after = order.after if index < len(convs) else order.last
        # In pre-activation the BN after a convolution is the one before the next.
        followed_by_bn = "bn" in after or ("bn" in order.before and index < len(convs))
        x = convolution(x, conv, style, f"{name}_conv{index}", followed_by_bn=followed_by_bn)
        x = operations(x, after, style, f"{name}_{{}}{index}")
    return x


def head(x: Tensor, classes: int, activation: str | None) -> Tensor:
    """Global average pooling and the classifier, in float32 under every dtype policy."""
    x = layers.GlobalAveragePooling2D(dtype="float32", name="head_pool")(x)
    x = layers.Dense(classes, dtype="float32", name="head")(x)
    if activation is None:
        return x
    return layers.Activation(activation, dtype="float32", name="predictions")(x)
