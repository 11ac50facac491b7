"""`keras_resnet.applications`: what was written for `keras.applications` gives Keras' answers."""

import hashlib
import inspect
import json
from importlib import import_module

import keras
import numpy as np
import pytest
from helpers import foreign_files
from keras.src.applications import imagenet_utils

import keras_resnet
from keras_resnet.applications import mirror
from keras_resnet.errors import UserError
from keras_resnet.importing.files import import_file
from keras_resnet.importing.parity import patched_images
from keras_resnet.weights import download

NETWORKS = {
    "resnet": ("ResNet50", "ResNet101", "ResNet152"),
    "resnet50": ("ResNet50",),
    "resnet_v2": ("ResNet50V2", "ResNet101V2", "ResNet152V2"),
    "vgg16": ("VGG16",),
    "vgg19": ("VGG19",),
    "densenet": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "inception_v3": ("InceptionV3",),
    "inception_resnet_v2": ("InceptionResNetV2",),
}
PAIRS = [(module, name) for module, names in NETWORKS.items() for name in names]


def keras_index():
    """imagenet_class_index.json, which Keras' `decode_predictions` downloads, from ours."""
    (named,) = mirror.decode_predictions(-np.arange(1000.0)[None], top=1000)
    return {str(number): [wnid, name] for number, (wnid, name, _) in enumerate(named)}


# What is there ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", NETWORKS)
def test_a_module_has_the_names_of_keras(module):
    theirs = import_module(f"keras.applications.{module}")
    ours = import_module(f"keras_resnet.applications.{module}")
    assert set(ours.__all__) == {name for name in vars(theirs) if name[0] != "_"}
    for name in ours.__all__:
        assert getattr(ours, name).__name__ == name
        mine, other = (inspect.signature(getattr(x, name)).parameters for x in (ours, theirs))
        assert {k: p.default for k, p in mine.items()} == {k: p.default for k, p in other.items()}
        assert list(mine) == list(other)


def test_the_networks_are_there_as_in_keras_without_a_module():
    for name in (name for names in NETWORKS.values() for name in names):
        assert getattr(keras_resnet.applications, name) is getattr(mirror, name)
    assert keras_resnet.applications.resnet50.ResNet50 is keras_resnet.applications.ResNet50


def test_the_names_of_the_classes_are_keras_own():
    content = json.dumps(keras_index()).encode()
    assert hashlib.md5(content).hexdigest() in inspect.getsource(imagenet_utils)


# What it answers ----------------------------------------------------------------------------------

SNIPPET = """
from {package}.{module} import {network}, preprocess_input, decode_predictions

model = {network}(weights=weights, input_shape=(size, size, 3))
predictions = model.predict(preprocess_input(images.copy()), verbose=0)
named = decode_predictions(predictions, top=3)
"""


def _run(package, module, network, **given):
    code = SNIPPET.format(package=package, module=module, network=network)
    exec(code, given)
    return given


def _require_the_same_answers(module, network, size, file):
    theirs = getattr(keras.applications, network)(weights=None, input_shape=(size, size, 3))
    foreign_files.randomize(theirs)
    (theirs.save_weights if file.name.endswith(".weights.h5") else theirs.save)(file)
    given = {"weights": str(file), "images": patched_images(size).astype("float32"), "size": size}
    expected = _run("keras.applications", module, network, **given)
    found = _run("keras_resnet.applications", module, network, **given)
    # Float32 in other kernels; probabilities are at most 1. Seen: 3e-6.
    np.testing.assert_allclose(found["predictions"], expected["predictions"], atol=5e-5)
    for mine, other in zip(found["named"], expected["named"], strict=True):
        assert [x[:2] for x in mine] == [x[:2] for x in other]
        np.testing.assert_allclose([x[2] for x in mine], [x[2] for x in other], atol=5e-5)
    return found, expected


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Keras' names of the classes, which it would download."""
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", keras_index())


def test_a_notebook_gives_keras_predictions(tmp_path):
    found, expected = _require_the_same_answers(
        "resnet50", "ResNet50", 64, tmp_path / "theirs.weights.h5"
    )
    # What this is about: Keras' own pixels in front of our network are another picture.
    x = expected["preprocess_input"](patched_images(64).astype("float32"))
    wrong = found["model"].predict(x, verbose=0)
    assert np.abs(wrong - expected["predictions"]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("module", "network"), PAIRS)
@pytest.mark.parametrize("file", ["whole.h5", "whole.keras", "alone.weights.h5"])
def test_every_notebook_gives_keras_predictions(module, network, file, tmp_path):
    if file != "alone.weights.h5" and (module, network) not in (PAIRS[0], PAIRS[4]):
        pytest.skip("the kind of the file is the same for all")
    size = {"vgg16": 224, "vgg19": 224}.get(module, 96)  # VGG's dense layers know the size
    _require_the_same_answers(module, network, size, tmp_path / file)


@pytest.mark.parametrize("module", NETWORKS)
def test_pixels_are_keras_up_to_the_order_of_channels(module):
    images = patched_images(8).astype("float32")
    theirs = import_module(f"keras.applications.{module}").preprocess_input(images.copy())
    ours = import_module(f"keras_resnet.applications.{module}").preprocess_input
    if module in ("resnet", "resnet50", "vgg16", "vgg19"):
        theirs = theirs[..., ::-1]
    before = images.copy()
    # One float32 rounding of values up to 255.
    np.testing.assert_allclose(ours(images), theirs, atol=3e-5)
    np.testing.assert_allclose(ours(images[0]), theirs[0], atol=3e-5)
    np.testing.assert_array_equal(images, before)  # Keras writes over them
    with pytest.raises(UserError, match="channels last"):
        ours(images, data_format="channels_first")


@pytest.mark.parametrize("options", [{}, {"pooling": "avg"}])
def test_without_the_top_the_shapes_are_keras(options):
    arguments = {"include_top": False, "weights": None, **options}
    ours, theirs = (
        package.ResNet50(**arguments) for package in (keras_resnet.applications, keras.applications)
    )
    assert ours.input_shape == theirs.input_shape
    assert ours.output_shape == theirs.output_shape
    assert ours.name == theirs.name


def test_a_file_without_the_top_gives_keras_features(tmp_path):
    """As notebooks take them that fine-tune without a network: `…_notop.h5`."""
    without = {"include_top": False, "pooling": "avg", "input_shape": (64, 64, 3)}
    theirs = foreign_files.randomize(keras.applications.ResNet50(weights=None, **without))
    file = foreign_files.legacy_file(tmp_path / "resnet50_weights_notop.h5", theirs)
    ours = keras_resnet.applications.ResNet50(weights=file, **without)
    x = patched_images(64).astype("float32")
    expected = theirs.predict(keras.applications.resnet50.preprocess_input(x.copy()), verbose=0)
    found = ours.predict(keras_resnet.preprocess_input(x, ours), verbose=0)
    # Float32 in other kernels, over 50 layers.
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(UserError, match="Use it as weights= with include_top=False"):
        import_file(file, "resnet50")


@pytest.mark.slow
@pytest.mark.parametrize(("module", "network"), [pair for pair in PAIRS if pair[0] != "resnet50"])
def test_every_file_without_the_top_is_known(module, network, tmp_path):
    theirs = getattr(keras.applications, network)(weights=None, include_top=False)
    file = foreign_files.legacy_file(tmp_path / "notop.h5", theirs)
    ours = getattr(keras_resnet.applications, network)(weights=file, include_top=False)
    assert ours.count_params() > 0
    with pytest.raises(UserError, match=r"the file fits|are .* weights, use"):
        keras_resnet.create_model("resnet18", weights=file)


def test_the_weights_of_another_network_are_refused(tmp_path):
    keras.applications.ResNet50V2(weights=None, input_shape=(32, 32, 3), classes=3).save(
        tmp_path / "v2.h5"
    )
    with pytest.raises(UserError, match="resnet50v2"):
        keras_resnet.applications.ResNet50(weights=tmp_path / "v2.h5")


def test_offline_the_default_weights_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv(download.OFFLINE, "1")
    monkeypatch.setenv(download.HOME, str(tmp_path))
    with pytest.raises(UserError, match=r"Put the file of https://.*resnet50_weights.* by hand"):
        keras_resnet.applications.ResNet50()


def test_the_help_of_a_builder_names_the_right_preprocessing():
    assert "keras_resnet.preprocess_input" in keras_resnet.ResNet50.__doc__
    assert "keras_resnet.applications" in keras_resnet.ResNet50.__doc__
