"""GoogLeNet, Inception v3, Inception-ResNet v2: counts as published, figures, parity, life."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import onnx_graphs
from helpers import GOLDEN

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.layers import LocalResponseNormalization
from keras_resnet.models.classic import branches, googlenet
from keras_resnet.models.classic.branches import Conv, Form, Pool
from keras_resnet.weights.foreign.graph_order import layers_in_order
from keras_resnet.weights.foreign.keras_weights import from_keras_applications

PARITY = ("InceptionV3", "InceptionResNetV2")


def _trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


# Trainable parameters with auxiliary classifiers: torchvision's table (googlenet_bn, inception_v3)
# and BVLC's weights (googlenet). Without: tests/models/test_complexity.py.
_COUNTS = {
    "googlenet": 13_378_280,
    "googlenet_bn": 13_004_888,
    "inception_v3_torch": 27_161_264,
    "inception_v3": 27_161_264,
}


@pytest.mark.parametrize(
    "name",
    [
        *("googlenet", "googlenet_bn", "inception_v3_torch"),
        pytest.param("inception_v3", marks=pytest.mark.slow),  # the same layers
    ],
)
def test_auxiliary_classifiers_have_the_published_parameters(name):
    assert _trainable(keras_resnet.create_model(name, auxiliary=True)) == _COUNTS[name]


# The figures --------------------------------------------------------------------------------------


def _branches(model, name):
    """(kernel, filters) of the convolutions and the pools of a module, branch by branch."""
    found: dict[str, list] = {}
    for layer in model.layers:
        if layer.name.startswith(f"{name}_branch"):
            row = found.setdefault(layer.name[len(name) + 1 :].split("_")[0], [])
            if isinstance(layer, keras.layers.Conv2D):
                row.append((*layer.kernel_size, layer.filters))
            elif "pool" in layer.name:
                row.append(type(layer).__name__)
    return found


def test_a_module_is_its_figure():
    """arXiv:1409.4842, Fig. 2b and Table 1's row "inception (4d)"; torchvision's 3×3 for 5×5."""
    figure = {
        "branch1": [(1, 1, 112)],
        "branch2": [(1, 1, 144), (3, 3, 288)],
        "branch3": [(1, 1, 32), (5, 5, 64)],
        "branch4": ["MaxPooling2D", (1, 1, 64)],
    }
    shape = (79, 79, 3)
    assert _branches(keras_resnet.GoogLeNet(input_shape=shape), "stage4_d") == figure
    figure["branch3"] = [(1, 1, 32), (3, 3, 64)]
    assert _branches(keras_resnet.GoogLeNet_BN(input_shape=shape), "stage4_d") == figure


def test_googlenet_has_the_sizes_of_table_1():
    model = keras_resnet.GoogLeNet(features=True, auxiliary=True)
    sides = {name: tensor.shape[1:] for name, tensor in model.output.items()}
    assert sides == {
        "stage1": (112, 112, 64),
        "stage2": (56, 56, 192),
        "stage3": (28, 28, 480),
        "stage4": (14, 14, 832),
        "stage5": (7, 7, 1024),
    }
    # A pyramid has no classifiers, so no auxiliary ones either.
    assert not [layer for layer in model.layers if layer.name.startswith(("head", "aux"))]


@pytest.mark.parametrize("side", [8, 9])
def test_googlenet_pools_round_up(side):
    """Caffe's and PyTorch's ceil mode: the last window may hang over the border."""
    x = np.random.default_rng(0).uniform(size=(1, side, side, 2)).astype("float32")
    inputs = keras.layers.Input(x.shape[1:])
    for size in (3, 2):
        pooled = keras.Model(inputs, googlenet._max_pool(inputs, size, "pool")).predict(
            x, verbose=0
        )
        starts = range(0, -(-(side - size) // 2) * 2 + 1, 2)
        expected = [[x[:, i : i + size, j : j + size].max((1, 2)) for j in starts] for i in starts]
        np.testing.assert_array_equal(pooled, np.transpose(expected, (2, 0, 1, 3)))


@pytest.mark.parametrize("counted", [False, True])
def test_average_pools_count_the_padding_or_not(counted):
    inputs = keras.layers.Input((4, 4, 1))
    module = ((Pool("average"),), (Pool("max"),))
    outputs = branches.inception_module(inputs, module, Form(pool_counts_padding=counted), "m")
    average = keras.Model(inputs, outputs).predict(np.ones((1, 4, 4, 1)), verbose=0)[0, :, :, 0]
    assert average[1, 1] == 1
    # 4 pixels of 9 at a corner; float32 ninths.
    np.testing.assert_allclose(average[0, 0], 4 / 9 if counted else 1, rtol=1e-6)


def test_a_fork_is_two_convolutions_of_the_same_map():
    """arXiv:1512.00567, Fig. 7."""
    model = keras_resnet.create_model("test_inception")
    first, second = (model.get_layer(f"stage5_b_branch2_conv2{letter}") for letter in "ab")
    assert (first.kernel_size, second.kernel_size) == ((1, 3), (3, 1))
    assert first.input is second.input
    ends = model.get_layer("stage5_b_branch2_concat").output.shape[-1]
    assert ends == first.filters + second.filters


def test_residuals_are_scaled_down_before_the_addition():
    """arXiv:1602.07261, section 3.3; the last unit is neither scaled nor activated."""
    model = keras_resnet.create_model("test_inception_resnet")
    x = np.random.default_rng(0).normal(size=(2, 75, 75, 3)).astype("float32")
    for stage, block, scale in ((3, 1, 0.17), (4, 1, 0.1), (5, 1, 0.2), (5, 2, None)):
        name = f"stage{stage}_block{block}"
        add = model.get_layer(f"{name}_add")
        tensors = [add.input[0], model.get_layer(f"{name}_conv").output, add.output]
        before, residual, after = map(np.asarray, keras.Model(model.input, tensors)(x))
        # float32 rounding of one product and one sum.
        np.testing.assert_allclose(before + (scale or 1) * residual, after, atol=1e-5)
        relus = [layer.name for layer in model.layers if layer.name == f"{name}_relu"]
        assert len(relus) == (0 if scale is None else 1)


def test_narrowed_modules_keep_their_structure():
    module = ((Pool("max"), Conv((1, 7), 32)), (branches.Fork((Conv(3, 16, 2, "valid"),)),))
    expected = ((Pool("max"), Conv((1, 7), 8)), (branches.Fork((Conv(3, 4, 2, "valid"),)),))
    assert branches.narrow(module, 4) == expected


_PAPERS_POOLS = {"last_pool": 3, "auxiliary_pool": "strided"}


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("test_googlenet", {}, 15),
        ("test_googlenet", {"auxiliary": True}, 31),
        ("test_googlenet", _PAPERS_POOLS, 31),
        ("test_googlenet", {**_PAPERS_POOLS, "auxiliary": True}, 79),
        ("test_inception", {}, 75),
        ("test_inception", {"auxiliary": True}, 299),
        ("test_inception_resnet", {}, 75),
    ],
)
def test_the_least_size_is_the_smallest_that_works(name, options, least):
    with pytest.raises(UserError, match=f"at least {least}×{least} pixels"):
        keras_resnet.create_model(name, input_shape=(least, least - 1, 3), **options)
    keras_resnet.create_model(name, input_shape=(least, least, 3), **options)
    network = replace(keras_resnet.SPECS[name], **options)

    def build():  # with nobody to refuse it
        images = keras.layers.Input((least - 1, least - 1, 3))
        trunk = network.trunk(images)
        heads = [network.auxiliary_head(tap, x, 2) for tap, x in trunk.auxiliary.items()]
        model = keras.Model(images, [trunk.output, *heads])
        tf.function(model)(tf.zeros((1, least - 1, least - 1, 3)))

    with pytest.raises(ValueError, match=r"output size|dimension size"):
        build()


# Parity with an independent implementation --------------------------------------------------------


@pytest.fixture(scope="module")
def googlenet_222():
    """At the size where the light graph's pools, which round down, do what Caffe's do."""
    return keras_resnet.GoogLeNet(input_shape=(222, 222, 3))


def _as_onnx(layer):
    """A layer of ours in ONNX's words, channels first; pads where it is not a layer that pads."""
    height, width, channels = layer.output.shape[1:]
    entry = {"output": [1, channels, height, width]}
    if isinstance(layer, keras.layers.Conv2D):
        pads = [3] * 4 if layer.name == "stem_conv1" else [layer.kernel_size[0] // 2] * 4
        entry |= {"op": "Conv", "kernel_shape": list(layer.kernel_size), "pads": pads}
        return entry | {"strides": list(layer.strides)}
    if isinstance(layer, keras.layers.MaxPooling2D):
        entry |= {"op": "MaxPool", "kernel_shape": list(layer.pool_size)}
        return entry | {"strides": list(layer.strides)}
    if isinstance(layer, LocalResponseNormalization):
        constants = {"alpha": layer.alpha, "beta": layer.beta, "bias": layer.bias}
        return entry | {"op": "LRN", "size": layer.size, **constants}
    return entry | {"op": {"Activation": "Relu", "Concatenate": "Concat"}[type(layer).__name__]}


def test_googlenet_is_the_light_graph(googlenet_222):
    """BVLC's GoogLeNet in ONNX's words: every layer, in order, with kernel, stride and shape."""
    graph = json.loads((GOLDEN / "onnx_layers.json").read_text())["googlenet"]
    end = [node["op"] for node in graph].index("AveragePool")
    assert [n["op"] for n in graph[end:] if n["op"] != "Reshape"] == [
        *("AveragePool", "Dropout", "Gemm", "Softmax")
    ]
    for node in graph[:2]:  # its 112 pixels, of which the pool takes 111
        node["output"][2:] = [111, 111]
    for node in graph:
        if node["op"] == "MaxPool":
            del node["pads"]
    layers = layers_in_order(googlenet_222)[1:]
    trunk = layers[: [layer.name for layer in layers].index("head_pool")]
    ours = [_as_onnx(x) for x in trunk if not isinstance(x, keras.layers.ZeroPadding2D)]
    assert ours == graph[:end]


def test_googlenet_computes_what_onnx_runtime_does(googlenet_222):
    weighted = [layer for layer in layers_in_order(googlenet_222) if layer.weights]
    for index, layer in enumerate(weighted):
        if layer.name == "head":
            kernel = onnx_graphs.weights(2 * index, (1, 1, 1000, 1024))[0, 0].T
        else:
            height, width, channels, filters = layer.kernel.shape
            kernel = onnx_graphs.weights(2 * index, (filters, channels, height, width))
            kernel = kernel.transpose(2, 3, 1, 0)
        layer.set_weights([kernel, onnx_graphs.weights(2 * index + 1, layer.bias.shape)])
    ends = [googlenet_222.get_layer(name).output for name in ("head_pool", "head")]
    pixels = onnx_graphs.image("googlenet").transpose(0, 2, 3, 1)[:, :222, :222]
    outputs = keras.Model(googlenet_222.input, ends)(pixels)
    golden = np.load(GOLDEN / "onnx_logits.npz")
    for ours, name in zip(outputs, ("pooled", "logits"), strict=True):
        theirs = golden[f"googlenet_{name}"]
        # Sums of up to 1728 products in another order, through 22 layers.
        np.testing.assert_allclose(ours[0], theirs, atol=1e-5 * np.abs(theirs).max())


def _randomized(model):
    """Statistics and biases of a trained network; Keras Applications' BN has no gamma here."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            beta, mean = rng.normal(0, 0.2, (2, layer.beta.shape[0]))
            layer.set_weights([beta, mean, rng.uniform(0.5, 1.5, mean.shape)])
        elif isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", PARITY)
@pytest.mark.parametrize("size", [80, 299])
def test_logits_equal_keras_applications(name, size):
    """Whole chain from pixels. Relative 1e-5: float32 rounding over up to 240 layers."""
    keras.utils.set_random_seed(0)
    arguments = {"input_shape": (size, size, 3), "classifier_activation": None}
    theirs = _randomized(getattr(keras.applications, name)(weights=None, **arguments))
    model = getattr(keras_resnet, name)(include_preprocessing=True, **arguments)
    from_keras_applications(theirs, model)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    gammas = sum(norm.gamma.shape[0] for norm in norms)  # theirs have none
    assert model.count_params() - gammas == theirs.count_params()
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")
    expected = theirs.predict(pixels / 127.5 - 1, verbose=0)
    difference = np.abs(model.predict(pixels, verbose=0) - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()


def test_features_equal_keras_applications():
    """The same without the top, at the smallest size, small enough for every day."""
    arguments = {"include_top": False, "pooling": "avg", "input_shape": (75, 75, 3)}
    theirs = _randomized(keras.applications.InceptionV3(weights=None, **arguments))
    model = keras_resnet.InceptionV3(**arguments)
    from_keras_applications(theirs, model)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 75, 75, 3)).astype("float32")
    expected = np.asarray(theirs(x))
    # float32 rounding over 94 layers.
    assert np.abs(np.asarray(model(x)) - expected).max() <= 1e-5 * np.abs(expected).max()
    shallow = keras_resnet.build(
        replace(keras_resnet.SPECS["inception_v3"], stages=()), include_top=False
    )
    with pytest.raises(UserError, match="94 layers conv2d, but 'network' has 5"):
        from_keras_applications(theirs, shallow)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_all_heads_are_float32_under_mixed_precision(policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras_resnet.create_model("test_googlenet", auxiliary=True)
    finally:
        keras.config.set_dtype_policy(previous)
    assert {output.dtype for output in model.outputs} == {"float32"}
    assert model.get_layer("aux1_conv1").compute_dtype == policy.removeprefix("mixed_")
