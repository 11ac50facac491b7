"""The pieces of a residual network, named as in the papers.

A residual unit is `y = h(x) + F(x)`, `x_next = f(y)` (Identity Mappings, arXiv:1603.05027,
eq. 1-2). The *shortcut* is h. The *transform* lists the weight layers of F. The *order* gives the
places of BN and ReLU around these layers, and f, which follows the addition. The *junction*
combines h(x) and F(x): by addition, or by one of the paper's ablations. Shortcuts and junctions are
in `shortcuts`, stems in `stems`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from keras import layers

from keras_resnet.errors import require_choices
from keras_resnet.layers import BatchNormalization, Conv2D
from keras_resnet.models.network import Tensor


@dataclass(frozen=True)
class Conv:
    """One weight layer of a transform.

    Attributes:
        kernel: height and width of the kernel.
        filters: number of output channels.
        stride: stride in height and width.
        dilation: distance between the pixels that a kernel reads (arXiv:1511.07122). In a unit,
            `output_stride` sets it.
        groups: the cardinality of ResNeXt (arXiv:1611.05431).
        dropout: dropout rate on the activated input (Wide ResNet, arXiv:1605.07146).
    """

    kernel: int
    filters: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    dropout: float = 0.0


@dataclass(frozen=True)
class SqueezeExcitation:
    """A recalibration of F's output per channel through a bottleneck (arXiv:1709.01507).

    Attributes:
        filters: channels of the bottleneck.
    """

    filters: int


@dataclass(frozen=True)
class Order:
    """The places of BN and ReLU in a unit (arXiv:1603.05027, Fig. 4). Operations: "bn", "relu".

    Attributes:
        before: operations before every weight layer.
        after: operations after every weight layer except the last.
        last: operations after the last weight layer.
        after_add: f, the operations after the addition.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    last: tuple[str, ...]
    after_add: tuple[str, ...]


# Fig. 4, a to e.
POST_ACTIVATION = Order(before=(), after=("bn", "relu"), last=("bn",), after_add=("relu",))
BN_AFTER_ADDITION = Order(before=(), after=("bn", "relu"), last=(), after_add=("bn", "relu"))
RELU_BEFORE_ADDITION = Order(before=(), after=("bn", "relu"), last=("bn", "relu"), after_add=())
RELU_ONLY_PRE_ACTIVATION = Order(before=("relu",), after=("bn",), last=("bn",), after_add=())
PRE_ACTIVATION = Order(before=("bn", "relu"), after=(), last=(), after_add=())


@dataclass(frozen=True)
class Style:
    """The details in which well-known implementations of the same network differ.

    Attributes:
        conv_bias: the convolutions that have a bias. "none": no convolution, as BN before or after
            it makes a bias redundant (torchvision, timm). "without_bn": those that are not followed
            by BN (Keras Applications' ResNet50V2). "all": every convolution (MLPerf Tiny's
            ResNet-8). Keras Applications' v1 also has biases everywhere. They fold exactly into the
            BN's moving mean, so our v1 has none.
        padding: "symmetric" pads (1, 1) around a strided 3×3, as PyTorch and Keras Applications do.
            "same" is TensorFlow's padding, (0, 1) on even sizes, as in MLPerf Tiny.
        shortcut_bn: True if a projection shortcut ends in BN where F does (He 2015, torchvision).
            In MLPerf Tiny it does not.
        bn_epsilon: epsilon of BN. The default is PyTorch's. Keras Applications has 1.001e-5; Keras'
            default is 1e-3.
        bn_momentum: momentum of BN. The default equals PyTorch's 0.1, which is 1 - momentum in
            Keras' terms. Keras' default is 0.99.
    """

    conv_bias: Literal["none", "without_bn", "all"] = "none"
    padding: Literal["symmetric", "same"] = "symmetric"
    shortcut_bn: bool = True
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9

    def __post_init__(self) -> None:
        """Refuse an unknown option."""
        require_choices(self)


@dataclass(frozen=True)
class Unit:
    """One residual unit in its network.

    Attributes:
        name: prefix of its layers' names, e.g. "stage1_block1".
        style: the style of the network.
        order: the order of operations of the network.
        stride: stride in height and width.
        in_channels: channels of x.
        out_channels: channels of h(x), F(x) and y.
        downsamples: True if the resolution falls in this unit, or would without `output_stride`.
        dilation: dilation that replaces the strides left out before this unit.
        drop_rate: probability that a training step skips F.
        zero_init_last: True if F starts as zero, so that the unit starts as its shortcut.
    """

    name: str
    style: Style
    order: Order
    stride: int
    in_channels: int
    out_channels: int
    downsamples: bool = False
    dilation: int = 1
    drop_rate: float = 0.0
    zero_init_last: bool = False


Transform = Callable[[int, int], tuple[Conv | SqueezeExcitation, ...]]
Shortcut = Callable[[Tensor, Tensor, Unit], Tensor]
Junction = Callable[[Tensor, Tensor, Unit], Tensor]
Stem = Callable[[Tensor, int, Order, Style], Tensor]


# Operations -------------------------------------------------------------------------------------


def convolution(
    x: Tensor,
    conv: Conv,
    style: Style,
    name: str,
    *,
    followed_by_bn: bool,
    kernel_initializer: str = "he_normal",  # arXiv:1502.01852, the papers' initialisation
) -> Tensor:
    """Apply `conv` to `x` (batch, height, width, channels), with the style's padding and bias.

    Args:
        x: a tensor.
        conv: the convolution.
        style: gives the padding and the biases.
        name: name of the layer. It contains "conv" ("stem_conv"); for the padding layer, "pad"
            replaces that.
        followed_by_bn: True if BN makes a bias redundant.
        kernel_initializer: initializer of the kernel (kernel, kernel, channels / groups, filters).
    """
    same = style.padding == "same" or conv.stride == 1  # at stride 1 "same" is symmetric
    if not same and conv.kernel > 1:
        x = layers.ZeroPadding2D(conv.kernel // 2, name=name.replace("conv", "pad"))(x)
    biased = {"none": False, "without_bn": not followed_by_bn, "all": True}[style.conv_bias]
    return Conv2D(
        conv.filters,
        conv.kernel,
        strides=conv.stride,
        padding="same" if same else "valid",
        dilation_rate=conv.dilation if conv.kernel > 1 else 1,
        groups=conv.groups,
        use_bias=biased,
        kernel_initializer=kernel_initializer,
        name=name,
    )(x)


def operations(
    x: Tensor, kinds: tuple[str, ...], style: Style, name: str, *, gamma: str = "ones"
) -> Tensor:
    """Apply `kinds`, "bn" and "relu", to `x` (batch, height, width, channels) in turn.

    BN uses the `style`'s epsilon and momentum and the initializer named `gamma`. `name` has a `{}`
    for the kind: "stage1_block1_{}2". The shape does not change.
    """
    for kind in kinds:
        if kind == "bn":
            layer = BatchNormalization(
                momentum=style.bn_momentum,
                epsilon=style.bn_epsilon,
                gamma_initializer=gamma,
                name=name.format(kind),
            )
        else:
            layer = layers.Activation(kind, name=name.format(kind))
        x = layer(x)
    return x


def subsample(x: Tensor, stride: int, name: str) -> Tensor:
    """Take every `stride`-th pixel of `x`: the shortcut of a strided unit without projection.

    (batch, height, width, channels) becomes (batch, ⌈height / stride⌉, ⌈width / stride⌉, channels).
    The layer is a maximum over one pixel, as in Keras Applications. A mean over one pixel would
    compute the same, but in LiteRT's int8 it takes a tenth of ResNet50V2's time. `name` is the
    name of the layer.
    """
    return layers.MaxPooling2D(1, strides=stride, name=name)(x) if stride > 1 else x


# Transforms F -----------------------------------------------------------------------------------


def basic(width: int, stride: int) -> tuple[Conv, ...]:
    """Return two 3×3 convolutions of `width` filters, the first with `stride` (He 2015, Fig. 5)."""
    return Conv(3, width, stride), Conv(3, width)


def bottleneck(width: int, stride: int) -> tuple[Conv, ...]:
    """Return 1×1, 3×3, 1×1 with `width`, `width` and 4 · `width` filters (He 2015, Fig. 5 right).

    The `stride` is in the first 1×1 (He 2015; Keras Applications).
    """
    return Conv(1, width, stride), Conv(3, width), Conv(1, 4 * width)


def bottleneck_v1_5(width: int, stride: int) -> tuple[Conv, ...]:
    """Return `bottleneck` of `width` with the `stride` in its 3×3 (torchvision, timm, MLPerf)."""
    return Conv(1, width), Conv(3, width, stride), Conv(1, 4 * width)


def grouped(groups: int, base_width: int) -> Transform:
    """Return a bottleneck (v1.5) whose 3×3 has `groups` groups of `base_width` filters in stage 1.

    `grouped(32, 4)` is ResNeXt-50 32×4d (arXiv:1611.05431, Table 1). `grouped(1, 128)`, one group
    with twice ResNet-50's width, is Wide ResNet-50-2 (arXiv:1605.07146, Table 8).
    """

    def transform(width: int, stride: int) -> tuple[Conv, ...]:
        inner = width * base_width // 64 * groups
        return Conv(1, inner), Conv(3, inner, stride, groups=groups), Conv(1, 4 * width)

    return transform


def wide_basic(dropout: float) -> Transform:
    """Return `basic` with dropout before the second convolution (arXiv:1605.07146, Fig. 1d)."""

    def transform(width: int, stride: int) -> tuple[Conv, ...]:
        return Conv(3, width, stride), Conv(3, width, dropout=dropout)

    return transform


def squeeze_excitation(transform: Transform, least: int = 1) -> Transform:
    """Add squeeze and excitation to `transform` (arXiv:1709.01507, Fig. 3; reduction 16).

    `least` is the minimum number of filters in the middle. timm has 8, which matters in narrow
    networks only.
    """

    def recalibrated(width: int, stride: int) -> tuple[Conv | SqueezeExcitation, ...]:
        parts = transform(width, stride)
        return *parts, SqueezeExcitation(max(least, out_channels(parts) // 16))

    return recalibrated


def dilate(parts: tuple[Conv | SqueezeExcitation, ...], unit: Unit) -> Iterator[Any]:
    """Yield the `parts` of a transform, with dilation for the strides that the `unit` leaves out.

    Leaving out a stride doubles the dilation of the layers after it. Every second pixel of the
    result then equals the result of the strided transform (arXiv:1511.07122).
    """
    dilation = unit.dilation
    for part in parts:
        if isinstance(part, SqueezeExcitation):
            yield part
            continue
        left_out = part.stride > unit.stride
        yield replace(part, stride=1 if left_out else part.stride, dilation=dilation)
        dilation *= part.stride if left_out else 1


def out_channels(transform: tuple[Conv | SqueezeExcitation, ...]) -> int:
    """Return the channels of F(x): those of the last convolution of a `transform`."""
    return [part.filters for part in transform if isinstance(part, Conv)][-1]


# The unit ---------------------------------------------------------------------------------------


def residual_unit(
    x: Tensor,
    unit: Unit,
    transform: tuple[Conv | SqueezeExcitation, ...],
    shortcut: Shortcut,
    junction: Junction,
    *,
    activate_x: bool,
) -> Tensor:
    """Build `y = h(x) + F(x)`, `x_next = f(y)` (arXiv:1603.05027, eq. 1 and 2).

    Args:
        x: the input (batch, height, width, unit.in_channels).
        unit: the unit, with its order of operations and its stride.
        transform: the weight layers of F.
        shortcut: h.
        junction: combines h(x) and F(x), such as `shortcuts.addition`.
        activate_x: True takes the first activation before the two paths split, as in the paper's
            first pre-activation unit (arXiv:1603.05027, appendix).

    Returns:
        A tensor (batch, height / stride, width / stride, unit.out_channels).
    """
    activated = operations(x, unit.order.before, unit.style, unit.name + "_{}1")
    if activate_x:
        x = activated
    f = _transform(activated, unit, transform)
    y = junction(shortcut(x, activated, unit), f, unit)
    return operations(y, unit.order.after_add, unit.style, unit.name + "_out_{}")


def _transform(x: Tensor, unit: Unit, parts: tuple[Conv | SqueezeExcitation, ...]) -> Tensor:
    """Build F(x) from the activated input."""
    convs = [part for part in parts if isinstance(part, Conv)]
    for number, conv in enumerate(convs, start=1):
        x = _weight_layer(x, unit, conv, number, last=number == len(convs))
    for part in parts:
        if isinstance(part, SqueezeExcitation):
            x = _squeeze_excitation(x, part, unit)
    if unit.drop_rate:  # one random decision per image (arXiv:1603.09382)
        name = f"{unit.name}_drop_path"
        x = layers.Dropout(unit.drop_rate, noise_shape=(None, 1, 1, 1), name=name)(x)
    return x


def _weight_layer(x: Tensor, unit: Unit, conv: Conv, number: int, *, last: bool) -> Tensor:
    """Build one convolution of F with the operations around it."""
    order, style, name = unit.order, unit.style, unit.name
    if number > 1:
        x = operations(x, order.before, style, f"{name}_{{}}{number}")
    if conv.dropout:
        x = layers.Dropout(conv.dropout, name=f"{name}_drop{number}")(x)
    after = order.last if last else order.after
    zeros = last and unit.zero_init_last  # in the last gamma; without BN there, in the last kernel
    x = convolution(
        x,
        conv,
        style,
        f"{name}_conv{number}",
        # In pre-activation, the BN before the next convolution follows this one.
        followed_by_bn="bn" in after or ("bn" in order.before and not last),
        kernel_initializer="zeros" if zeros and "bn" not in after else "he_normal",
    )
    gamma = "zeros" if zeros else "ones"
    return operations(x, after, style, f"{name}_{{}}{number}", gamma=gamma)


def _squeeze_excitation(x: Tensor, part: SqueezeExcitation, unit: Unit) -> Tensor:
    """Build `x · σ(W2 relu(W1 pool(x)))`. 1×1 convolutions (as in timm) replace dense layers."""

    def layer(filters: int, activation: str, name: str) -> layers.Layer:
        return layers.Conv2D(
            filters,
            1,
            activation=activation,
            kernel_initializer="he_normal",
            name=f"{unit.name}_{name}",
        )

    s = layers.GlobalAveragePooling2D(keepdims=True, name=f"{unit.name}_se_pool")(x)
    s = layer(part.filters, "relu", "se_reduce")(s)
    s = layer(unit.out_channels, "sigmoid", "se_expand")(s)
    return layers.Multiply(name=f"{unit.name}_se_scale")([x, s])
