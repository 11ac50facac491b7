"""Residual networks for CIFAR: a row is a public function, a registry name and a spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keras_resnet import registry
from keras_resnet.models.build import row
from keras_resnet.models.resnet import blocks, shortcuts, stems
from keras_resnet.models.resnet.blocks import PRE_ACTIVATION, Style
from keras_resnet.models.resnet.spec import HE_2015, IDENTITY_MAPPINGS, ResNetSpec

__all__ = [
    "WRN16_4",
    "WRN16_8",
    "WRN28_10",
    "WRN40_4",
    "Plain20",
    "Plain32",
    "Plain44",
    "Plain56",
    "Plain110",
    "ResNet8",
    "ResNet20",
    "ResNet20_B",
    "ResNet20_BN_After_Add",
    "ResNet20_C",
    "ResNet20_Constant_Scaling",
    "ResNet20_Conv_Shortcut",
    "ResNet20_Dropout_Shortcut",
    "ResNet20_Exclusive_Gating",
    "ResNet20_ReLU_Before_Add",
    "ResNet20_ReLU_Only_Preact",
    "ResNet20_Shortcut_Only_Gating",
    "ResNet32",
    "ResNet32_B",
    "ResNet32_C",
    "ResNet44",
    "ResNet44_B",
    "ResNet44_C",
    "ResNet56",
    "ResNet56_B",
    "ResNet56_BN_After_Add",
    "ResNet56_C",
    "ResNet56_Constant_Scaling",
    "ResNet56_Conv_Shortcut",
    "ResNet56_Dropout_Shortcut",
    "ResNet56_Exclusive_Gating",
    "ResNet56_ReLU_Before_Add",
    "ResNet56_ReLU_Only_Preact",
    "ResNet56_Shortcut_Only_Gating",
    "ResNet110",
    "ResNet110_B",
    "ResNet110_BN_After_Add",
    "ResNet110_C",
    "ResNet110_Constant_Scaling",
    "ResNet110_Conv_Shortcut",
    "ResNet110_Dropout_Shortcut",
    "ResNet110_Exclusive_Gating",
    "ResNet110_ReLU_Before_Add",
    "ResNet110_ReLU_Only_Preact",
    "ResNet110_Shortcut_Only_Gating",
    "ResNet164",
    "ResNet164_BN_After_Add",
    "ResNet164_Constant_Scaling",
    "ResNet164_Conv_Shortcut",
    "ResNet164_Dropout_Shortcut",
    "ResNet164_Exclusive_Gating",
    "ResNet164_ReLU_Before_Add",
    "ResNet164_ReLU_Only_Preact",
    "ResNet164_Shortcut_Only_Gating",
    "ResNet1202",
    "ResNet1202_B",
    "ResNet1202_C",
    "ResNetV2_20",
    "ResNetV2_32",
    "ResNetV2_44",
    "ResNetV2_56",
    "ResNetV2_110",
    "ResNetV2_164",
    "ResNetV2_1001",
    "SEResNet20",
    "SEResNet32",
    "SEResNet56",
    "SEResNet110",
    "SEResNet164",
    "WRN28_10_Dropout",
]

# CIFAR, v1: 6n + 2 weight layers ------------------------------------------------------------------

_CIFAR = ResNetSpec(
    depths=(3, 3, 3),
    widths=(16, 32, 64),
    transform=blocks.basic,
    shortcut=shortcuts.option_a,
    stem=stems.cifar_stem,
    stem_width=16,
    preprocessing="cifar",
    input_size=32,
    classes=10,
)
_CIFAR_SOURCE = f"{HE_2015}, section 4.2"


def _deep(spec: ResNetSpec, depth: int) -> ResNetSpec:
    """`spec` of 6n + 2 = `depth` weight layers; 164 and 1001 are 9n + 2, of bottlenecks.

    Those stride in their first 1×1 and have projections where channels change (Identity Mappings,
    appendix, and its authors' program); the others have option A.
    """
    if depth not in (164, 1001):
        return replace(spec, depths=((depth - 2) // 6,) * 3)
    return replace(
        spec,
        depths=((depth - 2) // 9,) * 3,
        transform=blocks.bottleneck,
        shortcut=shortcuts.option_b,
    )


def _cifar_v1(depth: int, option: str) -> registry.Builder:
    """ResNet-`depth` of the CIFAR family; its own name is option A's, as in the paper."""
    shortcut = {"A": shortcuts.option_a, "B": shortcuts.option_b, "C": shortcuts.option_c}[option]
    spec = replace(_deep(_CIFAR, depth), shortcut=shortcut)
    suffix = "" if option == "A" else f"_{option}"
    summary = f"CIFAR ResNet-{depth}, option {option} shortcuts"
    return row(f"ResNet{depth}{suffix}", spec, summary, _CIFAR_SOURCE)


ResNet20, ResNet20_B, ResNet20_C = (_cifar_v1(20, option) for option in "ABC")
ResNet32, ResNet32_B, ResNet32_C = (_cifar_v1(32, option) for option in "ABC")
ResNet44, ResNet44_B, ResNet44_C = (_cifar_v1(44, option) for option in "ABC")
ResNet56, ResNet56_B, ResNet56_C = (_cifar_v1(56, option) for option in "ABC")
ResNet110, ResNet110_B, ResNet110_C = (_cifar_v1(110, option) for option in "ABC")
ResNet1202, ResNet1202_B, ResNet1202_C = (_cifar_v1(1202, option) for option in "ABC")

ResNet8 = row(
    "ResNet8",
    replace(
        _CIFAR,
        depths=(1, 1, 1),
        shortcut=shortcuts.option_b,
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
    spec = _deep(_CIFAR_V2, depth)
    return row(f"ResNetV2_{depth}", spec, f"CIFAR pre-activation ResNet-{depth}", _CIFAR_V2_SOURCE)


ResNetV2_20 = _cifar_v2(20)
ResNetV2_32 = _cifar_v2(32)
ResNetV2_44 = _cifar_v2(44)
ResNetV2_56 = _cifar_v2(56)
ResNetV2_110 = _cifar_v2(110)
ResNetV2_164 = _cifar_v2(164)
ResNetV2_1001 = _cifar_v2(1001)

# Plain nets ---------------------------------------------------------------------------------------


def _plain(depth: int) -> registry.Builder:
    # Option A's padding is what no junction takes up: a plain net has no layer of its shortcuts.
    spec = replace(_deep(_CIFAR, depth), junction=shortcuts.no_shortcut)
    return row(f"Plain{depth}", spec, f"CIFAR ResNet-{depth} without shortcuts", _CIFAR_SOURCE)


Plain20 = _plain(20)
Plain32 = _plain(32)
Plain44 = _plain(44)
Plain56 = _plain(56)
Plain110 = _plain(110)

# The ablations of "Identity Mappings" -------------------------------------------------------------

ResNet164 = row(
    "ResNet164",
    _deep(_CIFAR, 164),
    "CIFAR ResNet-164 of bottlenecks, the original units",
    f"{IDENTITY_MAPPINGS}, Table 2",
)


def _ablation(name: str, summary: str, source: str, **changes: Any) -> tuple[registry.Builder, ...]:
    """The original ResNet-20, -56, -110 and -164 with `changes`."""
    return tuple(
        row(
            f"ResNet{depth}_{name}",
            replace(_deep(_CIFAR, depth), **changes),
            f"CIFAR ResNet-{depth}, {summary}",
            f"{IDENTITY_MAPPINGS}, {source}",
        )
        for depth in (20, 56, 110, 164)
    )


# Shortcuts (Table 1; where it has several settings, the best).
(
    ResNet20_Constant_Scaling,
    ResNet56_Constant_Scaling,
    ResNet110_Constant_Scaling,
    ResNet164_Constant_Scaling,
) = _ablation(
    "Constant_Scaling",
    "shortcut and residual scaled by 0.5",
    "Fig. 2b",
    junction=shortcuts.constant_scaling(0.5, 0.5),
)
(
    ResNet20_Exclusive_Gating,
    ResNet56_Exclusive_Gating,
    ResNet110_Exclusive_Gating,
    ResNet164_Exclusive_Gating,
) = _ablation(
    "Exclusive_Gating",
    "shortcut and residual gated, initial bias -6",
    "Fig. 2c",
    junction=shortcuts.exclusive_gating(-6.0),
)
(
    ResNet20_Shortcut_Only_Gating,
    ResNet56_Shortcut_Only_Gating,
    ResNet110_Shortcut_Only_Gating,
    ResNet164_Shortcut_Only_Gating,
) = _ablation(
    "Shortcut_Only_Gating",
    "shortcut gated, initial bias -6",
    "Fig. 2d",
    junction=shortcuts.shortcut_only_gating(-6.0),
)
(
    ResNet20_Conv_Shortcut,
    ResNet56_Conv_Shortcut,
    ResNet110_Conv_Shortcut,
    ResNet164_Conv_Shortcut,
) = _ablation(
    "Conv_Shortcut",
    "1×1 convolutions as shortcuts (option C)",
    "Fig. 2e",
    shortcut=shortcuts.option_c,
)
(
    ResNet20_Dropout_Shortcut,
    ResNet56_Dropout_Shortcut,
    ResNet110_Dropout_Shortcut,
    ResNet164_Dropout_Shortcut,
) = _ablation(
    "Dropout_Shortcut",
    "dropout of 0.5 on the shortcut",
    "Fig. 2f",
    junction=shortcuts.dropout_shortcut(0.5),
)

# Activations (Table 2); full pre-activation is ResNetV2.
(
    ResNet20_BN_After_Add,
    ResNet56_BN_After_Add,
    ResNet110_BN_After_Add,
    ResNet164_BN_After_Add,
) = _ablation("BN_After_Add", "BN after addition", "Fig. 4b", order=blocks.BN_AFTER_ADDITION)
(
    ResNet20_ReLU_Before_Add,
    ResNet56_ReLU_Before_Add,
    ResNet110_ReLU_Before_Add,
    ResNet164_ReLU_Before_Add,
) = _ablation(
    "ReLU_Before_Add", "ReLU before addition", "Fig. 4c", order=blocks.RELU_BEFORE_ADDITION
)
(
    ResNet20_ReLU_Only_Preact,
    ResNet56_ReLU_Only_Preact,
    ResNet110_ReLU_Only_Preact,
    ResNet164_ReLU_Only_Preact,
) = _ablation(
    "ReLU_Only_Preact",
    "ReLU-only pre-activation",
    "Fig. 4d",
    order=blocks.RELU_ONLY_PRE_ACTIVATION,
    activate_stem=True,
)

# SE -----------------------------------------------------------------------------------------------


def _se(depth: int) -> registry.Builder:
    spec = _deep(_CIFAR, depth)
    spec = replace(spec, transform=blocks.squeeze_excitation(spec.transform))
    return row(f"SEResNet{depth}", spec, f"CIFAR SE-ResNet-{depth}", "arXiv:1709.01507, Table 4")


SEResNet20 = _se(20)
SEResNet32 = _se(32)
SEResNet56 = _se(56)
SEResNet110 = _se(110)
SEResNet164 = _se(164)

# Wide: WRN-depth-k has 6n + 4 weight layers, k times as wide --------------------------------------


def _wrn(depth: int, k: int, dropout: float = 0.0) -> registry.Builder:
    spec = replace(
        _CIFAR_V2,
        depths=((depth - 4) // 6,) * 3,
        widths=(16 * k, 32 * k, 64 * k),
        transform=blocks.wide_basic(dropout),
        shortcut=shortcuts.option_b,
        activate_stem=False,
    )
    name, summary = f"WRN{depth}_{k}", f"Wide ResNet {depth}-{k} for CIFAR"
    if dropout:
        name, summary = f"{name}_Dropout", f"{summary}, dropout of {dropout} in its units"
    return row(name, spec, summary, "arXiv:1605.07146, Table 1")


WRN16_4 = _wrn(16, 4)
WRN16_8 = _wrn(16, 8)
WRN28_10 = _wrn(28, 10)
WRN28_10_Dropout = _wrn(28, 10, 0.3)
WRN40_4 = _wrn(40, 4)
