"""Every residual network from one `ResNetSpec`: stem, stages of residual units, head."""

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

# Of a stem of your own nothing is known, so it refuses no image.
_STEM_STRIDES: dict[Stem, int] = {imagenet_stem: 4, deep_stem: 4, imagenet_preact_stem: 4}


@dataclass(frozen=True, kw_only=True)
class ResNetSpec(Network):
    """A residual network. `build` turns it into a Keras model; `dataclasses.replace` varies it.

    A unit is `y = h(x) + F(x)`, `x_next = f(y)` (arXiv:1603.05027, eq. 1 and 2). The last three
    fields are options of a training or a task: the network's weights stay what they are. Other
    fields are those of `Network`.

    Attributes:
        depths: units per stage.
        widths: what `transform` is given per stage: the filters of the 3×3 convolutions, which
            `grouped` scales.
        transform: F, such as `basic`.
        shortcut: h, such as `option_b`.
        junction: the + of h(x) + F(x), such as `addition`.
        order: where BN and ReLU stand around F's weights, and f.
        stem: what comes before the units.
        stem_width: channels of its result.
        stride_unit: the unit that halves the resolution between two stages: the first of the next
            (the papers, torchvision) or the last of the one before (Keras Applications'
            ResNet50V2).
        activate_stem: pre-activation only: take the first activation before the first split (the
            paper's appendix) or let the first shortcut carry the stem's output as it is (timm's
            resnetv2_18 and 34). Where the first unit projects, as of bottlenecks, both are the
            same.
        style: what implementations disagree about.
        output_stride: input pixels a side to one of the last map; stages past it dilate instead
            (torchvision's replace_stride_with_dilation). None: the total stride.
        stochastic_depth: chance of a training step without the last unit's F, falling linearly to
            0 at the input (arXiv:1603.09382, eq. 4, where p_L = 1 - stochastic_depth). Kept F are
            scaled up by 1 / (1 - chance) in training (torchvision, timm), the paper's are scaled
            down at inference.
        zero_init_last: units start as their shortcuts: zeros in the last gamma (arXiv:1706.02677,
            section 5.1) or, where no BN ends F, in the last kernel (timm).
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
        """Check what would otherwise fail deep inside Keras.

        Raises:
            UserError: stages without a width, names where functions are meant, an impossible
                output stride or rate.
        """
        super().__post_init__()
        check_rate("stochastic_depth", self.stochastic_depth)
        if len(self.depths) != len(self.widths) or min(self.depths, default=0) < 1:
            raise UserError(
                "depths and widths are one per stage, 1 or more; received "
                f"{self.depths} and {self.widths}."
            )
        for name in ("transform", "shortcut", "junction", "stem"):
            if not callable(getattr(self, name)):
                raise UserError(
                    f"{name} is a function, of keras_resnet.models.resnet's blocks, shortcuts or "
                    f"stems; received {getattr(self, name)!r}."
                )
        strides = [self._stem_stride() * 2**n for n in range(len(self.depths))]
        if self.output_stride is not None and self.output_stride not in strides:
            raise UserError(
                f"output_stride is one of {', '.join(map(str, strides))} for this network; "
                f"received {self.output_stride!r}."
            )
        self._check_options()

    def _check_options(self) -> None:
        """Refuse options that would leave another function or a network that cannot learn."""
        dilates = self.output_stride not in (None, self.min_size)
        if dilates and self.style.padding == "same":
            raise UserError(
                'output_stride needs symmetric padding: TensorFlow\'s "same" centres a strided 3×3 '
                "between the pixels that the shortcut takes, so without the stride the trained "
                "weights make another function."
            )
        plain = self.junction is no_shortcut
        if plain and (self.stochastic_depth or self.zero_init_last):
            raise UserError(
                "stochastic_depth and zero_init_last are for networks with shortcuts: a plain net "
                "without F(x) passes nothing on."
            )
        if self.zero_init_last and "relu" in self.order.last:
            raise UserError(
                "zero_init_last: F ends in a ReLU here, which passes no gradient at 0, so the "
                "zeros would stay."
            )

    def _stem_stride(self) -> int:
        return _STEM_STRIDES.get(self.stem, 1)

    @property
    def min_size(self) -> int:
        """Pixels a side that leave one in the last feature map: the total stride."""
        return self._stem_stride() * 2 ** (len(self.depths) - 1)

    def units(self) -> Iterator[tuple[Unit, int]]:
        """Every unit in order, with its width: `stage1_block1`, `stage1_block2`, ..."""
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
                # Past a stride that was left out, neighbours are that much further apart.
                dilation *= 2 if downsamples and unit.stride == 1 else 1

    def trunk(self, x: Tensor) -> Trunk:
        """Build stem and stages. A stage's feature is its last map before the resolution falls
        (with `stride_unit="last"` that is before the stage's last unit), and of the last stage the
        one before the BN and ReLU of a pre-activation network's head (as in timm and KerasHub)."""
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
