"""The project's bars for exported files, on real images and trained weights; slow."""

import functools

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

import keras_resnet
from keras_resnet.errors import MissingExtraError, UserError
from keras_resnet.export import export
from keras_resnet.export.formats import table
from keras_resnet.recipes import load_dataset
from keras_resnet.recipes.export import export_source
from keras_resnet.recipes.runs import sources

FLOAT = ("savedmodel", "tflite-float32", "onnx", "openvino")


def _views(count, size):
    """`count` squares of each of two photographs, of 64 to 427 pixels a side, at `size`."""
    rng, views = np.random.default_rng(0), []
    for photograph in load_sample_images().images:
        for side in rng.integers(64, 427, count):
            top, left = rng.integers(0, 427 - side + 1), rng.integers(0, 640 - side + 1)
            places = np.linspace(0, side - 1, size).astype(int)
            views.append(photograph[top : top + side, left : left + side][places][:, places])
    return np.stack(views)


def _settled(name, images):
    """`name` with random weights, and BN statistics that it has on these images."""
    model = keras_resnet.create_model(name, include_preprocessing=True)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    for layer in norms:
        layer.momentum = 0.9
    return model


@functools.cache
def _case(name):
    """A network and photographs of its size."""
    if name.startswith("resnet50"):
        views = _views(4, 224)
        return _settled(name, views), views
    model = keras_resnet.create_model(name, weights="cifar10", include_preprocessing=True)
    return model, _views(16, 32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("name", ["resnet20", "resnetv2_20", "resnet50", "resnet50v2"])
def test_float_files_answer_photographs_as_keras_does(name, kind, tmp_path):
    """Logits within 1e-4 of the largest one; measured: from ten to hundreds of times below."""
    try:
        table.known([kind])
    except MissingExtraError as error:
        pytest.skip(str(error))
    model, views = _case(name)
    report = export(model, [kind], out=tmp_path / "out", check_images=views, verbose=False)
    (item,) = report.checks
    print(name, item.format, item.logit_error)
    assert item.logit_error < 1e-4


# Points of accuracy that quantizing after training may cost; None: there is no bar.
MOST_LOST = {"resnet8": None, "resnet20": 0.3, "resnet32": None, "resnetv2_20": 0.4}


@pytest.mark.slow
@pytest.mark.parametrize("name", MOST_LOST)
def test_int8_files_name_the_class_that_keras_weights(name, tmp_path):
    """98 % of CIFAR-10's 10,000 test images, without ties counted in our favour."""
    try:
        dataset = load_dataset("cifar10")
    except UserError as error:
        pytest.skip(f"needs cifar10: {error}")
    source = sources.find(name, "cifar10")
    out = tmp_path / "out"
    report = export_source(source, dataset, ("tflite-int8",), out, about=None)
    (item,) = report.checks
    print(name, item.agreement, item.accuracy, report.keras_accuracy)
    assert item.n == 10_000
    assert item.agreement >= 0.98
    if MOST_LOST[name] is not None:
        wrong = round(10_000 * (report.keras_accuracy - item.accuracy))
        assert wrong <= 100 * MOST_LOST[name]
    if name == "resnet8":  # MLPerf Tiny's int8 file: 86.99 %, 98,496 bytes
        assert item.accuracy >= 0.88
        assert (out / item.file).stat().st_size <= 98_496
