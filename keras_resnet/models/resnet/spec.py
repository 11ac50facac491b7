"""`ResNetSpec`, which describes every residual network: stem, stages of residual units, head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from keras_resnet.errors import UserError
from keras_resnet.models.network import Network, Trunk, allow_recursion, check_rate
from keras_resnet.models.resnet.blocks import (
    POST_ACTIVATION,
    Junction,
    Order,
    Shortcut,
    Stem,
    Style,
    Tensor,
    Transform,
    Unit,
    dilate,
    operations,
    out_channels,
    residual_unit,
)
from keras_resnet.models.resnet.shortcuts import addition, no_shortcut, option_b
from keras_resnet.models.resnet.stems import deep_stem, imagenet_preact_stem, imagenet_stem

HE_2015 = "arXiv:1512.03385"
IDENTITY_MAPPINGS = "arXiv:1603.05027"

# The stride of a custom stem is unknown. It counts as 1, so that no image is refused.
_STEM_STRIDES: dict[Stem, int] = {imagenet_stem: 4, deep_stem: 4, imagenet_preact_stem: 4}


@dataclass(frozen=True, kw_only=True)
class ResNetSpec(Network):
    """A residual network. `build` turns it into a Keras model; `dataclasses.replace` changes it.

    A unit is `y = h(x) + F(x)`, `x_next = f(y)` (arXiv:1603.05027, eq. 1 and 2). The last three
    fields are options for training or for another task; they do not change the weights. The other
    fields are those of `Network`.

    Attributes:
        depths: number of units in each stage.
        widths: the width that `transform` gets in each stage: the filters of the 3×3 convolutions
            (`grouped` scales them).
        transform: F, such as `basic`.
        shortcut: h, such as `option_b`.
        junction: combines h(x) and F(x), such as `addition`.
        order: the places of BN and ReLU around F's weights, and f.
        stem: the layers before the units.
        stem_width: output channels of the stem.
        stride_unit: the unit that halves the resolution between two stages: "first" of the next
            stage (the papers, torchvision) or "last" of the stage before (Keras Applications'
            ResNet50V2).
        activate_stem: for pre-activation only. True takes the first activation before the first
            split (the paper's appendix). False sends the stem's output through the first shortcut
            unchanged (timm's resnetv2_18 and 34). If the first unit has a projection, as with
            bottlenecks, both are the same.
        style: the details in which implementations differ.
        output_stride: ratio of the image size to the size of the last map. Later stages use
            dilation in place of a stride (torchvision's replace_stride_with_dilation). None keeps
            all strides.
        stochastic_depth: probability that a training step skips the F of the last unit. It falls
            linearly to 0 at the input (arXiv:1603.09382, eq. 4, where p_L = 1 - stochastic_depth).
            In training, a kept F is scaled up by 1 / (1 - probability), as in torchvision and timm;
            the paper scales down at inference.
        zero_init_last: True starts every unit as its shortcut, with zeros in the last gamma
            (arXiv:1706.02677, section 5.1). If F does not end in BN, the zeros are in its last
            kernel (timm).
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    transform: Transform
    shortcut: Shortcut = option_b
    junction: Junction = addition
    order: Order = POST_ACTIVATION
    stem: Stem = imagenet_stem
    stem_width: int = 64
    stride_unit: Literal["first", "last"] = "first"
    activate_stem: bool = False
    style: Style = field(default_factory=Style)
    output_stride: int | None = None
    stochastic_depth: float = 0.0
    zero_init_last: bool = False

    def __post_init__(self) -> None:
        """Check the fields, which would otherwise fail deep inside Keras.

        Raises:
            UserError: a stage has no width, a field that must be a function is not one, or the
                output stride or a rate is not possible.
        """
        super().__post_init__()
        check_rate("stochastic_depth", self.stochastic_depth)
        if len(self.depths) != len(self.widths) or min(self.depths, default=0) < 1:
            raise UserError(
                "depths and widths must have one number per stage, 1 or more; received "
                f"{self.depths} and {self.widths}."
            )
        for name in ("transform", "shortcut", "junction", "stem"):
            if not callable(getattr(self, name)):
                raise UserError(
                    f"{name} must be a function of keras_resnet.models.resnet.blocks, .shortcuts "
                    f"or .stems; received {getattr(self, name)!r}."
                )
        strides = [self._stem_stride() * 2**n for n in range(len(self.depths))]
        if self.output_stride is not None and self.output_stride not in strides:
            raise UserError(
                f"output_stride must be one of {', '.join(map(str, strides))} for this network; "
                f"received {self.output_stride!r}."
            )
        self._check_options()

    def _check_options(self) -> None:
        """Refuse options that change the function of the weights or prevent learning."""
        dilates = self.output_stride not in (None, self.min_size)
        if dilates and self.style.padding == "same":
            raise UserError(
                'output_stride needs the symmetric padding style. TensorFlow\'s "same" centres a '
                "strided 3×3 between the pixels that the shortcut takes, so without the stride the "
                "trained weights would compute something else."
            )
        plain = self.junction is no_shortcut
        if plain and (self.stochastic_depth or self.zero_init_last):
            raise UserError(
                "stochastic_depth and zero_init_last need shortcuts. This plain net has none, so "
                "without F(x) nothing would pass. Remove these options."
            )
        if self.zero_init_last and "relu" in self.order.last:
            raise UserError(
                "zero_init_last does not work here: F ends in a ReLU, which has no gradient at 0, "
                "so the zeros would stay. Remove it."
            )

    def _stem_stride(self) -> int:
        return _STEM_STRIDES.get(self.stem, 1)

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels: the total stride, which leaves one pixel."""
        return self._stem_stride() * 2 ** (len(self.depths) - 1)

    def units(self) -> Iterator[tuple[Unit, int]]:
        """Yield every unit in order, with its width: `stage1_block1`, `stage1_block2`, ..."""
        channels, number, dilation = self.stem_width, 0, 1
        stride = self._stem_stride()
        limit = self.output_stride or self.min_size
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            for block in range(1, depth + 1):
                if self.stride_unit == "first":
                    downsamples = block == 1 and stage > 1
                else:
                    downsamples = block == depth and stage < len(self.depths)
                number += 1
                unit = Unit(
                    name=f"stage{stage}_block{block}",
                    style=self.style,
                    order=self.order,
                    stride=2 if downsamples and stride < limit else 1,
                    in_channels=channels,
                    out_channels=out_channels(self.transform(width, 1)),
                    downsamples=downsamples,
                    dilation=dilation,
                    drop_rate=self.stochastic_depth * number / sum(self.depths),
                    zero_init_last=self.zero_init_last,
                )
                yield unit, width
                channels = unit.out_channels
                stride *= unit.stride
                # After a stride that is left out, neighbouring pixels are twice as far apart.
                dilation *= 2 if downsamples and unit.stride == 1 else 1

    def trunk(self, x: Tensor) -> Trunk:
        """Build stem and stages.

        A stage's feature is its last map before the resolution falls. With `stride_unit="last"`,
        that is the map before the stage's last unit. In the last stage of a pre-activation network
        it is the map before the BN and ReLU of the head (as in timm and KerasHub).
        """
        allow_recursion(sum(self.depths))
        features: dict[str, Tensor] = {}
        x = self.stem(x, self.stem_width, self.order, self.style)
        for index, (unit, width) in enumerate(self.units()):
            if unit.downsamples:
                features[f"stage{len(features) + 1}"] = x
            transform = self.transform(width, 2 if unit.downsamples else 1)
            x = residual_unit(
                x,
                unit,
                tuple(dilate(transform, unit)),
                self.shortcut,
                self.junction,
                activate_x=self.activate_stem and index == 0,
            )
        features[f"stage{len(features) + 1}"] = x
        return Trunk(operations(x, self.order.before, self.style, "head_{}"), features)
