"""Fold an input `Rescaling` into the convolution behind it: an exact rewrite for faster files."""

from __future__ import annotations

import keras
import numpy as np

from keras_resnet import keras_compat


def foldable(model: keras.Model) -> dict[str, keras.layers.Conv2D]:
    """Return the `Rescaling` layers that `fold_rescaling` folds, as {name: its convolution}."""
    return {
        layer.name: convolution
        for layer in model.layers
        if isinstance(layer, keras.layers.Rescaling)
        and (convolution := convolution_behind(layer)) is not None
    }


def fold_rescaling(model: keras.Model) -> keras.Model:
    """Move the scale of an input `Rescaling` into the convolution behind it.

    `conv(s·x + o) = conv'(x + o/s)` with the kernel's input channels times `s`. This is exact,
    because padded zeros stay zeros on both sides. The offset must stay, because a padded zero
    stands for a pixel of the mean colour. It saves one multiplication per pixel; in an ensemble,
    one per member.

    Returns:
        The folded model, or `model` itself if it has no such pair.
    """
    pairs = foldable(model)
    if not pairs:
        return model

    def rebuild(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if layer.name in pairs:
            scale, offset = _per_channel(layer, pairs[layer.name])
            config |= {"scale": 1.0, "offset": (offset / scale).tolist()}
        return type(layer).from_config(config)

    folded = keras.models.clone_model(model, clone_function=rebuild)
    folded.set_weights(model.get_weights())
    for name, convolution in pairs.items():
        scale, _ = _per_channel(model.get_layer(name), convolution)
        target = folded.get_layer(convolution.name)
        kernel, *bias = target.get_weights()
        target.set_weights([kernel * scale[:, None].astype("float32"), *bias])
    return folded


def _per_channel(
    rescaling: keras.layers.Rescaling, convolution: keras.layers.Conv2D
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and the offset for every input channel of the convolution."""
    channels = [convolution.get_weights()[0].shape[2]]
    return (
        np.broadcast_to(np.asarray(rescaling.scale, "float64"), channels),
        np.broadcast_to(np.asarray(rescaling.offset, "float64"), channels),
    )


def convolution_behind(layer: keras.Layer) -> keras.Layer | None:
    """Return the plain convolution behind `layer`, or None if there is no foldable one.

    It must be the only reader of `layer`, directly or behind a zero padding. It must also be called
    only once, since all calls of a convolution share its kernel.
    """
    readers = keras_compat.readers(layer)
    if len(readers) != 1 or len(keras_compat.calls_of(readers[0])) != 1:
        return None
    if isinstance(readers[0], keras.layers.ZeroPadding2D):
        return convolution_behind(readers[0])
    plain = type(readers[0]) is keras.layers.Conv2D and readers[0].groups == 1
    return readers[0] if plain else None
