"""Keras 3 → tf_keras: the same logits, or an error that names the layer."""

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.recipes.compression import to_tf_keras

# One of every kind of block; the others are in the slow tests.
REPRESENTATIVE = (
    "resnet8",
    "resnet20",
    "resnetv2_20",
    "seresnet20",
    "resnet20_dropout_shortcut",
    "resnet20_exclusive_gating",
    "highway19",
    "densenet40_12",
)
# Their families' smaller ones have the same layers.
LARGE = ("resnet1202", "resnetv2_1001", "resnet152v2", "densenet201")


def _built(name):
    """With images as small as the network takes; a Flatten wants the network's own size."""
    keras.utils.set_random_seed(0)
    spec = keras_resnet.SPECS[name]
    flattens = name.removeprefix("test_").startswith(("vgg", "alexnet", "zfnet"))
    side = spec.input_size if flattens else min(max(spec.min_size, 32), spec.input_size)
    return randomize_batch_norms(
        keras_resnet.create_model(
            name,
            input_shape=(side, side, 3),
            classifier_activation=None,
            include_preprocessing=True,
        )
    )


def _hold(model):
    images = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:]))
    expected = np.asarray(model(images.astype("float32"), training=False))
    legacy = to_tf_keras.to_legacy(model)
    assert type(legacy).__module__.startswith("tf_keras")
    assert {layer.name for layer in model.layers} <= {layer.name for layer in legacy.layers}
    # The same float32 operations in kernels that sum in another order.
    error = np.abs(np.asarray(legacy(images.astype("float32"), training=False)) - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_the_logits_are_the_same(name):
    _hold(_built(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", keras_resnet.list_models())
def test_every_network_bridges_or_is_refused_by_its_layer(name):
    if name.startswith(LARGE):
        pytest.skip("its family's smaller ones have the same layers")
    model = _built(name)
    if any(isinstance(x, keras_resnet.LocalResponseNormalization) for x in model.layers):
        # Its inverse roots are operations and no layers.
        with pytest.raises(UserError, match="has no counterpart"):
            to_tf_keras.to_legacy(model)
    else:
        _hold(model)


def _model(layer):
    inputs = keras.layers.Input((8, 8, 3), name="images")
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(layer(inputs)))
    return keras.Model(inputs, outputs)


def test_settings_that_were_renamed_arrive():
    model = _model(keras.layers.LeakyReLU(negative_slope=0.25, name="leaky"))
    legacy = to_tf_keras.to_legacy(model)
    assert float(legacy.get_layer("leaky").alpha) == 0.25
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(legacy(images), model(images), rtol=1e-5, atol=1e-6)


def test_what_tf_keras_lacks_is_named():
    with pytest.raises(UserError, match=r"'odd' \(RMSNormalization\) has no counterpart"):
        to_tf_keras.to_legacy(_model(keras.layers.RMSNormalization(name="odd")))
    with pytest.raises(UserError, match=r"no counterpart .* Multiply"):
        to_tf_keras.to_legacy(_model(lambda x: x * 2))
    with pytest.raises(UserError, match=r"'low' \(Dense\) has lora_alpha=2"):
        to_tf_keras.to_legacy(_model(keras.layers.Dense(3, lora_rank=2, name="low")))
    with pytest.raises(UserError, match=r"'rms' .* has rms_scaling=True.* Leave it at its default"):
        to_tf_keras.to_legacy(_model(keras.layers.LayerNormalization(rms_scaling=True, name="rms")))
    inner = keras.layers.TimeDistributed(keras.layers.Dense(3), name="each")
    with pytest.raises(UserError, match=r"'each' \(TimeDistributed\) cannot be rebuilt .* export"):
        to_tf_keras.to_legacy(_model(inner))


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LayerNormalization(),
        keras.layers.Resizing(6, 6),
        keras.layers.CenterCrop(6, 6),
        keras.layers.RandomFlip(),
    ],
    ids=lambda layer: layer.name,
)
def test_what_was_left_at_keras_own_defaults_bridges(layer):
    _hold(_model(layer))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (
            keras.layers.Activation("hard_sigmoid", name="odd"),
            "'hard_sigmoid' .* another function in",
        ),
        (keras.layers.Conv2D(4, 3, activation="hard_silu", name="odd"), "'hard_silu' .* is not in"),
        (keras.layers.Activation("celu", name="odd"), "'celu' .* is not in"),
        (keras.layers.Dense(4, activation=keras.layers.ReLU(6), name="odd"), "'ReLU' .* is not in"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_activation_that_tf_keras_has_not_or_has_otherwise_is_named(layer, said):
    with pytest.raises(UserError, match=f"{said} tf_keras.*Use another") as raised:
        to_tf_keras.to_legacy(_model(layer))
    assert "the layer 'odd'" in str(raised.value)
