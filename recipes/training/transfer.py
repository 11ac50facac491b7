"""Transfer learning: put a new head on a trained network, and choose the layers to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export.formats.tflite.ranges import has_ranges
from keras_resnet.images.answers import SIGMOID, SOFTMAX
from keras_resnet.images.preprocessing import Preprocessing, missing_preprocessing
from keras_resnet.layers import BatchNormalization
from keras_resnet.models.auxiliary import inference_model
from keras_resnet.models.ending import activation_of
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.weights import fitting

_USUAL = 224  # the size of a network that takes any: ImageNet's
_PHOTOGRAPHS = 96  # networks that were made for this size or more were trained on photographs
_ENLARGED = 2  # how much larger than its own images a network for small images is shown
_MULTIPLE = 32

Shape = tuple[int | None, int | None, int]  # of an image; None where the size is free

# Layers that stay float32 under every precision: bfloat16 would round grey levels and logits.
_FLOAT32 = (
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)


def classifier(model: keras.Model) -> keras.layers.Dense:
    """Return the Dense layer that gives the logits.

    Raises:
        UserError: there is no such layer, or something other than an activation follows it.
    """
    *_, last = [None, *(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))]
    after = model.layers[model.layers.index(last) + 1 :] if last is not None else []
    if last is None or not all(isinstance(layer, keras.layers.Activation) for layer in after):
        raise UserError(
            f"'{model.name}' must end in a Dense classifier, which the new head replaces; its last "
            f"layer is {model.layers[-1].name!r}. Use a model that ends in a Dense layer."
        )
    return last


def functional(model: Any) -> keras.Model:
    """Return `model` as a functional model; a Sequential model is converted.

    Raises:
        UserError: `model` is neither functional nor a built Sequential model.
    """
    if isinstance(model, keras.Sequential) and model.built:
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        kind = f"the text '{model}'" if isinstance(model, str) else f"a {type(model).__name__}"
        raise UserError(
            "Expected a functional Keras model (from create_model or keras.models.load_model) or a "
            f"built Sequential model; received {kind}. Build a functional model with "
            "keras.Model(inputs, outputs)."
        )
    return model


def require_preprocessing(model: keras.Model) -> None:
    """Refuse a model that does not take RGB 0...255 because its normalisation is outside.

    Raises:
        UserError: the normalisation is outside; the message says how to build the model.
    """
    if hint := missing_preprocessing(model):
        raise UserError(f"{hint} Build it with include_preprocessing=True and save it again.")


def require_rebuildable(model: keras.Model) -> None:
    """Refuse layers of custom classes and layers that cannot be rebuilt from their config.

    Raises:
        UserError: there is such a layer; the message has its name.
    """
    for layer in model.layers:
        kind = type(layer)
        if kind.__module__.split(".")[0] not in ("keras", "keras_resnet"):
            raise UserError(
                f"The layer '{layer.name}' of '{model.name}' has the custom class {kind.__name__}, "
                "which tensorflow-model-optimization does not know. Build it from stock Keras "
                "layers."
            )
        try:
            kind.from_config(layer.get_config())
        except (NotImplementedError, TypeError, ValueError) as error:
            raise UserError(
                f"The layer '{layer.name}' ({kind.__name__}) of '{model.name}' cannot be rebuilt "
                "from its config (a Lambda layer cannot, because it contains code). Build it from "
                "stock Keras layers."
            ) from error


def require_float(model: keras.Model) -> None:
    """Refuse a quantization-aware model, which cannot be trained further.

    Raises:
        UserError: `model` is a quantization-aware model.
    """
    if has_ranges(model):
        raise UserError(
            f"'{model.name}' is a quantization-aware model, which cannot be trained further. Start "
            "from the float model that it was made from, or resume its run: keras-resnet train "
            "--resume RUN"
        )


def require_classes(start: keras.Model, classes: int, multi_label: bool = False) -> None:
    """Refuse to keep the head of `start` for other classes, or for labels of another kind.

    Args:
        start: the trained network.
        classes: the number of classes of the data.
        multi_label: the data has any number of labels for an image, so it needs sigmoids.

    Raises:
        UserError: the head has another number of classes, sigmoids for one label an image, or a
            softmax for several.
    """
    whole = inference_model(start)
    units = classifier(whole).units
    activation = activation_of(whole.outputs[0])
    if multi_label and activation == SOFTMAX:
        raise UserError(
            f"'{start.name}' ends in a softmax and keeps it, but the data has any number of labels "
            "for an image. To train a new head: keras-resnet finetune MODEL --data FILE.csv"
        )
    if activation == SIGMOID and not (multi_label and units > 1):
        raise UserError(
            f"'{start.name}' ends in {'a sigmoid' if units == 1 else 'sigmoids'}, but this "
            "training needs a softmax over the classes. To train a new head: keras-resnet finetune "
            "MODEL --data NAME|FOLDER"
        )
    if units != classes:
        raise UserError(
            f"'{start.name}' has {units} classes and keeps them, but the data has {classes}. For "
            "other classes: keras-resnet finetune MODEL --data NAME|FOLDER"
        )


def sized(config: Config, start: keras.Model) -> Config:
    """Return `config` with the image size of `start`, if the config has no size itself."""
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
    Twice its own size gains most; three times costs 2.25 times as long and gained nothing with 60
    images of each class (recipes/README.md).

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

    The result maps RGB 0...255 (batch, height, width, channels) to logits (batch, classes).
    Auxiliary classifiers are left out. With `keep_head`, the new head gets the weights of the old
    head. For images with other channels than RGB, the normalisation and the first convolution are
    adapted, as in the builders. A message on stderr says so.

    Raises:
        UserError: the weights do not fit the image size (Flatten before the classifier), or the
            number of channels differs and the network was not trained on RGB.
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
    """Return `start` with its own head, from RGB 0...255 to logits; see `adapt`."""
    classes = classifier(inference_model(start)).units
    return adapt(start, input_shape or start.input_shape[1:], classes, keep_head=True)


def _for_channels(layer: Any, channels: int) -> Any:
    """Adapt an RGB normalisation to another number of channels, like `Preprocessing.layer`."""
    scale = np.asarray(getattr(layer, "scale", 1.0))
    if not isinstance(layer, keras.layers.Rescaling) or scale.shape in ((), (channels,)):
        return layer
    mean = -np.broadcast_to(layer.offset, scale.shape) / scale
    return Preprocessing(tuple(mean), tuple(1 / scale)).layer(channels, layer.name)


def rebuild(layer: Any) -> Any:
    """Rebuild a layer as trainable in the current dtype policy, with this package's BN class."""
    if not isinstance(layer, keras.Layer):
        return type(layer).from_config(layer.get_config())
    policy = "float32" if isinstance(layer, _FLOAT32) else keras.config.dtype_policy().name
    config = {**layer.get_config(), "dtype": policy, "trainable": True}
    fused = type(layer) is keras.layers.BatchNormalization
    return (BatchNormalization if fused else type(layer)).from_config(config)


def learns(layer: keras.Layer, *, head: keras.Layer, head_only: bool, train_bn: bool) -> bool:
    """Return True if a layer is trained: always for the head, for BN layers only if `train_bn`.

    A BN layer that is not trained keeps its statistics and normalises with them (in Keras,
    `trainable = False` puts it in inference mode). Statistics of a few small batches would be
    worse.
    """
    if layer is head:
        return True
    return not head_only and (train_bn or not isinstance(layer, keras.layers.BatchNormalization))
