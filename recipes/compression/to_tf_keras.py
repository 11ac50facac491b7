"""Convert Keras 3 models to tf_keras, which tensorflow-model-optimization needs.

Every layer is rebuilt from its config with its name and weights. The logits agree to 1e-5 of the
largest one; `test_to_tf_keras.py` checks that for every network of the zoo.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import keras_compat
from keras_resnet.errors import UserError, require
from keras_resnet.layers import to_stock

# Settings for creating or training a layer: the weights and the recipe replace them.
_HINTS = ("dtype", "_initializer", "_regularizer", "_constraint", "seed")
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}  # since Keras 3
_INSTEAD = "Or quantize it after training: keras-resnet export MODEL --formats tflite-int8"


def to_legacy(model: keras.Model) -> Any:
    """Return the tf_keras model of the same layers, names and weights, in float32.

    Args:
        model: a functional Keras 3 model of stock or our layers, one input, each layer called once.

    Raises:
        UserError: tf_keras does not have a layer, or its activation is another function there; the
            message has the layer's name.
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
        with _naming(operation):
            made[id(operation.output)] = layers[operation.name](_arguments(operation, made))
    inputs = [made[id(tensor)] for tensor in stock.inputs]
    outputs = keras.tree.map_structure(lambda tensor: made[id(tensor)], stock.output)
    copy = legacy.Model(inputs, outputs, name=model.name)
    for name, layer in layers.items():
        with _naming(stock.get_layer(name)):
            layer.set_weights(stock.get_layer(name).get_weights())
    return copy


@contextmanager
def _naming(layer: Any) -> Iterator[None]:
    """Add the layer's name to errors from tf_keras."""
    try:
        yield
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The layer '{layer.name}' ({type(layer).__name__}) cannot be rebuilt in tf_keras, "
            "which tensorflow-model-optimization needs: "
            f"{textwrap.shorten(str(error), 200)} Use another layer. {_INSTEAD}"
        ) from error


def _rebuilt(legacy: Any, layer: Any) -> Any:
    """Return the tf_keras layer with the same class, name and settings."""
    kind = type(layer).__name__
    cls = getattr(legacy.layers, kind, None)
    is_stock = isinstance(layer, keras.Layer) and type(layer) is getattr(keras.layers, kind, None)
    if cls is None or not is_stock:
        raise UserError(
            f"The layer '{layer.name}' ({kind}) has no counterpart in tf_keras, which "
            "tensorflow-model-optimization needs. Build the model from stock Keras layers; use "
            f"Multiply for an operation such as `x * y`. {_INSTEAD}"
        )
    renamed = _RENAMED.get(kind, {})
    config = {renamed.get(key, key): value for key, value in layer.get_config().items()}
    known = {name for base in cls.__mro__ for name in _parameters(base)} | {"name", "trainable"}
    kept = {key: value for key, value in config.items() if not key.endswith(_HINTS)}
    unknown = set(kept) - known
    defaults = _plain_config(layer) if unknown else {}
    for key in sorted(unknown):
        if key not in defaults or config[key] != defaults[key]:
            raise UserError(
                f"The layer '{layer.name}' ({kind}) has {key}={config[key]!r}, which tf_keras "
                f"does not know. Leave it at its default. {_INSTEAD}"
            )
    _require_same_activation(legacy, layer)
    with _naming(layer):
        return cls.from_config({key: value for key, value in kept.items() if key not in unknown})


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    """Return the arguments of a class' constructor."""
    return inspect.signature(cls.__init__).parameters  # type: ignore[misc]


def _plain_config(layer: Any) -> dict[str, Any]:
    """Return the config of a layer of the same class that has all its defaults."""
    config, needed = layer.get_config(), inspect.Parameter.empty
    given = {
        name: config[name]
        for name, parameter in _parameters(type(layer)).items()
        if parameter.default is needed and name in config
    }
    plain: dict[str, Any] = type(layer)(**given, name=layer.name).get_config()
    return plain


def _require_same_activation(legacy: Any, layer: Any) -> None:
    """Compare a layer's activation with tf_keras' activation of the same name.

    Raises:
        UserError: tf_keras has no such activation, or another function, as for `hard_sigmoid`.
    """
    saved = layer.get_config().get("activation")
    if saved is None:
        return
    x = tf.linspace([-8.0], [8.0], 65, axis=1)
    try:
        theirs = np.asarray(legacy.activations.get(saved)(x))
    except (AttributeError, KeyError, TypeError, ValueError):  # for a name or a saved object
        theirs = None
    if theirs is None or not np.allclose(theirs, layer.activation(x), atol=1e-5):
        name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
        state = "is not in" if theirs is None else "is another function in"
        raise UserError(
            f"The activation '{name}' of the layer '{layer.name}' ({type(layer).__name__}) {state} "
            "tf_keras, which tensorflow-model-optimization needs. Use another (relu, sigmoid). "
            f"{_INSTEAD}"
        )


def _arguments(layer: keras.Layer, made: dict[int, Any]) -> Any:
    """Return the inputs of the layer's call, as tf_keras tensors.

    Raises:
        UserError: the layer was called several times, or with more than tensors.
    """
    calls = keras_compat.calls_of(layer)
    if len(calls) != 1:
        raise UserError(
            f"The layer '{layer.name}' must be called once; it is called {len(calls)} times. Use "
            "one layer per call."
        )
    arguments = calls[0]
    # Keras records a layer's own default, mask=None or training=True, as if it were given.
    defaults = inspect.signature(layer.call).parameters
    given = {
        key: value
        for key, value in arguments.kwargs.items()
        if value and value is not defaults[key].default
    }
    if len(arguments.args) != 1 or given:
        raise UserError(
            f"The layer '{layer.name}' must be called only with its input; received also "
            f"{sorted(given)}. Call it without them."
        )
    return keras.tree.map_structure(lambda tensor: made[id(tensor)], arguments.args[0])
