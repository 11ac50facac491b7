"""docs/design.md: its ResNet-18 by hand is ours."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import randomize_batch_norms

import keras_resnet

PAGE = Path(__file__).parents[1] / "docs" / "design.md"
LINES = 60  # the page promises no more


def _code(part):
    """The one Python block of the page with `part` in it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if part in block]
    return code


def _run(code):
    names = {}
    exec(code, names)
    return names


@pytest.fixture(scope="module")
def by_hand():
    return _run(_code("def resnet18("))["resnet18"]()


@pytest.fixture(scope="module")
def ours():
    keras.utils.set_random_seed(0)
    return randomize_batch_norms(keras_resnet.ResNet18())


def test_resnet18_by_hand_is_short_and_needs_keras_only():
    code = _code("def resnet18(")
    assert len(code.splitlines()) <= LINES
    assert re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE) == ["keras", "keras"]


def test_resnet18_by_hand_has_our_names_and_shapes_in_order(by_hand, ours):
    assert [layer.name for layer in by_hand.layers] == [layer.name for layer in ours.layers]
    assert _shapes(by_hand) == _shapes(ours)


def test_resnet18_by_hand_is_built_like_ours_in_stock_layers(by_hand, ours):
    """Initialisers, strides, padding, BN's constants, and which layer follows which."""
    assert by_hand.get_config() == keras_resnet.to_stock(ours).get_config()


def test_resnet18_by_hand_answers_as_ours_with_the_same_weights(by_hand, ours):
    by_hand.set_weights(ours.get_weights())
    images = np.random.default_rng(0).normal(size=(4, 224, 224, 3)).astype("float32")
    expected, answers = _logits(ours, images), _logits(by_hand, images)
    # Our BN is TensorFlow's fused kernel, which rounds otherwise than Keras' separate operations:
    # float32's 6e-8 in each of 20 layers; 5e-7 was seen.
    assert np.abs(answers - expected).max() <= 1e-5 * np.abs(expected).max()


def test_resnet18_d_is_two_fields_of_the_spec():
    model = _run(_code("option_d"))["model"]
    assert model.get_config() == keras_resnet.ResNet18D().get_config()


def _shapes(model):
    return [(weight.path, tuple(weight.shape)) for weight in model.weights]


def _logits(model, images):
    return np.array(keras.Model(model.input, model.get_layer("head").output)(images))
