"""Rules for the cost and the receptive field of one layer, from its config and shapes.

`keras_resnet.profile` uses them. The conventions are those of `keras_resnet/analysis/profile.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras import layers

from keras_resnet import keras_compat
from keras_resnet.errors import UserError

Shape = tuple[int, ...]  # includes the batch
Pair = tuple[int, int]  # (height, width)

# Layers with one output value per input value: the result may overwrite the input. A reshape moves
# no values.
IN_PLACE = (
    *(layers.BatchNormalization, layers.Rescaling, layers.Normalization),
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU, layers.Softmax),
    *(layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout, layers.GaussianNoise),
    *(layers.Flatten, layers.Reshape, layers.Identity),
)
_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)
_POOLS = (layers.MaxPooling2D, layers.AveragePooling2D)
# Operations of `keras.ops` and layers without weights. All others do no significant multiply-adds.
_PRODUCTS = ("Matmul", "Einsum", "Dot", "Tensordot", "Conv", "DepthwiseConv", "SeparableConv")


def is_weighted(operation: Any) -> bool:
    """Return True for a layer that multiplies by a matrix or a kernel."""
    return isinstance(operation, (*_CONVOLUTIONS, layers.Dense))


def multiply_adds(operation: Any, output: Shape) -> int:
    """Return the number of multiply-adds of a layer for one image.

    Raises:
        UserError: the layer has a kernel or computes a product, but there is no rule for it.
    """
    if isinstance(operation, _CONVOLUTIONS):
        # kernel: (height, width, input channels of a group, filters), or (…, channels, multiplier)
        first = operation.data_format == "channels_first"
        positions = math.prod(output[2:] if first else output[1:-1])
        return math.prod(operation.kernel.shape) * positions
    if isinstance(operation, layers.Dense):
        return math.prod(operation.kernel.shape) * math.prod(output[1:-1])
    has_kernel = any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ()))
    is_product = isinstance(operation, (layers.Dot, *keras_compat.operations(*_PRODUCTS)))
    if is_product or (has_kernel and not isinstance(operation, IN_PLACE)):
        kind = type(operation).__name__
        raise UserError(
            f"profile() cannot count the multiply-adds of {kind} ('{operation.name}'). It knows "
            "Conv2D, DepthwiseConv2D, Dense, and layers without a kernel."
        )
    return 0


@dataclass(frozen=True)
class Field:
    """The part of the image that a value depends on, in pixels (height, width).

    `size` is the extent; None means the whole image. `jump` is the distance between the extents of
    neighbouring values; None if there are no neighbours.
    """

    size: Pair | None = None
    jump: Pair | None = None


PIXEL = Field((1, 1), (1, 1))


def receptive_field(
    operation: Any, fields: Sequence[Field], inputs: Sequence[Shape], output: Shape
) -> Field:
    """Return the field of a layer's outputs from its inputs' fields and shapes.

    A window of k pixels with dilation d and stride s turns `size` into `size + (k - 1)·d·jump` and
    `jump` into `s·jump` (Araujo et al. 2019, https://distill.pub/2019/computing-receptive-fields).
    Where paths join, the longest counts. A layer without a rule is assumed to work pixel by pixel
    if it keeps height and width, and otherwise to see the whole image.
    """
    if len(output) != 4:
        return Field()
    field = _joined(fields)
    if isinstance(operation, (layers.ZeroPadding2D, layers.Cropping2D)):
        return field
    if isinstance(operation, (*_CONVOLUTIONS, *_POOLS)):
        return _windowed(operation, field)
    same = any(shape[1:-1] == output[1:-1] for shape in inputs if len(shape) == 4)
    return field if same else Field()


def _windowed(operation: Any, field: Field) -> Field:
    kernel = operation.pool_size if isinstance(operation, _POOLS) else operation.kernel_size
    dilation = getattr(operation, "dilation_rate", (1, 1))
    if field.jump is None:
        return field
    size, jump = field.size, field.jump
    if size is not None:
        reach = [(k - 1) * d * j for k, d, j in zip(kernel, dilation, jump, strict=True)]
        size = (size[0] + reach[0], size[1] + reach[1])
    return Field(size, (jump[0] * operation.strides[0], jump[1] * operation.strides[1]))


def _joined(fields: Sequence[Field]) -> Field:
    sizes = [field.size for field in fields]
    jumps = [field.jump for field in fields if field.jump]
    size = None if None in sizes else _largest(sizes)
    return Field(size, _largest(jumps) if jumps else None)


def _largest(pairs: Sequence[Any]) -> Pair:
    return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
