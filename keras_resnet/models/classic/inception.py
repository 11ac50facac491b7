"""Inception v3 as in Keras Applications and as in torchvision, with its auxiliary classifier."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from keras import layers

from keras_resnet.models.build import register, row
from keras_resnet.models.classic.branches import (
    Conv,
    Fork,
    Form,
    Module,
    Pool,
    convolution,
    inception_module,
    narrow,
)
from keras_resnet.models.network import Network, Tensor, Trunk

__all__ = ["InceptionV3", "InceptionV3_Torch"]


def strided_3x3(filters: int) -> Conv:
    """Return the 3×3 of stride 2 that ends a branch of a reduction."""
    return Conv(3, filters, 2, "valid")


# Modules (arXiv:1512.00567; torchvision's InceptionA to E) ----------------------------------------


def factorized_5x5(projection: int) -> Module:
    """Return the module of Fig. 5 for 35×35 maps. One 5×5 remains."""
    return (
        (Conv(1, 64),),
        (Conv(1, 48), Conv(5, 64)),
        (Conv(1, 64), Conv(3, 96), Conv(3, 96)),
        (Pool("average"), Conv(1, projection)),
    )


def factorized_7x7(width: int) -> Module:
    """Return the module of Fig. 6 with n = 7 for 17×17 maps."""
    return (
        (Conv(1, 192),),
        (Conv(1, width), Conv((1, 7), width), Conv((7, 1), 192)),
        (
            Conv(1, width),
            Conv((7, 1), width),
            Conv((1, 7), width),
            Conv((7, 1), width),
            Conv((1, 7), 192),
        ),
        (Pool("average"), Conv(1, 192)),
    )


_WIDE_FORK = Fork((Conv((1, 3), 384), Conv((3, 1), 384)))

# Fig. 7, for 8×8 maps.
EXPANDED: Module = (
    (Conv(1, 320),),
    (Conv(1, 384), _WIDE_FORK),
    (Conv(1, 448), Conv(3, 384), _WIDE_FORK),
    (Pool("average"), Conv(1, 192)),
)

# Fig. 10: from 35×35 to 17×17, and from 17×17 to 8×8.
REDUCTION_A: Module = (
    (strided_3x3(384),),
    (Conv(1, 64), Conv(3, 96), strided_3x3(96)),
    (Pool("max", 2),),
)
REDUCTION_B: Module = (
    (Conv(1, 192), strided_3x3(320)),
    (Conv(1, 192), Conv((1, 7), 192), Conv((7, 1), 192), strided_3x3(192)),
    (Pool("max", 2),),
)

# (letter, module) of the stages at 35×35, 17×17 and 8×8, lettered as torchvision's Mixed_5b, ...
Stage = tuple[tuple[str, Module], ...]

_STAGES: tuple[Stage, ...] = (
    (("b", factorized_5x5(32)), ("c", factorized_5x5(64)), ("d", factorized_5x5(64))),
    (
        ("a", REDUCTION_A),
        ("b", factorized_7x7(128)),
        ("c", factorized_7x7(160)),
        ("d", factorized_7x7(160)),
        ("e", factorized_7x7(192)),
    ),
    (("a", REDUCTION_B), ("b", EXPANDED), ("c", EXPANDED)),
)

# The network --------------------------------------------------------------------------------------

StemWidths = tuple[int, int, int, int, int]


def stem(x: Tensor, widths: StemWidths, form: Form) -> tuple[Tensor, dict[str, Tensor]]:
    """Build the five convolutions and two pools of Inception v3 (Table 1) and Inception-ResNet v2.

    Returns:
        The last map, at an eighth of the image size, and the last maps at a half and a quarter.
    """
    convs = (
        Conv(3, widths[0], 2, "valid"),
        Conv(3, widths[1], 1, "valid"),
        Conv(3, widths[2]),
        Conv(1, widths[3]),
        Conv(3, widths[4], 1, "valid"),
    )
    features: dict[str, Tensor] = {}
    for number, conv in enumerate(convs, 1):
        x = convolution(x, conv, form, f"stem_{{}}{number}")
        if number in (3, 5):
            features[f"stage{len(features) + 1}"] = x
            x = layers.MaxPooling2D(3, strides=2, name=f"stem_pool{len(features)}")(x)
    return x, features


@dataclass(frozen=True, kw_only=True)
class InceptionSpec(Network):
    """An Inception v3: stem and stages 3 to 5 of modules."""

    stem: StemWidths = (32, 32, 64, 80, 192)
    stages: tuple[Stage, ...] = _STAGES
    form: Form = field(default_factory=Form)
    # Train with the auxiliary classifier on the last 17×17 map: two outputs.
    auxiliary: bool = False
    auxiliary_widths: tuple[int, int] = (128, 768)  # of its 1×1 and its 5×5
    input_size: int = 299

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels: one pixel is left in the last map or the auxiliary 5×5."""
        return 299 if self.auxiliary else 75

    def trunk(self, x: Tensor) -> Trunk:
        """Build stem and modules. "stage1", "stage2": the stem's maps at a half and a quarter."""
        x, features = stem(x, self.stem, self.form)
        for number, stage in enumerate(self.stages, 3):
            for letter, module in stage:
                x = inception_module(x, module, self.form, f"stage{number}_{letter}")
            features[f"stage{number}"] = x
        return Trunk(x, features, {"aux1": features["stage4"]} if self.auxiliary else {})

    def auxiliary_head(self, name: str, x: Tensor, classes: int) -> Tensor:
        """Build the auxiliary classifier (arXiv:1512.00567, section 4 and Fig. 8; torchvision)."""
        x = layers.AveragePooling2D(5, strides=3, name=f"{name}_pool")(x)
        projected, convolved = self.auxiliary_widths
        x = convolution(x, Conv(1, projected), self.form, f"{name}_{{}}1")
        x = convolution(x, Conv(5, convolved, 1, "valid"), self.form, f"{name}_{{}}2")
        x = layers.GlobalAveragePooling2D(dtype="float32", name=f"{name}_head_pool")(x)
        return layers.Dense(classes, dtype="float32", name=f"{name}_head")(x)


_PAPER = "arXiv:1512.00567, Table 1"

# Keras Applications' BN has no gamma (ours is 1 there). It has no dropout, no auxiliary classifier.
_KERAS = InceptionSpec(preprocessing="tf")
InceptionV3 = row(
    "InceptionV3",
    _KERAS,
    "Inception v3 of Keras Applications; with auxiliary=True its auxiliary classifier",
    f"{_PAPER}; keras.applications' form",
    "inception_v3",
)
# Named after PyTorch, because it differs from Keras Applications' only in how PyTorch averages at
# the borders (and so timm's inception_v3). Preprocessing: see googlenet_bn.
InceptionV3_Torch = row(
    "InceptionV3_Torch",
    replace(_KERAS, dropout=0.5, form=Form(pool_counts_padding=True)),
    "Inception v3 of torchvision and timm: average pools count the padding",
    f"{_PAPER}; torchvision's form",
    "inception_v3_torch",
)
_SIXTEENTH = tuple(
    tuple((letter, narrow(module, 16)) for letter, module in stage[:count])
    for stage, count in zip(_STAGES, (1, 2, 2), strict=True)
)
register(
    "test_inception",
    InceptionSpec(
        stem=(4, 4, 8, 8, 8),
        stages=_SIXTEENTH,
        auxiliary_widths=(8, 16),
        preprocessing="cifar",
        input_size=75,
        classes=10,
    ),
    "Tiny Inception v3 for tests",
    "of this project",
)
