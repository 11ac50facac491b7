"""The account of a network: published figures, rules by hand, and what it writes."""

import csv
import functools
import importlib
import json

import keras
import pytest
from helpers import ROOT
from helpers.figures import assert_texts_apart
from keras import layers
from PIL import Image

import keras_resnet
from keras_resnet import profile
from keras_resnet.cli.main import main
from keras_resnet.display import figures
from keras_resnet.errors import UnknownNameError, UserError

APPLICATIONS = keras.applications


def image_input(*shape):
    return layers.Input(shape, name="images")


def by_name(account):
    return {layer.name: layer for layer in account.layers}


@functools.cache
def profiled(name):
    """A network's account, counted once."""
    return profile(name)


def seen(account):
    """The receptive field of the last layer that still has one."""
    return [layer.receptive_field for layer in account.layers if layer.receptive_field][-1]


# Published figures --------------------------------------------------------------------------------

# Multiply-adds in millions: ResNet-18 as in torchvision's model table (1.81 "GFLOPS"), ResNet-50
# with the stride in the 1×1 as in Keras Applications (3.858 G). ResNet-20 by hand: 27·16·32² of the
# stem, 6·2304·32² of stage 1, 5·9216·16² + 4608·16² of stage 2, as many of stage 3, and 640;
# option B adds 2·16·32·16². Both are the 41 M that are commonly printed.
MILLIONS = {
    "resnet20": 40.55,
    "resnet20_b": 40.81,
    "resnet18": 1814,
    "resnet50": 3858,
}
# Receptive fields: Araujo et al. 2019, whose ResNets are TF-Slim's v1. Where a stage's stride is,
# in its first 1×1 or at the end of the stage before, is the same to them; in the 3×3 it is not
# (v1.5: 427 by hand). The others by hand.
FIELDS = {"resnet20": 81, "resnet20_b": 81, "resnet18": 435, "resnet50": 483}


@pytest.mark.parametrize("name", MILLIONS)
def test_our_multiply_adds_and_fields_are_the_published_ones(name):
    account = profiled(name)
    digits = 2 if MILLIONS[name] < 100 else 0  # those that are printed
    assert round(account.total.multiply_adds / 1e6, digits) == MILLIONS[name]
    assert seen(account) == (FIELDS[name], FIELDS[name])


def test_parameters_are_kerass():
    total = profiled("resnet20").total
    assert (total.parameters, total.trainable) == (271_098, 269_722)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions", "field"),
    [
        ("resnet34", 3664, 899),
        ("resnet50v1_5", 4089, 427),
        ("resnet101v1_5", 7801, 971),
        ("resnet152v1_5", 11514, 1451),
    ],
)
def test_deep_multiply_adds_are_torchvisions(name, millions, field):
    account = profile(name)
    assert round(account.total.multiply_adds / 1e6) == millions
    assert seen(account) == (field, field)


def test_mobilenet_has_its_papers_multiply_adds_and_field():
    """Depthwise convolutions. arXiv:1704.04861, Table 4: 569 million; Araujo: 315."""
    account = profile(APPLICATIONS.MobileNet(weights=None))
    assert round(account.total.multiply_adds / 1e6) == 569
    assert seen(account) == (315, 315)


# GMAC and parameters of Keras Applications, and Araujo's receptive field where he has the network.
GIGA = {
    "ResNet50": (3.858, 25_636_712, 483),
    "ResNet101": (7.570, 44_707_176, 1027),
    "ResNet152": (11.282, 60_419_944, 1507),
    "ResNet50V2": (3.482, 25_613_800, 483),
    "ResNet101V2": (7.194, 44_675_560, 1027),
    "ResNet152V2": (10.907, 60_380_648, 1507),
    "VGG16": (15.470, 138_357_544, 212),
    "VGG19": (19.632, 143_667_240, None),
    "DenseNet121": (2.834, 8_062_504, None),
    "DenseNet169": (3.360, 14_307_880, None),
    "DenseNet201": (4.291, 20_242_984, None),
    "InceptionV3": (5.713, 23_851_784, 1311),  # GMAC: 5.71 in torchvision's table
    "InceptionResNetV2": (13.156, 55_873_736, 3039),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GIGA)
def test_keras_applications(name):
    giga, parameters, field = GIGA[name]
    account = profile(getattr(APPLICATIONS, name)(weights=None))
    assert round(account.total.multiply_adds / 1e9, 3) == giga
    assert account.total.parameters == parameters
    if field:
        assert seen(account) == (field, field)


# Rules by hand ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoo():
    """One of each rule, on 16×16×4."""
    x = inputs = image_input(16, 16, 4)
    x = layers.Conv2D(8, 3, padding="same", groups=2, name="stem_grouped")(x)
    x = layers.Conv2D(8, 3, dilation_rate=2, name="stem_dilated")(x)  # 12×12
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="stem_depthwise")(x)
    x = layers.Conv2D(8, (1, 5), strides=2, padding="same", use_bias=False, name="stem_wide")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="se_pool")(x)
    gate = layers.Dense(8, activation="sigmoid", name="se_gate")(gate)
    y = layers.Multiply(name="se_scale")([x, gate])
    y = layers.Concatenate(name="se_concat")([x, y])
    y = layers.Flatten(name="head_flat")(y)
    y = layers.Dense(5, name="head")(y)
    return profile(keras.Model(inputs, y, name="zoo"))


def test_multiply_adds_of_each_layer(zoo):
    counted = {layer.name: layer.multiply_adds for layer in zoo.layers if layer.multiply_adds}
    assert counted == {
        "stem_grouped": 16 * 16 * 9 * 2 * 8,
        "stem_dilated": 12 * 12 * 9 * 8 * 8,
        "stem_depthwise": 12 * 12 * 9 * 16,
        "stem_wide": 6 * 6 * 5 * 16 * 8,
        "se_gate": 8 * 8,
        "head": 6 * 6 * 16 * 5,
    }
    assert [stage.name for stage in zoo.stages] == ["images", "stem", "se", "head"]
    assert sum(stage.multiply_adds for stage in zoo.stages) == zoo.total.multiply_adds


def test_receptive_fields_of_each_layer(zoo):
    """Kernel 3: 3; dilated by 2: + 4; 3: + 2; 1×5 at stride 2: + 4 across."""
    fields = {name: (layer.receptive_field, layer.jump) for name, layer in by_name(zoo).items()}
    assert fields["images"] == ((1, 1), (1, 1))
    assert fields["stem_grouped"] == ((3, 3), (1, 1))
    assert fields["stem_dilated"] == ((7, 7), (1, 1))
    assert fields["stem_depthwise"] == ((9, 9), (1, 1))
    assert fields["stem_wide"] == ((9, 13), (2, 2))
    assert fields["se_pool"] == (None, None)
    assert fields["se_scale"] == fields["se_concat"] == (None, (2, 2))  # the gate saw everything
    assert fields["head"] == (None, None)


def test_the_longest_path_counts():
    x = inputs = image_input(8, 8, 2)
    long = layers.Conv2D(2, 5, padding="same")(layers.MaxPooling2D(2, 1, padding="same")(x))
    short = layers.Conv2D(2, 3, padding="same")(x)
    account = profile(keras.Model(inputs, layers.Add(name="sum")([short, long])))
    assert by_name(account)["sum"].receptive_field == (6, 6)


def test_memory_by_hand():
    """A pre-activation unit: its first BN may not overwrite x, which the shortcut still needs."""
    x = inputs = image_input(8, 8, 4)
    x = layers.Conv2D(4, 1, name="stem_conv")(x)
    y = layers.BatchNormalization(name="unit_bn")(x)
    y = layers.ReLU(name="unit_relu")(y)
    y = layers.Conv2D(4, 3, padding="same", name="unit_conv")(y)
    y = layers.Add(name="unit_add")([x, y])
    y = layers.GlobalAveragePooling2D(name="head_pool")(y)
    account = profile(keras.Model(inputs, layers.Dense(3, name="head")(y)))
    one = 8 * 8 * 4 * 4  # bytes of a tensor
    memory = {layer.name: layer.activation_bytes for layer in account.layers}
    assert memory == {
        "images": one,
        "stem_conv": one,
        "unit_bn": one,
        "unit_relu": 0,
        "unit_conv": one,
        "unit_add": one,
        "head_pool": 16,
        "head": 12,
    }
    # In unit_conv: x, its input and its output; in unit_add: x, the transform and the sum.
    assert account.peak_activation_bytes == 3 * one


def test_resnet8_needs_48_kib_as_int8():
    """Shortcut, input and output of 32×32×16 in the first stage."""
    assert profiled("resnet8").peak_activation_bytes / 4 == 3 * 32 * 32 * 16


def test_mixed_precision_halves_the_memory():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = profile("resnet8")
    finally:
        keras.config.set_dtype_policy("float32")
    full = profiled("resnet8")
    stage = {layer.name: layer.activation_bytes for layer in half.layers}
    assert all(
        2 * stage[layer.name] == layer.activation_bytes
        for layer in full.layers
        if layer.stage.startswith("stage")
    )
    assert stage["head"] == 40  # float32
    assert half.total.multiply_adds == full.total.multiply_adds


@keras.saving.register_keras_serializable("test_profiling")
class Halved(keras.layers.Layer):
    """A layer of no known kind and without weights."""

    def call(self, inputs):
        return inputs / 2


def test_unknown_layers_without_a_kernel_work_pixel_by_pixel():
    inputs = image_input(8, 8, 2)
    x = layers.Conv2D(2, 3, name="conv")(inputs)
    x = keras.ops.relu(Halved(name="halved")(x)) * 2
    account = profile(keras.Model(inputs, layers.UpSampling2D(2, name="up")(x)))
    rows = by_name(account)
    assert rows["halved"].receptive_field == (3, 3)
    assert rows["halved"].multiply_adds == 0
    assert rows["up"].receptive_field is None  # not known, so anything


def test_a_shared_layer_works_twice_and_has_its_parameters_once():
    inputs = image_input(8, 8, 2)
    conv = layers.Conv2D(2, 3, padding="same", name="conv")
    model = keras.Model(inputs, conv(conv(inputs)))
    account = profile(model)
    assert account.total.multiply_adds == 2 * 64 * 9 * 4
    assert account.total.parameters == model.count_params()


def test_frozen_layers_count_as_not_trainable():
    model = keras_resnet.ResNet8()
    model.get_layer("head").trainable = False
    head = by_name(profile(model))["head"]
    assert (head.trainable, head.non_trainable) == (0, 650)


def test_sequential_models():
    model = keras.Sequential([image_input(8, 8, 2), layers.Conv2D(2, 3, name="conv")])
    assert profile(model).total.multiply_adds == 36 * 9 * 4


# Other image sizes --------------------------------------------------------------------------------


def test_a_built_model_counts_at_another_size_as_if_built_for_it():
    free = keras_resnet.ResNet20(input_shape=(None, None, 3))
    assert profile(free, (48, 40, 3)).layers == profile("resnet20", (48, 40, 3)).layers


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 32, 3), "free"),
        ((32, 32, 1), "does not take input_shape"),
        ((2, 2, 3), "does not take input_shape"),
        ((64, 64, 3), "'head' gets"),
        ((32, 32), "as many axes"),
    ],
)
def test_sizes_that_a_model_does_not_take(shape, message):
    inputs = image_input(32, 32, 3)
    x = layers.Flatten(name="flat")(layers.Conv2D(2, 3, strides=2, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    with pytest.raises(UserError, match=message):
        profile(model, shape)


# What is refused ----------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_models_that_cannot_be_counted():
    inputs = image_input(32, 32, 3)
    nested = keras.Model(inputs, keras_resnet.ResNet8()(inputs))
    sequence = image_input(4, 3)
    recurrent = keras.Model(sequence, layers.LSTM(2, name="memory")(sequence))
    product = keras.Model(sequence, keras.ops.matmul(sequence, keras.ops.ones((3, 2))))
    for model, message in (
        (nested, "a model inside the model"),
        (Subclassed(), "received Subclassed"),
        (keras.Sequential([layers.Dense(2)]), "received Sequential"),
        (recurrent, "LSTM"),
        (product, "Matmul"),
        (keras_resnet.ResNet8(input_shape=(None, None, 3)), "--input-shape"),
    ):
        with pytest.raises(UserError, match=message):
            profile(model)
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet20'"):
        profile("resnet2O")
    with pytest.raises(UserError, match="multiply_add must be 1 or 2"):
        profile("resnet8", multiply_add=3)


# What it writes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return profile("resnet8", multiply_add=2)


def test_the_tables(tiny):
    text = str(tiny)
    assert "stage3_block1_shortcut_conv" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("total"))
    assert row == ["total", "78,666", "480", "25,003,264", "460.3"]
    assert "Peak of live activations: 192.0 KiB" in text


def test_csv_and_json_say_the_same(tiny, tmp_path):
    tiny.to_csv(tmp_path / "account.csv")
    with (tmp_path / "account.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads(tiny.to_json())
    assert [row["name"] for row in rows] == [row["name"] for row in content["layers"]]
    assert rows[1]["output_shape"] == "32x32x16"
    assert rows[1]["receptive_field"] == "3x3"
    assert rows[-1]["receptive_field"] == ""
    assert sum(int(row["flop"]) for row in rows) == content["total"]["flop"] == 25_003_264
    assert content["peak_activation_bytes"] == tiny.peak_activation_bytes
    with pytest.raises(UserError, match="No such folder"):
        tiny.to_csv(tmp_path / "nowhere" / "account.csv")


@pytest.mark.parametrize(("name", "bars"), [("resnet20", 21), ("resnet110", 58)])
def test_a_picture_has_a_bar_for_every_layer_or_block(name, bars, tmp_path):
    account = profiled(name)
    figure = account.figure()
    assert_texts_apart(figure)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [row.name for row in account._bars()]
    assert len(names) == bars
    account.picture(tmp_path / "account.svg")
    drawn = (tmp_path / "account.svg").read_text(encoding="utf-8")
    total = figures.decimal(account.total.parameters)
    for text in (*names, f"{name}, 32x32x3", f"{total} parameters"):
        assert f">{text}</text>" in drawn


def test_the_bars_sum_to_the_total():
    """Also where they are residual units; of every layer exactly one bar has the figures."""
    for name in "resnet20", "resnet110":
        account = profiled(name)
        bars = account._bars()
        for field in ("parameters", "multiply_adds", "activation_bytes"):
            assert sum(getattr(bar, field) for bar in bars) == getattr(account.total, field)
    leaders = {layer.name: layer.follows for layer in profiled("resnet20").layers}
    assert leaders["stage1_block2_add"] == "stage1_block2_conv2"
    assert leaders["head_pool"] == "stage3_block3_conv2"


def test_a_png_is_a_picture_and_other_endings_are_refused(tiny, tmp_path):
    tiny.picture(tmp_path / "account.png")
    with Image.open(tmp_path / "account.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert {(61, 111, 180), (77, 154, 106), (201, 112, 59)} <= {colour for _, colour in colours}
    with pytest.raises(UserError, match=r"\.svg, \.png or \.pdf"):
        tiny.picture(tmp_path / "account.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["account.png"]


def test_the_command(capsys, tmp_path):
    assert main(["profile", "resnet8", "--input-shape", "16,16,3"]) == 0
    printed = capsys.readouterr().out
    assert "resnet8 on 16x16x3" in printed
    assert printed.splitlines()[-1].startswith('Columns: "field" is ')
    keras_resnet.ResNet8(name="mine").save(tmp_path / "mine.keras")
    files = ["--csv", str(tmp_path / "a.csv"), "--picture", str(tmp_path / "a.svg")]
    assert main(["profile", str(tmp_path / "mine.keras"), "--json", *files]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["model"] == "mine"
    assert content["total"]["multiply_adds"] == 12_501_632
    assert (tmp_path / "a.csv").is_file()
    assert (tmp_path / "a.svg").is_file()
    keras_resnet.ResNet8(features=True).save(tmp_path / "pyramid.keras")  # no classifier
    assert main(["profile", str(tmp_path / "pyramid.keras"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["multiply_adds"] == 12_501_632 - 640


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet5O"], "Did you mean 'resnet50'"),
        (["nothing.keras"], "No such file or folder"),
        (["resnet8", "--input-shape", "32"], "height, width and channels"),
        (["resnet8", "--multiply-add", "3"], "invalid choice"),
        (["resnet8", "--picture", "a.bmp"], ".svg, .png or .pdf"),
        (["nothing.keras", "--picture", "none/a.svg"], "No such folder: none"),  # before the work
        (["nothing.keras", "--csv", "."], "--csv wants a file; . is a folder"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, capsys):
    assert main(["profile", *arguments]) == 2
    assert message in capsys.readouterr().err


# The lecture's accounts ---------------------------------------------------------------------------


@pytest.fixture
def account(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("account")


def test_the_lectures_alexnet(account):
    """Every printed figure is the counted one, rounded, but those that the page names."""
    rows = by_name(account.network(account.ALEXNET, 227, (4096, 4096, 1000)))
    assert sum(layer.parameters for layer in rows.values()) == 61_100_840  # torchvision's
    differ = set()
    for name, (memory, parameters, flop) in account.PRINTED_ALEXNET.items():
        layer = rows[name]
        assert round(layer.activation_bytes / 1024) == memory
        if round(layer.parameters / 1e3) != parameters:
            differ.add((name, "parameters"))
        if flop is not None and round(layer.multiply_adds / 1e6) != flop:
            differ.add((name, "flop"))
    assert differ == {
        ("conv4", "flop"),
        *((name, "parameters") for name in ("fc6", "fc7", "fc8")),
    }
    assert rows["conv4"].multiply_adds == 149_520_384


def test_two_small_kernels_for_a_large_one(account):
    five = account.network([("conv", 64, 5, 1, 2)], 28, channels=64)
    threes = account.network([("conv1", 64, 3, 1, 1), ("conv2", 64, 3, 1, 1)], 28, channels=64)
    assert seen(five) == seen(threes) == (5, 5)
    assert threes.total.multiply_adds * 25 == five.total.multiply_adds * 18


def test_the_page_is_what_the_command_prints(account):
    page = account.PAGE.read_text(encoding="utf-8")
    assert f"{account.BEGIN}\n\n{account.report()}\n{account.END}" in page


def test_araujos_alexnet_sees_195():
    """AlexNet v2 (TF-Slim): as torchvision's, 11×11 without padding."""
    inputs = x = image_input(224, 224, 3)
    for kernel, stride, pool in (11, 4, 3), (5, 1, 3), (3, 1, 0), (3, 1, 0), (3, 1, 3):
        x = layers.Conv2D(1, kernel, strides=stride, padding="valid" if stride > 1 else "same")(x)
        x = layers.MaxPooling2D(pool, 2)(x) if pool else x
    assert seen(profile(keras.Model(inputs, x))) == (195, 195)
