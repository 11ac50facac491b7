"""Residual networks for ImageNet: a row is a public function, a registry name and a spec."""

from __future__ import annotations

from dataclasses import replace

from keras_resnet.models.build import Row, register, row
from keras_resnet.models.resnet import blocks, shortcuts, stems
from keras_resnet.models.resnet.blocks import PRE_ACTIVATION, Style
from keras_resnet.models.resnet.spec import HE_2015, IDENTITY_MAPPINGS, ResNetSpec

__all__ = [
    "Plain18",
    "Plain34",
    "ResNeXt50_32x4d",
    "ResNeXt101_32x4d",
    "ResNeXt101_32x8d",
    "ResNeXt101_64x4d",
    "ResNet18",
    "ResNet18D",
    "ResNet18D_Half",
    "ResNet18_A",
    "ResNet18_C",
    "ResNet34",
    "ResNet34D",
    "ResNet34_A",
    "ResNet34_C",
    "ResNet50",
    "ResNet50C",
    "ResNet50D",
    "ResNet50S",
    "ResNet50V1_5",
    "ResNet50V2",
    "ResNet50_A",
    "ResNet50_C",
    "ResNet101",
    "ResNet101D",
    "ResNet101V1_5",
    "ResNet101V2",
    "ResNet101_A",
    "ResNet101_C",
    "ResNet152",
    "ResNet152D",
    "ResNet152V1_5",
    "ResNet152V2",
    "ResNet152_A",
    "ResNet152_C",
    "ResNet200D",
    "ResNetV2_18",
    "ResNetV2_34",
    "ResNetV2_50",
    "ResNetV2_101",
    "ResNetV2_152",
    "ResNetV2_200",
    "SEResNeXt50_32x4d",
    "SEResNeXt101_32x4d",
    "SEResNeXt101_32x8d",
    "SEResNeXt101_64x4d",
    "SEResNet18",
    "SEResNet34",
    "SEResNet50",
    "SEResNet101",
    "SEResNet152",
    "Wide_ResNet50_2",
    "Wide_ResNet101_2",
]

# ImageNet, v1 as in the paper --------------------------------------------------------------------

# Units per stage (He 2015, Table 1; 200: Identity Mappings, Table 5).
_D18, _D34, _D50 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3)
_D101, _D152, _D200 = (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)

_V1 = ResNetSpec(
    depths=_D18,
    widths=(64, 128, 256, 512),
    transform=blocks.basic,
    style=Style(bn_epsilon=1.001e-5),  # Keras Applications'
    preprocessing="caffe",
)
_T1 = f"{HE_2015}, Table 1"

_V1_18 = replace(_V1, style=Style(), preprocessing="torch")
_V1_34 = replace(_V1_18, depths=_D34)
ResNet18 = row("ResNet18", _V1_18, "ResNet-18", _T1)
ResNet34 = row("ResNet34", _V1_34, "ResNet-34", _T1)
_V1_50 = replace(_V1, transform=blocks.bottleneck, depths=_D50)
ResNet50 = row(
    "ResNet50",
    _V1_50,
    "ResNet-50 as in the paper, stride in the first 1×1 (timm's resnet50 is resnet50v1_5)",
    _T1,
)
ResNet101 = row(
    "ResNet101",
    replace(_V1_50, depths=_D101),
    "ResNet-101 as in the paper (timm's resnet101 is resnet101v1_5)",
    _T1,
)
ResNet152 = row(
    "ResNet152",
    replace(_V1_50, depths=_D152),
    "ResNet-152 as in the paper (timm's resnet152 is resnet152v1_5)",
    _T1,
)

# ImageNet, v1.5: stride in the 3×3 ---------------------------------------------------------------

_V1_5 = replace(_V1_50, transform=blocks.bottleneck_v1_5, style=Style(), preprocessing="torch")
_T1_5 = f"{HE_2015}, Table 1, with the stride in the 3×3"

ResNet50V1_5 = row(
    "ResNet50V1_5", _V1_5, "ResNet-50 v1.5, what torchvision and timm call resnet50", _T1_5
)
ResNet101V1_5 = row(
    "ResNet101V1_5",
    replace(_V1_5, depths=_D101),
    "ResNet-101 v1.5, what torchvision and timm call resnet101",
    _T1_5,
)
ResNet152V1_5 = row(
    "ResNet152V1_5",
    replace(_V1_5, depths=_D152),
    "ResNet-152 v1.5, what torchvision and timm call resnet152",
    _T1_5,
)

# ImageNet, v2 in Keras Applications' form ---------------------------------------------------------

_KERAS_V2 = ResNetSpec(
    depths=_D50,
    widths=(64, 128, 256, 512),
    transform=blocks.bottleneck_v1_5,
    order=PRE_ACTIVATION,
    stem=stems.imagenet_stem,  # pads with zeros before the first ReLU; the paper: -inf
    stride_unit="last",
    style=Style(conv_bias="without_bn", bn_epsilon=1.001e-5),
    preprocessing="tf",
)
_KERAS = f"{IDENTITY_MAPPINGS}; keras.applications' form"

ResNet50V2 = row("ResNet50V2", _KERAS_V2, "Pre-activation ResNet-50 of Keras Applications", _KERAS)
ResNet101V2 = row(
    "ResNet101V2",
    replace(_KERAS_V2, depths=_D101),
    "Pre-activation ResNet-101 of Keras Applications",
    _KERAS,
)
ResNet152V2 = row(
    "ResNet152V2",
    replace(_KERAS_V2, depths=_D152),
    "Pre-activation ResNet-152 of Keras Applications",
    _KERAS,
)

# ImageNet, v2 in the paper's form (timm's names) --------------------------------------------------

_V2 = ResNetSpec(
    depths=_D18,
    widths=(64, 128, 256, 512),
    transform=blocks.basic,
    order=PRE_ACTIVATION,
    stem=stems.imagenet_preact_stem,
    preprocessing="tf",
)
_V2_50 = replace(_V2, transform=blocks.bottleneck_v1_5, depths=_D50)
_FULL = f"{IDENTITY_MAPPINGS}, Fig. 4e"

ResNetV2_18 = row("ResNetV2_18", _V2, "Pre-activation ResNet-18", _FULL)
ResNetV2_34 = row("ResNetV2_34", replace(_V2, depths=_D34), "Pre-activation ResNet-34", _FULL)
ResNetV2_50 = row("ResNetV2_50", _V2_50, "Pre-activation ResNet-50", _FULL)
ResNetV2_101 = row(
    "ResNetV2_101", replace(_V2_50, depths=_D101), "Pre-activation ResNet-101", _FULL
)
ResNetV2_152 = row(
    "ResNetV2_152", replace(_V2_50, depths=_D152), "Pre-activation ResNet-152", _FULL
)
ResNetV2_200 = row(
    "ResNetV2_200",
    replace(_V2_50, depths=_D200),
    "Pre-activation ResNet-200",
    f"{IDENTITY_MAPPINGS}, Table 5",
)

# Plain nets, and the shortcut options -------------------------------------------------------------


def _plain(spec: ResNetSpec) -> ResNetSpec:
    # Option A has no weights, and `no_shortcut` ignores its padding.
    return replace(spec, shortcut=shortcuts.option_a, junction=shortcuts.no_shortcut)


Plain18 = row("Plain18", _plain(_V1_18), "ResNet-18 without shortcuts", _T1)
Plain34 = row("Plain34", _plain(_V1_34), "ResNet-34 without shortcuts", _T1)


def _option(option: str, depth: int, spec: ResNetSpec) -> Row:
    """Return the row of ResNet-`depth` with option A or C. No suffix means option B."""
    shortcut = {"A": shortcuts.option_a, "C": shortcuts.option_c}[option]
    summary = f"ResNet-{depth}, option {option} shortcuts"
    return (
        f"ResNet{depth}_{option}",
        replace(spec, shortcut=shortcut),
        summary,
        f"{HE_2015}, section 3.3",
    )


ResNet18_A, ResNet18_C = (row(*_option(option, 18, _V1_18)) for option in "AC")
ResNet34_A, ResNet34_C = (row(*_option(option, 34, _V1_34)) for option in "AC")
ResNet50_A, ResNet50_C = (row(*_option(option, 50, _V1_50)) for option in "AC")
_V1_101, _V1_152 = replace(_V1_50, depths=_D101), replace(_V1_50, depths=_D152)
ResNet101_A, ResNet101_C = (row(*_option(option, 101, _V1_101)) for option in "AC")
ResNet152_A, ResNet152_C = (row(*_option(option, 152, _V1_152)) for option in "AC")

# ResNet-C, -D and -S: other stems and shortcuts (timm's names) ------------------------------------

_TRICKS = "arXiv:1812.01187, section 4"


def _d(spec: ResNetSpec) -> ResNetSpec:
    return replace(spec, stem=stems.deep_stem, shortcut=shortcuts.option_d)


_V1_5C = replace(_V1_5, stem=stems.deep_stem)
_V1_5D = _d(_V1_5)

ResNet50C = row("ResNet50C", _V1_5C, "ResNet-50-C: deep stem", _TRICKS)
ResNet50S = row(
    "ResNet50S",
    replace(_V1_5C, stem_width=128),
    "ResNet-50-S: deep stem of twice the width",
    "timm's resnet50s",
)
_DEEP = "deep stem, average-pool shortcuts"
ResNet18D = row("ResNet18D", _d(_V1_18), f"ResNet-18-D: {_DEEP}", _TRICKS)
ResNet18D_Half = row(
    "ResNet18D_Half",
    replace(_d(_V1_18), widths=(32, 64, 128, 256), stem_width=32),
    "ResNet-18-D with half the filters, for files of under 3 MB",
    f"{_TRICKS}, with half the filters",
)
ResNet34D = row("ResNet34D", _d(_V1_34), f"ResNet-34-D: {_DEEP}", _TRICKS)
ResNet50D = row("ResNet50D", _V1_5D, f"ResNet-50-D: {_DEEP}", _TRICKS)
ResNet101D = row("ResNet101D", replace(_V1_5D, depths=_D101), f"ResNet-101-D: {_DEEP}", _TRICKS)
ResNet152D = row("ResNet152D", replace(_V1_5D, depths=_D152), f"ResNet-152-D: {_DEEP}", _TRICKS)
ResNet200D = row("ResNet200D", replace(_V1_5D, depths=_D200), f"ResNet-200-D: {_DEEP}", _TRICKS)

# Descendants: SE, ResNeXt, Wide -------------------------------------------------------------------

_SE = "arXiv:1709.01507, Table 1"
_NEXT = "arXiv:1611.05431, Table 1"
_WIDE = "arXiv:1605.07146, Table 8"


def _se(spec: ResNetSpec) -> ResNetSpec:
    return replace(spec, transform=blocks.squeeze_excitation(spec.transform, least=8))


SEResNet18 = row("SEResNet18", _se(_V1_18), "SE-ResNet-18", _SE)
SEResNet34 = row("SEResNet34", _se(_V1_34), "SE-ResNet-34", _SE)
SEResNet50 = row("SEResNet50", _se(_V1_5), "SE-ResNet-50", _SE)
SEResNet101 = row("SEResNet101", _se(replace(_V1_5, depths=_D101)), "SE-ResNet-101", _SE)
SEResNet152 = row("SEResNet152", _se(replace(_V1_5, depths=_D152)), "SE-ResNet-152", _SE)

_X50_32 = replace(_V1_5, transform=blocks.grouped(32, 4))
_X101_32 = replace(_X50_32, depths=_D101)
_X101_32X8 = replace(_X101_32, transform=blocks.grouped(32, 8))
_X101_64 = replace(_X101_32, transform=blocks.grouped(64, 4))

ResNeXt50_32x4d = row("ResNeXt50_32x4d", _X50_32, "ResNeXt-50 32×4d", _NEXT)
ResNeXt101_32x4d = row("ResNeXt101_32x4d", _X101_32, "ResNeXt-101 32×4d", _NEXT)
ResNeXt101_32x8d = row("ResNeXt101_32x8d", _X101_32X8, "ResNeXt-101 32×8d", _NEXT)
ResNeXt101_64x4d = row("ResNeXt101_64x4d", _X101_64, "ResNeXt-101 64×4d", _NEXT)

SEResNeXt50_32x4d = row("SEResNeXt50_32x4d", _se(_X50_32), "SE-ResNeXt-50 32×4d", _SE)
SEResNeXt101_32x4d = row("SEResNeXt101_32x4d", _se(_X101_32), "SE-ResNeXt-101 32×4d", _SE)
SEResNeXt101_32x8d = row("SEResNeXt101_32x8d", _se(_X101_32X8), "SE-ResNeXt-101 32×8d", _SE)
SEResNeXt101_64x4d = row("SEResNeXt101_64x4d", _se(_X101_64), "SE-ResNeXt-101 64×4d", _SE)

_W50 = replace(_V1_5, transform=blocks.grouped(1, 128))
Wide_ResNet50_2 = row("Wide_ResNet50_2", _W50, "Wide ResNet-50-2", _WIDE)
Wide_ResNet101_2 = row("Wide_ResNet101_2", replace(_W50, depths=_D101), "Wide ResNet-101-2", _WIDE)

# Tiny networks for tests --------------------------------------------------------------------------

_TEST = ResNetSpec(
    depths=(1, 2),
    widths=(8, 16),
    transform=blocks.basic,
    stem_width=8,
    preprocessing="cifar",
    input_size=32,
    classes=10,
)
_TINY = "of this project"
register(
    "test_resnet",
    _TEST,
    "Tiny ResNet for tests",
    _TINY,
)
register(
    "test_resnetv2",
    replace(_TEST, order=PRE_ACTIVATION, stem=stems.imagenet_preact_stem),
    "Tiny pre-activation ResNet for tests",
    _TINY,
)
register(
    "test_seresnextd",
    _se(_d(replace(_TEST, transform=blocks.grouped(4, 32)))),
    "Tiny SE-ResNeXt-D for tests",
    _TINY,
)
