"""`check FILE --against MODEL`: files that this package did not write, against their models."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import assert_same_answers, check_file, export


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3)).astype("uint8")


@pytest.fixture(scope="module")
def model():
    """A classifier in [-1, 1], as those of keras.applications, with answers that differ."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(16, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    head = keras.layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=3))
    return keras.Model(inputs, keras.layers.Softmax()(head(x)), name="small")


@pytest.fixture(scope="module")
def files(model, pixels, tmp_path_factory):
    """Files by Keras' own export and by TensorFlow's converter."""
    folder = tmp_path_factory.mktemp("foreign")
    model.save(folder / "model.keras")
    model.export(folder / "saved", verbose=False)
    model.export(folder / "float.tflite", format="litert", verbose=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "dynamic.tflite").write_bytes(converter.convert())
    converter.representative_dataset = lambda: ([x[None] / 127.5 - 1] for x in _floats(pixels))
    (folder / "int8.tflite").write_bytes(converter.convert())
    return folder


def _floats(pixels):
    return pixels.astype("float32")


KINDS = {"saved": "savedmodel", "float.tflite": "tflite-float32"}
KINDS |= {"dynamic.tflite": "tflite-dynamic", "int8.tflite": "tflite-int8"}


@pytest.mark.parametrize("name", KINDS)
def test_other_programs_files_pass_against_their_model(name, files, model, pixels):
    found, reference = check_file(files / name, model, pixels, preprocessing="tf")
    assert found.format == KINDS[name]
    assert found.problems == ()
    assert found.n == 64
    assert reference.images.min() == -1.0
    assert reference.images.max() == 1.0
    assert_same_answers(files / name, files / "model.keras", pixels, preprocessing="tf")


def test_a_file_of_another_model_fails(files, model, pixels):
    other = keras.models.clone_model(model)
    with pytest.raises(AssertionError, match="signal-to-noise"):
        assert_same_answers(files / "int8.tflite", other, pixels, preprocessing="tf")
    logits = keras.Model(model.input, model.layers[-2].output)
    with pytest.raises(AssertionError, match="the outputs are 'softmax', but those of the model"):
        assert_same_answers(files / "float.tflite", logits, pixels, preprocessing="tf")


def test_the_form_of_the_images_is_that_of_keras_applications(pixels):
    from keras_resnet.export.any_file import normalised

    for mode in ("tf", "caffe", "torch"):
        theirs = keras.applications.imagenet_utils.preprocess_input(_floats(pixels), mode=mode)
        # They divide by 127.5 or 255 first, in float32.
        np.testing.assert_allclose(normalised(pixels, mode), theirs, atol=2e-5)
    assert normalised(pixels, "raw") is pixels
    with pytest.raises(UserError, match=r"Unknown preprocessing 'tff'\. Did you mean 'tf'"):
        normalised(pixels, "tff")
    for mode in keras_resnet.images.preprocessing.PREPROCESSING:  # each of them is taken
        assert normalised(pixels, mode).shape == pixels.shape


def test_the_command(files, pixels, tmp_path, capsys):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(photographs / f"{number:02}.png")
    against = ["--against", str(files / "model.keras"), "--preprocessing", "tf"]
    command = ["check", str(files / "int8.tflite"), *against, "--data", str(photographs)]
    assert main([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["passed"], content["check"]["n"]) == (True, 64)
    assert content["files"][0]["format"] == "tflite-int8"
    assert content["files"][0]["latency_ms"] > 0
    assert main([*command[:4], "--data", str(photographs)]) in (0, 1)  # other images, no error
    assert "tflite-int8, checked on 64 images" in capsys.readouterr().out
    assert main(["check", str(files / "int8.tflite")]) == 2
    assert "needs the model and images: keras-resnet check" in capsys.readouterr().err


@pytest.mark.slow
def test_networks_of_keras_applications(tmp_path):
    """A network in [-1, 1] and one in BGR, each as its own `export` writes it."""
    photographs = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3)).astype("uint8")
    for build, mode in (
        (keras.applications.MobileNetV2, "tf"),
        (keras.applications.ResNet50, "caffe"),
    ):
        model = build(weights=None, input_shape=(96, 96, 3))
        path = tmp_path / f"{model.name}.tflite"
        model.export(path, format="litert", verbose=False)
        assert_same_answers(path, model, photographs, preprocessing=mode)


def test_a_model_of_keras_hub_is_checked_and_exported(pixels, tmp_path):
    keras_hub = pytest.importorskip("keras_hub", reason="pip install keras-hub")
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        use_pre_activation=False,
        image_shape=(16, 16, 3),
    )
    model = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=4, name="hub")
    model.export(tmp_path / "hub.tflite", format="litert", verbose=False)
    assert_same_answers(tmp_path / "hub.tflite", model, pixels)
    formats = ["savedmodel", "tflite-float32", "tflite-int8"]
    report = export(model, formats, out=tmp_path / "out", calibration=pixels, verbose=False)
    assert report.passed, [item.problems for item in report.checks]
