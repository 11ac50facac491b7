"""The fused BatchNormalization against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.layers import BatchNormalization, to_stock

# Half precisions round in- and outputs to 8 (bfloat16) or 11 bits; float32 sums in another order.
TOLERANCE = {"float32": 1e-5, "mixed_bfloat16": 2e-2, "mixed_float16": 3e-3}


def _step(layer, x, upstream):
    """One training step: outputs, gradients of x, gamma and beta, moving statistics."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * upstream)
    gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
    moving = [layer.moving_mean, layer.moving_variance]
    return [np.asarray(tf.cast(t, tf.float32)) for t in (y, *gradients, *moving)]


@pytest.mark.parametrize("policy", TOLERANCE)
def test_training_equals_the_stock_layer(policy):
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=(8, 5, 6, 4)) + 1).astype("float32")
    upstream = rng.normal(size=x.shape).astype("float32")
    layers = [
        cls(momentum=0.7, dtype=policy)
        for cls in (BatchNormalization, keras.layers.BatchNormalization)
    ]
    values = [rng.uniform(0.5, 2, 4), rng.normal(size=4), rng.normal(size=4), rng.uniform(1, 2, 4)]
    for layer in layers:
        layer.build(x.shape)
        layer.set_weights(values)
    ours, theirs = (_step(layer, x, upstream) for layer in layers)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE[policy] * max(1, np.abs(b).max()))
    for layer in layers:
        layer.trainable = False  # Keras: a frozen BN uses and keeps its moving statistics
    before = layers[0].get_weights()
    frozen = [np.asarray(tf.cast(layer(x, training=True), tf.float32)) for layer in layers]
    np.testing.assert_allclose(*frozen, atol=TOLERANCE[policy] * np.abs(frozen[1]).max())
    np.testing.assert_array_equal(before, layers[0].get_weights())


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({}, (8, 4)),
        ({"axis": 1}, (2, 4, 5, 6)),
        ({"scale": False}, (2, 5, 6, 4)),
        ({"center": False}, (2, 5, 6, 4)),
        ({"renorm": True}, (2, 5, 6, 4)),
        ({"dtype": "float64"}, (2, 5, 6, 4)),
    ],
)
def test_what_the_kernel_does_not_do_still_works(arguments, shape):
    x = np.random.default_rng(0).normal(size=shape)
    ours = BatchNormalization(**arguments)
    stock = keras.layers.BatchNormalization(**arguments)
    for training in (True, False):
        np.testing.assert_allclose(
            ours(x, training=training), stock(x, training=training), atol=1e-5
        )


def test_the_config_is_the_stock_config():
    ours = BatchNormalization(momentum=0.8, epsilon=1e-4, name="bn")
    stock = keras.layers.BatchNormalization.from_config(ours.get_config())
    assert stock.get_config() == ours.get_config()


def test_to_stock_keeps_outputs_and_leaves_no_layer_of_ours(resnet20, images):
    stock = to_stock(resnet20)
    assert {type(layer).__module__.split(".")[0] for layer in stock.layers} == {"keras"}
    # float32 rounding of 19 normalisations; these are probabilities.
    np.testing.assert_allclose(
        stock.predict(images, verbose=0), resnet20.predict(images, verbose=0), atol=1e-5
    )


def test_to_stock_turns_mixed_precision_into_float32():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.layers.Input((8, 8, 3))
        x = BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    finally:
        keras.config.set_dtype_policy(previous)
    assert {layer.compute_dtype for layer in to_stock(model).layers} == {"float32"}
