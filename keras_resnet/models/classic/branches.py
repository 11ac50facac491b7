"""Modules of parallel branches, as in the Inception papers.

A branch is a tuple of parts. A module is a tuple of branches that read the same input; their
outputs are concatenated:
`((Conv(1, 64),), (Conv(1, 96), Conv(3, 128)), (Pool("max"), Conv(1, 32)))`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from keras import layers

from keras_resnet.layers import BatchNormalization, Conv2D
from keras_resnet.models.network import Tensor


@dataclass(frozen=True)
class Conv:
    """A convolution with its BN (or bias) and ReLU."""

    kernel: int | tuple[int, int]  # (height, width)
    filters: int
    stride: int = 1
    # "symmetric" pads kernel // 2 zeros on every side, also at stride 2 (Caffe, PyTorch).
    padding: Literal["same", "valid", "symmetric"] = "same"


@dataclass(frozen=True)
class Pool:
    """A 3×3 pooling with "same" padding at stride 1 and "valid" at stride 2."""

    kind: Literal["max", "average"]
    stride: int = 1


@dataclass(frozen=True)
class Fork:
    """Convolutions that all read the branch's last map; their outputs are concatenated."""

    convs: tuple[Conv, ...]


Branch = tuple[Conv | Pool | Fork, ...]
Module = tuple[Branch, ...]


@dataclass(frozen=True)
class Form:
    """The details in which implementations of one network differ."""

    bn: bool = True  # BN after every convolution; False: a bias instead
    bn_epsilon: float = 1e-3  # as in torchvision, TF-Slim and Keras Applications
    bn_momentum: float = 0.9  # PyTorch's 0.1 is 1 - momentum in Keras' terms
    # True: average pools divide by 9 everywhere (PyTorch's default). False: by the number of pixels
    # that are not padding (TensorFlow, and so Keras Applications).
    pool_counts_padding: bool = False
    kernel_initializer: str = "glorot_uniform"  # as in Keras Applications


def convolution(x: Tensor, conv: Conv, form: Form, name: str) -> Tensor:
    """Build convolution, BN and ReLU. `name` has a `{}` for the kind: "stage3_a_branch1_{}1"."""
    if conv.padding == "symmetric":
        kernel = conv.kernel if isinstance(conv.kernel, tuple) else (conv.kernel, conv.kernel)
        pad = kernel[0] // 2, kernel[1] // 2
        x = layers.ZeroPadding2D(pad, name=name.format("pad"))(x)
    x = Conv2D(
        conv.filters,
        conv.kernel,
        strides=conv.stride,
        padding="same" if conv.padding == "same" else "valid",
        use_bias=not form.bn,
        kernel_initializer=form.kernel_initializer,
        name=name.format("conv"),
    )(x)
    if form.bn:
        x = BatchNormalization(
            momentum=form.bn_momentum, epsilon=form.bn_epsilon, name=name.format("bn")
        )(x)
    return layers.Activation("relu", name=name.format("relu"))(x)


def inception_module(x: Tensor, module: Module, form: Form, name: str) -> Tensor:
    """Build the branches of `module` on `x` and concatenate their outputs.

    Layers are named `NAME_branch1_conv1`, `NAME_branch2_conv1`, `NAME_branch2_conv2`, ...
    """
    ends = [
        _branch(x, branch, form, f"{name}_branch{number}")
        for number, branch in enumerate(module, 1)
    ]
    return layers.Concatenate(name=f"{name}_concat")(ends)


def _branch(x: Tensor, branch: Branch, form: Form, name: str) -> Tensor:
    number = 0
    for part in branch:
        if isinstance(part, Pool):
            x = _pool(x, part, form, f"{name}_pool")
            continue
        number += 1
        if isinstance(part, Conv):
            x = convolution(x, part, form, f"{name}_{{}}{number}")
        else:  # a Fork: conv2a, conv2b
            ends = [
                convolution(x, conv, form, f"{name}_{{}}{number}{letter}")
                for conv, letter in zip(part.convs, "abcd", strict=False)
            ]
            x = layers.Concatenate(name=f"{name}_concat")(ends)
    return x


def _pool(x: Tensor, pool: Pool, form: Form, name: str) -> Tensor:
    padding = "same" if pool.stride == 1 else "valid"
    if pool.kind == "max":
        return layers.MaxPooling2D(3, strides=pool.stride, padding=padding, name=name)(x)
    if form.pool_counts_padding and padding == "same":
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.AveragePooling2D(3, strides=pool.stride, padding=padding, name=name)(x)


def narrow(module: Module, divisor: int) -> Module:
    """Return `module` with its filters divided by `divisor`, for tests."""

    def narrow_part(part: Conv | Pool | Fork) -> Conv | Pool | Fork:
        if isinstance(part, Fork):
            return Fork(
                tuple(replace(conv, filters=conv.filters // divisor) for conv in part.convs)
            )
        return part if isinstance(part, Pool) else replace(part, filters=part.filters // divisor)

    return tuple(tuple(narrow_part(part) for part in branch) for branch in module)
