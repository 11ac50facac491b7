"""Highway networks: what the paper says of them, and the equation of a layer in NumPy."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.errors import UserError


@pytest.mark.parametrize(
    ("name", "depth", "published", "exact"),
    [("highway19", 19, "2.3", 2_342_406), ("highway32", 32, "1.25", 1_250_606)],
)
def test_depth_and_parameters_are_those_of_table_2(name, depth, published, exact):
    model = keras_resnet.create_model(name)
    assert model.count_params() == exact
    assert f"{exact / 1e6:.{len(published) - 2}f}" == published
    weighted = [layer.name for layer in model.layers if layer.weights]
    assert len([n for n in weighted if "gate" not in n]) == depth


def test_highway19_has_the_widths_of_fitnet_4():
    """17 convolutions; those that change the width are plain."""
    model = keras_resnet.Highway19()
    convs = [layer for layer in model.layers if layer.name.endswith("conv")]
    convs = [layer for layer in convs if "gate" not in layer.name]
    widths = [layer.filters for layer in convs]
    assert widths == [32] * 3 + [48] * 2 + [80] * 6 + [128] * 6
    gated = {layer.name[:-10] for layer in model.layers if layer.name.endswith("_gate_conv")}
    plain = [layer.name[:-5] for layer in convs if layer.name[:-5] not in gated]
    assert plain == [f"stage{n}_block{m}" for n, m in ((1, 1), (1, 4), (2, 1), (3, 1))]
    assert {layer.kernel_size for layer in convs} == {(3, 3)}


def test_highway32_alternates_and_a_gate_has_its_layers_kernel():
    model = keras_resnet.Highway32()
    kernels = [model.get_layer(f"stage2_block{n}_conv").kernel_size[0] for n in range(1, 11)]
    assert kernels == [3, 1] * 5
    gates = [model.get_layer(f"stage2_block{n}_gate_conv").kernel_size[0] for n in range(2, 11)]
    assert gates == kernels[1:]


def test_a_layer_is_equation_3():
    """`y = H · T + x · (1 - T)`, of a 1×1 layer; its gate starts at -2."""
    model = keras_resnet.create_model("test_highway")
    bias = model.get_layer("stage1_block2_gate_conv").get_weights()[1]
    np.testing.assert_array_equal(bias, np.full(8, -2))
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(2, 8, 8)).astype("float32")
    biases = rng.normal(size=(2, 8)).astype("float32")
    for name, kernel, bias in zip(("conv", "gate_conv"), kernels, biases, strict=True):
        model.get_layer(f"stage1_block2_{name}").set_weights([kernel[None, None], bias])
    ends = [model.get_layer(f"stage1_{n}").output for n in ("block1_relu", "block2_add")]
    pixels = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    x, y = keras.Model(model.input, ends)(np.pad(pixels, ((0, 0), (8, 8), (8, 8), (0, 0))))
    h, t = (np.asarray(x) @ k + b for k, b in zip(kernels, biases, strict=True))
    h, t = np.maximum(h, 0), 1 / (1 + np.exp(-t))
    # float32 rounding of sums of 8.
    np.testing.assert_allclose(y, h * t + np.asarray(x) * (1 - t), atol=1e-5)


def test_features_and_the_smallest_image():
    model = keras_resnet.Highway19(features=True)
    shapes = {name: x.shape[1:] for name, x in model.output.items()}
    assert shapes == {"stage1": (32, 32, 48), "stage2": (16, 16, 80), "stage3": (8, 8, 128)}
    assert keras_resnet.Highway19(input_shape=(4, 4, 1)).output_shape == (None, 10)
    with pytest.raises(UserError, match="at least 4×4 pixels"):
        keras_resnet.Highway19(input_shape=(3, 4, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["highway19", "highway32"])
def test_the_deep_ones_learn(name):
    """Without BN; the gates let the gradient through. SGD with momentum, as the paper's."""
    keras.utils.set_random_seed(0)
    model = keras_resnet.create_model(name, input_shape=(16, 16, 3))
    model.compile(keras.optimizers.SGD(0.03, momentum=0.9), "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).normal(size=(16, 16, 16, 3)).astype("float32")
    losses = model.fit(x, np.arange(16) % 10, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
