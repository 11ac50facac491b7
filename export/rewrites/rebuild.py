"""Calling the layers of a model anew, with their weights."""

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
    """Call the layers of `model` anew on `x`, flat: no model inside a model.

    `x` is made of `inputs`; `behind` may put something behind what a layer gives.
    """
    outputs = {}

    def call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        outputs[layer.name] = behind(layer, layer(*arguments, **keywords))
        return outputs[layer.name]

    keras.models.clone_model(model, input_tensors=x, call_function=call)
    last = keras_compat.producer(model.output).name
    rebuilt = keras.Model(inputs, outputs[last], name=model.name)
    copy_weights(model, rebuilt)
    return to_stock(rebuilt)  # whose layers were called once


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give the layers of `target` the weights that those of the same names have in `source`.

    Not all at once in their order: a layer put in between can change it, in branches above all.
    """
    for layer in source.layers:
        if layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())
