"""Translate the weights of Keras Applications and MLPerf Tiny to our layer names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.weights.fitting import HEADS, Arrays, arrays_of, fit
from keras_resnet.weights.foreign.graph_order import layers_in_order
from keras_resnet.weights.foreign.translate import Row, translate

_UNIT = r"conv(?P<stage2>\d)_block(?P<block>\d+)_"
_OURS = "stage{stage2}_block{block}_"
# The published files have older names: "probs" (ResNet), "fc1000" (DenseNet).
_STEM: tuple[Row, ...] = (
    (r"conv1_(?P<kind>conv|bn)", "stem_{kind}"),
    ("predictions|probs|fc1000", "head"),
)

FAMILIES: dict[str, tuple[Row, ...]] = {
    "ResNet": (
        *_STEM,
        (_UNIT + r"0_(?P<kind>conv|bn)", _OURS + "shortcut_{kind}"),
        (_UNIT + r"(?P<number>\d)_(?P<kind>conv|bn)", _OURS + "{kind}{number}"),
    ),
    # Both number the BNs from the one before the first convolution, they from 0 and we from 1.
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
    # Most layers have only numbers (`_by_number`); in Inception v3 all have.
    "Inception": (
        (r"block35_(?P<block>\d+)_conv", "stage3_block{block}_conv"),
        (r"block17_(?P<block>\d+)_conv", "stage4_block{block}_conv"),
        (r"block8_(?P<block>\d+)_conv", "stage5_block{block}_conv"),
        (r"conv_7b", "stage5_conv"),
        (r"conv_7b_bn", "stage5_bn"),
        ("predictions", "head"),
    ),
}
# The first convolution of the families trained with "caffe" preprocessing.
_TAKES_BGR = {"ResNet": "stem_conv", "VGG": "stage1_conv1"}


def from_keras_applications(source: keras.Model, model: keras.Model) -> None:
    """Copy the weights of a Keras Applications model into our network of the same form, in place.

    Args:
        source: ResNet50, 101, 152 (into `resnet50`, ...), ResNet50V2, ... (into `resnet50v2`, ...),
            VGG16, VGG19, DenseNet121, 169, 201, InceptionV3 or InceptionResNetV2.
        model: our network of the same depth. See `fitting.fit` for the differences allowed.

    Raises:
        UserError: the networks do not correspond. Nothing was copied.
    """
    fit(keras_arrays(arrays_of(source), model), model, f"the weights of '{source.name}'")


def keras_arrays(theirs: Arrays, model: keras.Model, before: Collection[str] = ()) -> Arrays:
    """Return the arrays of a Keras Applications network by our layer names, converted for them.

    ResNet v1's convolutions have biases before BN and ours have none: `BN(x + b)` with moving mean
    `m` equals `BN(x)` with `m - b`. ResNet v1 and VGG take BGR ("caffe" preprocessing) and ours
    take RGB, so the input channels of the first convolution are reversed. The Inceptions' BN has no
    gamma; ours gets 1.

    Args:
        theirs: the arrays by their layer names.
        model: our network. It may have no top, other classes or other channels.
        before: names of layers that come before the network.

    Raises:
        UserError: our network has no place for one of their layers or biases.
    """
    layers = {x.name: x for x in model.layers if x.weights and x.name not in before}
    first = _TAKES_BGR.get(_family(theirs))
    arrays: dict[str, list[np.ndarray]] = {}
    biases: dict[str, np.ndarray] = {}
    for name, ours in _our_names(theirs, model, layers).items():
        values = list(theirs[name])
        layer = layers[ours]
        if ours == first:
            values[0] = values[0][:, :, ::-1]
        if isinstance(layer, keras.layers.BatchNormalization) and len(values) == 3:
            values.insert(0, np.ones_like(values[0]))
        if isinstance(layer, keras.layers.Conv2D) and not layer.use_bias and len(values) == 2:
            biases[ours.replace("conv", "bn")] = values.pop()
        arrays[ours] = values
    for name, bias in biases.items():
        if name not in arrays:
            raise UserError(f"'{model.name}' has no BN '{name}' for the bias of their convolution.")
        gamma, beta, mean, variance = arrays[name]
        arrays[name] = [gamma, beta, mean - bias, variance]
    return arrays


def takes_bgr(source: keras.Model) -> bool:
    """Return True if a Keras Applications model takes BGR ("caffe" preprocessing)."""
    return _family([layer.name for layer in source.layers]) in _TAKES_BGR


def _family(names: Collection[str]) -> str:
    if any(name.startswith("conv2d") for name in names):
        return "Inception"
    return max(FAMILIES, key=lambda f: sum(bool(_translated(n, FAMILIES[f])) for n in names))


def _translated(name: str, rows: tuple[Row, ...]) -> str | None:
    return translate(name.replace("/", "_"), rows)  # Keras 3 refuses DenseNet's "conv1/conv"


def are_known(names: Collection[str]) -> bool:
    """Return True if these are present or former layer names of Keras Applications.

    Other names cannot be translated.
    """
    rows = FAMILIES[_family(names)]
    numbered = re.compile(r"(conv2d|batch_normalization)(_\d+)?")  # the Inceptions'
    return all(_translated(name, rows) or numbered.fullmatch(name) for name in names)


def _our_names(
    theirs: Collection[str], model: keras.Model, layers: Collection[str]
) -> dict[str, str]:
    """Return our name for each of their layers that `layers` has. It may lack the classifier."""
    rows = FAMILIES[_family(theirs)]
    ours = {name: _translated(name, rows) for name in theirs}
    if _family(theirs) == "Inception":
        others = [layer for layer in layers if layer not in ours.values()]
        ours |= _by_number(theirs, model, others)
    found = {}
    for name, our in ours.items():
        if our in layers:
            found[name] = str(our)
        elif our is None or not our.startswith(HEADS):
            raise UserError(f"'{model.name}' has no layer that corresponds to their '{name}'.")
    return found


def _by_number(
    theirs: Collection[str], model: keras.Model, layers: Collection[str]
) -> dict[str, str]:
    """Pair the numbered layers with ours in the order of our graph, which is how they count."""
    pairs: dict[str, str] = {}
    order = [layer.name for layer in layers_in_order(model) if layer.name in layers]
    for theirs_begin, ours_has in (("conv2d", "_conv"), ("batch_normalization", "_bn")):
        mine = [name for name in order if ours_has in name and not name.startswith(HEADS)]
        numbers = {
            name: int(match[1] or 0)
            for name in theirs
            if (match := re.fullmatch(rf"{theirs_begin}_?(\d*)", name))
        }
        if len(mine) != len(numbers):
            raise UserError(
                f"They have {len(numbers)} layers {theirs_begin}, but '{model.name}' has "
                f"{len(mine)}."
            )
        pairs |= zip(sorted(numbers, key=numbers.__getitem__), mine, strict=True)
    return pairs


def in_order(
    theirs: Sequence[Sequence[np.ndarray]], model: keras.Model, before: Collection[str] = ()
) -> Arrays:
    """Return the arrays of MLPerf Tiny's network, which are in our `resnet8`'s order, by name.

    Raises:
        UserError: the layers do not correspond one to one.
    """
    ours = [layer for layer in model.layers if layer.weights and layer.name not in before]
    shapes = [[weight.shape for weight in layer.weights] for layer in ours]
    if [[array.shape for array in layer] for layer in theirs] != shapes:
        raise UserError(
            f"The {len(theirs)} layers with weights do not match '{model.name}', which has "
            f"{len(ours)}. Expected MLPerf Tiny's pretrainedResnet.h5 and resnet8."
        )
    return {layer.name: list(values) for layer, values in zip(ours, theirs, strict=True)}
