"""The Keras layers behind the operations of a TFLite file."""

import keras
import numpy as np
import pytest

from keras_resnet.export import export
from keras_resnet.export.runtimes import tflite_graph


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file whose layers' names look like each other's numbers, and one layer called twice."""
    inputs = keras.layers.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    x = shared(keras.layers.ReLU(name="conv_1")(shared(inputs)))
    x = keras.layers.Conv2D(4, 3, name="conv", activation="relu")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depth")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(5, activation="softmax", name="last")(x)
    out = tmp_path_factory.mktemp("graphs") / "out"
    model = keras.Model(inputs, x, name="mine")
    export(model, ["tflite-float32"], out=out, verbose=False)
    return (out / "mine-float32.tflite").read_bytes()


def test_operations_are_called_after_their_layers(data):
    found = tflite_graph.operations(tflite_graph.read(data))
    assert [(item.kind, item.layers, item.kernel) for item in found] == [
        ("CONV_2D", ("shared", "conv_1"), "FLOAT32"),
        ("CONV_2D", ("shared",), "FLOAT32"),
        ("CONV_2D", ("conv",), "FLOAT32"),
        ("DEPTHWISE_CONV_2D", ("depth",), "FLOAT32"),
        ("MEAN", ("pool",), ""),
        ("FULLY_CONNECTED", ("last",), "FLOAT32"),
        ("SOFTMAX", ("predictions",), ""),  # the signature's name for the output
    ]
    assert all(item.in_float for item in found)
    assert [item.inputs[0] for item in found[1:]] == [item.outputs[0] for item in found[:-1]]


def test_layers_of_a_model_within_the_model_have_their_own_names(tmp_path):
    """As Keras' guide to transfer learning builds them; one of them can stay in float, too."""
    image = keras.layers.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first", activation="relu")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    inner = keras.Model(image, keras.layers.Conv2D(4, 3, name="second")(x), name="inner")
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(inner(inputs))
    model = keras.Model(inputs, keras.layers.Dense(5, name="last")(x), name="outer")
    norm = inner.get_layer("norm")
    norm.set_weights([value + 0.5 for value in norm.get_weights()])  # or it is left out
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")
    arguments = {"calibration": pixels, "out": tmp_path / "out", "verbose": False}
    export(model, ["tflite-int8"], keep_float=["second"], **arguments)
    data = (tmp_path / "out" / "outer-int8.tflite").read_bytes()
    found = [
        x
        for x in tflite_graph.operations(tflite_graph.read(data))
        if x.kind not in tflite_graph.BORDERS
    ]
    assert [item.layer for item in found] == ["first", "norm", "norm", "second", "pool", "last"]
    assert [item.layer for item in found if item.in_float] == ["second"]


def test_numbers_that_tell_layers_apart_stay(data):
    """tf_keras goes on counting in the second model of a program."""
    model = tflite_graph.read(data)
    (graph,) = model.subgraphs
    convolutions = [item for item in tflite_graph.operations(model) if item.kind == "CONV_2D"]
    for number, item in enumerate(convolutions, start=7):
        for tensor in (item.inputs[1], item.outputs[0]):
            graph.tensors[tensor].name = f"model_1/conv2d_{number}/Conv2D".encode()
    found = tflite_graph.operations(tflite_graph.read(tflite_graph.pack(model)))
    # The first two share a kernel, which bears the name it was given last.
    layers = [item.layer for item in found if item.kind == "CONV_2D"]
    assert layers == ["conv2d_8", "conv2d_8", "conv2d_9"]
