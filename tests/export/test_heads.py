"""Classifiers that do not end in a softmax, through everything that reads an answer.

Each of these networks is right by construction: it measures how red, green and blue a picture is.
"""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import first_by_default
from PIL import Image

import keras_resnet
from keras_resnet.analysis import explain, explained_model
from keras_resnet.cli import main
from keras_resnet.errors import UserError
from keras_resnet.export import check, export
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.images.answers import Answers
from keras_resnet.models.ending import activation_of
from keras_resnet.recipes import evaluate
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.training import teacher, transfer

FORMATS = ("savedmodel", "tflite-float32", "tflite-int8", "onnx", "openvino", "micro")
STRENGTH = 12.0  # of the logits: 6 at full colour, -6 at none


def brightness(activation, columns=(0, 1, 2), end=lambda x: x):
    """The mean of each of some colours, as a logit around 1/2, and an activation."""
    inputs = keras.Input((16, 16, 3), name="images")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    dense = keras.layers.Dense(len(columns), activation=activation, name="head")
    model = keras.Model(inputs, end(dense(x)), name="colours")
    kernel = np.zeros((3, 3, 3, 8), "float32")
    kernel[1, 1, range(3), range(3)] = 1  # the convolution hands the colours through
    model.get_layer("conv").set_weights([kernel, np.zeros(8, "float32")])
    head = np.zeros((8, len(columns)), "float32")
    head[list(columns), range(len(columns))] = STRENGTH
    dense.set_weights([head, np.full(len(columns), -STRENGTH / 2, "float32")])
    return model


@pytest.fixture(scope="module")
def pictures():
    """Each of one colour (64, 16, 16, 3), and whether red, green and blue are over the half."""
    rng = np.random.default_rng(0)
    is_bright = rng.integers(0, 2, (64, 3)).astype(bool)
    colours = np.where(is_bright, rng.integers(160, 256, (64, 3)), rng.integers(0, 96, (64, 3)))
    return np.broadcast_to(colours[:, None, None], (64, 16, 16, 3)).astype("uint8"), is_bright


def files_of(model, pictures, out, **arguments):
    report = export(model, FORMATS, calibration=pictures, out=out, verbose=False, **arguments)
    names = {item.format: item.file for item in report.checks}
    return report, {kind: report.folder / names[kind] for kind in FORMATS}


@pytest.fixture(scope="module")
def one_sigmoid(pictures, tmp_path_factory):
    images, bright = pictures
    model = brightness("sigmoid", columns=[0])
    out = tmp_path_factory.mktemp("one") / "exports"
    labels = {"labels": ["dark", "red"], "check_images": images, "check_labels": bright[:, 0]}
    return model, *files_of(model, images, out, **labels)


def test_one_sigmoid_is_right_in_every_file(one_sigmoid, pictures):
    model, report, files = one_sigmoid
    images, bright = pictures
    assert report.manifest["output"] == {
        "name": "predictions",
        "is": "probabilities",
        "activation": "sigmoid",
        "size": 1,
    }
    assert report.manifest["classes"] == 2
    assert report.keras_accuracy == 1
    expected = model.predict(images, verbose=0)[:, 0]
    for item in report.checks:
        assert item.passed, item.problems
        assert (item.accuracy, item.agreement) == (1, 1)
        runtime = open_file(files[item.format])
        assert runtime.answers() == Answers("sigmoid", 1)
        given = runtime.probabilities(images)
        assert given.shape == (64, 2)
        # int8's input has steps of 1 grey level, its output of 1/256; 0.05 is what they add up to.
        np.testing.assert_allclose(given[:, 1], expected, atol=0.05)
        assert evaluate.measure(runtime, Split(images, bright[:, 0].astype(int)))["accuracy"] == 1


def test_a_file_that_turns_one_sigmoid_round_fails(one_sigmoid, pictures):
    _, report, _ = one_sigmoid
    turned = brightness("sigmoid", columns=[0])
    turned.get_layer("head").set_weights([-w for w in turned.get_layer("head").get_weights()])
    reference = check.recorded_reference(report.folder)
    (item,) = check.compare({"x": ("tflite-int8", KerasRuntime(turned))}, reference)
    assert item.agreement == 0
    assert "top-1 agreement 0.00%" in "; ".join(item.problems)


def test_predict_classify_and_the_server_name_the_class_of_one_sigmoid(
    one_sigmoid, pictures, tmp_path, capsys
):
    model, report, files = one_sigmoid
    images, bright = pictures
    model.save(report.folder / "colours.keras")
    for name, place in (("red", bright[:, 0].argmax()), ("dark", bright[:, 0].argmin())):
        path = tmp_path / f"{name}.png"
        Image.fromarray(images[place]).save(path)
        for file in (report.folder / "colours.keras", *files.values()):
            assert main.main(["predict", str(file), str(path), "--json"]) == 0
            (found,) = json.loads(capsys.readouterr().out)["predictions"]
            assert found["top"][0]["label"] == name
            assert sum(entry["probability"] for entry in found["top"]) == pytest.approx(1)
        script = [sys.executable, report.folder / "classify.py", files["tflite-int8"], path]
        first = subprocess.run(script, capture_output=True, text=True, check=True).stdout.split()
        assert first[2] == name
        server = open_file(files["savedmodel"])
        answer = server._loaded.signatures["image_bytes"](image_bytes=[path.read_bytes()])
        assert answer["classes"].numpy()[0, 0].decode() == name
        assert answer["scores"].numpy()[0, 0] > 0.5


def test_the_model_card_says_what_one_number_means(one_sigmoid):
    _, report, _ = one_sigmoid
    card = (report.folder / "README.md").read_text()
    assert "the probability of `red`. Above 1/2 the answer is `red`, otherwise `dark`." in card
    assert ".argmax()" not in card  # of one number always 0


def test_one_name_is_that_of_the_high_output(pictures, tmp_path):
    images, _ = pictures
    model = brightness("sigmoid", columns=[0])
    given = {"calibration": images, "labels": ["red"], "out": tmp_path / "out", "verbose": False}
    report = export(model, ["tflite-float32"], **given)
    assert report.manifest["labels"] == ["not red", "red"]
    assert (report.folder / "labels.txt").read_text() == "not red\nred\n"


def test_explain_explains_either_class_of_one_sigmoid(pictures):
    images, bright = pictures
    model, half = brightness("sigmoid", columns=[0]), np.zeros((1, 16, 16, 3), "uint8")
    half[:, :, :8, 0] = 255
    given = {"methods": "gradcam", "layer": "conv"}
    red = explain.explain(model, half, classes=1, **given)["gradcam"]
    dark = explain.explain(model, half, classes=0, **given)["gradcam"]
    assert red[:, :, :7].min() > 0.9  # the border of the halves is blurred by the resize
    assert red[:, :, 9:].max() < 0.1
    assert dark.max() == 0  # a red half speaks against it
    logits = explained_model.prepared(model).predict(images, verbose=0)
    np.testing.assert_array_equal(logits.argmax(-1), bright[:, 0])
    with pytest.raises(UserError, match="from 0 to 1; received 2"):
        explain.explain(model, half, classes=2, **given)


def test_several_sigmoids_get_no_softmax(pictures, tmp_path, capsys):
    images, bright = pictures
    model = brightness("sigmoid")
    labels = {"labels": ["red", "green", "blue"], "check_images": images, "check_labels": bright}
    report, files = files_of(model, images, tmp_path / "out", **labels)
    assert report.manifest["output"]["activation"] == "sigmoid"
    assert report.keras_accuracy == 1
    expected = model.predict(images, verbose=0)
    for item in report.checks:
        assert item.passed, item.problems
        assert (item.accuracy, item.agreement) == (1, 1)
        # The same steps as above.
        given = open_file(files[item.format]).probabilities(images)
        np.testing.assert_allclose(given, expected, atol=0.05)
    card = (report.folder / "README.md").read_text()
    assert "The answer is every class above 1/2: several, one or none." in card
    white = tmp_path / "white.png"
    Image.new("RGB", (16, 16), (255, 255, 255)).save(white)
    assert main.main(["predict", str(files["tflite-int8"]), str(white), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert all(entry["probability"] > 0.9 for entry in found["top"])


def test_several_sigmoids_that_say_no_everywhere_do_not_pass(pictures):
    """With rare classes a file that always says no is right nearly always: noise tells."""
    images, _ = pictures
    model, silent = brightness("sigmoid"), brightness("sigmoid")
    dense = silent.get_layer("head")
    dense.set_weights([0 * dense.get_weights()[0], dense.get_weights()[1]])
    outputs = KerasRuntime(model).predict(images)
    reference = check.Reference(images, outputs, None, "test", "sigmoid")
    (item,) = check.compare({"x": ("tflite-int8", KerasRuntime(silent))}, reference)
    assert not item.passed


FLOAT32 = keras.layers.Activation("linear", dtype="float32")


def _halves(x):
    return keras.layers.Add()([keras.layers.Rescaling(0.5)(x), keras.layers.Rescaling(0.5)(x)])


def _twice(x):
    return keras.layers.Add()([x, x])


ENDINGS = {
    "softmax": (brightness("softmax"), "softmax"),
    "logits": (brightness(None), "linear"),
    "softmax layer": (brightness(None, end=keras.layers.Softmax()), "softmax"),
    "softmax function": (brightness(None, end=keras.ops.softmax), "softmax"),
    "sigmoid function": (brightness(None, end=keras.ops.sigmoid), "sigmoid"),
    "sigmoid and dropout": (brightness("sigmoid", end=keras.layers.Dropout(0.1)), "sigmoid"),
    "softmax, then float32": (brightness("softmax", end=FLOAT32), "softmax"),  # mixed precision
    "sigmoid, then float32": (brightness("sigmoid", end=FLOAT32), "sigmoid"),
    "logits, then float32": (brightness(None, end=FLOAT32), "linear"),
    "softmax, reshaped": (brightness("softmax", end=keras.layers.Reshape((3,))), "softmax"),
    "sigmoid as keras.ops has it": (brightness(keras.ops.sigmoid), "sigmoid"),
    "softmax in percent": (brightness("softmax", end=keras.layers.Rescaling(100.0)), None),
    "softmax, halved twice": (brightness("softmax", end=_halves), "softmax"),
    "softmax, added to itself": (brightness("softmax", end=_twice), None),
    "relu": (brightness("relu"), "linear"),
    "a function of one's own": (brightness("sigmoid", end=lambda x: x * 1.0), None),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_the_graph_tells_what_the_outputs_are(case):
    model, expected = ENDINGS[case]
    assert activation_of(model.outputs[0]) == expected


def test_what_the_graph_does_not_tell_comes_out_or_is_said(pictures, tmp_path):
    images, _ = pictures
    model = ENDINGS["a function of one's own"][0]
    assert KerasRuntime(model).answers() == Answers("sigmoid", 3)
    given = {"calibration": images, "verbose": False}
    said = export(model, ["onnx"], out=tmp_path / "said", activation="linear", **given)
    assert said.manifest["output"]["activation"] == "linear"
    softmax = ENDINGS["softmax"][0]
    with pytest.raises(UserError, match=r"but the model ends in 'softmax'"):
        export(softmax, ["onnx"], out=tmp_path / "no", activation="sigmoid", **given)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("columns", first_by_default([[0, 1, 2], [0]]))
def test_a_file_without_its_manifest_is_read_alike(pictures, tmp_path, activation, columns):
    """A bias behind the last product is an addition in ONNX and OpenVINO."""
    images, _ = pictures
    model = brightness(activation, columns)
    _, files = files_of(model, images, tmp_path / "out", check_images=images)
    (tmp_path / "out" / "manifest.json").unlink()
    expected = Answers(activation or "linear", len(columns))
    for kind, path in files.items():
        assert open_file(path).answers() == expected, kind
    script = [sys.executable, tmp_path / "out" / "classify.py", files["tflite-int8"], "x.png"]
    said = subprocess.run(script, capture_output=True, text=True).stderr
    assert ("Put the manifest.json of its export beside it" in said) == (len(columns) == 1)


def test_a_guess_is_said(pictures, tmp_path, capsys):
    runtime = KerasRuntime(ENDINGS["a function of one's own"][0])
    runtime.answers()
    assert "they are read as 'sigmoid'. Set it with --activation" in capsys.readouterr().err


def test_a_softmax_of_one_output_is_refused(pictures, tmp_path):
    model = brightness("softmax", columns=[0])
    with pytest.raises(UserError, match="a softmax over one output, which is always 1"):
        export(model, ["onnx"], out=tmp_path / "out", calibration=pictures[0], verbose=False)


def test_labels_of_the_wrong_shape_are_refused(pictures, tmp_path):
    images, bright = pictures
    given = {"check_images": images, "check_labels": bright, "out": tmp_path / "out"}
    with pytest.raises(
        UserError, match=r"check_labels must have the shape \(64,\); received \(64, 3\)"
    ):
        export(brightness("softmax"), ["onnx"], **given)


def test_a_network_of_one_class_gets_a_sigmoid_and_says_so():
    with pytest.warns(UserWarning, match="classes=1: the network ends in a sigmoid"):
        model = keras_resnet.ResNet8(classes=1)
    assert activation_of(model.outputs[0]) == "sigmoid"
    logit = keras_resnet.ResNet8(classes=1, classifier_activation=None)
    assert activation_of(logit.outputs[0]) == "linear"


# NaN ----------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    model = brightness("softmax")
    model.get_layer("head").set_weights([w * np.nan for w in model.get_layer("head").get_weights()])
    model.save(tmp_path / "broken.keras")
    return tmp_path / "broken.keras"


def test_nan_is_an_error_that_names_the_file(broken, pictures, tmp_path, capsys):
    path = tmp_path / "picture.png"
    Image.fromarray(pictures[0][0]).save(path)
    for verb in (
        ["predict", str(broken), str(path)],
        ["explain", str(broken), str(path), "--out", str(tmp_path / "sheet")],
        ["export", str(broken), "--formats", "onnx", "--data", str(tmp_path)],
    ):
        assert main.main(verb) == 2
        said = capsys.readouterr().err
        assert "broken.keras" in said or "'colours'" in said
        assert "not finite" in said


def test_nan_is_an_error_in_the_verbs_that_take_exported_files(broken, pictures, tmp_path, capsys):
    model = keras.models.load_model(broken)
    file, image = tmp_path / "nan.tflite", tmp_path / "images" / "picture.png"
    file.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    image.parent.mkdir()
    Image.fromarray(pictures[0][0]).save(image)
    for verb in (
        ["predict", str(file), str(image)],
        ["layers", str(file), str(file), "--images", str(image.parent)],
        ["benchmark", str(file)],
    ):
        assert main.main(verb) == 2
        said = capsys.readouterr().err
        assert f"{file} gives outputs that are not finite" in said


def test_a_file_that_gives_nan_fails_its_check(pictures):
    images, _ = pictures
    model, nan = brightness("softmax"), brightness("softmax")
    nan.get_layer("head").set_weights([w * np.nan for w in nan.get_layer("head").get_weights()])
    outputs = KerasRuntime(model).predict(images)
    reference = check.Reference(images, outputs, None, "test", "softmax")
    (item,) = check.compare({"x": ("tflite-float32", KerasRuntime(nan))}, reference)
    assert "not finite" in "; ".join(item.problems)


def test_decode_predictions_names_both_classes_of_one_sigmoid(tmp_path):
    for text in ("red\n", "not red\nred\n"):
        (tmp_path / "labels.txt").write_text(text)
        (found,) = keras_resnet.decode_predictions([[0.25]], tmp_path)
        assert [tuple(item) for item in found] == [
            ("not red", "not red", 0.75),
            ("red", "red", 0.25),
        ]


def test_decode_predictions_refuses_nan():
    scores = np.full((2, 10), 0.1)
    scores[1, 3] = np.nan
    with pytest.raises(UserError, match="1 of 2 rows have scores that are not finite"):
        keras_resnet.decode_predictions(scores, data="cifar10")


# Training that would read sigmoids as a softmax ---------------------------------------------------


def test_training_that_compares_softmaxes_refuses_sigmoids():
    with pytest.raises(
        UserError, match=r"'colours' ends in sigmoids, but this training needs a softmax"
    ):
        transfer.require_classes(brightness("sigmoid"), 3)
    with pytest.raises(UserError, match="ends in sigmoids, but distillation needs a softmax"):
        teacher.require_fit(brightness("sigmoid"), (16, 16, 3), 3)
    with pytest.raises(UserError, match="has one output, but distillation needs a softmax"):
        teacher.require_fit(brightness(None, columns=[0]), (16, 16, 3), 2)
    transfer.require_classes(brightness("softmax"), 3)
    teacher.require_fit(brightness(None), (16, 16, 3), 3)
