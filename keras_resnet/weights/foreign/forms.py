"""Find out which of our networks a weights file of another library belongs to.

Many names share shapes, and some networks share all of them: ResNet-50 v1 and v1.5 differ only in
the convolutions that have the stride. A file is therefore recognised by its library, by that
library's layer names, and by the number of values outside its classifiers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keras_resnet import registry
from keras_resnet.errors import UserError


@dataclass(frozen=True)
class Form:
    """A network of another library and our network of the same form."""

    library: str
    model: str  # registry name
    family: str  # of the layer names (a key of `torch_names.FAMILIES`), or the class there
    numbers: int  # parameters and BN statistics in the file, without the classifiers


# Counted on the networks of tests/peers/peers.py and (CIFAR) of github.com/akamaster. plain20 and
# others hold the same arrays as resnet20; the published files are of resnet20.
_PYTORCH: Mapping[str, Mapping[str, int]] = {
    "ResNet, ResNeXt, Wide ResNet or SE-ResNet": {
        "resnet20": 270_448,
        "resnet32": 465_776,
        "resnet44": 661_104,
        "resnet56": 856_432,
        "resnet110": 1_735_408,
        "resnet1202": 19_510_256,
        "resnet18": 11_186_112,
        "resnet34": 21_301_696,
        "resnet50v1_5": 23_561_152,
        "resnet101v1_5": 42_605_504,
        "resnet152v1_5": 58_295_232,
        "seresnet18": 11_276_224,
        "seresnet34": 21_464_440,
        "seresnet50": 26_092_144,
        "seresnet101": 47_383_216,
        "seresnet152": 64_924_272,
        "resnext50_32x4d": 23_048_128,
        "resnext101_32x4d": 42_266_560,
        "resnext101_32x8d": 86_945_216,
        "resnext101_64x4d": 81_609_152,
        "seresnext50_32x4d": 25_579_120,
        "seresnext101_32x4d": 47_044_272,
        "seresnext101_32x8d": 91_722_928,
        "seresnext101_64x4d": 86_386_864,
        "wide_resnet50_2": 66_902_464,
        "wide_resnet101_2": 124_975_552,
    },
    "ResNet with a deep stem": {"resnet50c": 23_580_512, "resnet50s": 23_685_312},
    "ResNet-D": {
        "resnet18d": 11_205_472,
        "resnet34d": 21_321_056,
        "resnet50d": 23_580_512,
        "resnet101d": 42_624_864,
        "resnet152d": 58_314_592,
        "resnet200d": 62_820_192,
    },
    "timm's pre-activation ResNet": {
        "resnetv2_18": 11_182_528,
        "resnetv2_34": 21_298_112,
        "resnetv2_50": 23_545_792,
        "resnetv2_101": 42_590_144,
        "resnetv2_152": 58_279_872,
    },
    "torchvision's DenseNet": {
        "densenet121": 7_037_504,
        "densenet161": 26_691_936,
        "densenet169": 12_642_880,
        "densenet201": 18_321_984,
    },
    "torchvision's VGG-11": {"vgg11": 128_766_336},
    "torchvision's VGG-11 with BN": {"vgg11_bn": 128_777_344},
    "torchvision's VGG-13": {"vgg13": 128_950_848},
    "torchvision's VGG-13 with BN": {"vgg13_bn": 128_962_624},
    "torchvision's VGG-16": {"vgg16": 134_260_544},
    "torchvision's VGG-16 with BN": {"vgg16_bn": 134_277_440},
    "torchvision's VGG-19": {"vgg19": 139_570_240},
    "torchvision's VGG-19 with BN": {"vgg19_bn": 139_592_256},
    "torchvision's AlexNet": {"alexnet": 57_003_840},
    "torchvision's GoogLeNet": {"googlenet_bn": 5_614_464},
    "torchvision's Inception v3": {"inception_v3_torch": 21_820_000},
    "timm's Inception-ResNet v2": {"inception_resnet_v2": 54_367_008},
}

_KERAS: tuple[tuple[str, str, int], ...] = (  # the family is the class there
    ("resnet50", "ResNet50", 23_587_712),
    ("resnet101", "ResNet101", 42_658_176),
    ("resnet152", "ResNet152", 58_370_944),
    ("resnet50v2", "ResNet50V2", 23_564_800),
    ("resnet101v2", "ResNet101V2", 42_626_560),
    ("resnet152v2", "ResNet152V2", 58_331_648),
    ("vgg16", "VGG16", 134_260_544),
    ("vgg19", "VGG19", 139_570_240),
    ("densenet121", "DenseNet121", 7_037_504),
    ("densenet169", "DenseNet169", 12_642_880),
    ("densenet201", "DenseNet201", 18_321_984),
    ("inception_v3", "InceptionV3", 21_802_784),
    ("inception_resnet_v2", "InceptionResNetV2", 54_336_736),
)

# Their files without the top. Those of VGG have no hidden dense layers either.
WITHOUT_TOP = "Keras Applications without the top"
_VGG_WITHOUT_TOP = {"VGG16": 14_714_688, "VGG19": 20_024_384}

FORMS: tuple[Form, ...] = (
    *(Form("PyTorch", m, family, n) for family, row in _PYTORCH.items() for m, n in row.items()),
    *(Form("Keras Applications", *row) for row in _KERAS),
    *(Form(WITHOUT_TOP, m, c, _VGG_WITHOUT_TOP.get(c, n)) for m, c, n in _KERAS),
    Form("MLPerf Tiny", "resnet8", "", 78_016),
)

# Names that are often confused: registry names, the variant, and its description.
_VARIANTS: tuple[tuple[str, str, str], ...] = (
    (r"resnet(50|101|152)", "v1", "stride in the first 1×1, as Keras Applications"),
    (r"resnet\d+v1_5", "v1.5", "stride in the 3×3, as torchvision and timm"),
    (r"resnet\d+v2", "Keras v2", "stride in a stage's last unit, as Keras Applications"),
    (r"resnetv2_(18|34|50|101|152|200)", "v2", "pre-activation as in the paper and timm"),
    (r"resnet\d+c", "ResNet-C", "deep stem"),
    (r"resnet\d+s", "ResNet-S", "deep stem of twice the width"),
    (r"resnet\d+d", "ResNet-D", "deep stem, average-pool shortcuts"),
    (r"inception_v3", "Keras Applications'", "average pools leave the padding out"),
    (r"inception_v3_torch", "PyTorch's", "average pools count the padding"),
    (r"googlenet", "the paper's", "5×5 branches, no BN"),
    (r"googlenet_bn", "torchvision's", "BN, 3×3 for 5×5"),
)


def matching(library: str, numbers: int, family: str = "") -> Iterator[Form]:
    """Yield the forms that a file may have."""
    for form in FORMS:
        if (form.library, form.numbers) == (library, numbers) and family in ("", form.family):
            yield form


def require_form(found: tuple[Form, ...], name: str, file: str) -> None:
    """Refuse a file that is known to belong to networks other than `name`.

    A file of no known form may belong to a network of the user's own. Its layers then decide.

    Raises:
        UserError: the file belongs to another network. The message names it.
    """
    right = [form.model for form in found]
    if not right or name in right:
        return
    theirs, mine = _variant(right[0]), _variant(name)
    what = f"these are {theirs[0]} weights, use {right[0]}" if theirs else "the file fits:"
    form = f" ({theirs[1]})" if theirs else f" {right[0]}"
    not_this = f"'{name}' is {mine[0]}: {mine[1]}" if mine else f"'{name}' is another network"
    raise UserError(f"{file}: {what}{form}. {not_this}.")


def _variant(name: str) -> tuple[str, str] | None:
    for pattern, variant, does in _VARIANTS:
        if re.fullmatch(pattern, name):
            return variant, does
    return None


def their_class(name: str) -> str | None:
    """Return the Keras Applications class of network `name`; None if there is none."""
    registry.architecture(name)
    return next((theirs for model, theirs, _ in _KERAS if model == name), None)
