"""The constructed solution: deeper networks with the same outputs, which learn."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms

import keras_resnet
from keras_resnet import keras_compat
from keras_resnet.errors import UserError
from keras_resnet.models.resnet import shortcuts, stems

LOGITS = {"classifier_activation": None, "input_shape": (32, 32, 3)}
X = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")


def _small(name, depths=(2, 2), **changes):
    """A network of the zoo, thin and with few units."""
    widths = (16, 32, 32, 32)[: len(depths)]
    changes = {"depths": depths, "widths": widths, "stem_width": 16, "classes": 10, **changes}
    spec = replace(keras_resnet.SPECS[name], **changes)
    return randomize_batch_norms(keras_resnet.build(spec, name=name, **LOGITS)), spec


def _assert_same(model, deeper, tolerance=0.0):
    expected = np.asarray(model(X, training=False))
    difference = np.abs(np.asarray(deeper(X, training=False)) - expected).max()
    assert difference <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("resnet20", 2),
        ("resnet20_c", 1),  # a projection in every unit; the new ones have none
        ("resnet20_relu_only_preact", 2),
        ("seresnet20", 2),
        ("resnetv2_20", 1),
        ("resnetv2_20", 2),
    ],
)
def test_the_logits_do_not_change(name, stage):
    """x + 0 is x, and relu(x) of x ≥ 0: not even rounding."""
    model, spec = _small(name)
    deeper = keras_resnet.deepen(model, stage, units=2)
    assert deeper.name == model.name
    _assert_same(model, deeper)
    depths = tuple(d + 2 * (n == stage) for n, d in enumerate(spec.depths, start=1))
    built = keras_resnet.build(replace(spec, depths=depths), **LOGITS)
    new = {"stage1_block3_shortcut_conv", "stage1_block3_shortcut_bn"}
    new |= {layer.replace("block3", "block4") for layer in new}
    names = [layer.name for layer in built.layers if layer.name not in new]
    assert [layer.name for layer in deeper.layers] == names


def test_a_single_unit_that_strides_is_followed_by_an_identity():
    """ResNet-8, and bottlenecks with ResNet-D's pooled shortcuts."""
    model = randomize_batch_norms(keras_resnet.ResNet8(**LOGITS))
    deeper = keras_resnet.deepen(model, 3)
    assert deeper.get_layer("stage3_block2_conv1").strides == (1, 1)
    _assert_same(model, deeper)
    model, _ = _small("resnet50d", depths=(1, 1), stem=stems.cifar_stem)
    _assert_same(model, keras_resnet.deepen(model, 2, 3))


def test_the_unit_that_strides_at_the_end_of_a_stage_stays_the_last():
    """Keras Applications' v2."""
    model, spec = _small("resnet50v2", depths=(2, 3, 1, 2))
    deeper = keras_resnet.deepen(model, 2, 2)
    _assert_same(model, deeper)
    built = keras_resnet.build(replace(spec, depths=(2, 5, 1, 2)), **LOGITS)
    assert [layer.name for layer in deeper.layers] == [layer.name for layer in built.layers]
    assert deeper.get_layer("stage2_block5_conv2").strides == (2, 2)
    _assert_same(model, keras_resnet.deepen(model, 4))
    with pytest.raises(UserError, match="only unit of stage 3 halves the resolution"):
        keras_resnet.deepen(model, 3)


@pytest.mark.parametrize(("name", "zeros"), [("resnet20", "bn2"), ("resnetv2_20", "conv2")])
def test_the_new_units_learn(name, zeros, tmp_path):
    """From a file, in stock layers; the zeros move first, and with them the rest of F."""
    model, _ = _small(name, depths=(1, 2))
    keras_resnet.to_stock(model).save(tmp_path / "m.keras")
    model = keras.models.load_model(tmp_path / "m.keras")
    deeper = keras_resnet.deepen(model, 2)
    _assert_same(model, deeper)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    deeper.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    new = [layer for layer in deeper.layers if layer.name.startswith("stage2_block3_")]
    new = {layer.name[14:]: layer for layer in new if layer.trainable_variables}
    assert set(new) == {"conv1", "bn1", "conv2", "bn2"}

    def snapshot():
        return {name: layer.trainable_variables[0].numpy() for name, layer in new.items()}

    start = snapshot()
    assert not start[zeros].any()
    deeper.train_on_batch(X, np.arange(4))
    first = snapshot()
    assert first[zeros].any()
    deeper.train_on_batch(X, np.arange(4))
    second = snapshot()
    assert all((second[name] != first[name]).any() for name in new)


def test_plain_networks_get_layers_that_copy():
    model, spec = _small("plain20")
    deeper = keras_resnet.deepen(model, 2, 2)
    # (1 - epsilon) + epsilon under a root, four times: float32 rounding.
    _assert_same(model, deeper, 1e-5)
    built = keras_resnet.build(replace(spec, depths=(2, 4)), **LOGITS)
    assert [layer.name for layer in deeper.layers] == [layer.name for layer in built.layers]


def test_features_grow_too():
    model = keras_resnet.build(_small("resnet20")[1], features=True)
    deeper = keras_resnet.deepen(model, 1)
    names = {key: keras_compat.producer(x).name for key, x in deeper.output.items()}
    assert names["stage1"] == "stage1_block3_out_relu"


@pytest.mark.parametrize(
    ("junction", "message"),
    [
        (shortcuts.constant_scaling(0.5, 0.5), "shortcut_scale' prevents that"),
        (shortcuts.exclusive_gating(-6.0), "gate_conv' prevents that"),
        (shortcuts.dropout_shortcut(0.5), "shortcut_drop' prevents that"),
    ],
)
def test_units_that_are_no_identity_at_f_zero_are_refused(junction, message):
    model, _ = _small("resnet20", depths=(1, 2), junction=junction)
    with pytest.raises(UserError, match=message):
        keras_resnet.deepen(model, 2)


def test_what_cannot_be_deepened_is_refused():
    model, _ = _small("resnet20_relu_before_add")
    with pytest.raises(UserError, match="has no gradient"):
        keras_resnet.deepen(model, 2)
    with pytest.raises(UserError, match=r"The stages of .* are 1, 2; received 4"):
        keras_resnet.deepen(model, 4)
    with pytest.raises(UserError, match="units must be 1 or more; received 0"):
        keras_resnet.deepen(model, 2, units=0)
    with pytest.raises(UserError, match="out_bn' prevents that"):
        keras_resnet.deepen(_small("resnet20_bn_after_add")[0], 2)
    with pytest.raises(UserError, match="concat' prevents that"):
        keras_resnet.deepen(keras_resnet.create_model("test_densenet"), 1)
    inputs = keras.layers.Input((8, 8, 3))
    other = keras.Model(inputs, keras.layers.Conv2D(3, 3)(inputs), name="other")
    with pytest.raises(UserError, match="'other' has no residual units"):
        keras_resnet.deepen(other, 1)
