"""The one builder of every residual network: stem, stages, head, from one `ResNetSpec`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
from keras import layers

from keras_resnet import preprocessing
from keras_resnet import weights as weights_module
from keras_resnet.errors import UserError
from keras_resnet.models.blocks import (
    POST_ACTIVATION,
    Order,
    Shortcut,
    Stem,
    Style,
    Transform,
    Unit,
    head,
    imagenet_preact_stem,
    imagenet_stem,
    operations,
    option_b,
    residual_unit,
)

# Of a stem of your own nothing is known, so it refuses no image.
_STEM_STRIDES: dict[Stem, int] = {imagenet_stem: 4, imagenet_preact_stem: 4}


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """A residual network. `build` turns it into a Keras model; `dataclasses.replace` varies it."""

    depths: tuple[int, ...]  # units per stage
    widths: tuple[int, ...]  # filters of the 3×3 convolutions per stage
    transform: Transform  # F
    shortcut: Shortcut = option_b  # h
    order: Order = POST_ACTIVATION  # BN and ReLU around F's weights, and f
    stem: Stem = imagenet_stem
    stem_width: int = 64
    # The unit that halves the resolution between two stages: the first of the next (the papers,
    # torchvision) or the last of the one before (Keras Applications' ResNet50V2).
    stride_unit: Literal["first", "last"] = "first"
    # Pre-activation only: take the first activation before the first split (the paper, for CIFAR)
    # or let the first shortcut carry the stem's output as it is (timm's resnetv2_18).
    activate_stem: bool = False
    style: Style = field(default_factory=Style)
    preprocessing: str = "torch"  # a key of keras_resnet.preprocessing.PREPROCESSING
    input_size: int = 224
    classes: int = 1000

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside Keras.

        Raises:
            UserError: stages without a width, or names where functions are meant.
        """
        if len(self.depths) != len(self.widths):
            raise UserError(
                f"depths and widths are one per stage; received {self.depths} and {self.widths}."
            )
        for name in ("transform", "shortcut", "stem"):
            if not callable(getattr(self, name)):
                raise UserError(
                    f"{name} is a function of keras_resnet.models.blocks; received "
                    f"{getattr(self, name)!r}."
                )

    @property
    def min_size(self) -> int:
        """Pixels a side that leave one in the last feature map: the total stride."""
        return _STEM_STRIDES.get(self.stem, 1) * 2 ** (len(self.depths) - 1)

    def units(self) -> Iterator[tuple[Unit, int]]:
        """Every unit in order, with its width: `stage1_block1`, `stage1_block2`, ..."""
        channels = self.stem_width
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            for block in range(1, depth + 1):
                if self.stride_unit == "first":
                    strided = block == 1 and stage > 1
                else:
                    strided = block == depth and stage < len(self.depths)
                out = self.transform(width, 1)[-1].filters
                unit = Unit(
                    name=f"stage{stage}_block{block}",
                    style=self.style,
                    order=self.order,
                    stride=2 if strided else 1,
                    in_channels=channels,
                    out_channels=out,
                )
                yield unit, width
                channels = out


def build(
    spec: ResNetSpec,
    *,
    include_top: bool = True,
    weights: str | None = None,
    input_tensor: Any = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    name: str = "resnet",
    include_preprocessing: bool = False,
) -> keras.Model:
    """Build the functional Keras model of `spec`.

    Args:
        spec: the network.
        include_top: end in global average pooling and a dense classifier (float32 under every
            dtype policy); otherwise in the last feature map.
        weights: None (random initialisation) or the path of a `.weights.h5` file.
        input_tensor: a Keras tensor to build on instead of a new input.
        input_shape: (height, width, channels), the spec's size by default; None for a free size.
        pooling: without the top, "avg" or "max" over the last feature map, or None.
        classes: width of the classifier, the spec's by default.
        classifier_activation: "softmax" gives probabilities, None logits.
        name: the model's name.
        include_preprocessing: put the normalisation inside, so that the model takes RGB 0...255.

    Returns:
        A model from (batch, height, width, channels) to (batch, classes); without the top to
        (batch, height / 32, width / 32, channels) (CIFAR networks: / 4) or (batch, channels).

    Raises:
        UserError: an impossible shape, pooling or weights.
    """
    if classes is not None and classes < 1:
        raise UserError(f"classes is at least 1; received {classes}.")
    inputs = _inputs(spec, input_tensor, input_shape)
    x = preprocessing.rescale(inputs, spec.preprocessing) if include_preprocessing else inputs
    x = spec.stem(x, spec.stem_width, spec.order, spec.style)
    for index, (unit, width) in enumerate(spec.units()):
        transform = spec.transform(width, unit.stride)
        activate_x = spec.activate_stem and index == 0
        x = residual_unit(x, unit, transform, spec.shortcut, activate_x=activate_x)
    x = operations(x, spec.order.before, spec.style, "head_{}")
    if include_top:
        x = head(x, spec.classes if classes is None else classes, classifier_activation)
    else:
        x = _pool(x, pooling)
    if input_tensor is not None:  # the model starts where the given tensor comes from
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    _allow_recursion(sum(spec.depths))
    model = keras.Model(inputs, x, name=name)
    weights_module.load(model, weights)
    return model


def _allow_recursion(units: int) -> None:
    """Keras walks a functional graph recursively: to build it, and to clone or load it later.

    Python's limit of 1000 frames is too low for the 600 units of ResNet-1202, so it is raised, and
    stays so. Twelve a unit, and a thousand for the rest, leave room.
    """
    needed = 12 * units + 1000
    if sys.getrecursionlimit() < needed:
        sys.setrecursionlimit(needed)


def _inputs(spec: ResNetSpec, input_tensor: Any, input_shape: Any) -> Any:
    if keras.config.image_data_format() != "channels_last":
        raise UserError(
            "keras_resnet builds channels_last networks; this process is set to channels_first. "
            "Call keras.config.set_image_data_format('channels_last')."
        )
    if input_tensor is not None:
        return input_tensor
    shape = (spec.input_size, spec.input_size, 3) if input_shape is None else tuple(input_shape)
    valid = len(shape) == 3 and all(s is None or (isinstance(s, int) and s > 0) for s in shape)
    if not valid or shape[-1] is None:
        raise UserError(f"input_shape is (height, width, channels); received {input_shape}.")
    if any(side is not None and side < spec.min_size for side in shape[:2]):
        raise UserError(
            f"This network takes images of {spec.min_size}×{spec.min_size} pixels or more; "
            f"received input_shape {shape}."
        )
    return layers.Input(shape, name="images")


def _pool(x: Any, pooling: str | None) -> Any:
    if pooling is None:
        return x
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(dtype="float32", name="head_pool")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(dtype="float32", name="head_pool")(x)
    raise UserError(f"pooling is 'avg', 'max' or None; received {pooling!r}.")
