"""Keras 3 → tf_keras, the Keras that tensorflow-model-optimization works on.

Every layer is rebuilt from its config under its own name and given its weights; the logits agree to
1e-5 of the largest one (`tests/test_bridge.py` holds every network of the zoo to it).
"""

from __future__ import annotations

import inspect
from typing import Any

import keras

from keras_resnet.errors import UserError, require
from keras_resnet.models.layers import to_stock

# What only says how a layer is made or trained: weights and recipe replace it.
_HINTS = ("dtype", "_initializer", "_regularizer", "_constraint", "seed")
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}  # since Keras 3


def to_legacy(model: keras.Model) -> Any:
    """Return the tf_keras model of the same layers, names and weights, in float32.

    Args:
        model: a functional Keras 3 model of stock or our layers, one input, each layer called once.

    Raises:
        UserError: a layer that tf_keras does not have; the message names it.
        MissingExtraError: tf_keras is not installed.
    """
    legacy = require("tf_keras", "compress")
    stock = to_stock(model)
    made = {id(tensor): legacy.Input(tensor.shape[1:], name=tensor.name) for tensor in stock.inputs}
    layers = {}
    for operation in stock.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        layers[operation.name] = _rebuilt(legacy, operation)
        made[id(operation.output)] = layers[operation.name](_arguments(operation, made))
    inputs = [made[id(tensor)] for tensor in stock.inputs]
    outputs = keras.tree.map_structure(lambda tensor: made[id(tensor)], stock.output)
    copy = legacy.Model(inputs, outputs, name=model.name)
    for name, layer in layers.items():
        layer.set_weights(stock.get_layer(name).get_weights())
    return copy


def _rebuilt(legacy: Any, layer: Any) -> Any:
    """The tf_keras layer of the same class, name and settings."""
    kind = type(layer).__name__
    cls = getattr(legacy.layers, kind, None)
    is_stock = isinstance(layer, keras.Layer) and type(layer) is getattr(keras.layers, kind, None)
    if cls is None or not is_stock:
        raise UserError(
            f"The layer '{layer.name}' ({kind}) has no counterpart in tf_keras, on which "
            "tensorflow-model-optimization works. Build the model of stock Keras layers; an "
            "operation such as `x * y` is a layer too: Multiply. It can be quantized after "
            "training as it is: keras-resnet export MODEL --formats tflite-int8"
        )
    renamed = _RENAMED.get(kind, {})
    config = {renamed.get(key, key): value for key, value in layer.get_config().items()}
    known = {name for base in cls.__mro__ for name in _parameters(base)}
    unknown = {key for key in config if key not in known and not key.endswith(_HINTS)}
    for key in sorted(unknown):
        if config[key] != _parameters(type(layer)).get(key):
            raise UserError(
                f"The layer '{layer.name}' ({kind}) has {key}={config[key]!r}, which tf_keras "
                "does not know."
            )
    kept = {key: value for key, value in config.items() if not key.endswith(_HINTS)}
    return cls.from_config({key: value for key, value in kept.items() if key not in unknown})


def _parameters(cls: type) -> dict[str, Any]:
    """The arguments of a class' constructor and their defaults."""
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return {name: parameter.default for name, parameter in parameters.items()} | {
        "name": None,
        "trainable": True,
    }


def _arguments(layer: keras.Layer, made: dict[int, Any]) -> Any:
    """What the layer was called on, in tf_keras' tensors.

    Raises:
        UserError: it was called several times, or with more than tensors.
    """
    if len(layer._inbound_nodes) != 1:
        raise UserError(f"The layer '{layer.name}' is called several times; call it once.")
    arguments = layer._inbound_nodes[0].arguments
    # Keras notes a layer's own default, mask=None or training=False, as if it had been given.
    given = {key: value for key, value in arguments.kwargs.items() if value}
    if len(arguments.args) != 1 or given:
        raise UserError(
            f"The layer '{layer.name}' is called with more than its input: {sorted(given)}."
        )
    return keras.tree.map_structure(lambda tensor: made[id(tensor)], arguments.args[0])
