"""DenseNets: counts as published, torchvision's and Keras Applications' structure, parity."""

import re
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms
from keras.src.applications.densenet import DenseNet as KerasDenseNet

import keras_resnet
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.weights.foreign.keras_weights import from_keras_applications


@pytest.mark.parametrize(("name", "depth"), [("densenet40_12", 40), ("densenet_bc100_12", 100)])
def test_l_is_the_number_of_weight_layers(name, depth):
    spec = keras_resnet.SPECS[name]
    convolutions = sum(spec.depths) * (2 if spec.bottleneck else 1) + len(spec.depths) - 1
    assert 1 + convolutions + 1 == depth


def _torchvision_name(name):
    """A layer of ours in torchvision's words, by substitution alone."""
    name = re.sub(r"^stem_(\w+)$", r"features.\g<1>0", name)
    name = re.sub(r"^stage(\d)_block(\d+)_", r"features.denseblock\1.denselayer\2.", name)
    name = re.sub(r"^stage(\d)_transition_", r"features.transition\1.", name)
    name = re.sub(r"^head_bn$", "features.norm5", name)
    return re.sub(r"\bbn(\d?)$", r"norm\1", "classifier" if name == "head" else name)


def test_the_layer_names_are_torchvisions_in_other_words():
    spec = replace(keras_resnet.SPECS["densenet121"], depths=(2, 1), growth_rate=4)
    model = keras_resnet.build(spec, input_shape=(64, 64, 3))
    names = {_torchvision_name(layer.name) for layer in model.layers if layer.weights}
    layers = ["norm1", "conv1", "norm2", "conv2"]
    blocks = ["denseblock1.denselayer1", "denseblock1.denselayer2", "denseblock2.denselayer1"]
    assert names == {
        *("features.conv0", "features.norm0", "features.norm5", "classifier"),
        *("features.transition1.norm", "features.transition1.conv"),
        *(f"features.{block}.{layer}" for block in blocks for layer in layers),
    }


def _assert_parity(theirs, ours, shape):
    """Whole chain from pixels, their weights through our converter. Relative 1e-5: float32
    rounding over some hundred layers."""
    rng = np.random.default_rng(0)
    from_keras_applications(randomize_batch_norms(theirs), ours)
    pixels = rng.integers(0, 256, (2, *shape)).astype("float32")
    normalised = keras.applications.densenet.preprocess_input(pixels.copy())
    expected = theirs.predict(normalised, verbose=0)
    difference = np.abs(ours.predict(pixels, verbose=0) - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()


def test_logits_equal_keras_applications():
    """Their builder, with fewer layers a block."""
    keras.utils.set_random_seed(0)
    arguments = {"input_shape": (64, 64, 3), "classes": 7, "classifier_activation": None}
    theirs = KerasDenseNet([1, 2, 1, 2], weights=None, **arguments)
    spec = replace(keras_resnet.SPECS["densenet121"], depths=(1, 2, 1, 2))
    ours = keras_resnet.build(spec, include_preprocessing=True, **arguments)
    _assert_parity(theirs, ours, (64, 64, 3))
    deeper = keras_resnet.build(replace(spec, depths=(1, 2, 1, 3)), **arguments)
    with pytest.raises(UserError, match="have nothing for 'stage4_block3_bn1'"):
        from_keras_applications(theirs, deeper)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DenseNet121", "DenseNet169", "DenseNet201"])
def test_logits_equal_keras_applications_at_full_depth(name):
    keras.utils.set_random_seed(0)
    shape = (96, 96, 3)
    arguments = {"input_shape": shape, "classifier_activation": None}
    theirs = getattr(keras.applications, name)(weights=None, **arguments)
    ours = getattr(keras_resnet, name)(include_preprocessing=True, **arguments)
    _assert_parity(theirs, ours, shape)


def test_a_layer_adds_its_maps_to_those_before_it():
    """Eq. 2: what is there stays as it is."""
    model = randomize_batch_norms(keras_resnet.create_model("test_densenet"))
    ends = [model.get_layer(f"stage2_block{n}_concat").output for n in (1, 2, 3)]
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    first, second, third = keras.Model(model.input, ends).predict(x, verbose=0)
    assert [y.shape[-1] for y in (first, second, third)] == [12, 16, 20]
    np.testing.assert_array_equal(third[..., :16], second)
    np.testing.assert_array_equal(second[..., :12], first)


def test_dropout_follows_every_convolution_but_the_first():
    model = keras_resnet.create_model("test_densenet", drop_rate=0.2)
    convolutions = [layer.name for layer in model.layers if "conv" in layer.name]
    dropouts = [layer for layer in model.layers if "drop" in layer.name]
    assert [layer.name.replace("drop", "conv") for layer in dropouts] == convolutions[1:]
    assert {layer.rate for layer in dropouts} == {0.2}
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar'"):
        keras_resnet.create_model("test_densenet", stem="cifer")


def test_features_are_the_blocks_outputs():
    spec = replace(keras_resnet.SPECS["densenet121"], depths=(1, 1, 1, 1))
    model = keras_resnet.build(spec, features=True, input_shape=(64, 64, 3))
    shapes = {name: x.shape[1:] for name, x in model.output.items()}
    assert shapes == {
        "stage1": (16, 16, 96),
        "stage2": (8, 8, 80),
        "stage3": (4, 4, 72),
        "stage4": (2, 2, 68),
    }


@pytest.mark.parametrize(("name", "least"), [("densenet121", 29), ("densenet40_12", 4)])
def test_the_smallest_image_is_exact(name, least):
    spec = keras_resnet.SPECS[name]
    spec = replace(spec, depths=(1,) * len(spec.depths))
    assert spec.min_size == least
    model = keras_resnet.build(spec, include_top=False, input_shape=(least, least, 3))
    assert model.output_shape[1:3] == (1, 1)
    with pytest.raises(UserError, match=f"at least {least}×{least} pixels"):
        keras_resnet.build(spec, input_shape=(least - 1, 32, 3))
    # One pixel less really leaves nothing.
    free = keras_resnet.build(spec, include_top=False, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="size would be zero"):
        free.compute_output_shape((1, least - 1, least - 1, 3))
