"""Several networks as one model that averages their probabilities.

The layers of all members are in one graph. Their names begin with the member, as in
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
from keras_resnet.arguments import checked
from keras_resnet.errors import UserError
from keras_resnet.images import preprocessing
from keras_resnet.images.answers import SIGMOID, SOFTMAX, noise, told_by
from keras_resnet.models.ending import activation_of

_OF_MEMBERS = (keras.activations.linear, keras.activations.softmax, keras.ops.softmax)


@checked
def ensemble(
    models: Sequence[keras.Model],
    name: str = "ensemble",
    weights: Sequence[float] | None = None,
) -> keras.Model:
    """Average the probabilities of several classifiers in one flat functional model.

    Evaluate, save and export the result like any other model. The members may be different
    networks. A member that contains its preprocessing keeps it. The weights are copied.

    He 2015 combines six residual networks of different depth (arXiv:1512.03385, section 4.1 and
    Table 5) and does not say how. VGG averages probabilities (arXiv:1409.1556, section 4.4).

    Args:
        models: at least two models with the same image size and the same classes, from images
            (batch, height, width, channels) to probabilities or logits (batch, classes).
        name: name of the model.
        weights: one weight per member, by default all equal. Only their ratios matter.

    Returns:
        A model from those images to float32 probabilities (batch, classes).

    Raises:
        UserError: there are fewer than two members, or one does not fit the others. The message
            names it.
    """
    if isinstance(models, keras.Model) or len(models) < 2:
        raise UserError("ensemble() needs a list of at least two models.")
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
    """Return the member as a flat functional classifier with one input and one output."""
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        raise UserError(f"{title} must be a functional or a built sequential Keras model.")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(
            f"{title} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; it must "
            "have one of each. Remove auxiliary classifiers with keras_resnet.inference_model."
        )
    if len(model.inputs[0].shape) != 4 or len(model.outputs[0].shape) != 2:
        raise UserError(
            f"{title} must map images to classes; it maps {model.inputs[0].shape} to "
            f"{model.outputs[0].shape}. Build it with include_top=True."
        )
    activation = getattr(keras_compat.producer(model.outputs[0]), "activation", None)
    is_sigmoid = activation_of(model.outputs[0]) == SIGMOID
    if is_sigmoid or activation not in (None, *_OF_MEMBERS):
        ending = SIGMOID if is_sigmoid else keras.activations.serialize(activation)
        raise UserError(f"{title} ends in {ending!r}; it must end in a softmax or in logits.")
    if model.outputs[0].shape[-1] == 1:
        raise UserError(
            f"{title} has one output; it must give the probabilities of a softmax over at least "
            "two classes, or the logits."
        )
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise UserError(f"{title} has weights that are not finite (NaN or infinity).")
    inner = [operation for operation in model.operations if isinstance(operation, keras.Model)]
    if inner:
        raise UserError(
            f"{title} contains the model '{inner[0].name}'; a member must not contain models."
        )
    return model


def _common_shape(members: list[keras.Model]) -> tuple[int | None, ...]:
    """Return the image shape that all members take. A free size fits any size.

    No layer resizes the images: the caller must decide whether to stretch, crop or pad.
    """
    first = members[0]
    shape = list(first.inputs[0].shape[1:])
    for number, model in enumerate(members[1:], start=2):
        title = _title(number, model)
        x, y = model.inputs[0], model.outputs[0]
        if y.shape != first.outputs[0].shape:
            raise UserError(
                f"{title} has {y.shape[-1]} classes, but '{first.name}' has "
                f"{first.outputs[0].shape[-1]}."
            )
        dtypes, expected = (x.dtype, y.dtype), (first.inputs[0].dtype, first.outputs[0].dtype)
        if dtypes != expected:
            raise UserError(
                f"{title} has the input and output dtypes {dtypes}, but '{first.name}' has "
                f"{expected}. Convert it with keras_resnet.to_stock(model)."
            )
        for axis, (side, own) in enumerate(zip(shape, x.shape[1:], strict=True)):
            if None not in (side, own) and side != own:
                raise UserError(
                    f"{title} takes images of {tuple(x.shape[1:])}, but the members before it take "
                    f"{tuple(shape)}. Build it for their size (input_shape=...)."
                )
            shape[axis] = own if side is None else side
    return tuple(shape)


def _check_range(members: list[keras.Model]) -> None:
    """Check that all members expect the same range of pixel values, as they share one image.

    The range is unknown for a network of another package without preprocessing inside.
    """
    known = [(i, model, _range(model)) for i, model in enumerate(members, start=1)]
    known = [entry for entry in known if entry[2] is not None]
    for number, model, expected in known[1:]:
        if expected != known[0][2]:
            raise UserError(
                f"{_title(number, model)} takes {expected}, but '{known[0][1].name}' takes "
                f"{known[0][2]}. "
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
    """Return the weights, scaled to sum to 1."""
    values = [1.0] * len(members) if weights is None else [float(weight) for weight in weights]
    if len(values) != len(members) or not all(0 < v < math.inf for v in values):
        raise UserError(
            f"weights must be {len(members)} numbers above 0, one per member; received {weights}."
        )
    return [value / sum(values) for value in values]


def _member(model: keras.Model, images: Any, prefix: str) -> Any:
    """Copy the member's layers and weights onto `images`; return its probabilities."""
    copy = keras.models.clone_model(
        model, input_tensors=images, clone_function=_renamed(f"{prefix}_")
    )
    copy.set_weights(model.get_weights())
    if _ending(model) == SOFTMAX:
        return copy.outputs[0]
    return layers.Activation("softmax", dtype="float32", name=f"{prefix}_softmax")(copy.outputs[0])


def _ending(model: keras.Model) -> str:
    """Return the activation of the member's output, from its graph or from its output for noise."""
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
