"""Inception-ResNet v2 (arXiv:1602.07261): residual units with an Inception module as F."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from keras import layers

from keras_resnet.layers import Conv2D
from keras_resnet.models.build import register, row
from keras_resnet.models.classic.branches import (
    Conv,
    Form,
    Module,
    Pool,
    convolution,
    inception_module,
    narrow,
)
from keras_resnet.models.classic.inception import StemWidths, stem, strided_3x3
from keras_resnet.models.network import Network, Tensor, Trunk

__all__ = ["InceptionResNetV2"]


@dataclass(frozen=True)
class Stage:
    """A module that sets width and resolution, then `blocks` residual units."""

    letter: str  # the first module's, as in timm's mixed_5b, mixed_6a, mixed_7a
    first: Module
    block: Module  # F, without the 1×1 that restores the input's width
    blocks: int
    # The residuals are scaled down before the addition. Without that, training fails (section 3.3:
    # "0.1 to 0.3"). The values are those of Keras Applications and TF-Slim.
    scale: float


# 35×35: the Inception module before Fig. 16's Inception-ResNet-A, as in TF-Slim. The paper's stem
# (Fig. 3) differs.
_STAGE_3 = Stage(
    "b",
    (
        (Conv(1, 96),),
        (Conv(1, 48), Conv(5, 64)),
        (Conv(1, 64), Conv(3, 96), Conv(3, 96)),
        (Pool("average"), Conv(1, 64)),
    ),
    (
        (Conv(1, 32),),
        (Conv(1, 32), Conv(3, 32)),
        (Conv(1, 32), Conv(3, 48), Conv(3, 64)),
    ),
    blocks=10,
    scale=0.17,
)

# 17×17: Reduction-A (Fig. 7 and Table 1) and Inception-ResNet-B (Fig. 17).
_STAGE_4 = Stage(
    "a",
    (
        (strided_3x3(384),),
        (Conv(1, 256), Conv(3, 256), strided_3x3(384)),
        (Pool("max", 2),),
    ),
    (
        (Conv(1, 192),),
        (Conv(1, 128), Conv((1, 7), 160), Conv((7, 1), 192)),
    ),
    blocks=20,
    scale=0.1,
)

# 8×8: Reduction-B (Fig. 18) and Inception-ResNet-C (Fig. 19).
_STAGE_5 = Stage(
    "a",
    (
        (Conv(1, 256), strided_3x3(384)),
        (Conv(1, 256), strided_3x3(288)),
        (Conv(1, 256), Conv(3, 288), strided_3x3(320)),
        (Pool("max", 2),),
    ),
    (
        (Conv(1, 192),),
        (Conv(1, 192), Conv((1, 3), 224), Conv((3, 1), 256)),
    ),
    blocks=10,
    scale=0.2,
)


@dataclass(frozen=True, kw_only=True)
class InceptionResNetSpec(Network):
    """An Inception-ResNet v2: stem, stages 3 to 5, a last 1×1 convolution."""

    stem: StemWidths = (32, 32, 64, 80, 192)
    stages: tuple[Stage, ...] = (_STAGE_3, _STAGE_4, _STAGE_5)
    last: int = 1536  # filters of the convolution before the head
    form: Form = field(default_factory=Form)
    input_size: int = 299

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels that leaves one pixel in the last map."""
        return 75

    def trunk(self, x: Tensor) -> Trunk:
        """Build stem and stages. "stage1", "stage2": the stem's maps at a half and a quarter."""
        x, features = stem(x, self.stem, self.form)
        for number, stage in enumerate(self.stages, 3):
            x = inception_module(x, stage.first, self.form, f"stage{number}_{stage.letter}")
            for block in range(1, stage.blocks + 1):
                last = number == len(self.stages) + 2 and block == stage.blocks
                x = self._unit(x, stage, f"stage{number}_block{block}", last)
            features[f"stage{number}"] = x
        name = f"stage{len(self.stages) + 2}"
        x = features[name] = convolution(x, Conv(1, self.last), self.form, f"{name}_{{}}")
        return Trunk(x, features)

    def _unit(self, x: Tensor, stage: Stage, name: str, last: bool) -> Tensor:
        """Build `relu(x + scale · F(x))`. The network's last unit has no scale and no ReLU."""
        y = inception_module(x, stage.block, self.form, name)
        # A linear layer, with a bias and without BN, restores the width of x.
        initializer = self.form.kernel_initializer
        y = Conv2D(x.shape[-1], 1, kernel_initializer=initializer, name=f"{name}_conv")(y)
        if last:
            return layers.Add(name=f"{name}_add")([x, y])
        y = layers.Rescaling(stage.scale, name=f"{name}_scale")(y)
        x = layers.Add(name=f"{name}_add")([x, y])
        return layers.Activation("relu", name=f"{name}_relu")(x)


InceptionResNetV2 = row(
    "InceptionResNetV2",
    InceptionResNetSpec(preprocessing="tf"),
    "Inception-ResNet v2 of Keras Applications and timm",
    "arXiv:1602.07261, Fig. 15; TF-Slim's stem",
    "inception_resnet_v2",
)


def _tiny(stage: Stage, blocks: int) -> Stage:
    first, block = narrow(stage.first, 16), narrow(stage.block, 16)
    return replace(stage, first=first, block=block, blocks=blocks)


register(
    "test_inception_resnet",
    InceptionResNetSpec(
        stem=(4, 4, 8, 8, 8),
        stages=(_tiny(_STAGE_3, 1), _tiny(_STAGE_4, 1), _tiny(_STAGE_5, 2)),
        last=32,
        preprocessing="cifar",
        input_size=75,
        classes=10,
    ),
    "Tiny Inception-ResNet v2 for tests",
    "of this project",
)
