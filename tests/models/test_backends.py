"""Dtype policies that are not mixed, and Keras' other backends."""

import importlib.util

import keras
import numpy as np
import pytest
from helpers import run_python

import keras_resnet
from keras_resnet.layers import BatchNormalization


@pytest.mark.parametrize("policy", ["bfloat16", "float16"])
def test_networks_train_under_policies_that_are_not_mixed(policy, tmp_path):
    """Statistics and parameters are of half precision there, which the fused kernel refuses."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras_resnet.create_model("test_resnet", include_preprocessing=True)
    finally:
        keras.config.set_dtype_policy(previous)
    assert model.get_layer("stem_bn").moving_mean.dtype == policy
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    before = np.asarray(keras.ops.cast(model.get_layer("stem_bn").moving_mean, "float32"))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(8), verbose=0)
    after = np.asarray(keras.ops.cast(model.get_layer("stem_bn").moving_mean, "float32"))
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() > 0
    outputs = model.predict(images, verbose=0)
    assert np.isfinite(outputs).all()
    model.save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), outputs)
    stock = keras_resnet.to_stock(model).predict(images, verbose=0)
    # Probabilities; bfloat16 rounds to 8 bits in each of 6 weight layers, float16 to 11.
    np.testing.assert_allclose(outputs, stock, atol={"bfloat16": 0.1, "float16": 0.02}[policy])


def test_an_empty_batch_leaves_the_statistics_alone():
    layer = BatchNormalization()
    layer.build((None, 5, 6, 4))
    layer.set_weights([np.full(4, value, "float32") for value in (1, 2, 3, 4)])
    before = layer.get_weights()
    assert layer(np.zeros((0, 5, 6, 4), "float32"), training=True).shape == (0, 5, 6, 4)
    np.testing.assert_array_equal(before, layer.get_weights())


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [({"dtype": "bfloat16"}, (5, 6, 4)), ({"dtype": "float64"}, (5, 6, 4)), ({}, (4,))],
)
def test_so_does_one_on_the_stock_path(arguments, shape):
    layer = BatchNormalization(**arguments)
    layer.build((None, *shape))
    layer(np.random.default_rng(0).normal(size=(8, *shape)), training=True)
    before = layer.get_weights()
    assert not np.array_equal(before[2], np.zeros(4))  # a batch with images is learned
    layer(np.zeros((0, *shape)), training=True)
    np.testing.assert_array_equal(before, layer.get_weights())


MIRRORED = """
import numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras_resnet
images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype("uint8")
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras_resnet.create_model("test_resnet", include_preprocessing=True)
    model.compile("sgd", "sparse_categorical_crossentropy")
model.fit(images, np.arange(5), batch_size=4, shuffle=False, verbose=0)
assert all(np.isfinite(weight).all() for weight in model.get_weights())
"""


@pytest.mark.slow
def test_a_device_without_images_does_not_spoil_the_statistics():
    """The last batch is of one image, for two devices.

    Without oneDNN: its convolution gives an empty batch the wrong number of channels, which ends
    the training with an error (in stock Keras too), so that nothing is spoiled in silence.
    """
    run_python(MIRRORED, env={"TF_ENABLE_ONEDNN_OPTS": "0"})


OTHER_BACKEND = """
import os, sys
import keras, numpy as np
import keras_resnet
from keras_resnet.errors import UserError
assert keras.config.backend() == "jax"
images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
# Fused BN, grouped convolutions and local response normalisation.
for name in ("test_resnet", "test_seresnextd"):
    model = keras_resnet.create_model(name, include_preprocessing=True)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(8), verbose=0)
    outputs = model.predict(images, verbose=0)
    assert np.isfinite(outputs).all()
    path = os.path.join(sys.argv[1], name + ".keras")
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), outputs)
    stock = keras_resnet.to_stock(model).predict(images, verbose=0)
    np.testing.assert_allclose(stock, outputs, atol=1e-5)  # probabilities, float32
    np.save(os.path.join(sys.argv[1], name + ".npy"), outputs)
inputs = keras.Input((4, 4, 7))
lrn = keras.Model(inputs, keras_resnet.LocalResponseNormalization(alpha=0.5)(inputs))
x = np.random.default_rng(0).normal(size=(2, 4, 4, 7)).astype("float32")
np.save(os.path.join(sys.argv[1], "lrn.npy"), lrn.predict(x, verbose=0))

def refused(call):
    try:
        call()
    except UserError as error:
        assert "needs Keras' TensorFlow backend, but this process uses 'jax'" in str(error), error
    else:
        raise AssertionError("not refused")

out = os.path.join(sys.argv[1], "exported")
refused(lambda: keras_resnet.export.export(model, ["tflite-float32"], out=out))
refused(lambda: __import__("keras_resnet.recipes"))
refused(lambda: keras_resnet.explain(model, images[:1]))
refused(lambda: keras_resnet.insight.response_deviations(model, images))
total = keras_resnet.profile(model).total
assert total.trainable == sum(np.size(weight.numpy()) for weight in model.trainable_weights)
assert not os.path.exists(out)
"""


@pytest.mark.slow
def test_jax_builds_trains_predicts_and_saves(tmp_path):
    """And TensorFlow reads what it saved, with the same answers."""
    if not importlib.util.find_spec("jax"):
        pytest.skip('needs pip install jax (in the extra "dev")')
    run_python(OTHER_BACKEND, tmp_path, env={"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"})
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    for name in ("test_resnet", "test_seresnextd"):
        answers = keras.models.load_model(tmp_path / f"{name}.keras").predict(images, verbose=0)
        # Probabilities; float32 sums in another order.
        np.testing.assert_allclose(answers, np.load(tmp_path / f"{name}.npy"), atol=1e-4)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 7)).astype("float32")
    ours = keras_resnet.LocalResponseNormalization(alpha=0.5)(x)
    np.testing.assert_allclose(ours, np.load(tmp_path / "lrn.npy"), rtol=1e-5, atol=1e-6)
