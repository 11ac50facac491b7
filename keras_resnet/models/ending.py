"""What a Keras model ends in, read from its graph."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_resnet import keras_compat
from keras_resnet.images.answers import LINEAR, SIGMOID, SOFTMAX
from keras_resnet.keras_compat import calls_of, producer

_FUNCTIONS = {
    keras.activations.softmax: SOFTMAX,
    keras.activations.sigmoid: SIGMOID,
    keras.activations.linear: LINEAR,
}
_MEANS = (layers.Add, layers.Average)  # of probabilities: an ensemble's end
_CARRIERS = (layers.Identity, layers.Dropout)  # give what they take


def activation_of(output: Any) -> str | None:
    """Return what the Keras tensor `output` (batch, numbers) went through last.

    Returns:
        "softmax" (also for a mean of several), "sigmoid", "linear" (logits), or None where the
        graph does not tell, as behind a layer of somebody's own.
    """
    operation = producer(output)
    before = [x for call in calls_of(operation)[:1] for x in call.inputs]
    if isinstance(operation, keras.Model):
        return activation_of(operation.outputs[0])
    if isinstance(operation, _CARRIERS):
        return activation_of(before[0])
    if isinstance(operation, (*_MEANS, layers.Rescaling)):
        means = {activation_of(x) for x in before}
        return SOFTMAX if means == {SOFTMAX} else None
    if isinstance(operation, (layers.Softmax, *keras_compat.operations("Softmax"))):
        return SOFTMAX if getattr(operation, "axis", -1) in (-1, 1) else None
    if isinstance(operation, keras_compat.operations("Sigmoid")):
        return SIGMOID
    return _FUNCTIONS.get(getattr(operation, "activation", None))
