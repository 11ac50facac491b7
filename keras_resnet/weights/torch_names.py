"""The layer names of PyTorch's networks (torchvision, timm, public CIFAR weights) in ours.

A row is a regular expression for the name of one of their modules, and our layer's name with the
expression's groups in it; a family is a tuple of rows. A new network is a new tuple.
"""

from __future__ import annotations

import re

# A group whose name ends in 0 counts from 0 in theirs and from 1 in ours.
Row = tuple[str, str]

_BLOCK = r"layer(?P<stage>\d+)\.(?P<block0>\d+)\."
_OUR_BLOCK = "stage{stage}_block{block0}_"

_UNITS: tuple[Row, ...] = (
    (_BLOCK + r"(?P<kind>conv|bn)(?P<number>\d)", _OUR_BLOCK + "{kind}{number}"),
    (_BLOCK + r"se\.fc1", _OUR_BLOCK + "se_reduce"),
    (_BLOCK + r"se\.fc2", _OUR_BLOCK + "se_expand"),
    (r"fc|linear", "head"),
)
_STEM: tuple[Row, ...] = ((r"conv1", "stem_conv"), (r"bn1", "stem_bn"))
_DEEP_STEM: tuple[Row, ...] = (
    (r"conv1\.0", "stem_conv1"),
    (r"conv1\.1", "stem_bn1"),
    (r"conv1\.3", "stem_conv2"),
    (r"conv1\.4", "stem_bn2"),
    (r"conv1\.6", "stem_conv3"),
    (r"bn1", "stem_bn3"),
)
_SHORTCUT: tuple[Row, ...] = (
    (_BLOCK + r"(downsample|shortcut)\.0", _OUR_BLOCK + "shortcut_conv"),
    (_BLOCK + r"(downsample|shortcut)\.1", _OUR_BLOCK + "shortcut_bn"),
)
_POOLED_SHORTCUT: tuple[Row, ...] = (  # theirs has the pool, or nothing in its place, at 0
    (_BLOCK + r"downsample\.1", _OUR_BLOCK + "shortcut_conv"),
    (_BLOCK + r"downsample\.2", _OUR_BLOCK + "shortcut_bn"),
)
_V2_BLOCK = r"stages\.(?P<stage0>\d+)\.blocks\.(?P<block0>\d+)\."
_OUR_V2_BLOCK = "stage{stage0}_block{block0}_"

# Today's `norm1` is `norm.1` in torchvision's files, which are older.
_DENSE_LAYER = r"features\.denseblock(?P<stage>\d)\.denselayer(?P<block>\d+)\."
_OUR_DENSE_LAYER = "stage{stage}_block{block}_"

FAMILIES: dict[str, tuple[Row, ...]] = {
    "ResNet, ResNeXt, Wide ResNet, SE-ResNet": _STEM + _SHORTCUT + _UNITS,
    "the same with a deep stem": _DEEP_STEM + _SHORTCUT + _UNITS,
    "ResNet-D": _DEEP_STEM + _POOLED_SHORTCUT + _UNITS,
    "timm's pre-activation ResNet": (
        (r"stem\.conv", "stem_conv"),
        (_V2_BLOCK + r"conv(?P<number>\d)", _OUR_V2_BLOCK + "conv{number}"),
        (_V2_BLOCK + r"norm(?P<number>\d)", _OUR_V2_BLOCK + "bn{number}"),
        (_V2_BLOCK + r"downsample\.conv", _OUR_V2_BLOCK + "shortcut_conv"),
        (r"norm", "head_bn"),
        (r"head\.fc", "head"),
    ),
    "torchvision's DenseNet": (
        (r"features\.conv0", "stem_conv"),
        (r"features\.norm0", "stem_bn"),
        (_DENSE_LAYER + r"conv\.?(?P<number>\d)", _OUR_DENSE_LAYER + "conv{number}"),
        (_DENSE_LAYER + r"norm\.?(?P<number>\d)", _OUR_DENSE_LAYER + "bn{number}"),
        (r"features\.transition(?P<stage>\d)\.conv", "stage{stage}_transition_conv"),
        (r"features\.transition(?P<stage>\d)\.norm", "stage{stage}_transition_bn"),
        (r"features\.norm5", "head_bn"),
        (r"classifier", "head"),
    ),
}


def rename(name: str, rows: tuple[Row, ...]) -> str | None:
    """Translate e.g. layer2.0.conv1.weight → stage2_block1_conv1.weight."""
    module, _, entry = name.rpartition(".")
    for pattern, template in rows:
        match = re.fullmatch(pattern, module)
        if match:
            groups = match.groupdict().items()
            ours = {key: int(text) + 1 if key.endswith("0") else text for key, text in groups}
            return f"{template.format(**ours)}.{entry}"
    return None
