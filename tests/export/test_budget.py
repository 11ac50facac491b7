"""`export(max_drop=...)`: the options of the int8 file are searched within a budget of accuracy."""

import json

import keras
import numpy as np
import pytest

from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import budget, export


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (96, 16, 16, 3)).astype("uint8")


@pytest.fixture(scope="module")
def model():
    """A network that int8 hurts: one channel of the first layer is 300 times as large as others.

    All channels share the steps of the layer's output, so the small ones vanish in it. With that
    output in float32 nothing is lost.
    """
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    large = np.ones(8, "float32")
    large[0] = 300.0
    first = keras.layers.Conv2D(8, 3, name="first")
    x = keras.layers.ReLU(name="relu")(first(x))
    x = keras.layers.Conv2D(16, 3, strides=2, name="second")(x)
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    x = keras.layers.Dense(4, name="head")(x)
    built = keras.Model(inputs, keras.layers.Softmax(name="softmax")(x), name="skewed")
    kernel, bias = first.get_weights()
    first.set_weights([kernel * large, bias])
    second = built.get_layer("second")
    kernel, bias = second.get_weights()
    kernel[:, :, 0] /= 300.0 * 300.0  # the large channel says little
    second.set_weights([kernel, bias])
    head = built.get_layer("head")
    kernel, bias = head.get_weights()
    outputs = keras.Model(inputs, built.get_layer("pool").output)
    features = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3)).astype("float32")
    found = outputs.predict(features, verbose=0)
    kernel *= 8 / found.std(0)[:, None]  # the answers differ from image to image
    head.set_weights([kernel, -found.mean(0) @ kernel])
    return built


def _exported(model, images, tmp_path, max_drop):
    return export(
        model,
        ["tflite-int8"],
        out=tmp_path / "exports",
        calibration=images[:48],
        check_images=images[48:],
        max_drop=max_drop,
        verbose=False,
    )


def test_a_loose_budget_takes_the_first_method(model, images, tmp_path):
    report = _exported(model, images, tmp_path, 100.0)
    (trial,) = report.manifest["budget"]["tried"]
    assert (trial["options"], trial["format"]) == ("min-max", "tflite-int8")
    assert report.passed == (trial["drop"] < 10)  # the usual check of agreement is not looser


def test_the_search_goes_on_until_the_budget_holds(model, images, tmp_path):
    report = _exported(model, images, tmp_path, 5.0)
    tried = report.manifest["budget"]["tried"]
    assert [t["options"] for t in tried[:3]] == ["min-max", "percentile", "moving-average"]
    assert all(t["drop"] > 5 for t in tried[:-1])
    assert tried[-1]["drop"] <= 5
    assert "float32: " in tried[-1]["options"]
    assert report.manifest["keep_float"] == tried[-1]["keep_float"]
    (check,) = report.checks
    assert 100 * (1 - check.agreement) == pytest.approx(tried[-1]["drop"])
    assert report.passed, check.problems


@pytest.mark.slow
def test_the_last_resort_is_16_bit_activations(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "_LAYERS", ())
    report = _exported(model, images, tmp_path, 0.0)
    tried = report.manifest["budget"]["tried"]
    assert [t["format"] for t in tried] == ["tflite-int8"] * 3 + ["tflite-int16x8"]
    best = min(tried, key=lambda t: t["drop"])
    (check,) = report.checks
    assert check.format == best["format"]
    assert report.passed == (best["drop"] == 0), check.problems


def test_a_file_over_the_budget_fails():
    from dataclasses import dataclass

    from keras_resnet.export.check import FileCheck

    @dataclass
    class Accurate:
        accuracy: float | None

    item = FileCheck("x", "tflite-int8", "uint8", "uint8", n=10, agreement=0.98, accuracy=0.90)
    (found,) = budget.judged([item], Accurate(0.91), 0.5)
    assert found.problems[0].startswith("it loses 1.00 points on the check images")
    assert budget.judged([item], Accurate(0.91), 1.5) == [item]
    (found,) = budget.judged([item], Accurate(None), 1.5)  # 2 % of the answers are others
    assert "it loses 2.00 points" in found.problems[0]
    floats = FileCheck("x", "tflite-float32", "float32", "float32", n=10, agreement=0.5)
    assert budget.judged([floats], Accurate(None), 0.0) == [floats]


@pytest.mark.parametrize(
    ("max_drop", "formats", "message"),
    [
        (-1.0, ["tflite-int8"], "from 0 to 100 points; received -1.0"),
        (float("nan"), ["tflite-int8"], "from 0 to 100 points; received nan"),
        (0.5, ["tflite-float32"], "chooses the options of tflite-int8; received the formats"),
    ],
)
def test_a_budget_that_cannot_be_used_is_refused(
    model, images, tmp_path, max_drop, formats, message
):
    with pytest.raises(UserError, match=message):
        export(
            model,
            formats,
            out=tmp_path / "out",
            calibration=images,
            max_drop=max_drop,
            verbose=False,
        )
    assert not (tmp_path / "out").exists()


def test_the_command_prints_what_it_tried(tiny_run, tmp_path, capsys):
    command = ["export", str(tiny_run.path), "--formats", "tflite-int8", "--max-drop", "3"]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    printed = capsys.readouterr().out
    assert "Tried: at most 3 points" in printed
    assert "min-max" in printed
    content = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert content["budget"]["max_drop"] == 3
