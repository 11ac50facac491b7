"""Rematerialised training: the same numbers with less memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import first_by_default, run_python

import keras_resnet
from keras_resnet.errors import UserError, ZooWarning
from keras_resnet.recipes import qat
from keras_resnet.recipes.training.loop import Loop
from keras_resnet.recipes.training.remat import Rematerialised

SIZE = 16


def _trained(name, remat, steps=2):
    """The weights, statistics included, and the metrics after some updates."""
    keras.utils.set_random_seed(0)
    model = keras_resnet.create_model(
        name,
        weights=None,
        input_shape=(SIZE, SIZE, 3),
        classifier_activation=None,
        include_preprocessing=True,
    )
    strategy, optimizer = tf.distribute.get_strategy(), keras.optimizers.SGD(0.1)
    loop = Loop(strategy, model, optimizer, batch_size=8, weight_decay=1e-4, remat=remat)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, SIZE, SIZE, 3)).astype("uint8")
    batches = tf.data.Dataset.from_tensors((images, np.arange(8, dtype="int32"))).repeat()
    iterator = loop.distribute(batches)
    for _ in range(steps):
        loop.train_step(iterator)
    return {weight.path: weight.numpy() for weight in model.weights}, loop.metrics()


# Plain: cuts at every layer. Dropout: segments that are not computed again.
@pytest.mark.parametrize(
    "name", ["resnet20", "resnetv2_20", "plain20", "resnet20_dropout_shortcut", "test_densenet"]
)
def test_a_step_has_the_same_gradients_and_statistics(name):
    """1e-6 of the largest value: the same operations, which a compiler may order otherwise."""
    (kept, metrics), (again, others) = (_trained(name, remat) for remat in (False, True))
    assert metrics == pytest.approx(others, rel=1e-6)
    for path, value in kept.items():
        largest = np.abs(value).max()
        np.testing.assert_allclose(again[path], value, atol=1e-6 * largest, err_msg=path)


def test_segments_are_units_and_cover_the_network():
    model = keras_resnet.create_model("resnet20", weights=None, include_preprocessing=True)
    found = [layer.name for s in Rematerialised(model).segments for layer in s.layers]
    names = [layer.name for layer in model.layers]
    assert [name for name in found if name in names and name != "images"] == names[1:]
    assert len(Rematerialised(model).segments) == 8  # of 9 units, with the stem and the head


def test_a_layer_that_is_called_twice_is_no_end_of_a_segment():
    """Nor is BN inside a nested model updated twice."""
    keras.utils.set_random_seed(0)
    relu = keras.layers.ReLU()

    def unit(x):
        y = keras.layers.Conv2D(4, 3, padding="same")(x)
        return relu(keras.layers.Add()([x, keras_resnet.BatchNormalization()(y)]))

    def build():
        keras.utils.set_random_seed(0)
        nested_input = keras.Input((8, 8, 4))
        nested = keras.Model(nested_input, unit(unit(nested_input)))
        x = inputs = keras.Input((8, 8, 4))
        for _ in range(4):
            x = unit(x)
        return keras.Model(inputs, nested(unit(unit(unit(nested(x))))))

    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    plain, segmented = build(), build()
    outputs = []
    for model, call in ((plain, plain), (segmented, Rematerialised(segmented))):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(images, training=True) ** 2)
        outputs.append(tape.gradient(loss, model.trainable_variables))
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)  # sums of float32
    for one, other in zip(plain.weights, segmented.weights, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=1e-6, err_msg=one.path)


def test_a_network_of_random_layers_is_told_to_save_little():
    model = keras_resnet.create_model(
        "resnet20", weights=None, include_preprocessing=True, stochastic_depth=0.2
    )
    with pytest.warns(ZooWarning, match=r"saves little memory with 'resnet20'.*train\.accumulate"):
        Rematerialised(model)


def test_several_outputs_keep_their_names():
    model = keras_resnet.create_model("resnet8", weights=None, include_preprocessing=True)
    middle = model.get_layer("stage1_block1_out_relu").output
    outputs = {"predictions": model.output, "features": middle}
    watched = keras.Model(model.input, outputs)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    found, expected = Rematerialised(watched)(images, training=False), watched(images)
    assert set(found) == {"predictions", "features"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)  # probabilities and features


MEMORY = """
import sys
import keras, numpy as np, tensorflow as tf
import keras_resnet
from keras_resnet.recipes.training.loop import Loop

model = keras_resnet.create_model(
    "resnet56", weights=None, classifier_activation=None, include_preprocessing=True
)
loop = Loop(
    tf.distribute.get_strategy(), model, keras.optimizers.SGD(0.1), batch_size=256,
    remat=sys.argv[1] == "True",
)
batch = np.zeros((256, 32, 32, 3), "uint8"), np.zeros(256, "int32")
iterator = loop.distribute(tf.data.Dataset.from_tensors(batch).repeat())
started = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
loop.train_step(iterator)
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) - started)
"""


@pytest.mark.slow
def test_a_step_needs_less_memory():
    """Half, at most; the activations of 27 units become those of one, and 27 inputs."""
    kept, again = (int(run_python(MEMORY, remat).stdout.split()[-1]) for remat in (False, True))
    assert again < 0.5 * kept, (kept, again)


MIRRORED = """
import sys
import numpy as np
from keras_resnet.recipes import load_config, train
from keras_resnet.recipes.runs.folder import find_run

settings = {"train.remat": sys.argv[1] == "True", "train.devices": "cpu:2", "train.epochs": 1}
settings["train.synchronized_bn"] = sys.argv[3] == "True"
run = train.run(load_config("debug/tiny", settings), sys.argv[2])
np.savez(sys.argv[2] + ".npz", *run.keras_model().get_weights())
"""


@pytest.mark.parametrize("synchronized", first_by_default([True, False]))
def test_several_devices_compute_the_same(tmp_path, synchronized):
    """1e-6 of the largest value, as on one device."""
    for remat in (False, True):
        run_python(MIRRORED, remat, tmp_path / str(remat), synchronized, cwd=tmp_path)
    kept, again = (np.load(tmp_path / f"{remat}.npz") for remat in (False, True))
    for name in kept.files:
        np.testing.assert_allclose(
            again[name], kept[name], atol=1e-6 * np.abs(kept[name]).max() + 1e-9
        )


def test_compression_refuses_it(tiny_run):
    with pytest.raises(UserError, match=r"tf_keras.*train\.accumulate=2"):
        qat(tiny_run.keras_model(), "digits", train__remat=True)
