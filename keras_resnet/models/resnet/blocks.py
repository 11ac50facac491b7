"""The pieces of a residual network, named as in the papers.

A residual unit is `y = h(x) + F(x)`, `x_next = f(y)` (Identity Mappings, arXiv:1603.05027,
eq. 1-2): a *shortcut* is an `h`, a *transform* lists the weight layers of `F`, an *order* says
where BN and ReLU stand around them and after the addition (that is `f`), and a *junction* is what
the paper's ablations make of the `+`. Shortcuts and junctions are in `shortcuts`, stems in `stems`.
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
        kernel: its pixels a side.
        filters: how many, the channels of its output.
        stride: pixels of its input to one of its output, a side.
        dilation: how far apart the pixels that a kernel reads are (arXiv:1511.07122); in a unit
            `output_stride` decides it.
        groups: the cardinality of ResNeXt (arXiv:1611.05431).
        dropout: rate on its activated input (Wide ResNet, arXiv:1605.07146).
    """

    kernel: int
    filters: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    dropout: float = 0.0


@dataclass(frozen=True)
class SqueezeExcitation:
    """Recalibrate F's output per channel through a bottleneck (arXiv:1709.01507).

    Attributes:
        filters: channels of the bottleneck.
    """

    filters: int


@dataclass(frozen=True)
class Order:
    """Where BN and ReLU stand in a unit (arXiv:1603.05027, Fig. 4). Operations: "bn", "relu".

    Attributes:
        before: before every weight layer.
        after: after every weight layer but the last.
        last: after the last weight layer.
        after_add: f, after the addition.
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
    """What famous implementations of the same network disagree about.

    Attributes:
        conv_bias: which convolutions have a bias. "none": every convolution is followed or preceded
            by BN, a bias is redundant (torchvision, timm). "without_bn": those no BN follows
            (Keras Applications' ResNet50V2). "all": MLPerf Tiny's ResNet-8. (Keras Applications'
            v1 has them too; there they fold exactly into the BN's moving mean, so ours has none.)
        padding: "symmetric": (1, 1) around a strided 3×3, as PyTorch and Keras Applications.
            "same": TensorFlow's, (0, 1) on even sizes, as MLPerf Tiny.
        shortcut_bn: whether projection shortcuts end in BN where F does (He 2015, torchvision);
            MLPerf Tiny's do not.
        bn_epsilon: PyTorch's; Keras Applications has 1.001e-5, Keras' default is 1e-3.
        bn_momentum: PyTorch's 0.1 counted from the other end; Keras' default is 0.99.
    """

    conv_bias: Literal["none", "without_bn", "all"] = "none"
    padding: Literal["symmetric", "same"] = "symmetric"
    shortcut_bn: bool = True
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a choice that there is not."""
        require_choices(self)


@dataclass(frozen=True)
class Unit:
    """One residual unit in its network.

    Attributes:
        name: what its layers' names begin with: "stage1_block1".
        style: the network's.
        order: the network's.
        stride: pixels of its input to one of its output, a side.
        in_channels: of x.
        out_channels: of h(x), F(x) and y.
        downsamples: the resolution falls here (or would, if not for `output_stride`).
        dilation: how far apart its neighbours are, strides before it having been left out.
        drop_rate: chance of a training step without F.
        zero_init_last: F starts as zero, the unit as its shortcut.
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
    """`conv` of `x` (batch, height, width, channels), with the style's padding and bias.

    Args:
        x: A tensor.
        conv: What it is.
        style: Whose padding and biases.
        name: Of the layer; holds "conv" ("stem_conv"), which the padding's replaces by "pad".
        followed_by_bn: Whether BN makes a bias redundant.
        kernel_initializer: Of the weights; they are (kernel, kernel, channels / groups, filters).
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
    """Apply `kinds`, "bn" and "relu", to `x` (batch, height, width, channels) in turn; it stays so.

    BN has the `style`'s epsilon and momentum, and begins with `gamma`, an initializer's name.
    `name` has a `{}` for the kind: "stage1_block1_{}2".
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
    """Every `stride`-th pixel of `x`, as the shortcut of a strided unit without projection.

    (batch, height, width, channels) becomes (batch, ⌈height / stride⌉, ⌈width / stride⌉, channels).
    A maximum of one pixel, as in Keras Applications. A mean of one is the same function, but in
    LiteRT's int8 it takes a tenth of ResNet50V2's time. `name` is the layer's.
    """
    return layers.MaxPooling2D(1, strides=stride, name=name)(x) if stride > 1 else x


# Transforms F -----------------------------------------------------------------------------------


def basic(width: int, stride: int) -> tuple[Conv, ...]:
    """Two 3×3 convolutions of `width` filters, the first of `stride` (He 2015, Fig. 5 left)."""
    return Conv(3, width, stride), Conv(3, width)


def bottleneck(width: int, stride: int) -> tuple[Conv, ...]:
    """1×1, 3×3, 1×1 of `width`, `width` and four times as many filters (He 2015, Fig. 5 right).

    The `stride` is in the first 1×1 (He 2015; Keras Applications).
    """
    return Conv(1, width, stride), Conv(3, width), Conv(1, 4 * width)


def bottleneck_v1_5(width: int, stride: int) -> tuple[Conv, ...]:
    """`bottleneck` of `width` with the `stride` in its 3×3 (torchvision, timm, MLPerf)."""
    return Conv(1, width), Conv(3, width, stride), Conv(1, 4 * width)


def grouped(groups: int, base_width: int) -> Transform:
    """Bottleneck (v1.5) whose 3×3 has `groups` paths of `base_width` filters in the first stage.

    `grouped(32, 4)` is ResNeXt-50's 32×4d (arXiv:1611.05431, Table 1); one group of twice
    ResNet-50's width, `grouped(1, 128)`, is Wide ResNet-50-2's (arXiv:1605.07146, Table 8).
    """

    def transform(width: int, stride: int) -> tuple[Conv, ...]:
        inner = width * base_width // 64 * groups
        return Conv(1, inner), Conv(3, inner, stride, groups=groups), Conv(1, 4 * width)

    return transform


def wide_basic(dropout: float) -> Transform:
    """`basic` with `dropout`, a rate, before its second convolution (arXiv:1605.07146, Fig. 1d)."""

    def transform(width: int, stride: int) -> tuple[Conv, ...]:
        return Conv(3, width, stride), Conv(3, width, dropout=dropout)

    return transform


def squeeze_excitation(transform: Transform, least: int = 1) -> Transform:
    """`transform` with its output recalibrated (arXiv:1709.01507, Fig. 3; reduction 16).

    `least` filters are in the middle: timm has 8 or more, which only narrow networks notice.
    """

    def recalibrated(width: int, stride: int) -> tuple[Conv | SqueezeExcitation, ...]:
        parts = transform(width, stride)
        return *parts, SqueezeExcitation(max(least, out_channels(parts) // 16))

    return recalibrated


def dilate(parts: tuple[Conv | SqueezeExcitation, ...], unit: Unit) -> Iterator[Any]:
    """The parts of a transform with dilation for the strides that the unit leaves out.

    A stride that is left out doubles the dilation of what follows it, so that every second pixel
    of the result is what the strided transform gives (arXiv:1511.07122).
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
    """Channels of F(x): those of the last convolution of a `transform`."""
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
    """`y = h(x) + F(x)`, `x_next = f(y)` (arXiv:1603.05027, eq. 1 and 2).

    Args:
        x: (batch, height, width, unit.in_channels).
        unit: Where it stands, its order of operations, its stride.
        transform: The weight layers of F.
        shortcut: h.
        junction: What is made of h(x) and F(x); `shortcuts.addition` adds them.
        activate_x: Take the first activation before the two paths split, as the paper's first
            pre-activation unit does (arXiv:1603.05027, appendix).

    Returns:
        (batch, height / stride, width / stride, unit.out_channels).
    """
    activated = operations(x, unit.order.before, unit.style, unit.name + "_{}1")
    if activate_x:
        x = activated
    f = _transform(activated, unit, transform)
    y = junction(shortcut(x, activated, unit), f, unit)
    return operations(y, unit.order.after_add, unit.style, unit.name + "_out_{}")


def _transform(x: Tensor, unit: Unit, parts: tuple[Conv | SqueezeExcitation, ...]) -> Tensor:
    """F(x), from the already activated input."""
    convs = [part for part in parts if isinstance(part, Conv)]
    for number, conv in enumerate(convs, start=1):
        x = _weight_layer(x, unit, conv, number, last=number == len(convs))
    for part in parts:
        if isinstance(part, SqueezeExcitation):
            x = _squeeze_excitation(x, part, unit)
    if unit.drop_rate:  # one draw an image (arXiv:1603.09382)
        name = f"{unit.name}_drop_path"
        x = layers.Dropout(unit.drop_rate, noise_shape=(None, 1, 1, 1), name=name)(x)
    return x


def _weight_layer(x: Tensor, unit: Unit, conv: Conv, number: int, *, last: bool) -> Tensor:
    """One convolution of F with the operations around it."""
    order, style, name = unit.order, unit.style, unit.name
    if number > 1:
        x = operations(x, order.before, style, f"{name}_{{}}{number}")
    if conv.dropout:
        x = layers.Dropout(conv.dropout, name=f"{name}_drop{number}")(x)
    after = order.last if last else order.after
    zeros = last and unit.zero_init_last  # in the last gamma, or, no BN there, in the last kernel
    x = convolution(
        x,
        conv,
        style,
        f"{name}_conv{number}",
        # In pre-activation the BN after a convolution is the one before the next.
        followed_by_bn="bn" in after or ("bn" in order.before and not last),
        kernel_initializer="zeros" if zeros and "bn" not in after else "he_normal",
    )
    gamma = "zeros" if zeros else "ones"
    return operations(x, after, style, f"{name}_{{}}{number}", gamma=gamma)


def _squeeze_excitation(x: Tensor, part: SqueezeExcitation, unit: Unit) -> Tensor:
    """`x · σ(W2 relu(W1 pool(x)))`; 1×1 convolutions (timm's) are the paper's dense layers."""

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
