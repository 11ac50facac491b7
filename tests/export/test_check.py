"""`keras-resnet check` on other images and against other models; images that export checks on."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms
from PIL import Image

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.export import check, export, manifest
from keras_resnet.recipes.export import export_source, images_of, reference
from keras_resnet.recipes.runs import sources

SIZE = 24


def _write(images, folder):
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder


# Preprocessing in front ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rescaled(tmp_path_factory):
    """A model of free size without its normalisation, and an export that puts it in front."""
    folder = tmp_path_factory.mktemp("rescaled")
    keras.utils.set_random_seed(0)
    model = randomize_batch_norms(keras_resnet.ResNet8(input_shape=(None, None, 3)))
    model.save(folder / "bare.keras")
    images = np.random.default_rng(0).integers(0, 256, (40, SIZE, SIZE, 3)).astype("uint8")
    given = {"calibration": images, "preprocessing": "tf", "verbose": False}
    formats = ["savedmodel", "tflite-float32"]
    assert export(model, formats, out=folder / "exports", **given).passed
    _write(images[:3], folder / "photos")
    return folder


@pytest.mark.parametrize("data", [[], ["--data", "photos"]])
def test_a_normalisation_that_was_put_in_front_is_applied_again(rescaled, monkeypatch, data):
    monkeypatch.chdir(rescaled)
    assert manifest.read(rescaled / "exports")["preprocessing"] == "tf"
    assert main(["check", "exports", "--against", "bare.keras", *data]) == 0


def test_a_model_with_its_normalisation_inside_gets_no_other(rescaled):
    bare = keras.models.load_model(rescaled / "bare.keras")
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    keras.Model(inputs, bare(x), name="whole").save(rescaled / "whole.keras")
    whole = ["--against", str(rescaled / "whole.keras")]
    assert main(["check", str(rescaled / "exports"), *whole]) == 0


def test_a_manifest_that_does_not_know_the_normalisation_is_read(rescaled, tmp_path, capsys):
    """Of an older export: read, and compared without it, which the check must notice."""
    folder = shutil.copytree(rescaled / "exports", tmp_path / "exports")
    content = manifest.read(folder)
    del content["preprocessing"]
    (folder / "manifest.json").write_text(json.dumps(content))
    assert main(["check", str(folder)]) == 0
    assert main(["check", str(folder), "--against", str(rescaled / "bare.keras")]) == 1
    assert "the logits differ by" in capsys.readouterr().out


def test_a_failed_check_names_what_to_try_in_order():
    """Only where the values of a quantized file differ: no calibration mends a wrong interface."""

    def failed(kind, n):
        found = check.FileCheck("f", kind, "uint8", "uint8", n=n, problems=("differs",))
        return found.to_dict()

    assert check.advice([failed("tflite-int8", 0), failed("tflite-float32", 9)]) == []
    assert check.advice([]) == []
    lines = check.advice([failed("tflite-float32", 9), failed("tflite-int8", 9)])
    tried = ["--calibration F", "--calibration-method p", "layers EXPORTS --worst", "--keep-float"]
    for number, option in enumerate([*tried, "keras-resnet qat"], 1):
        assert lines[number].startswith(f"{number}. ")
        assert option in lines[number]


# Other classes ------------------------------------------------------------------------------------


def test_data_of_other_classes_is_warned_about(tiny_run, digits, tmp_path, capsys):
    """As many classes, so that nothing else shows it."""
    (tmp_path / "alone").mkdir()
    files = [tmp_path / "birds.keras", tmp_path / "alone" / "birds.keras"]
    for file in files:
        shutil.copy(tiny_run.model, file)
    (tmp_path / "labels.txt").write_text("".join(f"bird {index}\n" for index in range(10)))
    given = {"formats": ("savedmodel",), "check_count": 8, "out": tmp_path / "exports"}
    exports = export_source(sources.find(str(files[0])), digits, **given).folder
    assert capsys.readouterr().err.count(f"'digits' has other classes than {files[0]}\n") == 1
    command = ["check", str(exports), "--data", "digits", "--check-images", "8", "--against"]
    for file in files:  # the second does not know its classes, but the export does
        assert main([*command, str(file)]) == 0
        assert capsys.readouterr().err.count(f"'digits' has other classes than {file}\n") == 1
    assert main([*command, str(tiny_run.path)]) == 0
    assert "has other classes than" not in capsys.readouterr().err


# Images of a folder -------------------------------------------------------------------------------


def test_a_folders_images_are_as_many_as_asked_for_and_evenly_spaced(tmp_path):
    """257: one more than an export calibrates on."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    model.save(tmp_path / "model.keras")
    source = sources.find(str(tmp_path / "model.keras"))
    pixels = np.minimum(np.arange(257), 255).astype("uint8")[:, None, None, None]
    folder = _write(np.broadcast_to(pixels, (257, 8, 8, 3)), tmp_path / "photos")
    arguments = (source, folder, ("savedmodel",))
    content = export_source(*arguments, tmp_path / "all").manifest
    assert (content["check"]["n"], content["calibration_images"]) == (257, 256)
    found = reference(source, folder, 257, content)
    assert len(found.images) == 257
    found = reference(source, folder, 3, content)
    assert found.images[:, 0, 0, 0].tolist() == [0, 128, 255]
    assert len(images_of(str(folder), model)) == 256
