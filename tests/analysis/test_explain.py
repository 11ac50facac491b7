"""`keras_resnet.explain`: what the maps are, that they are of these weights and of this class."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import randomize_batch_norms, run_python
from scipy.ndimage import zoom
from scipy.stats import spearmanr

import keras_resnet
from keras_resnet.analysis import explain, explained_model, maximize
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes import load_dataset

# Of every family, and the layer that is looked at; at 64 pixels, where the inceptions' last maps
# still have more than one position.
LAYERS = {
    "test_resnet": "stage2_block2_out_relu",
    "test_resnetv2": "head_relu",
    "test_seresnextd": "stage2_block2_out_relu",
    "test_alexnet": "stage2_relu1",
    "test_vgg": "stage2_relu2",
    "test_googlenet": "stage5_a_concat",
    "test_inception": "stage4_b_concat",
    "test_inception_resnet": "stage4_block1_relu",
    "test_densenet": "head_relu",
    "test_highway": "stage2_block2_add",
    "resnet8": "stage3_block1_out_relu",
    "plain20": "stage3_block3_out_relu",
}


def network(name, size=64, **arguments):
    keras.utils.set_random_seed(0)
    least = keras_resnet.SPECS[name].min_size
    shape = (max(size, least), max(size, least), 3)
    arguments = {"input_shape": shape, "classes": 5, "include_preprocessing": True, **arguments}
    return randomize_batch_norms(keras_resnet.create_model(name, **arguments))


def pixels(model, count=2):
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, shape).astype("uint8")


@pytest.fixture(scope="module")
def small():
    return network("test_resnet", 32)


@pytest.mark.parametrize("name", LAYERS)
def test_every_family_has_its_layer_and_a_map(name):
    model = network(name)
    copy = explained_model.prepared(model)
    assert explained_model.find_layer(copy, None).name == LAYERS[name]
    # Two images: TensorFlow 2.21 on an AMD EPYC aborts in the kernel gradient of a strided 1×1
    # convolution of 8 channels and one image, which only our tiny networks have.
    images = pixels(model)
    maps = keras_resnet.explain(model, images)["gradcam"]
    assert maps.shape == images.shape[:3]
    assert (maps.min(), maps.dtype) == (0, "float32")
    assert maps.max() == 1  # all zero where nothing speaks for the class: not so in these


@pytest.mark.slow
@pytest.mark.parametrize("name", keras_resnet.list_models())
def test_every_network_has_a_layer(name):
    model = network(name, min(keras_resnet.SPECS[name].input_size, 224))
    layer = explain.default_layer(model)
    assert len(model.get_layer(layer).output.shape) == 4
    keras.backend.clear_session()


@pytest.mark.parametrize("method", explain.METHODS)
def test_maps_are_of_the_image_and_repeatable(method, small, capsys):
    images = pixels(small, 3)
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    maps = keras_resnet.explain(small, images, method, classes=[0, 1, 2])[method]
    assert np.random.random() == expected  # the caller's generator is left alone
    assert maps.shape == (3, 32, 32)
    assert maps.min() >= 0
    assert maps.max() <= 1
    alone = keras_resnet.explain(small, images[:2], method, classes=[0, 1])[method]
    if method != "smoothgrad":  # which draws its noise for the batch
        # Sums in another order, times up to 1e2 of the scaling to 0...1.
        np.testing.assert_allclose(alone, maps[:2], atol=1e-4)
    again = keras_resnet.explain(small, images[:2], method, classes=[0, 1])[method]
    np.testing.assert_array_equal(again, alone)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_every_method_on_every_family(name):
    model = network(name)
    images = pixels(model)
    maps = keras_resnet.explain(model, images, tuple(explain.METHODS))
    assert list(maps) == list(explain.METHODS)
    for method, found in maps.items():
        assert found.shape == images.shape[:3], method
        for one in found:
            assert (one.min(), one.max()) == (0, 1), method
    drawn = keras_resnet.activation_maximization(model, [0, 1], steps=3)
    assert drawn.shape == images.shape
    assert drawn.std() > 0


def test_gradcam_behind_global_pooling_is_the_class_weights_over_the_maps(small):
    """Grad-CAM generalises CAM (arXiv:1610.02391, section 3.1): there both are
    relu(sum of w_kc A_k), with the logit's weights, not the softmax's gradient."""
    images, number = pixels(small), 3
    last = keras.Model(small.input, small.get_layer(LAYERS["test_resnet"]).output)
    maps = np.asarray(last(images.astype("float32")))
    weighed = np.maximum(maps @ small.get_layer("head").get_weights()[0][:, number], 0)
    large = zoom(weighed, (1, 32 / weighed.shape[1], 32 / weighed.shape[2]), order=1)
    low, high = (f(large, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    actual = keras_resnet.explain(small, images, classes=number)["gradcam"]
    np.testing.assert_allclose(actual, (large - low) / (high - low), atol=1e-4)  # float32
    # Its gradient is the same everywhere, so Grad-CAM++'s and Layer-CAM's weights agree there.
    two = keras_resnet.explain(small, images, ("gradcam++", "layercam"), classes=number)
    np.testing.assert_allclose(two["gradcam++"], two["layercam"], atol=1e-4)
    earlier = keras_resnet.explain(
        small, images, ("gradcam++", "layercam"), classes=number, layer="stage1_block1_out_relu"
    )
    assert np.abs(earlier["gradcam++"] - earlier["layercam"]).mean() > 0.01


def test_saliency_is_the_logits_gradient(small):
    images, number = pixels(small).astype("float32"), 2
    logits = keras.Model(small.input, small.get_layer("head").output)
    inputs = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        score = logits(inputs, training=False)[:, number]
    gradient = np.abs(tape.gradient(score, inputs)).max(-1)
    low, high = (f(gradient, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    actual = keras_resnet.explain(small, images, "saliency", classes=number)["saliency"]
    np.testing.assert_allclose(actual, (gradient - low) / (high - low), atol=1e-3)  # float32


def test_large_logits_do_not_overflow_gradcam_plus_plus():
    """tf-keras-vis takes exp(logit)."""
    model = network("test_resnet", 32)
    head = model.get_layer("head")
    plain = keras_resnet.explain(model, pixels(model), "gradcam++", classes=1)["gradcam++"]
    head.set_weights([head.get_weights()[0], head.get_weights()[1] + 1000])
    shifted = keras_resnet.explain(model, pixels(model), "gradcam++", classes=1)["gradcam++"]
    np.testing.assert_array_equal(plain, shifted)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_explained_in_float32(policy, small):
    keras.config.set_dtype_policy(policy)
    try:
        mixed = network("test_resnet", 32)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(small.get_weights())
    methods, images = ("gradcam", "saliency", "scorecam"), pixels(small)
    expected = keras_resnet.explain(small, images, methods, classes=1)
    actual = keras_resnet.explain(mixed, images, methods, classes=1)
    for method in methods:
        np.testing.assert_array_equal(actual[method], expected[method])
    assert mixed.get_layer("stem_conv").compute_dtype != "float32"  # the model itself is as before


def test_the_model_is_left_as_it_was(small):
    before = small.predict(pixels(small), verbose=0)
    keras_resnet.explain(small, pixels(small), ("guided", "gradcam"))
    np.testing.assert_array_equal(small.predict(pixels(small), verbose=0), before)
    assert small.layers[-1].activation is keras.activations.softmax


def foreign(end):
    """As transfer learning makes them: a model in a Sequential, in a `Softmax` or without one."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            *(layers.Conv2D(8, 3, 2, activation="relu", name="first"), layers.MaxPooling2D()),
            *(layers.Conv2D(8, 3, name="second"), layers.Activation("relu", name="last")),
        ],
        name="base",
    )
    top = [layers.GlobalAveragePooling2D(), layers.Dense(4, name="head"), *end]
    return keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), base, *top])


def test_foreign_models_within_models():
    bare, softmax = foreign([]), foreign([keras.layers.Softmax()])
    activation = foreign([keras.layers.Activation("softmax")])
    assert explain.default_layer(softmax) == "last"
    images = pixels(bare)
    expected = keras_resnet.explain(bare, images, ("gradcam", "scorecam", "guided"), classes=1)
    for model in (softmax, activation):
        actual = keras_resnet.explain(model, images, ("gradcam", "scorecam", "guided"), classes=1)
        for method, maps in expected.items():
            np.testing.assert_array_equal(actual[method], maps)
    named = keras_resnet.explain(bare, images, classes=1, layer="first")["gradcam"]
    assert np.abs(named - expected["gradcam"]).mean() > 0.01


def test_auxiliary_classifiers_are_left_out():
    model = network("test_googlenet", auxiliary=True)
    images = pixels(model)
    maps = keras_resnet.explain(model, images)["gradcam"]
    alone = keras_resnet.explain(keras_resnet.inference_model(model), images)["gradcam"]
    np.testing.assert_array_equal(maps, alone)


def test_the_highest_score_is_explained_by_default(small):
    images = pixels(small)
    best = small.predict(images, verbose=0).argmax(-1).tolist()
    np.testing.assert_array_equal(
        keras_resnet.explain(small, images)["gradcam"],
        keras_resnet.explain(small, images, classes=best)["gradcam"],
    )


def test_errors_say_what_is_expected(small):
    images = pixels(small)
    for arguments, message in (
        ({"methods": "gradcan"}, "Did you mean 'gradcam'"),
        ({"methods": None}, "methods must be a string or a list of strings; received None"),
        ({"methods": []}, r"one or more of saliency, .*; received \[\]"),
        ({"methods": "smoothgrad", "noise": -1}, "from 0 to 1; received -1"),
        ({"methods": "smoothgrad", "noise": float("nan")}, "from 0 to 1; received nan"),
        ({"methods": "smoothgrad", "noise": "0.1"}, "noise must be a number; received '0.1'"),
        ({"layer": "stem_con"}, "Did you mean 'stem_conv'"),
        ({"layer": "head_pool"}, r"'head_pool' gives \(None, 16\), which is no map"),
        ({"methods": "saliency", "layer": "stem_con"}, "Did you mean 'stem_conv'"),
        ({"classes": 5}, "whole numbers from 0 to 4; received 5"),
        ({"classes": 3.0}, "a whole number or a list of whole numbers; received 3.0"),
        ({"classes": np.array(5)}, "from 0 to 4; received 5"),
        ({"classes": [0]}, "received 1 for 2 images"),
    ):
        with pytest.raises(UserError, match=message):
            keras_resnet.explain(small, images, **arguments)
    for wrong in (images[0], images[:, :16], images[:0], images.astype(str)):
        with pytest.raises(UserError, match="takes one or more images"):
            keras_resnet.explain(small, wrong)
    with pytest.raises(UserError, match="must be a Keras model; received 'resnet20'"):
        keras_resnet.explain("resnet20", images)
    with pytest.raises(UserError, match=r"to one vector .* has .*4, 4, 16"):
        keras_resnet.explain(network("test_resnet", 32, include_top=False), images)


def test_an_ensemble_has_no_last_map_of_its_own(small):
    both = keras_resnet.ensemble([small, network("test_vgg", 32)])
    with pytest.raises(UserError, match=r"has no map on every path .*--layer"):
        keras_resnet.explain(both, pixels(both))
    layer = f"member1_{LAYERS['test_resnet']}"
    assert keras_resnet.explain(both, pixels(both), layer=layer)["gradcam"].max() > 0.99
    assert keras_resnet.explain(both, pixels(both), "saliency")["saliency"].max() > 0.99


def test_guided_refuses_what_it_would_leave_unguided():
    layers = keras.layers
    parts = [layers.Conv2D(4, 3), layers.ReLU(name="rectifier"), layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *parts])
    with pytest.raises(UserError, match=r"has ReLU layers \('rectifier'\)"):
        keras_resnet.explain(model, pixels(model), "guided")


def test_not_finite_gradients_are_refused(small):
    broken = network("test_resnet", 32)
    weights = broken.get_layer("head").get_weights()
    broken.get_layer("head").set_weights([np.full_like(weights[0], np.nan), weights[1]])
    with pytest.raises(UserError, match="gradcam: the gradients of 'test_resnet' are not finite"):
        keras_resnet.explain(broken, pixels(broken), classes=0)


@pytest.mark.slow
def test_legacy_keras_in_the_environment_is_named():
    code = """
import keras_resnet, numpy as np
try:
    keras_resnet.explain(keras_resnet.ResNet8(), np.zeros((1, 32, 32, 3)))
except keras_resnet.UserError as error:
    print(error)
"""
    said = run_python(code, env={"TF_USE_LEGACY_KERAS": "1"}).stdout
    assert "TF_USE_LEGACY_KERAS is set" in said
    assert "Unset it" in said


# Sanity checks (arXiv:1810.03292), on images and weights of the real world ------------------------


@pytest.fixture(scope="module")
def cifar():
    folder = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    if not (folder / "cifar10").is_dir():
        pytest.skip("needs cifar10 in TFDS_DATA_DIR")
    return load_dataset("cifar10").test.images[:8]


def likeness(maps, others):
    """Mean rank correlation; a map without any evidence is like no other."""
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(maps, others, strict=True)]
    return np.mean([spearmanr(a, b).statistic if a.std() and b.std() else 0.0 for a, b in pairs])


# Of 16 images the mean correlation with a network of random weights was at most 0.5 (SmoothGrad),
# with the second most likely class at most 0.86 (Grad-CAM++); guided backpropagation's 0.92 is why
# its documentation warns. The bars leave other images a tenth.
@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("resnet20", ("saliency", "gradcam", "gradcam++", "layercam")),
        ("resnetv2_20", ("saliency", "gradcam")),
        ("resnet8", ("saliency", "smoothgrad", "gradcam", "layercam", "scorecam")),
    ],
)
def test_weights_and_class_change_the_map(name, methods, cifar):
    trained = keras_resnet.create_model(name, weights="cifar10", include_preprocessing=True)
    keras.utils.set_random_seed(1)
    random = keras_resnet.create_model(name, include_preprocessing=True)
    order = trained.predict(cifar, verbose=0).argsort(-1)
    best, second = order[:, -1].tolist(), order[:, -2].tolist()
    options = {"methods": methods, "noise": 0.05}
    maps = keras_resnet.explain(trained, cifar, classes=best, **options)
    of_random = keras_resnet.explain(random, cifar, classes=best, **options)
    of_second = keras_resnet.explain(trained, cifar, classes=second, **options)
    for method in methods:
        for found in (maps, of_random, of_second):  # which are like nothing if they are empty
            assert np.mean([values.std() > 0 for values in found[method]]) > 0.5, method
        assert likeness(maps[method], of_random[method]) < 0.6
        assert likeness(maps[method], of_second[method]) < 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "resnet18", "vgg16", "googlenet", "densenet121"])
def test_a_photograph_in_networks_for_imagenet(name):
    """Random weights, as no others are here: other ones, and another class, give another map."""
    datasets = pytest.importorskip("sklearn.datasets")
    photograph = datasets.load_sample_image("flower.jpg")
    image = keras.ops.image.resize(photograph, (224, 224), crop_to_aspect_ratio=True)
    image = np.asarray(image)[None].astype("uint8")
    first, other = network(name, 224, classes=10), None
    keras.utils.set_random_seed(1)
    other = keras_resnet.create_model(
        name, input_shape=(224, 224, 3), classes=10, include_preprocessing=True
    )
    methods = ("gradcam", "saliency")
    maps = keras_resnet.explain(first, image, methods, classes=0)
    of_other = keras_resnet.explain(other, image, methods, classes=0)
    of_class = keras_resnet.explain(first, image, methods, classes=1)
    for method in methods:
        assert maps[method].shape == (1, 224, 224)
        assert likeness(maps[method], of_other[method]) < 0.9
        assert likeness(maps[method], of_class[method]) < 0.99


# Images of classes --------------------------------------------------------------------------------


def test_maximization_draws_what_the_network_takes_for_the_class():
    """Also for a network whose normalisation is outside."""
    for inside in (True, False):
        model = keras_resnet.create_model(
            "resnet8" if inside else "resnet20", weights="cifar10", include_preprocessing=inside
        )
        images = keras_resnet.activation_maximization(model, [3, 8], steps=20)
        assert images.shape == (2, 32, 32, 3)
        assert images.dtype == np.uint8
        scores = model.predict(keras_resnet.preprocess(images, model), verbose=0)
        assert scores.argmax(-1).tolist() == [3, 8]
    with pytest.raises(UserError, match="from 0 to 9"):
        keras_resnet.activation_maximization(model, np.int64(10))  # as argmax gives
    with pytest.raises(UserError, match="a whole number or a list of whole numbers; received None"):
        keras_resnet.activation_maximization(model, None)
    with pytest.raises(UserError, match="1 or more; received 0"):
        keras_resnet.activation_maximization(model, 1, steps=0)
    with pytest.raises(UnknownNameError, match="Did you mean 'torch'"):
        maximize.activation_maximization(model, 1, preprocessing_mode="toch")
