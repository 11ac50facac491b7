"""Residual networks for CIFAR: a row is a public function, a registry name and a spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keras_resnet.models.build import Row, register, row
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
    "ResNet20_C",
    "ResNet32",
    "ResNet32_B",
    "ResNet32_C",
    "ResNet44",
    "ResNet44_B",
    "ResNet44_C",
    "ResNet56",
    "ResNet56_B",
    "ResNet56_C",
    "ResNet110",
    "ResNet110_B",
    "ResNet110_C",
    "ResNet164",
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
    """Return `spec` with `depth` weight layers: 6n + 2, or 9n + 2 in bottlenecks for 164 and 1001.

    The bottlenecks have their stride in the first 1×1 and projections where the channels change
    (Identity Mappings, appendix, and its authors' program). The others have option A.
    """
    if depth not in (164, 1001):
        return replace(spec, depths=((depth - 2) // 6,) * 3)
    return replace(
        spec,
        depths=((depth - 2) // 9,) * 3,
        transform=blocks.bottleneck,
        shortcut=shortcuts.option_b,
    )


def _cifar_v1(depth: int, option: str) -> Row:
    """Return the row of the CIFAR ResNet-`depth`. The name without a suffix means option A."""
    shortcut = {"A": shortcuts.option_a, "B": shortcuts.option_b, "C": shortcuts.option_c}[option]
    spec = replace(_deep(_CIFAR, depth), shortcut=shortcut)
    suffix = "" if option == "A" else f"_{option}"
    summary = f"CIFAR ResNet-{depth}, option {option} shortcuts"
    return f"ResNet{depth}{suffix}", spec, summary, _CIFAR_SOURCE


ResNet20, ResNet20_B, ResNet20_C = (row(*_cifar_v1(20, option)) for option in "ABC")
ResNet32, ResNet32_B, ResNet32_C = (row(*_cifar_v1(32, option)) for option in "ABC")
ResNet44, ResNet44_B, ResNet44_C = (row(*_cifar_v1(44, option)) for option in "ABC")
ResNet56, ResNet56_B, ResNet56_C = (row(*_cifar_v1(56, option)) for option in "ABC")
ResNet110, ResNet110_B, ResNet110_C = (row(*_cifar_v1(110, option)) for option in "ABC")
ResNet1202, ResNet1202_B, ResNet1202_C = (row(*_cifar_v1(1202, option)) for option in "ABC")

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


def _cifar_v2(depth: int) -> Row:
    spec = _deep(_CIFAR_V2, depth)
    summary = f"CIFAR pre-activation ResNet-{depth}"
    return f"ResNetV2_{depth}", spec, summary, _CIFAR_V2_SOURCE


ResNetV2_20 = row(*_cifar_v2(20))
ResNetV2_32 = row(*_cifar_v2(32))
ResNetV2_44 = row(*_cifar_v2(44))
ResNetV2_56 = row(*_cifar_v2(56))
ResNetV2_110 = row(*_cifar_v2(110))
ResNetV2_164 = row(*_cifar_v2(164))
ResNetV2_1001 = row(*_cifar_v2(1001))

# Plain nets ---------------------------------------------------------------------------------------


def _plain(depth: int) -> Row:
    # Option A has no weights, and `no_shortcut` ignores its padding: no shortcut layer remains.
    spec = replace(_deep(_CIFAR, depth), junction=shortcuts.no_shortcut)
    return f"Plain{depth}", spec, f"CIFAR ResNet-{depth} without shortcuts", _CIFAR_SOURCE


Plain20 = row(*_plain(20))
Plain32 = row(*_plain(32))
Plain44 = row(*_plain(44))
Plain56 = row(*_plain(56))
Plain110 = row(*_plain(110))

# The ablations of "Identity Mappings" -------------------------------------------------------------

ResNet164 = row(
    "ResNet164",
    _deep(_CIFAR, 164),
    "CIFAR ResNet-164 of bottlenecks, the original units",
    f"{IDENTITY_MAPPINGS}, Table 2",
)


# (registry name, figure, description, changed fields of the original units)
_ABLATIONS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    # Shortcuts (Table 1; of several settings, the best).
    (
        "constant_scaling",
        "Fig. 2b",
        "shortcut and residual scaled by 0.5",
        {"junction": shortcuts.constant_scaling(0.5, 0.5)},
    ),
    (
        "exclusive_gating",
        "Fig. 2c",
        "shortcut and residual gated, initial bias -6",
        {"junction": shortcuts.exclusive_gating(-6.0)},
    ),
    (
        "shortcut_only_gating",
        "Fig. 2d",
        "shortcut gated, initial bias -6",
        {"junction": shortcuts.shortcut_only_gating(-6.0)},
    ),
    (
        "conv_shortcut",
        "Fig. 2e",
        "1×1 convolutions as shortcuts (option C)",
        {"shortcut": shortcuts.option_c},
    ),
    (
        "dropout_shortcut",
        "Fig. 2f",
        "dropout of 0.5 on the shortcut",
        {"junction": shortcuts.dropout_shortcut(0.5)},
    ),
    # Activations (Table 2). Full pre-activation is ResNetV2.
    ("bn_after_add", "Fig. 4b", "BN after addition", {"order": blocks.BN_AFTER_ADDITION}),
    ("relu_before_add", "Fig. 4c", "ReLU before addition", {"order": blocks.RELU_BEFORE_ADDITION}),
    (
        "relu_only_preact",
        "Fig. 4d",
        "ReLU-only pre-activation",
        {"order": blocks.RELU_ONLY_PRE_ACTIVATION, "activate_stem": True},
    ),
)
for _name, _figure, _what, _changes in _ABLATIONS:
    for _depth in (20, 56, 110, 164):
        register(
            f"resnet{_depth}_{_name}",
            replace(_deep(_CIFAR, _depth), **_changes),
            f"CIFAR ResNet-{_depth}, {_what}",
            f"{IDENTITY_MAPPINGS}, {_figure}",
        )

# SE -----------------------------------------------------------------------------------------------


def _se(depth: int) -> Row:
    spec = _deep(_CIFAR, depth)
    spec = replace(spec, transform=blocks.squeeze_excitation(spec.transform))
    return f"SEResNet{depth}", spec, f"CIFAR SE-ResNet-{depth}", "arXiv:1709.01507, Table 4"


SEResNet20 = row(*_se(20))
SEResNet32 = row(*_se(32))
SEResNet56 = row(*_se(56))
SEResNet110 = row(*_se(110))
SEResNet164 = row(*_se(164))

# Wide: WRN-depth-k has 6n + 4 weight layers, k times as wide --------------------------------------


def _wrn(depth: int, k: int, dropout: float = 0.0) -> Row:
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
    return name, spec, summary, "arXiv:1605.07146, Table 1"


WRN16_4 = row(*_wrn(16, 4))
WRN16_8 = row(*_wrn(16, 8))
WRN28_10 = row(*_wrn(28, 10))
WRN28_10_Dropout = row(*_wrn(28, 10, 0.3))
WRN40_4 = row(*_wrn(40, 4))
