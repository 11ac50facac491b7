"""The networks: the naming contract, Keras' interface, parity."""

import inspect
import re
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms, run_python

import keras_resnet
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.layers import BatchNormalization
from keras_resnet.models.resnet import blocks, shortcuts, stems
from keras_resnet.weights.foreign.keras_weights import from_keras_applications


def _families():
    """The tiny ones and some forms in the default lane, the rest in the slow one."""
    default = ["resnet8", "resnet20", "resnet50v2", "resnetv2_20"]
    default += keras_resnet.list_models("test_*")
    names = keras_resnet.list_models()
    return [n if n in default else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", _families())
def test_every_network_builds_and_speaks_the_contract(name):
    size = max(64, keras_resnet.SPECS[name].min_size)
    model = keras_resnet.create_model(name, classes=7, input_shape=(size, size, 3))
    assert model.name == name
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, 7)
    layers = {layer.name for layer in model.layers}
    assert {"images", "head", "predictions"} <= layers
    prefixes = ("images", "stem", "stage", "head", "predictions")
    assert not [n for n in layers if not n.startswith(prefixes)]
    assert all(isinstance(layer, keras.Layer) for layer in model.layers)


def test_names_functions_and_specs_are_one_table():
    public = set(keras_resnet._public.__all__)
    assert list(keras_resnet.SPECS) == keras_resnet.list_models()
    for name, network in keras_resnet.SPECS.items():
        row = keras_resnet.registry.architecture(name)
        assert row.network is network
        if row.function:
            public.remove(row.function)
            assert getattr(keras_resnet, row.function) is row.builder
            assert row.builder.__name__ == row.function
            assert row.function.lower().replace("_", "") == name.replace("_", "")
        else:  # the ablations and the tiny ones
            assert re.match(r"test_|resnet(20|56|110|164)_\w{5}", name)
    docs = [inspect.getdoc(getattr(keras_resnet, name)) or "" for name in public]
    assert not [text for text in docs if "Registry name" in text]  # of a function in no row
    with pytest.raises(TypeError):
        keras_resnet.SPECS["mine"] = keras_resnet.SPECS["resnet20"]


def test_the_functions_take_the_arguments_of_build():
    """As `help` and editors show them; their names and order are those of Keras Applications."""
    _network, *arguments = inspect.signature(keras_resnet.build).parameters.values()
    theirs = list(inspect.signature(keras.applications.ResNet50).parameters)
    for function in (keras_resnet.ResNet50, keras_resnet.VGG16, keras_resnet.WRN28_10):
        mine = inspect.signature(function).parameters
        assert list(mine.values()) == arguments
        assert list(mine)[: len(theirs)] == theirs
        text = inspect.getdoc(function)
        assert "network" not in text.partition("Args:")[0]
        assert [x for x in mine if f"\n    {x}: " not in text] == []
        assert "\nReturns:\n" in text
        assert "\nRaises:\n" in text
    with pytest.raises(TypeError, match="too many positional arguments"):
        keras_resnet.ResNet20(*range(12))
    with pytest.raises(TypeError, match="multiple values for argument 'include_top'"):
        keras_resnet.ResNet20(False, include_top=False)


def test_list_models_takes_a_pattern():
    assert keras_resnet.list_models("resnet8") == ["resnet8"]
    assert set(keras_resnet.list_models("resnetv2_1?1")) == {"resnetv2_101"}


def test_arguments_may_be_positional_as_in_keras_applications():
    model = keras_resnet.ResNet20(False, None, None, (16, 16, 3), "avg")
    assert model.output_shape == (None, 64)


def test_plain_keras_works_on_a_model(tmp_path):
    model = keras_resnet.ResNet20(classes=3, input_shape=(16, 16, 3))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")
    y = np.arange(8) % 3
    first = model.evaluate(x, y, verbose=0)[0]
    model.fit(x, y, epochs=8, verbose=0)
    model.summary(print_fn=lambda *_: None)
    predicted = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    # The same operations on the same weights.
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), predicted)
    assert any(type(layer) is BatchNormalization for layer in loaded.layers)
    assert loaded.fit(x, y, epochs=4, verbose=0).history["loss"][-1] < first


def test_the_notebook_line_of_the_readme():
    model = keras_resnet.ResNet50(classes=10, input_shape=(96, 96, 3))
    assert model.output_shape == (None, 10)


def test_without_the_top():
    features = keras_resnet.ResNet50(include_top=False, input_shape=(64, 64, 3))
    assert features.output_shape == (None, 2, 2, 2048)
    pooled = keras_resnet.ResNetV2_50(include_top=False, pooling="avg")
    assert pooled.output_shape == (None, 2048)
    assert keras_resnet.ResNet20(include_top=False, pooling="max").output_shape == (None, 64)


def test_input_tensor_and_free_sizes_and_channels():
    inputs = keras.layers.Input((32, 32, 3))
    shifted = keras.layers.Rescaling(2.0)(inputs)
    model = keras_resnet.ResNet20(input_tensor=shifted)
    assert model.input is inputs
    free = keras_resnet.ResNet20(input_shape=(None, None, 3))
    assert free.predict(np.zeros((1, 40, 24, 3)), verbose=0).shape == (1, 10)
    grey = keras_resnet.ResNet20(input_shape=(28, 28, 1), include_preprocessing=True)
    assert grey.predict(np.zeros((1, 28, 28, 1)), verbose=0).shape == (1, 10)


def test_logits_and_probabilities_differ_by_a_softmax():
    keras.utils.set_random_seed(1)
    logits = keras_resnet.ResNet20(classifier_activation=None)
    probabilities = keras_resnet.ResNet20()
    probabilities.set_weights(logits.get_weights())
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    expected = keras.ops.softmax(logits.predict(x, verbose=0))
    # float32 rounding of one softmax.
    np.testing.assert_allclose(probabilities.predict(x, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_head_stays_float32_under_mixed_precision(policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras_resnet.ResNet20(include_preprocessing=True)
    finally:
        keras.config.set_dtype_policy(previous)
    assert model.output.dtype == "float32"
    assert model.get_layer("stem_conv").compute_dtype == policy.removeprefix("mixed_")
    for name in ("rescaling", "head_pool", "head"):
        assert model.get_layer(name).compute_dtype == "float32"


def test_weights_are_saved_and_loaded_by_path(tmp_path):
    path = tmp_path / "a.weights.h5"
    source = keras_resnet.ResNet20()
    source.save_weights(path)
    loaded = keras_resnet.ResNet20(weights=str(path))
    for a, b in zip(source.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors_have_the_nearest_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        keras_resnet.create_model("resnet5O")
    with pytest.raises(UserError, match="height, width, channels"):
        keras_resnet.ResNet20(input_shape=(32, 32))
    with pytest.raises(UserError, match="pooling must be 'avg'"):
        keras_resnet.ResNet20(include_top=False, pooling="mean")


def test_a_network_of_no_table():
    spec = keras_resnet.ResNetSpec(
        depths=(1, 2),
        widths=(8, 16),
        transform=blocks.bottleneck,
        shortcut=shortcuts.option_c,
        stem=stems.cifar_stem,
        stem_width=8,
        classes=5,
        input_size=16,
    )
    model = keras_resnet.build(spec, name="mine")
    assert model.output_shape == (None, 5)
    assert model.get_layer("stage2_block2_shortcut_conv").filters == 64
    with pytest.raises(UserError, match="one number per stage"):
        replace(spec, depths=(1,))
    with pytest.raises(UserError, match="transform must be a function"):
        replace(spec, transform="basic")
    with pytest.raises(UserError, match="Option A can only add channels"):
        keras_resnet.build(
            replace(spec, shortcut=shortcuts.option_a, transform=blocks.basic, stem_width=64)
        )


# The pieces, against the paper's words in NumPy ---------------------------------------------------


def test_option_a_is_subsampling_and_zero_channels():
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 4)).astype("float32")
    unit = blocks.Unit("u", blocks.Style(), blocks.POST_ACTIVATION, 2, 4, 10)
    inputs = keras.layers.Input(x.shape[1:])
    model = keras.Model(inputs, shortcuts.option_a(inputs, inputs, unit))
    expected = np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (3, 3)))
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize("size", [8, 9])
def test_the_preactivation_stem_pools_with_minus_infinity(size):
    """PyTorch's MaxPool2d(3, 2, padding=1), on negative features too."""
    x = np.random.default_rng(0).normal(size=(1, 2 * size, 2 * size, 3)).astype("float32")
    inputs = keras.layers.Input(x.shape[1:])
    outputs = stems.imagenet_preact_stem(inputs, 4, blocks.PRE_ACTIVATION, blocks.Style())
    model = keras.Model(inputs, outputs)
    conv = keras.Model(inputs, model.get_layer("stem_conv").output).predict(x, verbose=0)
    padded = np.pad(conv, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    expected = windows[:, ::2, ::2].max(axis=(-1, -2))
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


def test_preactivation_leaves_the_identity_path_free():
    """With every transform at zero, a v2 trunk carries the stem's activation to its end."""
    model = keras_resnet.ResNetV2_20()
    for layer in model.layers:
        if layer.name.startswith("stage") and layer.name.endswith("conv2"):
            layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    ends = [model.get_layer(n).output for n in ("stage1_block1_relu1", "stage3_block3_add")]
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    start, end = keras.Model(model.input, ends).predict(x, verbose=0)
    expected = np.pad(start[:, ::4, ::4], ((0, 0), (0, 0), (0, 0), (24, 24)))
    np.testing.assert_array_equal(end, expected)


# Parity with an independent implementation --------------------------------------------------------


def _applications():
    """ResNet50 and 50V2 at 96 pixels always; all six at their own 224 in the slow lane."""
    names = ["ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"]
    slow = [pytest.param(name, 224, marks=pytest.mark.slow) for name in names]
    return [("ResNet50", 96), ("ResNet50V2", 96), *slow]


@pytest.mark.parametrize(("name", "size"), _applications())
def test_logits_equal_keras_applications(name, size):
    """Whole chain from pixels, their weights through our converter. Relative 1e-5: float32
    rounding over 50 layers and more, their biases folded into our BN and BGR turned to RGB."""
    keras.utils.set_random_seed(0)
    shape = (size, size, 3)
    arguments = {"input_shape": shape, "classifier_activation": None}
    theirs = getattr(keras.applications, name)(weights=None, **arguments)
    package = keras.applications.resnet_v2 if "V2" in name else keras.applications.resnet
    rng = np.random.default_rng(0)
    for layer in randomize_batch_norms(theirs).layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    model = getattr(keras_resnet, name)(include_preprocessing=True, **arguments)
    from_keras_applications(theirs, model)
    pixels = rng.integers(0, 256, (2, *shape)).astype("float32")
    expected = theirs.predict(package.preprocess_input(pixels.copy()), verbose=0)
    difference = np.abs(model.predict(pixels, verbose=0) - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_the_converter_names_what_does_not_correspond():
    small = {"input_shape": (64, 64, 3)}
    theirs = keras.applications.ResNet50(weights=None, **small)
    wide = keras_resnet.create_model("wide_resnet50_2", **small)
    for other, message in [
        (keras_resnet.ResNet101(**small), "have nothing for 'stage3_block7_conv1'"),
        (keras_resnet.ResNet20(), "no layer that corresponds to their 'conv2_block1_0_conv'"),
        (keras_resnet.ResNetV2_50(**small), "no layer that corresponds to their 'conv1_bn'"),
        (wide, "do not fit 'stage1_block1_conv1'"),
    ]:
        before = other.get_weights()
        with pytest.raises(UserError, match=message):
            from_keras_applications(theirs, other)
        for old, new in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)  # nothing was copied


def test_a_stock_copy_loads_where_keras_resnet_was_never_imported(tmp_path, resnet20, images):
    stock = keras_resnet.to_stock(resnet20)
    stock.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", images[:4].astype("float32"))
    run_python(
        "import sys, keras, numpy as np\n"
        "m = keras.models.load_model('m.keras')\n"
        "np.save('y.npy', m.predict(np.load('x.npy'), verbose=0))\n"
        "assert not [n for n in sys.modules if n.startswith('keras_resnet')]",
        cwd=tmp_path,
    )
    expected = resnet20.predict(images[:4].astype("float32"), verbose=0)
    # The fused and the stock BN differ by float32 rounding; these are probabilities.
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "least"), [("resnet18", 32), ("resnet50v2", 32), ("resnet20", 4)]
)
def test_images_that_leave_nothing_to_the_last_stage_are_refused(build, least):
    with pytest.raises(UserError, match=f"at least {least}×{least} pixels"):
        keras_resnet.create_model(build, input_shape=(64, least - 1, 3))
    assert keras_resnet.create_model(build, input_shape=(least, least, 3)).count_params() > 0
