"""Rebuild a model by calling its layers again, with their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_resnet import keras_compat
from keras_resnet.layers import to_stock


def rebuilt_on(
    model: keras.Model,
    inputs: Any,
    x: Any,
    behind: Callable[[keras.Layer, Any], Any] = lambda layer, y: y,
) -> keras.Model:
    """Call the layers of `model` again on `x`; nested models are flattened.

    `x` is computed from `inputs`. `behind(layer, y)` can add operations to a layer's output `y`.
    """
    outputs = {}

    def call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        outputs[layer.name] = behind(layer, layer(*arguments, **keywords))
        return outputs[layer.name]

    keras.models.clone_model(model, input_tensors=x, call_function=call)
    last = keras_compat.producer(model.output).name
    rebuilt = keras.Model(inputs, outputs[last], name=model.name)
    copy_weights(model, rebuilt)
    return to_stock(rebuilt)  # the layers of this copy are called only once


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of `source` to the layers of the same names in `target`.

    They are copied by name because an inserted layer can change the order, above all in branches.
    """
    for layer in source.layers:
        if layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())
