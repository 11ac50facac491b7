"""Batch normalisation that no convolution can absorb, as one operation of a file instead of two.

The converter folds a BN into the convolution in front of it. Where there is none (pre-activation,
DenseNet's concatenations) it writes a MUL and an ADD. A depthwise 1×1 convolution with a bias is
the same function, exactly, whatever the signs and sizes of the scales and whoever reads it, and the
ReLU behind it becomes a part of it.

The other way, `relu(s·x + t) = s·relu(x + t/s)` with `s` moved into the kernels behind, leaves one
ADD, equally fast. It needs positive scales, not too small, and readers that can take them, and it
costs accuracy in integers: the ADD's vector has one int8 scale for all channels where the depthwise
kernel has one for each and its bias 32 bits, and the kernels behind lose the channels of small `s`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_resnet.keras_compat import Call, all_layers, calls_of, producer, readers

# Not there at inference, so the converter looks through them.
_IDLE = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.Identity)
_WEIGHTED = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
)


def to_depthwise(model: keras.Model) -> tuple[keras.Model, dict[str, Any]]:
    """Rewrite the BNs that stand alone as depthwise 1×1 convolutions of the same names.

    Args:
        model: functional, of stock float32 layers.

    Returns:
        The model, itself where there is no such BN, and for the manifest the names of the
        rewritten layers and those left, each with the reason:
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
        if layer.name in rewritten:  # a convolution takes no `training` and no `mask`
            keywords = {key: value for key, value in keywords.items() if key == "inputs"}
        return layer(*arguments, **keywords)

    copy = keras.models.clone_model(model, clone_function=rebuild, call_function=call)
    for layer in (x for x in model.layers if x.weights):
        weights = _kernel_and_bias(layer) if layer.name in rewritten else layer.get_weights()
        copy.get_layer(layer.name).set_weights(weights)
    return copy


def _kernel_and_bias(layer: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """`gamma·(x - mean) / sqrt(variance + epsilon) + beta` as a scale and an offset.

    Shapes (1, 1, channels, 1) and (channels,). In float64, so that only the results are rounded.
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
    """Whether no convolution or dense layer in front can absorb it, in any of its calls."""
    return any(not _absorbs(call) for call in calls_of(layer))


def _absorbs(call: Call) -> bool:
    """Whether what comes before is a linear layer with weights that nothing else reads."""
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
        return f"its input has {dimensions} dimensions, an image has 4"
    if layer.axis not in (-1, 3):
        return f"it normalises axis {layer.axis}, not the last"
    return None


def _inside(model: keras.Model) -> dict[str, str]:
    """The BNs of models inside the model: those stay as they are."""
    return {
        layer.name: f"it is inside '{inner.name}', a model in the model"
        for inner in model.layers
        if isinstance(inner, keras.Model)
        for layer in all_layers(inner)
        if type(layer) is keras.layers.BatchNormalization and _alone(layer)
    }
