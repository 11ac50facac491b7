"""The residual story's variants: each against the figure of its paper, in NumPy or in counts."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import run_python

import keras_resnet
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.models.resnet import blocks, shortcuts

ABLATIONS = (
    *("constant_scaling", "exclusive_gating", "shortcut_only_gating", "conv_shortcut"),
    *("dropout_shortcut", "bn_after_add", "relu_before_add", "relu_only_preact"),
)


def _unit(names):
    """The layers of a stage's second unit, in the order of the graph, without those names."""
    return [name.removeprefix("stage2_block2_") for name in names if "stage2_block2_" in name]


# Fig. 4 of Identity Mappings, read from top to bottom (the shortcut path has no layer here).
@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("resnet20", "conv1 bn1 relu1 conv2 bn2 add out_relu"),
        ("resnet20_bn_after_add", "conv1 bn1 relu1 conv2 add out_bn out_relu"),
        ("resnet20_relu_before_add", "conv1 bn1 relu1 conv2 bn2 relu2 add"),
        ("resnet20_relu_only_preact", "relu1 conv1 bn1 relu2 conv2 bn2 add"),
        ("resnetv2_20", "bn1 relu1 conv1 bn2 relu2 conv2 add"),
        ("plain20", "conv1 bn1 relu1 conv2 bn2 out_relu"),
    ],
)
def test_the_activations_stand_where_figure_4_has_them(name, figure):
    model = keras_resnet.create_model(name)
    assert _unit([layer.name for layer in model.layers]) == figure.split()


def test_relu_only_preactivation_begins_and_ends_as_the_appendix_says():
    names = [layer.name for layer in keras_resnet.create_model("resnet20_relu_only_preact").layers]
    assert names[1:5] == ["stem_conv", "stem_bn", "stage1_block1_relu1", "stage1_block1_conv1"]
    assert names[names.index("stage3_block3_add") + 1] == "head_relu"


def _junction(junction, h, f, weights=None):
    """Run a junction on arrays; `weights` go into its gate."""
    unit = blocks.Unit("u", blocks.Style(), blocks.POST_ACTIVATION, 1, h.shape[-1], h.shape[-1])
    inputs = [keras.layers.Input(h.shape[1:]), keras.layers.Input(f.shape[1:])]
    model = keras.Model(inputs, junction(*inputs, unit))
    if weights:
        model.get_layer("u_gate_conv").set_weights(weights)
    return model, model.predict([h, f], verbose=0)


def test_junctions_are_the_equations_of_figure_2():
    rng = np.random.default_rng(0)
    h, f = rng.normal(size=(2, 2, 5, 5, 3)).astype("float32")
    kernel, bias = rng.normal(size=(1, 1, 3, 3)), rng.normal(size=3)
    gate = 1 / (1 + np.exp(-(h @ kernel[0, 0] + bias)))
    cases = [
        (shortcuts.addition, None, h + f),
        (shortcuts.no_shortcut, None, f),
        (shortcuts.constant_scaling(0.5, 0.25), None, 0.5 * h + 0.25 * f),
        (shortcuts.exclusive_gating(-6.0), [kernel, bias], (1 - gate) * h + gate * f),
        (shortcuts.shortcut_only_gating(-6.0), [kernel, bias], (1 - gate) * h + f),
        (shortcuts.dropout_shortcut(0.5), None, h + f),
    ]
    for junction, weights, expected in cases:
        # float32 sums of a handful of terms.
        np.testing.assert_allclose(_junction(junction, h, f, weights)[1], expected, atol=1e-5)


def test_gates_start_at_their_bias():
    x = np.zeros((1, 2, 2, 3), "float32")
    model, _ = _junction(shortcuts.shortcut_only_gating(-6.0), x, x)
    np.testing.assert_array_equal(model.get_layer("u_gate_conv").get_weights()[1], [-6.0] * 3)


def test_a_plain_net_is_the_residual_one_without_shortcuts():
    plain, residual = keras_resnet.Plain20(), keras_resnet.ResNet20()
    kept = [x.name for x in residual.layers if "_add" not in x.name and "shortcut" not in x.name]
    assert [layer.name for layer in plain.layers] == kept
    assert plain.count_params() == residual.count_params()


def test_squeeze_excitation_scales_channels_by_the_gates():
    model = keras_resnet.create_model("test_seresnextd")
    name = "stage2_block2_se_"
    layers = {part: model.get_layer(name + part) for part in ("pool", "reduce", "expand", "scale")}
    ends = [layers["pool"].input, layers["scale"].output]
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    f, scaled = keras.Model(model.input, ends).predict(x, verbose=0)
    w1, b1, w2, b2 = (w for n in ("reduce", "expand") for w in layers[n].get_weights())
    squeezed = np.maximum(f.mean((1, 2)) @ w1[0, 0] + b1, 0)
    gates = 1 / (1 + np.exp(-(squeezed @ w2[0, 0] + b2)))
    # float32 means and sums of some dozen terms.
    np.testing.assert_allclose(scaled, f * gates[:, None, None], rtol=1e-5, atol=1e-6)


def test_resnet_d_projects_the_average_of_all_pixels():
    """The strided 1×1 of options B and C drops three pixels of four; D's pool sees them."""
    unit = blocks.Unit("u", blocks.Style(), blocks.POST_ACTIVATION, 2, 3, 5, downsamples=True)
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    inputs = keras.layers.Input(x.shape[1:])
    model = keras.Model(inputs, shortcuts.option_d(inputs, inputs, unit))
    kernel = model.get_layer("u_shortcut_conv").get_weights()[0][0, 0]
    padded = np.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)), constant_values=np.nan)
    averages = np.nanmean(padded.reshape(2, 4, 2, 3, 2, 3), axis=(2, 4))  # edge: what is there
    expected = averages @ kernel / np.sqrt(1 + 1e-5)
    # float32 sums of a dozen terms.
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_grouped_convolutions_are_separate_paths():
    """Also: the kernel of our layer, which is TensorFlow's own, gives what stock Keras does."""
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 8)).astype("float32")
    layer = keras_resnet.Conv2D(12, 3, groups=4, padding="same", use_bias=True)
    ours = keras.ops.convert_to_numpy(layer(x))
    kernel, bias = layer.get_weights()
    for path in range(4):
        alone = keras.layers.Conv2D(3, 3, padding="same")
        alone.build((None, 6, 6, 2))
        part = slice(3 * path, 3 * path + 3)
        alone.set_weights([kernel[..., part], bias[part]])
        expected = keras.ops.convert_to_numpy(alone(x[..., 2 * path : 2 * path + 2]))
        np.testing.assert_allclose(ours[..., part], expected, atol=1e-5)  # order of float32 sums


def _small(name):
    """The network's form with few and narrow units."""
    spec = keras_resnet.SPECS[name]
    depths, widths = (2,) * len(spec.depths), (8, 16, 24, 32)[: len(spec.depths)]
    return replace(spec, depths=depths, widths=widths, stem_width=8)


GROUPED_GRADIENT = """
import keras, numpy as np, tensorflow as tf
import keras_resnet
images = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 5, 4)), "float32")
stock = keras.layers.Conv2D(6, 3, groups=2, dtype="float32")
stock(images)
for dtype, tolerance in (("float32", 1e-5), ("mixed_float16", 1e-2)):  # their rounding
    ours = keras_resnet.Conv2D(6, 3, groups=2, dtype=dtype)
    ours(images)
    ours.set_weights(stock.get_weights())
    gradients = []
    for layer in (ours, stock):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(images), "float32") ** 2)
        gradients.append(tape.gradient(loss, layer.kernel.value).numpy())
    difference = np.abs(gradients[0] - gradients[1]).max() / np.abs(gradients[1]).max()
    assert difference < tolerance, (dtype, difference)
"""


@pytest.mark.parametrize("onednn", ["1", "0"])
def test_grouped_convolutions_learn_on_every_machine(onednn):
    """float16 on CPUs, and CPUs without oneDNN, take stock Keras' way."""
    run_python(GROUPED_GRADIENT, env={"TF_ENABLE_ONEDNN_OPTS": onednn})


@pytest.mark.parametrize("name", ["resnet50", "resnet50v2", "resnetv2_50", "resnet18", "resnet20"])
def test_a_dilated_network_gives_the_strided_one_and_the_pixels_between(name):
    full = {"include_top": False, "input_shape": (64, 64, 3)}
    strided = keras_resnet.build(_small(name), **full)
    total = 64 // strided.output_shape[1]
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    expected = strided.predict(x, verbose=0)
    for stride in (total // 2, total // 4):
        dense = keras_resnet.build(_small(name), output_stride=stride, **full)
        dense.set_weights(strided.get_weights())
        every = total // stride
        assert dense.output_shape[1] == 64 // stride
        difference = np.abs(dense.predict(x, verbose=0)[:, ::every, ::every] - expected).max()
        # The same sums in another order.
        assert difference <= 1e-5 * np.abs(expected).max()


def test_features_are_the_last_maps_of_every_resolution():
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    for name in ("resnet18", "resnet50v2", "resnetv2_18"):
        pyramid = keras_resnet.build(_small(name), features=True, input_shape=(64, 64, 3))
        shapes = {key: tuple(map.shape[1:3]) for key, map in pyramid.output.items()}
        assert shapes == {f"stage{n}": (64 // s,) * 2 for n, s in enumerate((4, 8, 16, 32), 1)}
        trunk = keras_resnet.build(_small(name), include_top=False, input_shape=(64, 64, 3))
        # A pre-activation network's head begins with BN and ReLU; no map of the pyramid has them.
        body = "stage4_block2_out_relu" if name == "resnet18" else "stage4_block2_add"
        trunk = keras.Model(trunk.input, trunk.get_layer(body).output)
        trunk.set_weights(pyramid.get_weights())
        last = pyramid.predict(x, verbose=0)["stage4"]
        np.testing.assert_array_equal(last, trunk.predict(x, verbose=0))
    tapped = keras_resnet.ResNet50V2(features=True, input_shape=(64, 64, 3))
    # Before the striding unit, which in Keras Applications' form ends the stage.
    assert tapped.output["stage1"] is tapped.get_layer("stage1_block2_add").output


def test_stochastic_depth_drops_whole_units_and_only_in_training():
    keras.utils.set_random_seed(0)
    spec = replace(keras_resnet.SPECS["test_resnet"], stochastic_depth=0.75)
    rates = [unit.drop_rate for unit, _ in spec.units()]
    assert rates == [0.25, 0.5, 0.75]
    model = keras_resnet.build(spec, include_top=False)
    name = "stage2_block2_"
    ends = [model.get_layer(name + n).output for n in ("bn2", "drop_path")]
    taps = keras.Model(model.input, ends)
    x = np.random.default_rng(0).normal(size=(64, 32, 32, 3)).astype("float32")
    f, kept = (np.asarray(y) for y in taps(x, training=True))
    scale = kept.max((1, 2, 3)) / f.max((1, 2, 3))
    dropped = scale == 0
    assert 30 <= dropped.sum() <= 60  # 64 draws at 0.75: five standard deviations around 48
    # One float32 product each.
    np.testing.assert_allclose(kept[~dropped], 4 * f[~dropped], rtol=1e-6)
    f, kept = (np.asarray(y) for y in taps(x, training=False))
    np.testing.assert_array_equal(f, kept)


@pytest.mark.parametrize("name", ["test_resnet", "resnetv2_20"])
def test_zero_init_last_makes_units_their_shortcuts(name):
    model = keras_resnet.create_model(name, zero_init_last=True)
    end = "stage2_block2_"
    last = end + ("conv2" if name == "resnetv2_20" else "bn2")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    f = keras.Model(model.input, model.get_layer(last).output)
    assert not f.predict(x, verbose=0).any()


def test_options_are_the_fields_of_the_spec():
    model = keras_resnet.ResNet20(dropout=0.25)
    assert model.get_layer("head_dropout").rate == 0.25
    with pytest.raises(UnknownNameError, match="Did you mean 'output_stride'"):
        keras_resnet.ResNet20(output_strid=2)
    with pytest.raises(UserError, match="output_stride must be one of 1, 2, 4"):
        keras_resnet.ResNet20(output_stride=8)
    with pytest.raises(UserError, match="stochastic_depth must be in"):
        keras_resnet.ResNet20(stochastic_depth=1)


def test_dropout_of_a_wide_resnet_acts_on_the_second_convolutions_input():
    names = [layer.name for layer in keras_resnet.WRN28_10_Dropout(input_shape=(8, 8, 3)).layers]
    unit = [n.removeprefix("stage1_block2_") for n in names if "stage1_block2_" in n]
    assert unit == ["bn1", "relu1", "conv1", "bn2", "relu2", "drop2", "conv2", "add"]


def test_all_ablations_are_there():
    for depth in (20, 56, 110, 164):
        for name in ABLATIONS:
            assert f"resnet{depth}_{name}" in keras_resnet.SPECS


def test_the_bottlenecks_of_cifar_stride_in_their_first_convolution():
    """As the authors' program has them; the sum of multiply-adds would not tell from where."""
    for name in ("resnet164", "resnetv2_164", "resnet164_bn_after_add"):
        model = keras_resnet.create_model(name)
        strides = [model.get_layer(f"stage2_block1_conv{n}").strides[0] for n in (1, 2, 3)]
        assert strides == [2, 1, 1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plain20", {"zero_init_last": True}, "need shortcuts"),
        ("plain20", {"stochastic_depth": 0.1}, "need shortcuts"),
        ("resnet20_relu_before_add", {"zero_init_last": True}, "has no gradient"),
        ("resnet8", {"output_stride": 2}, "needs the symmetric padding"),
        ("resnet20", {"stride_unit": "frist"}, "Did you mean 'first'"),
        ("test_vgg", {"drop": "atfer"}, "Did you mean 'after'"),
        ("test_resnet", {"depths": (0, 1)}, "1 or more"),
        ("test_resnet", {"depths": 3}, "'depths' must be a tuple"),
        ("test_resnet", {"dropout": "much"}, "'dropout' must be a number"),
        ("test_densenet", {"dropout": 5}, "dropout must be in"),
        ("test_densenet", {"drop_rate": 1}, "drop_rate must be in"),
        ("test_resnet", {"preprocessing": "tf"}, "include_preprocessing=True"),
        ("test_resnet", {"preprocessing": "torhc", "include_preprocessing": True}, "'torch'"),
        ("test_resnet", {"pooling": "mean"}, "pooling must be 'avg'"),
        ("test_resnet", {"classes": 2.5}, "classes must be a whole number"),
        ("test_resnet", {"input_shape": 32}, "height, width, channels"),
        ("test_resnet", {"input_tensor": np.zeros((1, 32, 32, 3))}, "must be a Keras tensor"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        keras_resnet.create_model(name, **options)


def test_a_given_tensor_is_as_large_as_the_network_needs():
    with pytest.raises(UserError, match="at least 8×8 pixels"):
        keras_resnet.create_model("test_resnet", input_tensor=keras.layers.Input((4, 32, 3)))
