"""Translate module names of PyTorch networks (torchvision, timm, public CIFAR weights) to ours."""

from __future__ import annotations

from collections.abc import Iterable

from keras_resnet.weights.foreign.translate import Row, translate

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
_POOLED_SHORTCUT: tuple[Row, ...] = (  # at 0 they have the pool, or nothing in its place
    (_BLOCK + r"downsample\.1", _OUR_BLOCK + "shortcut_conv"),
    (_BLOCK + r"downsample\.2", _OUR_BLOCK + "shortcut_bn"),
)
_V2_BLOCK = r"stages\.(?P<stage0>\d+)\.blocks\.(?P<block0>\d+)\."
_OUR_V2_BLOCK = "stage{stage0}_block{block0}_"

# torchvision's files are older than its code: `norm1` is `norm.1` in them.
_DENSE_LAYER = r"features\.denseblock(?P<stage>\d)\.denselayer(?P<block>\d+)\."
_OUR_DENSE_LAYER = "stage{stage}_block{block}_"


def _vgg(depths: tuple[int, ...], bn: bool) -> tuple[Row, ...]:
    """Return the rows of a VGG. torchvision numbers convolutions, BNs, ReLUs and pools together."""
    rows = [(r"classifier\.0", "head_dense1"), (r"classifier\.3", "head_dense2")]
    index = 0
    for stage, depth in enumerate(depths, start=1):
        for number in range(1, depth + 1):
            rows.append((rf"features\.{index}", f"stage{stage}_conv{number}"))
            if bn:
                rows.append((rf"features\.{index + 1}", f"stage{stage}_bn{number}"))
            index += 3 if bn else 2
        index += 1
    return (*rows, (r"classifier\.6", "head"))


_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

_KIND = r"\.(?P<kind>conv|bn)"
_MODULE = r"inception(?P<stage>\d)(?P<letter>\w)\."
_OUR_MODULE = "stage{stage}_{letter}_"

# Their modules, our stage, their branches in our order. A branch name that ends in _ has numbers.
_INCEPTION_V3 = (
    ("5(?P<letter>[bcd])", 3, ("branch1x1", "branch5x5_", "branch3x3dbl_", "branch_pool")),
    ("6(?P<letter>a)", 4, ("branch3x3", "branch3x3dbl_")),
    ("6(?P<letter>[bcde])", 4, ("branch1x1", "branch7x7_", "branch7x7dbl_", "branch_pool")),
    ("7(?P<letter>a)", 5, ("branch3x3_", "branch7x7x3_")),
    ("7(?P<letter>[bc])", 5, ("branch1x1", "branch3x3_", "branch3x3dbl_", "branch_pool")),
)


def _inception_v3() -> tuple[Row, ...]:
    rows = []
    for module, stage, branches in _INCEPTION_V3:
        for index, branch in enumerate(branches, start=1):
            numbered = branch.endswith("_")
            theirs = rf"Mixed_{module}\.{branch}" + (r"(?P<number>\d[ab]?)" if numbered else "")
            ours = f"stage{stage}_{{letter}}_branch{index}_{{kind}}"
            rows.append((theirs + _KIND, ours + ("{number}" if numbered else "1")))
    return tuple(rows)


_INCEPTION_STEM = ("1a", "2a", "2b", "3b", "4a")

_INCEPTION_RESNET = (
    ("mixed_5b", "stage3_b"),
    ("mixed_6a", "stage4_a"),
    ("mixed_7a", "stage5_a"),
    (r"repeat\.(?P<block0>\d+)", "stage3_block{block0}"),
    (r"repeat_1\.(?P<block0>\d+)", "stage4_block{block0}"),
    (r"repeat_2\.(?P<block0>\d+)", "stage5_block{block0}"),
    ("block8", "stage5_block10"),
)


def _inception_resnet() -> tuple[Row, ...]:
    rows = [(rf"mixed_5b\.branch3\.1{_KIND}", "stage3_b_branch4_{kind}1")]  # 0 is the pool
    for theirs, ours in _INCEPTION_RESNET:
        branch = rf"{theirs}\.branch(?P<branch0>\d)"
        our_branch = f"{ours}_branch{{branch0}}_{{kind}}"
        rows += [
            (branch + _KIND, our_branch + "1"),
            (rf"{branch}\.(?P<number0>\d){_KIND}", our_branch + "{number0}"),
            (rf"{theirs}\.conv2d", f"{ours}_conv"),
        ]
    return tuple(rows)


FAMILIES: dict[str, tuple[Row, ...]] = {
    "ResNet, ResNeXt, Wide ResNet or SE-ResNet": _STEM + _SHORTCUT + _UNITS,
    "ResNet with a deep stem": _DEEP_STEM + _SHORTCUT + _UNITS,
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
    **{
        f"torchvision's VGG-{depth}{' with BN' if bn else ''}": _vgg(stages, bn)
        for depth, stages in _VGG.items()
        for bn in (False, True)
    },
    "torchvision's AlexNet": (
        (r"features\.0", "stage1_conv1"),
        (r"features\.3", "stage2_conv1"),
        (r"features\.6", "stage3_conv1"),
        (r"features\.8", "stage3_conv2"),
        (r"features\.10", "stage3_conv3"),
        (r"classifier\.1", "head_dense1"),
        (r"classifier\.4", "head_dense2"),
        (r"classifier\.6", "head"),
    ),
    "torchvision's GoogLeNet": (
        (r"conv(?P<number>\d)" + _KIND, "stem_{kind}{number}"),
        (_MODULE + "branch1" + _KIND, _OUR_MODULE + "branch1_{kind}1"),
        (
            _MODULE + r"branch(?P<branch>[23])\.(?P<number0>\d)" + _KIND,
            _OUR_MODULE + "branch{branch}_{kind}{number0}",
        ),
        (_MODULE + r"branch4\.1" + _KIND, _OUR_MODULE + "branch4_{kind}1"),  # 0 is the pool
        (r"aux(?P<head>\d)\.conv" + _KIND, "aux{head}_{kind}1"),
        (r"aux(?P<head>\d)\.fc1", "aux{head}_dense"),
        (r"aux(?P<head>\d)\.fc2", "aux{head}_head"),
        (r"fc", "head"),
    ),
    "torchvision's Inception v3": (
        *(
            (rf"Conv2d_{name}_\dx\d{_KIND}", f"stem_{{kind}}{number}")
            for number, name in enumerate(_INCEPTION_STEM, start=1)
        ),
        *_inception_v3(),
        (r"AuxLogits\.conv(?P<number0>\d)" + _KIND, "aux1_{kind}{number0}"),
        (r"AuxLogits\.fc", "aux1_head"),
        (r"fc", "head"),
    ),
    "timm's Inception-ResNet v2": (
        *(
            (rf"conv2d_{name}{_KIND}", f"stem_{{kind}}{number}")
            for number, name in enumerate(_INCEPTION_STEM, start=1)
        ),
        *_inception_resnet(),
        (r"conv2d_7b" + _KIND, "stage5_{kind}"),
        (r"classif", "head"),
    ),
}


def family_of(names: Iterable[str]) -> str:
    """Return the family that knows most of the modules of a state dict with these `names`."""
    modules = {name.rpartition(".")[0] for name in names}
    return max(FAMILIES, key=lambda f: sum(bool(translate(m, FAMILIES[f])) for m in modules))


def rename(name: str, rows: tuple[Row, ...]) -> str | None:
    """Translate e.g. layer2.0.conv1.weight → stage2_block1_conv1.weight."""
    module, _, entry = name.rpartition(".")
    ours = translate(module, rows)
    return ours and f"{ours}.{entry}"
