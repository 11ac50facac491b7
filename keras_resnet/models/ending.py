"""Find the activation of a Keras model's output in its graph."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_resnet import keras_compat
from keras_resnet.images.answers import LINEAR, SIGMOID, SOFTMAX
from keras_resnet.keras_compat import inputs_of, producer

_FUNCTIONS = {
    keras.activations.softmax: SOFTMAX,
    keras.ops.softmax: SOFTMAX,
    keras.activations.sigmoid: SIGMOID,
    keras.ops.sigmoid: SIGMOID,
    keras.activations.relu: LINEAR,  # scores, not probabilities
}
# These layers return their input, in another shape or dtype.
_CARRIERS = (layers.Identity, layers.Dropout, layers.Reshape, layers.Flatten)
_NEAR = 1e-3  # weights of an ensemble are float32


def activation_of(output: Any) -> str | None:
    """Return the activation of the Keras tensor `output` (batch, numbers).

    Returns:
        "softmax" (also for a weighted mean of several), "sigmoid", "linear" (logits), or None if
        the graph does not show it, for example after a custom layer.
    """
    operation = producer(output)
    function = getattr(operation, "activation", None)
    if isinstance(operation, keras.Model):
        return activation_of(operation.outputs[0])
    if _carries(operation, function):
        return activation_of(inputs_of(output)[0])
    if isinstance(operation, (layers.Softmax, *keras_compat.operations("Softmax"))):
        return SOFTMAX if getattr(operation, "axis", -1) in (-1, 1) else None
    if isinstance(operation, keras_compat.operations("Sigmoid")):
        return SIGMOID
    if isinstance(operation, layers.Add | layers.Average | layers.Rescaling):
        share = _share_of_softmaxes(output)
        return SOFTMAX if share is not None and abs(share - 1) < _NEAR else None
    if function is keras.activations.linear:  # of a layer with weights
        return LINEAR
    return _FUNCTIONS.get(function)


def _carries(operation: Any, function: Any) -> bool:
    # Mixed precision ends with Activation("linear", dtype="float32").
    nothing = isinstance(operation, layers.Activation) and function is keras.activations.linear
    return nothing or isinstance(operation, (*_CARRIERS, *keras_compat.operations("Cast")))


def _share_of_softmaxes(output: Any) -> float | None:
    """Return the sum of a row if `output` combines only softmaxes; otherwise None."""
    operation = producer(output)
    if isinstance(operation, layers.Rescaling) and operation.offset == 0:
        inner = _share_of_softmaxes(inputs_of(output)[0])
        return None if inner is None else inner * float(operation.scale)
    if isinstance(operation, layers.Add | layers.Average):
        shares = [_share_of_softmaxes(x) for x in inputs_of(output)]
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            return None
        return sum(known) / (len(known) if isinstance(operation, layers.Average) else 1)
    return 1.0 if activation_of(output) == SOFTMAX else None
