"""Several networks as one model: the mean of their probabilities.

The members' layers stand side by side in one graph, each named after its member:
`member1_stem_conv`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_resnet import keras_compat, registry
from keras_resnet.errors import UserError
from keras_resnet.images import preprocessing
from keras_resnet.images.answers import SIGMOID, SOFTMAX, noise, told_by
from keras_resnet.models.ending import activation_of

_OF_MEMBERS = (keras.activations.linear, keras.activations.softmax, keras.ops.softmax)


def ensemble(
    models: Sequence[keras.Model],
    name: str = "ensemble",
    weights: Sequence[float] | None = None,
) -> keras.Model:
    """Average the probabilities of several classifiers in one flat functional model.

    The result is a model like any other: it is evaluated, saved and exported as one. The members
    may be different networks; each keeps its own preprocessing if that is inside. Their weights are
    copied.

    He 2015 combines six residual networks of different depth (arXiv:1512.03385, section 4.1 and
    Table 5) and does not say how; VGG averages probabilities (arXiv:1409.1556, section 4.4).

    Args:
        models: two or more, from images (batch, height, width, channels) of one size to
            probabilities or logits (batch, classes) of the same classes.
        name: the model's name.
        weights: how much each member counts, by default all the same; only ratios matter.

    Returns:
        A model from those images to float32 probabilities (batch, classes).

    Raises:
        UserError: fewer than two members, or one that does not fit the others; the message names
            it.
    """
    if isinstance(models, keras.Model) or len(models) < 2:
        raise UserError("An ensemble is of a list of two models or more.")
    members = [_functional(model, _title(i, model)) for i, model in enumerate(models, start=1)]
    shape = _common_shape(members)
    _check_range(members)
    images = layers.Input(shape, dtype=members[0].inputs[0].dtype, name="images")
    parts = [
        _weighted(_member(model, images, f"member{i}"), share, f"member{i}")
        for i, (model, share) in enumerate(zip(members, _shares(weights, members), strict=True), 1)
    ]
    mean = layers.Add(dtype="float32", name="predictions")(parts)
    return keras.Model(images, mean, name=name)


def _title(number: int, model: Any) -> str:
    return f"Member {number} ('{getattr(model, 'name', model)}')"


def _functional(model: Any, title: str) -> keras.Model:
    """The member as a functional classifier of one image, without models inside it."""
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        raise UserError(f"{title} is no functional Keras model, or not built yet.")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(
            f"{title} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; a member "
            "has one of each (drop auxiliary heads first)."
        )
    if len(model.inputs[0].shape) != 4 or len(model.outputs[0].shape) != 2:
        raise UserError(
            f"{title} is no classifier of images: {model.inputs[0].shape} → "
            f"{model.outputs[0].shape}; a network without its top cannot vote."
        )
    activation = getattr(keras_compat.producer(model.outputs[0]), "activation", None)
    is_sigmoid = activation_of(model.outputs[0]) == SIGMOID
    if is_sigmoid or activation not in (None, *_OF_MEMBERS):
        ending = SIGMOID if is_sigmoid else keras.activations.serialize(activation)
        raise UserError(
            f"{title} ends in {ending!r}; the members give the probabilities of a softmax, or "
            "logits."
        )
    if model.outputs[0].shape[-1] == 1:
        raise UserError(
            f"{title} has one output; the members give the probabilities of a softmax over two or "
            "more classes, or its logits."
        )
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise UserError(f"{title} has weights that are not finite (NaN or infinity).")
    inner = [operation for operation in model.operations if isinstance(operation, keras.Model)]
    if inner:
        raise UserError(f"{title} has a model inside ('{inner[0].name}'); a member is flat.")
    return model


def _common_shape(members: list[keras.Model]) -> tuple[int | None, ...]:
    """The image shape that all take; a free size takes any.

    Nothing resizes in between: whether to stretch, crop or pad is for the caller to say.
    """
    first = members[0]
    shape = list(first.inputs[0].shape[1:])
    for number, model in enumerate(members[1:], start=2):
        title = _title(number, model)
        x, y = model.inputs[0], model.outputs[0]
        if y.shape != first.outputs[0].shape:
            raise UserError(
                f"{title} has {y.shape[-1]} classes, '{first.name}' {first.outputs[0].shape[-1]}."
            )
        dtypes, expected = (x.dtype, y.dtype), (first.inputs[0].dtype, first.outputs[0].dtype)
        if dtypes != expected:
            raise UserError(
                f"{title} takes and gives {dtypes}, '{first.name}' {expected}. Convert it with "
                "keras_resnet.to_stock(model)."
            )
        for axis, (side, own) in enumerate(zip(shape, x.shape[1:], strict=True)):
            if None not in (side, own) and side != own:
                raise UserError(
                    f"{title} takes images of {tuple(x.shape[1:])}, the members before it "
                    f"{tuple(shape)}. Build it for their size (input_shape=...)."
                )
            shape[axis] = own if side is None else side
    return tuple(shape)


def _check_range(members: list[keras.Model]) -> None:
    """All see the same image, so all must expect the same range of numbers.

    Of a network that is not ours, without its normalisation, nothing is known.
    """
    known = [(i, model, _range(model)) for i, model in enumerate(members, start=1)]
    known = [entry for entry in known if entry[2] is not None]
    for number, model, expected in known[1:]:
        if expected != known[0][2]:
            raise UserError(
                f"{_title(number, model)} takes {expected}, '{known[0][1].name}' {known[0][2]}. "
                "Build all members with include_preprocessing=True."
            )


def _range(model: keras.Model) -> str | None:
    raw = "RGB 0...255"
    if preprocessing.has_preprocessing(model):
        return raw
    if model.name not in registry.list_models():
        return None
    mode = registry.architecture(model.name).network.preprocessing
    return raw if mode == "raw" else f"images normalised outside ('{mode}')"


def _shares(weights: Sequence[float] | None, members: list[keras.Model]) -> list[float]:
    """The weights, of sum 1."""
    values = [1.0] * len(members) if weights is None else [float(weight) for weight in weights]
    if len(values) != len(members) or not all(0 < v < math.inf for v in values):
        raise UserError(
            f"weights are {len(members)} numbers above 0, one a member; received {weights}."
        )
    return [value / sum(values) for value in values]


def _member(model: keras.Model, images: Any, prefix: str) -> Any:
    """The member's layers, copied on `images` with its weights, to its probabilities."""
    copy = keras.models.clone_model(
        model, input_tensors=images, clone_function=_renamed(f"{prefix}_")
    )
    copy.set_weights(model.get_weights())
    if _ending(model) == SOFTMAX:
        return copy.outputs[0]
    return layers.Activation("softmax", dtype="float32", name=f"{prefix}_softmax")(copy.outputs[0])


def _ending(model: keras.Model) -> str:
    """What the member ends in: its graph tells, else what it gives for noise."""
    if told := activation_of(model.outputs[0]):
        return told
    images = noise(model.input_shape[1:]).astype("float32")
    return told_by(np.asarray(model(images, training=False)))


def _renamed(prefix: str) -> Callable[[Any], Any]:
    def rebuild(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "name": prefix + layer.name})

    return rebuild


def _weighted(probabilities: Any, share: float, prefix: str) -> Any:
    return layers.Rescaling(share, dtype="float32", name=f"{prefix}_weight")(probabilities)
