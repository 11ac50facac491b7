"""The table of residual networks: a row is a public function, a registry name and a spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras

from keras_resnet import registry
from keras_resnet.models import blocks
from keras_resnet.models.blocks import PRE_ACTIVATION, Style
from keras_resnet.models.resnet import ResNetSpec, build

HE_2015 = "arXiv:1512.03385"
IDENTITY_MAPPINGS = "arXiv:1603.05027"

SPECS: dict[str, ResNetSpec] = {}


def _row(function: str, spec: ResNetSpec, summary: str, source: str) -> registry.Builder:
    """Register `spec` and return its public function; the registry name is in lower case."""
    registry_name = function.lower()

    def builder(
        include_top: bool = True,
        weights: str | None = None,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | None = "softmax",
        name: str | None = None,
        include_preprocessing: bool = False,
    ) -> keras.Model:
        return build(
            spec,
            include_top=include_top,
            weights=weights,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name or registry_name,
            include_preprocessing=include_preprocessing,
        )

    builder.__name__ = builder.__qualname__ = function
    builder.__doc__ = (
        f"{summary} ({source}).\n\nRegistry name `{registry_name}`; by default "
        f"{spec.input_size}×{spec.input_size}×3 in, {spec.classes} classes out, preprocessing "
        f'"{spec.preprocessing}". Arguments, shapes and errors: see `keras_resnet.build`.'
    )
    SPECS[registry_name] = spec
    registry.register(
        registry.Architecture(
            name=registry_name,
            builder=builder,
            summary=summary,
            source=source,
            preprocessing=spec.preprocessing,
            input_size=spec.input_size,
            min_size=spec.min_size,
            classes=spec.classes,
        )
    )
    return builder


# ImageNet, v1: the paper's -----------------------------------------------------------------------

_V1 = ResNetSpec(
    depths=(2, 2, 2, 2),
    widths=(64, 128, 256, 512),
    transform=blocks.basic,
    style=Style(bn_epsilon=1.001e-5),  # Keras Applications'
    preprocessing="caffe",
)
_T1 = f"{HE_2015}, Table 1"

ResNet18 = _row("ResNet18", replace(_V1, style=Style(), preprocessing="torch"), "ResNet-18", _T1)
ResNet34 = _row(
    "ResNet34",
    replace(_V1, depths=(3, 4, 6, 3), style=Style(), preprocessing="torch"),
    "ResNet-34",
    _T1,
)
_V1_50 = replace(_V1, transform=blocks.bottleneck, depths=(3, 4, 6, 3))
ResNet50 = _row(
    "ResNet50",
    _V1_50,
    "ResNet-50 as in the paper, stride in the first 1×1 (timm's resnet50 is resnet50v1_5)",
    _T1,
)
ResNet101 = _row(
    "ResNet101",
    replace(_V1_50, depths=(3, 4, 23, 3)),
    "ResNet-101 as in the paper (timm's resnet101 is resnet101v1_5)",
    _T1,
)
ResNet152 = _row(
    "ResNet152",
    replace(_V1_50, depths=(3, 8, 36, 3)),
    "ResNet-152 as in the paper (timm's resnet152 is resnet152v1_5)",
    _T1,
)

# ImageNet, v1.5: stride in the 3×3 ---------------------------------------------------------------

_V1_5 = replace(_V1_50, transform=blocks.bottleneck_v1_5, style=Style(), preprocessing="torch")
_T1_5 = f"{HE_2015}, Table 1, with the stride in the 3×3"

ResNet50V1_5 = _row(
    "ResNet50V1_5", _V1_5, "ResNet-50 v1.5, what torchvision and timm call resnet50", _T1_5
)
ResNet101V1_5 = _row(
    "ResNet101V1_5",
    replace(_V1_5, depths=(3, 4, 23, 3)),
    "ResNet-101 v1.5, what torchvision and timm call resnet101",
    _T1_5,
)
ResNet152V1_5 = _row(
    "ResNet152V1_5",
    replace(_V1_5, depths=(3, 8, 36, 3)),
    "ResNet-152 v1.5, what torchvision and timm call resnet152",
    _T1_5,
)

# ImageNet, v2 in Keras Applications' form ---------------------------------------------------------

_KERAS_V2 = ResNetSpec(
    depths=(3, 4, 6, 3),
    widths=(64, 128, 256, 512),
    transform=blocks.bottleneck_v1_5,
    order=PRE_ACTIVATION,
    stem=blocks.imagenet_stem,  # pads un-activated features with zeros; the paper's form: -inf
    stride_unit="last",
    style=Style(conv_bias="without_bn", bn_epsilon=1.001e-5),
    preprocessing="tf",
)
_KERAS = f"{IDENTITY_MAPPINGS}; keras.applications' form"

ResNet50V2 = _row("ResNet50V2", _KERAS_V2, "Pre-activation ResNet-50 of Keras Applications", _KERAS)
ResNet101V2 = _row(
    "ResNet101V2",
    replace(_KERAS_V2, depths=(3, 4, 23, 3)),
    "Pre-activation ResNet-101 of Keras Applications",
    _KERAS,
)
ResNet152V2 = _row(
    "ResNet152V2",
    replace(_KERAS_V2, depths=(3, 8, 36, 3)),
    "Pre-activation ResNet-152 of Keras Applications",
    _KERAS,
)

# ImageNet, v2 in the paper's form (timm's names) --------------------------------------------------

_V2 = ResNetSpec(
    depths=(2, 2, 2, 2),
    widths=(64, 128, 256, 512),
    transform=blocks.basic,
    order=PRE_ACTIVATION,
    stem=blocks.imagenet_preact_stem,
    preprocessing="tf",
)
_V2_50 = replace(_V2, transform=blocks.bottleneck_v1_5, depths=(3, 4, 6, 3))
_FULL = f"{IDENTITY_MAPPINGS}, Fig. 4e"

ResNetV2_18 = _row("ResNetV2_18", _V2, "Pre-activation ResNet-18", _FULL)
ResNetV2_34 = _row(
    "ResNetV2_34", replace(_V2, depths=(3, 4, 6, 3)), "Pre-activation ResNet-34", _FULL
)
ResNetV2_50 = _row("ResNetV2_50", _V2_50, "Pre-activation ResNet-50", _FULL)
ResNetV2_101 = _row(
    "ResNetV2_101", replace(_V2_50, depths=(3, 4, 23, 3)), "Pre-activation ResNet-101", _FULL
)
ResNetV2_152 = _row(
    "ResNetV2_152", replace(_V2_50, depths=(3, 8, 36, 3)), "Pre-activation ResNet-152", _FULL
)
ResNetV2_200 = _row(
    "ResNetV2_200",
    replace(_V2_50, depths=(3, 24, 36, 3)),
    "Pre-activation ResNet-200",
    f"{IDENTITY_MAPPINGS}, Table 5",
)

# CIFAR, v1: 6n + 2 weight layers ------------------------------------------------------------------

_CIFAR = ResNetSpec(
    depths=(3, 3, 3),
    widths=(16, 32, 64),
    transform=blocks.basic,
    shortcut=blocks.option_a,
    stem=blocks.cifar_stem,
    stem_width=16,
    preprocessing="cifar",
    input_size=32,
    classes=10,
)
_CIFAR_SOURCE = f"{HE_2015}, section 4.2"


def _cifar_v1(depth: int, option: str) -> registry.Builder:
    """ResNet-`depth` of the CIFAR family; its own name is option A's, as in the paper."""
    shortcut = {"A": blocks.option_a, "B": blocks.option_b, "C": blocks.option_c}[option]
    spec = replace(_CIFAR, depths=((depth - 2) // 6,) * 3, shortcut=shortcut)
    suffix = "" if option == "A" else f"_{option}"
    summary = f"CIFAR ResNet-{depth}, option {option} shortcuts"
    return _row(f"ResNet{depth}{suffix}", spec, summary, _CIFAR_SOURCE)


ResNet20, ResNet20_B, ResNet20_C = (_cifar_v1(20, option) for option in "ABC")
ResNet32, ResNet32_B, ResNet32_C = (_cifar_v1(32, option) for option in "ABC")
ResNet44, ResNet44_B, ResNet44_C = (_cifar_v1(44, option) for option in "ABC")
ResNet56, ResNet56_B, ResNet56_C = (_cifar_v1(56, option) for option in "ABC")
ResNet110, ResNet110_B, ResNet110_C = (_cifar_v1(110, option) for option in "ABC")
ResNet1202, ResNet1202_B, ResNet1202_C = (_cifar_v1(1202, option) for option in "ABC")

ResNet8 = _row(
    "ResNet8",
    replace(
        _CIFAR,
        depths=(1, 1, 1),
        shortcut=blocks.option_b,
        style=Style(
            conv_bias="all",
            padding="same",
            shortcut_bn=False,
            bn_epsilon=1e-3,
        ),
        preprocessing="raw",
    ),
    "ResNet-8 of MLPerf Tiny, for microcontrollers",
    "arXiv:2106.07597, image classification",
)

# CIFAR, v2 ----------------------------------------------------------------------------------------

_CIFAR_V2 = replace(_CIFAR, order=PRE_ACTIVATION, activate_stem=True)
_CIFAR_V2_SOURCE = f"{IDENTITY_MAPPINGS}, section 4"


def _cifar_v2(depth: int) -> registry.Builder:
    """Basic units to 110 (6n + 2, option A), bottlenecks beyond (9n + 2, projections)."""
    if depth <= 110:
        spec = replace(_CIFAR_V2, depths=((depth - 2) // 6,) * 3)
    else:
        spec = replace(
            _CIFAR_V2,
            depths=((depth - 2) // 9,) * 3,
            transform=blocks.bottleneck_v1_5,
            shortcut=blocks.option_b,
        )
    return _row(f"ResNetV2_{depth}", spec, f"CIFAR pre-activation ResNet-{depth}", _CIFAR_V2_SOURCE)


ResNetV2_20 = _cifar_v2(20)
ResNetV2_32 = _cifar_v2(32)
ResNetV2_44 = _cifar_v2(44)
ResNetV2_56 = _cifar_v2(56)
ResNetV2_110 = _cifar_v2(110)
ResNetV2_164 = _cifar_v2(164)
ResNetV2_1001 = _cifar_v2(1001)
