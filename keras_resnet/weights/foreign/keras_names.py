"""Weights of other Keras models in our layer names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.layers import BatchNormalization
from keras_resnet.weights.foreign.graph_order import layers_in_order
from keras_resnet.weights.foreign.translate import Row, translate

_UNIT = r"conv(?P<stage2>\d)_block(?P<block>\d+)_"
_OURS = "stage{stage2}_block{block}_"
_STEM: tuple[Row, ...] = ((r"conv1_(?P<kind>conv|bn)", "stem_{kind}"), ("predictions", "head"))

FAMILIES: dict[str, tuple[Row, ...]] = {
    "ResNet": (
        *_STEM,
        (_UNIT + r"0_(?P<kind>conv|bn)", _OURS + "shortcut_{kind}"),
        (_UNIT + r"(?P<number>\d)_(?P<kind>conv|bn)", _OURS + "{kind}{number}"),
    ),
    # Their BNs count from the one before the first convolution, ours too: from 0, from 1.
    "ResNetV2 or DenseNet": (
        *_STEM,
        (_UNIT + "preact_bn", _OURS + "bn1"),
        (_UNIT + "0_conv", _OURS + "shortcut_conv"),
        (_UNIT + r"(?P<number>\d)_conv", _OURS + "conv{number}"),
        (_UNIT + r"(?P<number0>\d)_bn", _OURS + "bn{number0}"),
        (r"pool(?P<stage2>\d)_(?P<kind>conv|bn)", "stage{stage2}_transition_{kind}"),
        (r"(post_)?bn", "head_bn"),
    ),
    "VGG": (
        (r"block(?P<stage>\d)_conv(?P<number>\d)", "stage{stage}_conv{number}"),
        (r"fc(?P<number>\d)", "head_dense{number}"),
        ("predictions", "head"),
    ),
}
_TAKES_BGR = ("ResNet", "VGG")  # "caffe" preprocessing


def from_keras_applications(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of a Keras Applications model into our network of the same form, in place.

    ResNet v1's convolutions have biases before BN; ours have none, and `BN(x + b)` with moving mean
    `m` is `BN(x)` with `m - b`. ResNet v1 and VGG take BGR ("caffe" preprocessing); ours takes RGB,
    so the input channels of the first convolution are reversed. The Inceptions' BN has no gamma;
    ours is 1.

    Args:
        source: ResNet50, 101, 152 (into `resnet50`, ...), ResNet50V2, ... (into `resnet50v2`, ...),
            VGG16, VGG19, DenseNet121, 169, 201, InceptionV3 or InceptionResNetV2.
        target: ours, of the same depth, classes, `include_top` and, with VGG's top, image size.

    Raises:
        UserError: the networks do not correspond; the message names the first layer, and nothing
            was copied.
    """
    pairs, takes_bgr = _pairs(source, target)
    fitted = []
    biases: dict[str, np.ndarray] = {}
    for layer, other in pairs:
        values = other.get_weights()
        if takes_bgr and layer is pairs[0][0]:
            values[0] = values[0][:, :, ::-1]
        if isinstance(other, keras.layers.BatchNormalization) and not other.scale:
            values.insert(0, np.ones_like(values[0]))
        if isinstance(layer, keras.layers.Conv2D) and not layer.use_bias and len(values) == 2:
            biases[layer.name.replace("conv", "bn")] = values.pop()
        if isinstance(layer, BatchNormalization) and layer.name in biases:
            values[2] = values[2] - biases.pop(layer.name)
        if [v.shape for v in values] != [tuple(w.shape) for w in layer.weights]:
            raise UserError(f"The weights of '{other.name}' do not fit '{layer.name}'.")
        fitted.append((layer, values))
    if biases:
        raise UserError(f"No BN takes the bias of the convolution before {min(biases)}.")
    for layer, values in fitted:
        layer.set_weights(values)


def takes_bgr(source: keras.Model) -> bool:
    """Whether a Keras Applications model with the top takes BGR ("caffe" preprocessing)."""
    names = [layer.name for layer in source.layers]
    return not _is_numbered(names) and _family(names) in _TAKES_BGR


def _is_numbered(names: Iterable[str]) -> bool:
    """Whether it is an Inception, most of whose layers have numbers for names."""
    return any(name.startswith("conv2d") for name in names)


def _family(names: Iterable[str]) -> str:
    return max(FAMILIES, key=lambda f: sum(bool(translate(n, FAMILIES[f])) for n in names))


Pairs = list[tuple[keras.Layer, keras.Layer]]  # ours and theirs


def _pairs(source: keras.Model, target: keras.Model) -> tuple[Pairs, bool]:
    """Our layers with theirs, the first convolution first, and whether that one takes BGR."""
    theirs = {layer.name: layer for layer in source.layers if layer.weights}
    if _is_numbered(theirs):
        return _pairs_in_graph_order(source, target), False
    family = _family(theirs)
    ours = {translate(name, FAMILIES[family]): layer for name, layer in theirs.items()}
    pairs = []
    for layer in target.layers:
        if layer.weights and layer.name not in ours:
            raise UserError(f"'{source.name}' has no layer that corresponds to '{layer.name}'.")
        if layer.weights:
            pairs.append((layer, ours.pop(layer.name)))
    if ours:
        left = next(iter(ours.values())).name
        raise UserError(f"'{target.name}' has no layer that corresponds to '{left}'.")
    return pairs, family in _TAKES_BGR


def _pairs_in_graph_order(source: keras.Model, target: keras.Model) -> Pairs:
    theirs, ours = ([x for x in layers_in_order(m) if x.weights] for m in (source, target))
    if len(ours) != len(theirs):
        raise UserError(
            f"'{source.name}' has {len(theirs)} layers with weights, '{target.name}' {len(ours)}."
        )
    return list(zip(ours, theirs, strict=True))


def from_mlperf_tiny(source: keras.Model, target: keras.Model) -> None:
    """Copy MLPerf Tiny's image classification network into our `resnet8`, in place.

    Its layers are numbered, not named, but stand in the order of ours.

    Args:
        source: `pretrainedResnet.h5` of the benchmark, loaded by Keras.
        target: `resnet8` for 10 classes.

    Raises:
        UserError: the layers do not correspond one to one; nothing was copied.
    """
    theirs = [layer.get_weights() for layer in source.layers if layer.weights]
    set_in_order(theirs, target, source.name)


def set_in_order(arrays: Sequence[Sequence[np.ndarray]], target: keras.Model, source: str) -> None:
    """`from_mlperf_tiny` with the layers' arrays; `source` names them in messages."""
    ours = [layer for layer in target.layers if layer.weights]
    shapes = [[weight.shape for weight in layer.weights] for layer in ours]
    if [[array.shape for array in layer] for layer in arrays] != shapes:
        raise UserError(
            f"'{source}' ({len(arrays)} layers with weights) is not the network that "
            f"'{target.name}' ({len(ours)} layers) is; expected MLPerf Tiny's pretrainedResnet.h5 "
            "and resnet8 with 10 classes."
        )
    for values, layer in zip(arrays, ours, strict=True):
        layer.set_weights(values)
