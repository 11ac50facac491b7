"""The copy of a classifier that explanations are made with, and the layer they look at."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.models.auxiliary import inference_model

# They say where something is, not what; before them stands the map they were made from.
_WITHOUT_FEATURES = (
    *(layers.InputLayer, layers.Rescaling, layers.Normalization),
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.ZeroPadding2D, layers.Cropping2D),
    *(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Reshape),
    *(layers.Dropout, layers.SpatialDropout2D, layers.Identity),
)


def prepared(model: keras.Model) -> keras.Model:
    """Return a float32 copy of `model`, of one graph without models inside it, ending in logits.

    Layers keep class, name and weights. tf-keras-vis finds no layer inside an inner model, and its
    CAMs fail in half precision. Auxiliary classifiers are left out. A softmax or sigmoid at the end
    goes, as its gradient fades where the network is sure; an ensemble's end, a mean of
    probabilities, stays.

    Raises:
        UserError: not a functional (or sequential) classifier of one image.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise UserError(f"Expected a functional Keras model, received {type(model).__name__}.")
    model = inference_model(model)
    shapes = [tuple(x.shape) for x in (*model.inputs, *model.outputs)]
    if [len(shape) for shape in shapes] != [4, 2]:
        raise UserError(
            "Expected a model from one image (batch, height, width, channels) to one vector "
            f"(batch, classes); '{model.name}' has {', '.join(map(str, shapes))}."
        )
    return _with_logits(_flat_copy(model))


def _flat_copy(model: keras.Model) -> keras.Model:
    pairs: list[tuple[Any, Any]] = []

    def rebuild(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return layer  # `call` puts its layers in its place
        if not isinstance(layer, keras.Layer):  # an operator such as `x * 2`
            return type(layer).from_config(layer.get_config())
        copy = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
        pairs.append((layer, copy))
        return copy

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            return inner(layer, args[0]).outputs[0]
        return layer(*args, **kwargs)

    def inner(part: keras.Model, inputs: Any) -> keras.Model:
        functional = keras.Model(part.inputs[0], part.outputs[0], name=part.name)
        return keras.models.clone_model(
            functional, input_tensors=inputs, clone_function=rebuild, call_function=call
        )

    try:
        copy = inner(model, keras.Input(model.inputs[0].shape[1:], name="images"))
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"'{model.name}' cannot be rebuilt in float32: {reason}") from error
    for old, new in pairs:
        new.set_weights(old.get_weights())
    return copy


def _with_logits(model: keras.Model) -> keras.Model:
    """Take the softmax from the end; `model` is ours to change."""
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear

    last = producer(model.outputs[0])
    if type(last).__name__ == "Softmax":  # the layer, or keras.ops.softmax
        return keras.Model(model.inputs[0], last.input, name=model.name)
    if hasattr(last, "activation"):
        ReplaceToLinear()(model)
    return model


def producer(tensor: Any) -> Any:
    """The layer or operator that a Keras tensor comes from."""
    return tensor._keras_history.operation


def find_layer(model: keras.Model, name: str | None) -> Any:
    """The layer of a `prepared` model whose map the CAMs weigh.

    By default the last feature map before the classifier: of the zoo's networks the end of the last
    stage (`stage4_block3_out_relu`, in pre-activation `head_relu`; in chains the last ReLU before
    the pool), of others the last 4-D output. Maps of one position are passed over: they cannot say
    where.

    Raises:
        UnknownNameError: no layer of that name.
        UserError: the layer gives no map; or (without a name) there is none, or none that all paths
            lead through, as in an ensemble.
    """
    if name is not None:
        known = {layer.name: layer for layer in model.layers}
        if name not in known:
            raise UnknownNameError("layer", name, known, "keras-resnet profile MODEL lists them.")
        if not _is_map(known[name]):
            raise UserError(f"The layer '{name}' gives {known[name].output.shape}, not maps.")
        return known[name]
    maps = [x for x in model.layers if _is_map(x) and not isinstance(x, _WITHOUT_FEATURES)]
    if not maps:
        raise UserError(f"'{model.name}' has no layer whose maps have more than one position.")
    others = _before_the_end(model, maps[-1])
    if any(isinstance(layer, layers.InputLayer) for layer in others):
        rival = next((x.name for x in reversed(maps[:-1]) if x in others), "…")
        raise UserError(
            f"'{model.name}' has several last maps, such as '{maps[-1].name}' and '{rival}'; "
            "choose one with layer= (--layer)."
        )
    return maps[-1]


def _is_map(layer: Any) -> bool:
    shape = getattr(layer.output, "shape", ())
    return len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


def _before_the_end(model: keras.Model, without: Any) -> list[Any]:
    """What reaches the model's output on paths that do not lead through one layer."""
    found: list[Any] = []
    waiting = [producer(model.outputs[0])]
    while waiting:
        operation = waiting.pop()
        if operation is without or operation in found:
            continue
        found.append(operation)
        waiting += [producer(x) for node in operation._inbound_nodes for x in node.input_tensors]
    return found
