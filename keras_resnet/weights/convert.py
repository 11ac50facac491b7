"""Weights of other libraries in our layer names."""

from __future__ import annotations

import re

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.models.layers import BatchNormalization
from keras_resnet.weights.graph_order import copy_in_graph_order

# Layers that have one name in every network of theirs: ours, theirs.
_WHOLE = {
    "stem_conv": "conv1_conv",
    "stem_bn": "conv1_bn",
    "head_bn": "post_bn",
    "head_dense1": "fc1",
    "head_dense2": "fc2",
    "head": "predictions",
}
_TAKES_BGR = ("conv1_conv", "block1_conv1")  # the first convolutions of ResNet v1 and VGG


def from_keras_applications(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of a Keras Applications model into our network of the same form, in place.

    ResNet v1's convolutions have biases before BN; ours have none, and `BN(x + b)` with moving mean
    `m` is `BN(x)` with `m - b`. ResNet v1 and VGG take BGR ("caffe" preprocessing); ours takes RGB,
    so the input channels of the first convolution are reversed. The Inceptions' BN has no gamma;
    ours is 1.

    Args:
        source: ResNet50, 101, 152 (into `resnet50`, ...), ResNet50V2, ... (into `resnet50v2`, ...),
            VGG16, VGG19, InceptionV3 (into `inception_v3`) or InceptionResNetV2.
        target: ours, of the same depth, classes, `include_top` and, with VGG's top, image size.

    Raises:
        UserError: the networks do not correspond; the message names the first layer.
    """
    if _has(source, "mixed0") or _has(source, "mixed_5b"):  # Inception v3, Inception-ResNet v2
        copy_in_graph_order(source, target)
        return
    preact = _has(source, "post_bn")
    biases: dict[str, np.ndarray] = {}
    for layer in target.layers:
        if not layer.weights:
            continue
        name = _keras_applications_name(layer.name, preact)
        if name is None or not _has(source, name):
            raise UserError(f"'{source.name}' has no layer that corresponds to '{layer.name}'.")
        values = source.get_layer(name).get_weights()
        if name in _TAKES_BGR and not preact:
            values[0] = values[0][:, :, ::-1]
        if isinstance(layer, keras.layers.Conv2D) and not layer.use_bias and len(values) == 2:
            biases[layer.name.replace("conv", "bn")] = values.pop()
        if isinstance(layer, BatchNormalization) and layer.name in biases:
            values[2] = values[2] - biases.pop(layer.name)
        if [v.shape for v in values] != [tuple(w.shape) for w in layer.weights]:
            raise UserError(f"The weights of '{name}' do not fit '{layer.name}'.")
        layer.set_weights(values)
    if biases:
        raise UserError(f"No BN takes the bias of the convolution before {min(biases)}.")


def _has(model: keras.Model, name: str) -> bool:
    return any(layer.name == name for layer in model.layers)


def _keras_applications_name(name: str, preact: bool) -> str | None:
    """Translate, e.g. stage2_block1_conv2 → conv3_block1_2_conv, stage2_conv1 → block2_conv1."""
    if name in _WHOLE:
        return _WHOLE[name]
    if match := re.fullmatch(r"stage(\d)_conv(\d)", name):
        return "block{}_conv{}".format(*match.groups())
    match = re.fullmatch(r"stage(\d)_block(\d+)_(shortcut_)?(conv|bn)(\d?)", name)
    if match is None:
        return None
    stage, block, shortcut, kind, number = match.groups()
    block_name = f"conv{int(stage) + 1}_block{block}"
    index = 0 if shortcut else int(number)
    if preact and kind == "bn":  # theirs count from the BN before the first convolution
        return f"{block_name}_preact_bn" if index == 1 else f"{block_name}_{index - 1}_bn"
    return f"{block_name}_{index}_{kind}"
