"""Parameters and multiply-adds: as published, as recorded, and the page that is made of them."""

import pytest
from golden import complexity

import keras_resnet

RECORD = complexity.load()

# Trainable parameters as others count them: torchvision 0.29's `meta["num_params"]`, the networks
# of timm 1.0.31, and He 2015 as akamaster's table has the CIFAR family.
PARAMETERS = {
    # torchvision; its resnet50 is v1.5, whose parameters are those of v1.
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50v1_5": 25_557_032,
    "resnet101v1_5": 44_549_160,
    "resnet152v1_5": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    # timm
    "resnet18d": 11_708_744,
    "resnet34d": 21_816_904,
    "resnet50d": 25_576_264,
    "resnet101d": 44_568_392,
    "resnet152d": 60_212_040,
    "resnet200d": 64_693_064,
    "resnet50c": 25_576_264,
    "resnet50s": 25_680_808,
    "seresnet18": 11_779_624,
    "seresnet34": 21_960_416,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x4d": 48_955_416,
    "seresnext101_32x8d": 93_569_048,
    "seresnext101_64x4d": 88_232_984,
    "resnext101_32x4d": 44_177_704,
    "resnetv2_18": 11_687_720,
    "resnetv2_34": 21_795_880,
    "resnetv2_50": 25_549_352,
    "resnetv2_101": 44_541_480,
    "resnetv2_152": 60_185_128,
    # torchvision
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "googlenet_bn": 6_624_904,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet161": 28_681_000,
    # timm
    "inception_resnet_v2": 55_843_464,
    # ONNX's graphs
    "googlenet": 6_998_552,
    "zfnet512": 87_250_536,
    # github.com/andreasveit/densenet-pytorch
    "densenet_bc100_12": 769_162,
    # BVLC's AlexNet
    "alexnet_caffe": 60_965_224,
    # CIFAR
    "resnet20": 269_722,
    "resnet20_b": 269_722 + 2_752,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet1202": 19_421_274,
}
# With BN's moving statistics, as Keras counts: keras.applications' documentation, MLPerf Tiny.
TOTALS = {
    "resnet50v2": 25_613_800,
    "resnet101v2": 44_675_560,
    "resnet152v2": 60_380_648,
    "densenet121": 8_062_504,
    "densenet169": 14_307_880,
    "densenet201": 20_242_984,
    "inception_resnet_v2": 55_873_736 + 30_272,  # and a gamma of 1 for each of their BNs' channels
    "resnet8": 78_666,
    "resnet20": 271_098,
    "resnet110": 1_736_058,
}
# 10⁹ multiply-adds as torchvision 0.29's `meta["_ops"]` has them, to three digits after the point.
OPERATIONS = {
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50v1_5": 4.089,
    "resnet101v1_5": 7.801,
    "resnet152v1_5": 11.514,
    "resnext50_32x4d": 4.230,
    "resnext101_32x8d": 16.414,
    "resnext101_64x4d": 15.460,
    "wide_resnet50_2": 11.398,
    "wide_resnet101_2": 22.753,
    "alexnet": 0.714,
    "vgg11": 7.609,
    "vgg13": 11.308,
    "vgg16": 15.470,
    "vgg19": 19.632,
    "googlenet_bn": 1.498,
    "densenet121": 2.834,
    "densenet169": 3.360,
    "densenet201": 4.291,
    "densenet161": 7.728,
}
# Papers round: WRN (arXiv:1605.07146, Tables 2 and 4), Identity Mappings' ResNets, SE (Table 4).
ROUNDED = {
    "wrn16_4": (2.7e6, 0.05e6),
    "wrn16_8": (11.0e6, 0.05e6),
    "wrn28_10": (36.5e6, 0.05e6),
    "wrn40_4": (8.9e6, 0.05e6),
    "resnetv2_110": (1.7e6, 0.05e6),
    "resnetv2_164": (1.7e6, 0.05e6),
    "resnetv2_1001": (10.2e6, 0.2e6),
    "seresnet110": (1.7e6, 0.05e6),
    # DenseNet (arXiv:1608.06993, Table 2), Highway (arXiv:1507.06228, Table 2).
    "densenet40_12": (1.0e6, 0.05e6),
    "densenet100_12": (7.0e6, 0.05e6),
    "densenet100_24": (27.2e6, 0.05e6),
    "densenet_bc100_12": (0.8e6, 0.05e6),
    "densenet_bc250_24": (15.3e6, 0.05e6),
    "densenet_bc190_40": (25.6e6, 0.05e6),
    "highway19": (2.3e6, 0.05e6),
    "highway32": (1.25e6, 0.005e6),
}


def test_the_record_has_what_was_published():
    assert {name: RECORD[name]["trainable"] for name in PARAMETERS} == PARAMETERS
    assert {name: RECORD[name]["parameters"] for name in TOTALS} == TOTALS
    for name, published in OPERATIONS.items():
        assert round(RECORD[name]["multiply_adds"] / 1e9, 3) == published, name
    for name, (published, rounding) in ROUNDED.items():
        assert abs(RECORD[name]["trainable"] - published) <= rounding, name


def test_the_page_is_made_of_the_record():
    assert list(RECORD) == keras_resnet.list_models(), "run: python tests/golden/complexity.py"
    assert complexity.PAGE.read_text(encoding="utf-8") == complexity.page(RECORD)


def test_the_table_has_the_facts_of_the_registry():
    for name in keras_resnet.list_models():
        assert RECORD[name] == RECORD[name] | complexity.facts(name), name


def _networks():
    default = (
        "resnet8",
        "resnet18",
        "resnet20",
        "resnetv2_20",
        "plain20",
        "resnet20_conv_shortcut",
    )
    names = keras_resnet.list_models()
    default = (*default, *keras_resnet.list_models("test_*"))
    return [n if n in default else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", _networks())
def test_a_network_is_what_the_record_says(name):
    assert complexity.count(name) | complexity.facts(name) == RECORD[name]
