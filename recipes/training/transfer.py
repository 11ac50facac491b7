"""A trained network with a new head: what is taken over, and which layers learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export.formats.int8_ranges import has_ranges
from keras_resnet.images.answers import SIGMOID
from keras_resnet.images.preprocessing import Preprocessing, missing_preprocessing
from keras_resnet.layers import BatchNormalization
from keras_resnet.models.auxiliary import inference_model
from keras_resnet.models.ending import activation_of
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.weights import fitting

_USUAL = 224  # the size of a network that takes any: ImageNet's
_PHOTOGRAPHS = 96  # networks that were made for this size or more were trained on photographs
_ENLARGED = 4  # how much larger than its own images a network for small images is shown
_MULTIPLE = 32

Shape = tuple[int | None, int | None, int]  # of an image; None where the size is free

# What stays float32 under every precision: bfloat16 would round grey levels and logits.
_FLOAT32 = (
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)


def classifier(model: keras.Model) -> keras.layers.Dense:
    """Return the Dense layer that gives the logits.

    Raises:
        UserError: there is none, or something other than an activation follows it.
    """
    *_, last = [None, *(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))]
    after = model.layers[model.layers.index(last) + 1 :] if last is not None else []
    if last is None or not all(isinstance(layer, keras.layers.Activation) for layer in after):
        raise UserError(
            f"'{model.name}' does not end in a Dense classifier, whose place the new head would "
            f"take; its last layer is {model.layers[-1].name!r}."
        )
    return last


def functional(model: Any) -> keras.Model:
    """Return the layers of `model` as one graph: itself, or the one that a Sequential model is.

    Raises:
        UserError: it is neither.
    """
    if isinstance(model, keras.Sequential) and model.built:
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        kind = f"the text '{model}'" if isinstance(model, str) else f"a {type(model).__name__}"
        raise UserError(
            "Expected a functional Keras model, as create_model and keras.models.load_model give, "
            f"or a Sequential one that is built; received {kind}. Make one of layers called on "
            "tensors: keras.Model(inputs, outputs)."
        )
    return model


def require_preprocessing(model: keras.Model) -> None:
    """Refuse a model that does not take RGB 0...255, since its normalisation is outside.

    Raises:
        UserError: with how to build it.
    """
    if hint := missing_preprocessing(model):
        raise UserError(f"{hint} Build it with include_preprocessing=True and save it again.")


def require_rebuildable(model: keras.Model) -> None:
    """Refuse a layer of code that is in no package, since another process cannot load it.

    Raises:
        UserError: with its name.
    """
    for layer in model.layers:
        kind = type(layer)
        if kind.__module__.split(".")[0] not in ("keras", "keras_resnet"):
            raise UserError(
                f"The layer '{layer.name}' of '{model.name}' is of a class of your own, "
                f"{kind.__name__}, which tensorflow-model-optimization does not know. Write it in "
                "stock Keras layers."
            )
        try:
            kind.from_config(layer.get_config())
        except (NotImplementedError, TypeError, ValueError) as error:
            raise UserError(
                f"The layer '{layer.name}' ({kind.__name__}) of '{model.name}' cannot be "
                "made again from its config, as a Lambda cannot, which holds code. Write it in "
                "stock Keras layers."
            ) from error


def require_float(model: keras.Model) -> None:
    """Refuse to train on what was trained quantized: its roundings have no place to go.

    Raises:
        UserError: `model` rounds as its int8 file does.
    """
    if has_ranges(model):
        raise UserError(
            f"'{model.name}' was trained quantized and rounds as its int8 file does. Start from "
            "the float model that it was made from, or go on with: keras-resnet train --resume RUN"
        )


def require_classes(start: keras.Model, classes: int) -> None:
    """Refuse to go on with the head of `start` for another number of classes, or with sigmoids.

    Raises:
        UserError: it has another number, or ends in sigmoids.
    """
    whole = inference_model(start)
    units = classifier(whole).units
    if activation_of(whole.outputs[0]) == SIGMOID:
        raise UserError(
            f"'{start.name}' ends in {'a sigmoid' if units == 1 else 'sigmoids'}, and this "
            "training goes on with a softmax over the classes. For a new head: keras-resnet "
            "finetune."
        )
    if units != classes:
        raise UserError(
            f"'{start.name}' knows {units} classes and goes on with them, the data has {classes}. "
            "For other classes: keras-resnet finetune."
        )


def sized(config: Config, start: keras.Model) -> Config:
    """Return `config` with the image size that `start` was made for, if it has none itself."""
    if config.data.image_size or not start.input_shape[1]:
        return config
    return replace(config, data=replace(config.data, image_size=start.input_shape[1]))


def made_for(start: keras.Model) -> int:
    """Return the pixels a side that `start` was made for; 224 for a network of free size."""
    return start.input_shape[1] or _USUAL


def image_size(start: keras.Model, photographs: int) -> int:
    """Return the pixels a side at which to fine-tune `start`.

    A network that was trained on photographs keeps its own size. A network for small images, as
    those of CIFAR, is shown larger ones: a photograph at 32×32 pixels has lost what tells it apart.
    The factor is chosen by experiment; see recipes/README.md.

    Args:
        start: the trained network.
        photographs: the median of the shorter side of the images.
    """
    own = made_for(start)
    if own >= _PHOTOGRAPHS or photographs <= own:
        return own
    return max(own, min(_ENLARGED * own, photographs) // _MULTIPLE * _MULTIPLE)


def adapt(
    start: keras.Model,
    input_shape: Shape,
    classes: int,
    *,
    keep_head: bool = False,
) -> keras.Model:
    """Return `start` with a new head, for images of `input_shape`, in the current dtype policy.

    With `keep_head` the new head has the weights of the old one. For other than RGB images the
    normalisation and the first convolution are adapted, as a builder does with RGB weights; a
    message on stderr says so.

    From RGB 0...255 (batch, height, width, channels) to logits (batch, classes); auxiliary
    classifiers are left out.

    Raises:
        UserError: the weights do not fit another image size (Flatten before the classifier), or
            another number of channels than the network was trained on, and that was not RGB.
    """
    start = inference_model(start)
    head = classifier(start)
    body = keras.Model(start.input, head.input)
    inputs = keras.layers.Input(input_shape, name="images")
    channels = input_shape[-1]

    def renew(layer: Any) -> Any:
        return rebuild(_for_channels(layer, channels))

    try:
        copy = keras.models.clone_model(body, input_tensors=inputs, clone_function=renew)
        if channels == body.input_shape[-1]:
            copy.set_weights(body.get_weights())
        else:
            fitting.fit(fitting.arrays_of(body), copy, f"the weights of '{start.name}'")
    except ValueError as error:
        raise UserError(
            f"'{start.name}' takes images of {start.input_shape[1:]} and cannot take "
            f"{tuple(input_shape)}: {str(error).splitlines()[0]}"
        ) from error
    dense = keras.layers.Dense(
        classes, use_bias=head.use_bias or not keep_head, dtype="float32", name=head.name
    )
    logits = dense(copy.output)
    if keep_head:
        dense.set_weights(head.get_weights())
    return keras.Model(copy.input, logits, name=start.name)


def same(start: keras.Model, input_shape: Shape | None = None) -> keras.Model:
    """Return `start` from RGB 0...255 to logits, with its own head; see `adapt`."""
    classes = classifier(inference_model(start)).units
    return adapt(start, input_shape or start.input_shape[1:], classes, keep_head=True)


def _for_channels(layer: Any, channels: int) -> Any:
    """A normalisation of RGB as `Preprocessing.layer` has it for another number of channels."""
    scale = np.asarray(getattr(layer, "scale", 1.0))
    if not isinstance(layer, keras.layers.Rescaling) or scale.shape in ((), (channels,)):
        return layer
    mean = -np.broadcast_to(layer.offset, scale.shape) / scale
    return Preprocessing(tuple(mean), tuple(1 / scale)).layer(channels, layer.name)


def rebuild(layer: Any) -> Any:
    """The layer anew in the current dtype policy, ours for batch normalisation, all to learn."""
    if not isinstance(layer, keras.Layer):
        return type(layer).from_config(layer.get_config())
    policy = "float32" if isinstance(layer, _FLOAT32) else keras.config.dtype_policy().name
    config = {**layer.get_config(), "dtype": policy, "trainable": True}
    fused = type(layer) is keras.layers.BatchNormalization
    return (BatchNormalization if fused else type(layer)).from_config(config)


def learns(layer: keras.Layer, *, head: keras.Layer, head_only: bool, train_bn: bool) -> bool:
    """Whether a layer is trained: the head always, BN layers only if `train_bn`.

    A BN layer that is not trained normalises with the statistics it came with (Keras: `trainable =
    False` puts it in inference mode), which the statistics of a few small batches would spoil.
    """
    if layer is head:
        return True
    return not head_only and (train_bn or not isinstance(layer, keras.layers.BatchNormalization))
