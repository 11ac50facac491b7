"""BNs that no convolution absorbs: one depthwise convolution each, in every TFLite file."""

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms

import keras_resnet
from keras_resnet import keras_compat
from keras_resnet.export import check, export
from keras_resnet.export.formats import saved_model
from keras_resnet.export.formats.tflite import convert
from keras_resnet.export.rewrites import batch_norms
from keras_resnet.export.runtimes.open import open_file

layers = keras.layers


def _with_odd_scales(model):
    """BN statistics of a trained network, and in each some scales that no ReLU lets through."""
    randomize_batch_norms(model)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma = np.array(layer.gamma)
            gamma[:4] = [-0.7, 0.0, 1e-9, -1e-20]
            layer.gamma.assign(gamma)
    return model


def _build(name, **options):
    keras.utils.set_random_seed(0)
    options = {"input_shape": (32, 32, 3), "classifier_activation": None, **options}
    model = keras_resnet.create_model(name, include_preprocessing=True, **options)
    return _with_odd_scales(model)


_SMALL = {"depths": (1, 2, 1), "widths": (4, 8, 8), "stem_width": 8, "classes": 10}
# Name, options, and how many BNs have no convolution of their own in front. In pre-activation that
# is the first of each unit and the head's, but for a first unit right behind the stem; Keras
# Applications' ResNet50V2 has a pool there.
_NETWORKS = [
    ("resnetv2_20", {}, 9),
    ("resnet50v2", _SMALL, 5),
    ("resnetv2_50", _SMALL, 5),
    ("test_densenet", {}, 7),
    ("resnet20_bn_after_add", {"depths": (1, 1, 1)}, 3),
    ("wrn16_4", {"widths": (4, 8, 8), "depths": (1, 1, 1)}, 3),
]


@pytest.mark.parametrize(("name", "options", "count"), _NETWORKS)
def test_the_rewritten_network_is_the_same_function(name, options, count):
    """1e-5 of the largest logit: float32 rounding, scale and offset instead of four numbers."""
    model = keras_resnet.to_stock(_build(name, **options))
    rewritten, report = batch_norms.to_depthwise(model)
    assert report["left"] == []
    assert len(report["batch_norm_to_depthwise"]) == count
    for layer in report["batch_norm_to_depthwise"]:
        assert isinstance(rewritten.get_layer(layer), layers.DepthwiseConv2D)
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    difference = np.abs(rewritten.predict(x, verbose=0) - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [_NETWORKS[0], pytest.param(*_NETWORKS[1], marks=pytest.mark.slow)],
)
def test_files_have_one_operation_for_each(tmp_path, images, name, options, count):
    """No MUL, whatever the signs of the scales; the SavedModel keeps the network as it is."""
    model = _build(name, **options)
    report = export(
        model,
        ["savedmodel", "tflite-float32", "tflite-int8"],
        out=tmp_path / "out",
        calibration=images,
        verbose=False,
    )
    assert report.passed, [item.problems for item in report.checks]
    units = [layer.name for layer in model.layers if layer.name.endswith("_add")]
    for item in report.checks[1:]:
        assert "MUL" not in item.operations
        assert item.operations["DEPTHWISE_CONV_2D"] == count
        assert item.operations["ADD"] == len(units) + 1  # the mean pixel
    assert len(report.manifest["rewrites"]["batch_norm_to_depthwise"]) == count
    assert report.manifest["rewrites"]["left"] == []
    scales = report.manifest["rewrites"]["rescaling_to_convolution"]
    assert [scale["into"] for scale in scales] == ["stem_conv"]


def _uneven(images):
    """One BN behind a ReLU, whose channels differ in size by factors, as a stage's sums do."""
    keras.utils.set_random_seed(2)
    rng = np.random.default_rng(2)
    inputs = layers.Input((32, 32, 3))
    x = layers.Rescaling(1 / 64, -2.0)(inputs)
    before = layers.Conv2D(16, 3, activation="relu")(x)
    bn = layers.BatchNormalization()
    x = layers.Conv2D(16, 3)(layers.ReLU()(bn(before)))
    outputs = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    convolution = keras_compat.producer(before)
    kernel, bias = convolution.get_weights()
    convolution.set_weights([kernel * rng.lognormal(0, 1, 16), bias])
    maps = keras.Model(inputs, before).predict(images, verbose=0)
    gamma, beta = rng.lognormal(0, 0.3, 16), rng.normal(0, 0.3, 16)
    bn.set_weights([gamma, beta, maps.mean((0, 1, 2)), maps.var((0, 1, 2))])
    return model


def _int8_snr(model, images, folder):
    saved_model.write(model, folder, batch=1)
    path = folder.with_suffix(".tflite")
    path.write_bytes(convert.quantized(convert.float32(folder), "int8", images))
    outputs = open_file(path).predict(images)
    return check._signal_to_noise(outputs, model.predict(images.astype("float32"), verbose=0))


def test_int8_gains_by_it(tmp_path, images):
    """A kernel has a step of int8 per channel, and its bias 32 bits; MUL and ADD have one step for
    all channels, which is coarse for the small ones. 3 dB: half the noise."""
    model = _uneven(images)
    rewritten, _ = batch_norms.to_depthwise(model)
    before = _int8_snr(model, images, tmp_path / "before")
    after = _int8_snr(rewritten, images, tmp_path / "after")
    assert after > before + 3


def test_a_network_without_such_layers_is_returned_itself(resnet20):
    model = keras_resnet.to_stock(resnet20)
    rewritten, report = batch_norms.to_depthwise(model)
    assert rewritten is model
    assert report == {"batch_norm_to_depthwise": [], "left": []}


def test_what_the_converter_absorbs_is_left_to_it():
    """Behind a convolution that nothing else reads; dropout between them is idle at inference."""
    inputs = layers.Input((8, 8, 3))
    x = layers.BatchNormalization(name="absorbed")(layers.Conv2D(4, 1)(inputs))
    x = layers.Dropout(0.5)(layers.Conv2D(4, 1)(x))
    x = layers.BatchNormalization(name="behind_dropout")(x)
    x = layers.Conv2D(4, 1, activation="relu")(x)
    x = layers.BatchNormalization(name="behind_relu")(x)
    forked = layers.Conv2D(4, 1)(x)
    x = layers.Add()([layers.BatchNormalization(name="forked")(forked), forked])
    _, report = batch_norms.to_depthwise(keras.Model(inputs, x))
    assert report["batch_norm_to_depthwise"] == ["behind_relu", "forked"]


def test_what_cannot_be_rewritten_is_named_with_the_reason():
    inputs = layers.Input((8, 8, 3))
    inner_inputs = layers.Input((8, 8, 3))
    inner = layers.BatchNormalization(name="deep")(layers.ReLU()(inner_inputs))
    x = keras.Model(inner_inputs, inner, name="backbone")(inputs)
    x = layers.BatchNormalization(axis=1, name="rows")(layers.ReLU()(x))
    x = layers.BatchNormalization(name="vector")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    rewritten, report = batch_norms.to_depthwise(model)
    assert rewritten is model
    assert {entry["layer"]: entry["why"] for entry in report["left"]} == {
        "rows": "it normalises axis 1, not the last one",
        "vector": "its input has 2 dimensions; an image has 4",
        "deep": "it is inside the nested model 'backbone'",
    }


def test_layers_called_twice_or_with_keywords_are_rewritten():
    """A shared BN, one without scale and offset, and one that was told it is not in training."""
    inputs = layers.Input((8, 8, 3))
    shared = layers.BatchNormalization(name="shared")
    x = layers.Add()([shared(layers.ReLU()(inputs)), shared(layers.MaxPooling2D(1)(inputs))])
    x = layers.BatchNormalization(scale=False, center=False, name="plain")(x, training=False)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    for name in ("shared", "plain"):
        weights = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([rng.uniform(0.5, 1.5, w.shape) for w in weights])
    rewritten, report = batch_norms.to_depthwise(model)
    assert report["batch_norm_to_depthwise"] == ["shared", "plain"]
    x = rng.normal(size=(2, 8, 8, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    # Two roundings of numbers of this size.
    np.testing.assert_allclose(rewritten.predict(x, verbose=0), expected, atol=1e-5)
