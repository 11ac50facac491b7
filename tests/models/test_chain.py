"""AlexNet, ZFNet and VGG: counts as published, ONNX's light graphs, Keras Applications' VGG."""

import json
import re
from dataclasses import replace

import keras
import numpy as np
import pytest
from golden import onnx_graphs
from helpers import GOLDEN

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.layers import LocalResponseNormalization
from keras_resnet.models.classic.chain import Pool
from keras_resnet.weights.foreign.keras_weights import from_keras_applications

# ONNX's light graphs ------------------------------------------------------------------------------


def _as_onnx(model):
    """Our trunk in ONNX's words: operation, attributes, output shape (channels first)."""
    pads = [0, 0, 0, 0]
    for layer in model.layers[1:]:
        height, width, channels = layer.output.shape[1:]
        entry = {"output": [1, channels, height, width]}
        if isinstance(layer, keras.layers.ZeroPadding2D):
            (top, bottom), (left, right) = layer.padding
            pads = [top, left, bottom, right]
            continue
        if isinstance(layer, keras.layers.Conv2D):
            if layer.padding == "same":  # at stride 1
                pads = [layer.kernel_size[0] // 2] * 4
            entry |= {"op": "Conv", "kernel_shape": list(layer.kernel_size), "pads": pads}
            entry |= {"strides": list(layer.strides), "group": layer.groups}
        elif isinstance(layer, keras.layers.MaxPooling2D):
            entry |= {"op": "MaxPool", "kernel_shape": list(layer.pool_size), "pads": pads}
            entry |= {"strides": list(layer.strides)}
        elif isinstance(layer, LocalResponseNormalization):
            constants = {"alpha": layer.alpha, "beta": layer.beta, "bias": layer.bias}
            entry |= {"op": "LRN", "size": layer.size, **constants}
        else:
            assert layer.activation is keras.activations.relu
            entry |= {"op": "Relu"}
        pads = [0, 0, 0, 0]
        yield entry


@pytest.fixture(scope="module", params=onnx_graphs.GRAPHS)
def trunk(request):
    return keras_resnet.create_model(request.param, include_top=False, input_shape=(224, 224, 3))


def _fill(model):
    """The weights of the graph's run; ONNX has output channels first and flattens them first."""
    index = 0
    for layer in model.layers:
        if not layer.weights:
            continue
        shape = layer.kernel.shape
        if len(shape) == 4:
            kernel = onnx_graphs.weights(index, (shape[3], shape[2], *shape[:2]))
            kernel = kernel.transpose(2, 3, 1, 0)
        else:
            kernel = onnx_graphs.weights(index, (shape[1], shape[0])).T
            if layer.name == "head_dense1":
                height, width, channels = model.get_layer("head_flatten").input.shape[1:]
                kernel = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
                kernel = kernel.reshape(shape)
        layer.set_weights([kernel, onnx_graphs.weights(index + 1, shape[-1:])])
        index += 2
    return model


def test_layers_are_those_of_the_light_graph(trunk):
    graph = json.loads((GOLDEN / "onnx_layers.json").read_text())[trunk.name]
    theirs = [
        {**({"group": 1} if node["op"] == "Conv" else {}), **node}
        for node in graph
        if len(node["output"]) == 4
    ]
    assert list(_as_onnx(trunk)) == theirs
    spec = keras_resnet.SPECS[trunk.name]
    dense = [n["output"][1] for n in graph if n["op"] == "Gemm"]
    assert dense == [*spec.hidden, spec.classes]
    (flat,) = [n["output"][1] for n in graph if n["op"] == "Reshape"]
    assert flat == np.prod(trunk.output_shape[1:])


def _image():
    return onnx_graphs.image().transpose(0, 2, 3, 1)


def test_the_last_map_is_what_onnx_runtime_computes(trunk):
    golden = np.load(GOLDEN / "onnx_logits.npz")[f"{trunk.name}_pooled"]
    ours = _fill(trunk).predict(_image(), verbose=0).mean(axis=(0, 1, 2))
    # Sums of up to 4608 products in another order, through up to 16 layers.
    np.testing.assert_allclose(ours, golden, atol=1e-5 * np.abs(golden).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", onnx_graphs.GRAPHS)
def test_logits_are_what_onnx_runtime_computes(name):
    golden = np.load(GOLDEN / "onnx_logits.npz")[f"{name}_logits"]
    arguments = {"input_shape": (224, 224, 3), "classifier_activation": None}
    model = _fill(keras_resnet.create_model(name, **arguments))
    ours = model.predict(_image(), verbose=0)[0]
    # As above; the first dense layer sums 25088 products.
    np.testing.assert_allclose(ours, golden, atol=2e-5 * np.abs(golden).max())


# Keras Applications -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "include_top"),
    [("VGG16", False), pytest.param("VGG16", True, marks=pytest.mark.slow)]
    + [pytest.param("VGG19", top, marks=pytest.mark.slow) for top in (False, True)],
)
def test_vgg_equals_keras_applications(name, include_top):
    """From pixels, their weights through our converter."""
    keras.utils.set_random_seed(0)
    arguments = {"input_shape": (64, 96, 3), "include_top": include_top}
    if include_top:
        arguments |= {"classes": 10, "classifier_activation": None}
    theirs = getattr(keras.applications, name)(weights=None, **arguments)
    rng = np.random.default_rng(0)
    for layer in theirs.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    model = getattr(keras_resnet, name)(include_preprocessing=True, **arguments)
    from_keras_applications(theirs, model)
    pixels = rng.integers(0, 256, (2, 64, 96, 3)).astype("float32")
    expected = theirs.predict(keras.applications.vgg16.preprocess_input(pixels.copy()), verbose=0)
    difference = np.abs(model.predict(pixels, verbose=0) - expected).max()
    # float32 rounding; BGR turned to RGB changes the order of the first layer's sums.
    assert difference <= 1e-5 * np.abs(expected).max()


def test_vgg_with_bn_does_not_take_weights_without():
    theirs = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    with pytest.raises(UserError, match="have nothing for 'stage1_bn1'"):
        from_keras_applications(theirs, keras_resnet.VGG16_BN(include_top=False))


# The chain ----------------------------------------------------------------------------------------


def test_sides_are_those_of_zfnets_figure_3():
    model = keras_resnet.ZFNet(include_top=False)
    kinds = (keras.layers.Conv2D, keras.layers.MaxPooling2D)
    sides = [layer.output.shape[1] for layer in model.layers if isinstance(layer, kinds)]
    assert sides == [110, 55, 26, 13, 13, 13, 13, 6]


def test_two_columns_have_the_papers_sides_at_227():
    pyramid = keras_resnet.AlexNet_Caffe(features=True).output
    assert [pyramid[f"stage{n}"].shape[1] for n in (1, 2, 3)] == [55, 27, 13]
    assert keras_resnet.AlexNet_Caffe(include_top=False).output_shape == (None, 6, 6, 256)


def _head(name, **options):
    layers = keras_resnet.create_model(name, classes=3, hidden=(4, 4), **options).layers
    names = [layer.name.removeprefix("head_") for layer in layers if "head" in layer.name]
    return re.sub(r"\d", "", " ".join(names))


def test_dropout_stands_where_its_implementation_has_it():
    small = {"input_shape": (64, 64, 3)}
    assert _head("alexnet", **small) == "flatten dropout dense relu dropout dense relu head"
    assert _head("vgg11", **small) == "flatten dense relu dropout dense relu dropout head"
    assert _head("vgg11", dropout=0.0, **small) == "flatten dense relu dense relu head"


def test_features_are_taken_before_the_pools():
    pyramid = keras_resnet.create_model("test_vgg", features=True).output
    shapes = {name: x.shape[1:] for name, x in pyramid.items()}
    assert shapes == {"stage1": (32, 32, 8), "stage2": (16, 16, 16)}


@pytest.mark.parametrize(("name", "least"), [("alexnet", 63), ("zfnet512", 59), ("vgg11", 32)])
def test_the_smallest_image_leaves_one_pixel(name, least):
    model = keras_resnet.create_model(name, include_top=False, input_shape=(least, least, 3))
    assert model.output_shape[1:3] == (1, 1)
    with pytest.raises(UserError, match=f"at least {least}×{least} pixels"):
        keras_resnet.create_model(name, include_top=False, input_shape=(least, least - 1, 3))


def test_the_classifier_refuses_a_free_size_and_the_trunk_takes_it():
    with pytest.raises(UserError, match="one fixed image size; received a free size"):
        keras_resnet.create_model("test_vgg", input_shape=(None, 32, 3))
    free = keras_resnet.create_model(
        "test_vgg", include_top=False, input_shape=(None, None, 3), pooling="avg"
    )
    assert free.predict(np.zeros((1, 20, 12, 3)), verbose=0).shape == (1, 16)


def test_rounding_up_is_padding_that_never_wins():
    spec = keras_resnet.SPECS["test_alexnet"]
    floor = replace(spec, chain=(*spec.chain[:-1], Pool(3)))
    up, down = (keras_resnet.build(s, include_top=False) for s in (spec, floor))
    assert (up.output_shape[1], down.output_shape[1]) == (3, 2)
    down.set_weights(up.get_weights())
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    whole = up.predict(x, verbose=0)
    np.testing.assert_array_equal(whole[:, :2, :2], down.predict(x, verbose=0))
    before = keras.Model(up.input, up.get_layer("stage2_relu1").output).predict(x, verbose=0)
    np.testing.assert_array_equal(whole[:, 2, 2], before[:, 4:, 4:].max(axis=(1, 2)))
