"""int8 files in which some layers stay in float32, and files of 4-bit weights."""

import json
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from helpers import randomize_batch_norms
from PIL import Image

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import MissingExtraError, UnknownNameError, UserError
from keras_resnet.export import check, export, manifest
from keras_resnet.export.formats.tflite import int4
from keras_resnet.export.measure.probe import Probe
from keras_resnet.export.reference import read_reference
from keras_resnet.export.runtimes.open import open_file

KEPT = ("stem_conv", "stage2_block1_add", "predictions")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3)).astype("uint8")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return randomize_batch_norms(keras_resnet.ResNet8(input_shape=(16, 16, 3), classes=5))


@pytest.fixture(scope="module")
def exported(model, images, tmp_path_factory):
    """The plain files."""
    out = tmp_path_factory.mktemp("plain") / "exports"
    kinds = ["tflite-float32", "tflite-dynamic", "tflite-int8", "tflite-int4"]
    return export(model, kinds, calibration=images, out=out, verbose=False)


@pytest.fixture(scope="module")
def kept(model, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("kept") / "exports"
    arguments = {"calibration": images, "out": out, "verbose": False}
    return export(model, ["tflite-int8"], keep_float=KEPT, **arguments)


def floats(path):
    operations = open_file(path).graph
    borders = ("QUANTIZE", "DEQUANTIZE")
    return {item.layer for item in operations if item.in_float and item.kind not in borders}


def kernels(path):
    probe = Probe(path)
    return {x.layer: probe.value(x.inputs[1]) for x in probe.operations if x.kernel}


def test_exactly_the_named_layers_stay_in_float(kept, exported):
    path = kept.folder / "resnet8-int8.tflite"
    assert floats(path) == set(KEPT)
    assert kept.passed, kept.checks[0].problems
    assert kept.manifest["keep_float"] == list(KEPT)
    assert (kept.checks[0].input_dtype, kept.checks[0].output_dtype) == ("uint8", "uint8")
    assert "keep_float" not in exported.manifest


def test_the_other_layers_are_as_without(kept, exported):
    """Same kernels and grids to the last bit: the same calibration, the same rounding."""
    plain, mixed, float32 = (
        kernels(folder / name)
        for folder, name in (
            (exported.folder, "resnet8-int8.tflite"),
            (kept.folder, "resnet8-int8.tflite"),
            (exported.folder, "resnet8-float32.tflite"),
        )
    )
    assert mixed.keys() == plain.keys()
    for layer, kernel in mixed.items():
        expected = float32 if layer == "stem_conv" else plain
        np.testing.assert_array_equal(kernel, expected[layer])
        assert (expected[layer] != plain[layer]).any() == (layer == "stem_conv")


def test_the_check_wants_what_was_asked_for_and_nothing_else(kept, exported):
    reference = read_reference(exported.folder)
    plain = open_file(exported.folder / "resnet8-int8.tflite")
    mixed = open_file(kept.folder / "resnet8-int8.tflite")

    def problems(file, keep_float):
        (item,) = check.compare({"x": ("tflite-int8", file)}, reference, keep_float)
        return " ".join(item.problems)

    assert problems(mixed, KEPT) == problems(plain, ()) == ""
    assert problems(mixed, KEPT[:2]) == (
        "operations left in float: ['SOFTMAX']. To accept them, export with --keep-float "
        "stem_conv,stage2_block1_add,predictions"
    )
    assert "'CONV_2D'" in problems(mixed, ())
    assert "'DEQUANTIZE'" in problems(mixed, ())  # no border without a float layer
    assert problems(mixed, (*KEPT, "head")) == "layers not left in float: ['head']"
    assert problems(plain, KEPT) == f"layers not left in float: {sorted(KEPT)}"
    (again,) = check.check_folder(kept.folder)
    assert again.passed


def test_the_input_type_is_still_selectable(model, images, tmp_path):
    arguments = {"calibration": images, "out": tmp_path / "out", "verbose": False}
    kinds, kept = ["tflite-int8"], ["head"]
    report = export(model, kinds, keep_float=kept, input_type="float32", **arguments)
    assert report.passed, report.checks[0].problems
    assert report.checks[0].input_dtype == report.checks[0].output_dtype == "float32"
    assert floats(report.folder / "resnet8-int8.tflite") == {"head"}


def steps(path):
    """(scale, zero point) of what each integer operation gives, by layer."""
    tensors = Interpreter(str(path)).get_tensor_details()
    grids = {entry["index"]: entry["quantization"] for entry in tensors}
    inner = [x for x in open_file(path).graph if x.kind not in ("QUANTIZE", "DEQUANTIZE")]
    return {item.layer: grids[item.outputs[0]] for item in inner if not item.in_float}


def test_another_calibration_method_goes_with_it(model, images, exported, tmp_path):
    """The layers in float are those that were named, the grids of the others the method's."""
    arguments = {"calibration": images, "calibration_method": "percentile:99", "verbose": False}
    for name, kept in (("all", []), ("but", KEPT[:2])):
        report = export(model, ["tflite-int8"], out=tmp_path / name, keep_float=kept, **arguments)
        assert report.manifest["calibration_method"] == "percentile:99"
    paths = [tmp_path / name / "resnet8-int8.tflite" for name in ("all", "but")]
    assert [floats(path) for path in paths] == [set(), set(KEPT[:2])]
    cut, mixed = map(steps, paths)
    assert mixed == {layer: grid for layer, grid in cut.items() if layer not in KEPT[:2]}
    whole = steps(exported.folder / "resnet8-int8.tflite")
    assert mixed["stage1_block1_conv1"][0] < whole["stage1_block1_conv1"][0]


def test_a_layer_of_several_operations_stays_whole(images, tmp_path):
    """A BN of rows, which no rewrite takes, is a multiplication and an addition."""
    inputs = keras.layers.Input((16, 16, 3))
    x = keras.layers.ReLU(name="relu1")(keras.layers.Conv2D(4, 3, name="conv1")(inputs))
    x = keras.layers.ReLU(name="relu2")(keras.layers.BatchNormalization(axis=1, name="bn2")(x))
    x = keras.layers.Conv2D(4, 3, name="conv2")(x)
    x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    network = randomize_batch_norms(keras.Model(inputs, x, name="mine"))
    arguments = {"calibration": images, "out": tmp_path / "out", "verbose": False}
    export(network, ["tflite-int8"], keep_float=["bn2"], **arguments)
    graph = open_file(tmp_path / "out" / "mine-int8.tflite").graph
    borders = ("QUANTIZE", "DEQUANTIZE")
    found = [(x.kind, x.layer) for x in graph if x.in_float and x.kind not in borders]
    assert found == [("MUL", "bn2"), ("ADD", "bn2")]


def test_what_has_no_integer_kernel_passes_when_kept_as_the_problem_says(images, tmp_path):
    """An activation of its own, one within a convolution, and a layer of many operations."""
    x = inputs = keras.layers.Input((16, 16, 3))
    x = keras.layers.PReLU(shared_axes=[1, 2], name="prelu")(keras.layers.Conv2D(8, 3)(x))
    x = keras.layers.Conv2D(8, 3, activation="softsign", name="conv2")(x)
    x = keras.layers.GroupNormalization(4, name="groups")(x)
    x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    arguments = {"calibration": images, "out": tmp_path / "out", "verbose": False}
    arguments |= {"model": keras.Model(inputs, x, name="mine"), "formats": ["tflite-int8"]}
    (problem,) = export(**arguments).checks[0].problems
    assert problem.startswith("operations left in float: ['ABS', 'DEQUANTIZE', 'NEG',")
    advice = problem.partition(" --keep-float ")[2]
    assert advice == "prelu,conv2,groups"
    report = export(keep_float=advice.split(","), overwrite=True, **arguments)
    assert report.passed, report.checks[0].problems


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"keep_float": ["stem_conv1"]}, UnknownNameError, "Did you mean 'stem_conv'"),
        (
            {"keep_float": "stem_conv"},
            UserError,
            r"keep_float must be a list of strings; received 'stem_conv'\. Write",
        ),
        ({"keep_float": ["images"]}, UserError, "no operation named after the layer 'images'"),
        (
            {"keep_float": ["head"], "formats": ["tflite-int4"]},
            UserError,
            "applies only to tflite-int8",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(model, images, tmp_path, arguments, error, message):
    arguments = {"formats": ["tflite-int8"], "calibration": images, **arguments}
    with pytest.raises(error, match=message):
        export(model, out=tmp_path / "out", verbose=False, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_keeps_layers(model, images, tmp_path, capsys):
    model.save(tmp_path / "mine.keras")
    (tmp_path / "images").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
    files = (str(tmp_path / "mine.keras"), "--data", str(tmp_path / "images"))
    out = ("--out", str(tmp_path / "out"), "--formats", "tflite-int8", "--json")
    assert main(["export", *files, *out, "--keep-float", "stem_conv, head"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["keep_float"] == ["stem_conv", "head"]
    assert floats(tmp_path / "out" / "mine-int8.tflite") == {"stem_conv", "head"}
    assert main(["export", *files, *out, "--keep-float", "stem_cnv", "--overwrite"]) == 2
    assert "Did you mean 'stem_conv'" in capsys.readouterr().err


# 4-bit weights ------------------------------------------------------------------------------------


def test_int4_kernels_have_four_bits(exported):
    path = exported.folder / "resnet8-int4.tflite"
    assert exported.passed, [item.problems for item in exported.checks]
    graph = open_file(path).graph
    eight = {item.layer: item.weights for item in graph if item.kernel == "INT8"}
    assert "stem_conv" in eight
    weights = sum(item.weights for item in graph)
    assert 0.05 * weights < sum(eight.values()) <= 0.1 * weights
    assert max(eight.values()) <= min(x.weights for x in graph if x.kernel == "INT4")
    assert {item.kernel for item in graph} == {"", "INT4", "INT8"}
    assert all(item.in_float for item in graph)  # the activations
    parameters = 78_000  # of ResNet-8; half a byte each, and 12 kB of graph, scales and biases
    assert manifest.size(path) < parameters / 2 + 20_000
    for layer, kernel in kernels(path).items():
        assert 2 < len(np.unique(kernel[0])) <= (256 if layer in eight else 16)


def test_the_manifest_has_the_recipe_of_int4(exported):
    recipe = exported.manifest["int4_recipe"]
    graph = open_file(exported.folder / "resnet8-int4.tflite").graph
    assert recipe == int4.recipe(graph)
    four = [step for step in recipe if step["op_config"]["weight_tensor_config"]["num_bits"] == 4]
    assert {step["operation"] for step in four} == {"CONV_2D", "FULLY_CONNECTED"}
    assert exported.manifest["versions"]["ai-edge-quantizer"] != "not installed"


def test_a_file_of_wider_kernels_fails_as_int4(exported):
    reference = read_reference(exported.folder)
    dynamic = open_file(exported.folder / "resnet8-dynamic.tflite")
    (item,) = check.compare({"x": ("tflite-int4", dynamic)}, reference)
    assert (
        "kernels that are not in 4 bits: ['stage1_block1_conv2', 'stage2_block1_conv1'"
        in item.problems[0]
    )


def test_depthwise_kernels_have_eight_bits(tmp_path, capfd):
    """LiteRT has no 4-bit code for them."""
    inputs = keras.layers.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, name="full")(inputs)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Dense(5, name="last")(keras.layers.GlobalAveragePooling2D()(x))
    network = keras.Model(inputs, x, name="mine")
    export(network, ["tflite-int4"], out=tmp_path / "out", verbose=False)
    graph = open_file(tmp_path / "out" / "mine-int4.tflite").graph
    assert int4.problems(graph) == []
    found = {item.layer: item.kernel for item in graph if item.kernel}
    assert found == {"full": "INT4", "depthwise": "INT8", "last": "INT4"}
    assert capfd.readouterr().out == ""  # the quantizer's own summary would break --json


def test_int4_without_its_package_says_what_to_install(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MissingExtraError, match=r"'ai_edge_quantizer'.*\[export\]"):
        export(model, ["tflite-int4"], out=tmp_path / "out", verbose=False)
    assert list(tmp_path.iterdir()) == []
