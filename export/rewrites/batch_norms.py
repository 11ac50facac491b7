"""Rewrite stand-alone batch normalisations (BNs) as one operation of the file instead of two.

The converter folds a BN into the convolution in front of it. If there is none (pre-activation,
DenseNet's concatenations), it writes a MUL and an ADD. A depthwise 1×1 convolution with a bias
computes exactly the same function, for scales of any sign and size. The ReLU behind the BN becomes
part of that convolution.

An alternative is `relu(s·x + t) = s·relu(x + t/s)`, with `s` moved into the kernels behind. It
leaves one ADD and is equally fast. But it needs positive scales that are not too small, and layers
behind that can absorb them. It is also less accurate in integers. The ADD's vector has one int8
scale for all channels; the depthwise kernel has one scale per channel and a 32-bit bias. The
kernels behind also lose precision in channels with a small `s`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_resnet.keras_compat import Call, all_layers, calls_of, producer, readers

# These layers do nothing at inference, so the converter ignores them.
_IDLE = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.Identity)
_WEIGHTED = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
)


def to_depthwise(model: keras.Model) -> tuple[keras.Model, dict[str, Any]]:
    """Rewrite stand-alone BNs as depthwise 1×1 convolutions with the same names.

    Args:
        model: a functional model of stock float32 layers.

    Returns:
        The rewritten model (`model` itself if it has no such BN), and a record for the manifest.
        The record has the names of the rewritten layers, and the layers left with the reason:
        `{"batch_norm_to_depthwise": [name, ...], "left": [{"layer": name, "why": text}, ...]}`.
    """
    alone = [x for x in model.layers if type(x) is keras.layers.BatchNormalization and _alone(x)]
    reasons = {layer.name: why for layer in alone if (why := _why_not(layer))}
    rewritten = {layer.name: layer for layer in alone if layer.name not in reasons}
    left = [{"layer": name, "why": why} for name, why in (reasons | _inside(model)).items()]
    report = {"batch_norm_to_depthwise": list(rewritten), "left": left}
    return (_rebuilt(model, rewritten) if rewritten else model), report


def _rebuilt(model: keras.Model, rewritten: dict[str, keras.Layer]) -> keras.Model:
    def rebuild(layer: Any) -> Any:
        if layer.name in rewritten:
            return keras.layers.DepthwiseConv2D(
                1, data_format="channels_last", dtype=layer.dtype_policy, name=layer.name
            )
        return type(layer).from_config(layer.get_config())

    def call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        if layer.name in rewritten:  # a convolution takes neither `training` nor `mask`
            keywords = {key: value for key, value in keywords.items() if key == "inputs"}
        return layer(*arguments, **keywords)

    copy = keras.models.clone_model(model, clone_function=rebuild, call_function=call)
    for layer in (x for x in model.layers if x.weights):
        weights = _kernel_and_bias(layer) if layer.name in rewritten else layer.get_weights()
        copy.get_layer(layer.name).set_weights(weights)
    return copy


def _kernel_and_bias(layer: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Return `gamma·(x - mean) / sqrt(variance + epsilon) + beta` as a scale and an offset.

    Their shapes are (1, 1, channels, 1) and (channels,). The computation is in float64, so only
    the results are rounded.
    """
    mean, variance = (np.asarray(x, "float64") for x in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma, "float64")
    offset = -mean * scale
    if layer.center:
        offset = offset + np.asarray(layer.beta, "float64")
    return [scale.astype("float32")[None, None, :, None], offset.astype("float32")]


def _alone(layer: keras.Layer) -> bool:
    """Return True if, in some call of the BN, no layer in front can absorb it."""
    return any(not _absorbs(call) for call in calls_of(layer))


def _absorbs(call: Call) -> bool:
    """Return True if a linear layer with weights comes before and nothing else reads it."""
    if len(call.inputs) != 1:
        return False
    operation = producer(call.inputs[0])
    calls = calls_of(operation)
    if len(readers(operation)) != 1 or len(calls) != 1:
        return False
    if isinstance(operation, _IDLE):
        return _absorbs(calls[0])
    linear = getattr(operation, "activation", None) is keras.activations.linear
    return isinstance(operation, _WEIGHTED) and linear


def _why_not(layer: keras.layers.BatchNormalization) -> str | None:
    dimensions = len(calls_of(layer)[0].inputs[0].shape)
    if dimensions != 4:
        return f"its input has {dimensions} dimensions; an image has 4"
    if layer.axis not in (-1, 3):
        return f"it normalises axis {layer.axis}, not the last one"
    return None


def _inside(model: keras.Model) -> dict[str, str]:
    """Return the stand-alone BNs of nested models, which are not rewritten, with the reason."""
    return {
        layer.name: f"it is inside the nested model '{inner.name}'"
        for inner in model.layers
        if isinstance(inner, keras.Model)
        for layer in all_layers(inner)
        if type(layer) is keras.layers.BatchNormalization and _alone(layer)
    }
